// Attention of new tokens over the ring caches, reading only the slots that a query sees.
//
// The portable form multiplies with every slot, masks most of them, and passes over the scores some ten times.

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "parallel.h"
#include "vector.h"

using msport::kLanes;
using msport::load;
using msport::store;
using msport::Vector;

namespace {

constexpr int kQueries = 8;     // rows of queries that share one pass over a block of keys
constexpr int64_t kBlock = 16;  // terms that are summed apart, so that rounding does not grow with the length of a sum

struct Attention {
  const float *query, *keys, *values;
  const int32_t* positions;
  const float* sinks;  // null: none
  float* out;
  int64_t batch, seq, heads, head_dim, groups, length, window;
  float scale, softcap;  // softcap 0: none

  // One sequence, one key head, up to kQueries (token, head of the group) pairs beginning at `first`.
  void run(int64_t item, int64_t first, int64_t count, std::vector<float>& scratch) const;

  float cap(float score) const { return softcap > 0 ? softcap * std::tanh(score / softcap) : score; }
};

// Sixteen keys as columns: to[d * 16 + i] = key i's element d. Slots wrap around the ring.
void transpose(const float* keys, int64_t position, int64_t count, int64_t length, int64_t head_dim, float* to) {
  for (int64_t i = 0; i < kLanes; ++i) {
    const float* key = keys + (position + std::min(i, count - 1)) % length * head_dim;
    for (int64_t d = 0; d < head_dim; ++d) to[d * kLanes + i] = key[d];
  }
}

template <int many>
void dot(const float* const* queries, const float* block, int64_t head_dim, Vector* scores) {
  for (int q = 0; q < many; ++q) scores[q] = Vector{};
  for (int64_t begin = 0; begin < head_dim; begin += kBlock) {
    Vector sums[many] = {};
    for (int64_t d = begin; d < std::min(begin + kBlock, head_dim); ++d) {
      const Vector k = load(block + d * kLanes);
      for (int q = 0; q < many; ++q) sums[q] += queries[q][d] * k;
    }
    for (int q = 0; q < many; ++q) scores[q] += sums[q];
  }
}

using Dot = void (*)(const float* const*, const float*, int64_t, Vector*);
constexpr Dot kDots[kQueries] = {dot<1>, dot<2>, dot<3>, dot<4>, dot<5>, dot<6>, dot<7>, dot<8>};

void Attention::run(int64_t item, int64_t first, int64_t count, std::vector<float>& scratch) const {
  const int64_t b = item / groups, g = item % groups, shared = heads / groups;
  const float* const ring_keys = keys + item * length * head_dim;
  const float* const ring_values = values + item * length * head_dim;
  const float* rows[kQueries];
  int64_t from[kQueries], to[kQueries];  // each query sees the positions [from, to)
  int64_t lowest = std::numeric_limits<int64_t>::max(), highest = 0;
  for (int64_t q = 0; q < count; ++q) {
    const int64_t token = (first + q) / shared, head = g * shared + (first + q) % shared;
    rows[q] = query + ((b * seq + token) * heads + head) * head_dim;
    to[q] = positions[b * seq + token] + 1;
    from[q] = window > 0 ? std::max<int64_t>(0, to[q] - window) : 0;
    lowest = std::min(lowest, from[q]);
    highest = std::max(highest, to[q]);
  }
  const int64_t width = (highest - lowest + kLanes - 1) / kLanes * kLanes;
  scratch.resize(size_t(width * count + head_dim * (kLanes + 1)));
  float* const scores = scratch.data();
  float* const block = scores + width * count;
  float* const partial = block + head_dim * kLanes;

  for (int64_t p = lowest; p < highest; p += kLanes) {
    transpose(ring_keys, p, std::min<int64_t>(kLanes, highest - p), length, head_dim, block);
    Vector products[kQueries];
    kDots[count - 1](rows, block, head_dim, products);
    for (int64_t q = 0; q < count; ++q) store(scores + q * width + p - lowest, products[q] * scale);
  }

  for (int64_t q = 0; q < count; ++q) {
    const int64_t token = (first + q) / shared, head = g * shared + (first + q) % shared;
    float* const row = scores + q * width;
    float top = sinks ? sinks[head] : -std::numeric_limits<float>::infinity();
    for (int64_t p = from[q]; p < to[q]; ++p) top = std::max(top, row[p - lowest] = cap(row[p - lowest]));
    float total = sinks ? std::exp(sinks[head] - top) : 0.0f;
    float* const result = out + ((b * seq + token) * heads + head) * head_dim;
    std::fill(result, result + head_dim, 0.0f);
    for (int64_t begin = from[q]; begin < to[q]; begin += kBlock) {
      float mass = 0;
      std::fill(partial, partial + head_dim, 0.0f);
      for (int64_t p = begin; p < std::min(begin + kBlock, to[q]); ++p) {
        const float weight = std::exp(row[p - lowest] - top);
        const float* const value = ring_values + p % length * head_dim;
        mass += weight;
        for (int64_t d = 0; d < head_dim; ++d) partial[d] += weight * value[d];
      }
      total += mass;
      for (int64_t d = 0; d < head_dim; ++d) result[d] += partial[d];
    }
    for (int64_t d = 0; d < head_dim; ++d) result[d] /= total;
  }
}

}  // namespace

// query [batch, seq, heads, head_dim]; keys and values [batch * groups * length, head_dim], ring caches; positions
// [batch, seq] int32; constants [4] = scale, softcap or 0, window or 0, length; optionally sinks [heads]
// -> [batch * seq, heads * head_dim].
extern "C" int attention(int count, void** params, int*, int64_t** shapes, const char**, void*, void*) {
  if (count != 6 && count != 7) return 1;
  const float* constants = static_cast<const float*>(params[4]);
  Attention task{};
  task.query = static_cast<const float*>(params[0]);
  task.keys = static_cast<const float*>(params[1]);
  task.values = static_cast<const float*>(params[2]);
  task.positions = static_cast<const int32_t*>(params[3]);
  task.sinks = count == 7 ? static_cast<const float*>(params[5]) : nullptr;
  task.out = static_cast<float*>(params[count - 1]);
  task.batch = shapes[0][0];
  task.seq = shapes[0][1];
  task.heads = shapes[0][2];
  task.head_dim = shapes[0][3];
  task.scale = constants[0];
  task.softcap = constants[1];
  task.window = int64_t(constants[2]);
  task.length = int64_t(constants[3]);
  task.groups = shapes[1][0] / (task.batch * task.length);
  if (task.groups <= 0 || task.heads % task.groups) return 2;

  const int64_t rows = task.seq * (task.heads / task.groups), tiles = (rows + kQueries - 1) / kQueries;
  const double cost = 2.0 * kQueries * double(task.head_dim) * double(task.positions[task.seq - 1] + 1);
  msport::parallel(task.batch * task.groups * tiles, cost, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % tiles * kQueries;
      task.run(i / tiles, first, std::min<int64_t>(kQueries, rows - first), scratch);
    }
  });
  return 0;
}
