// Attention of new tokens over the ring caches, reading only the slots that a query sees.
//
// The portable form multiplies with every slot, masks most of them, and reads the scores about ten times.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "exponential.h"
#include "parallel.h"
#include "vector.h"

using msport::kLanes;
using msport::load;
using msport::store;
using msport::Vector;

namespace {

constexpr int kRows = 8;         // queries of one product: as many as fit in the registers
constexpr int kTile = 64;        // queries that share the keys of a block once these are transposed
constexpr int kWide = 2;         // vectors of keys, or of a value's elements, of one product
constexpr int64_t kSpan = kWide * kLanes;
constexpr int64_t kTerms = 16;   // terms of a partial sum, so that rounding does not grow with the length of a sum
constexpr float kLowest = -std::numeric_limits<float>::infinity();

int64_t padded(int64_t count) { return (count + kSpan - 1) / kSpan * kSpan; }

// scores[q][i] = sum over d of queries[q][d] * keys[d][i], for `many` queries and kSpan keys stored as columns.
template <int many>
void score(const float* const* queries, const float* keys, int64_t head_dim, float scale, float* scores, int64_t width) {
  Vector totals[many][kWide] = {};
  for (int64_t begin = 0; begin < head_dim; begin += kTerms) {
    Vector sums[many][kWide] = {};
    for (int64_t d = begin; d < std::min(begin + kTerms, head_dim); ++d)
      for (int w = 0; w < kWide; ++w) {
        const Vector k = load(keys + d * kSpan + w * kLanes);
        for (int q = 0; q < many; ++q) sums[q][w] += queries[q][d] * k;
      }
    for (int q = 0; q < many; ++q)
      for (int w = 0; w < kWide; ++w) totals[q][w] += sums[q][w];
  }
  for (int q = 0; q < many; ++q)
    for (int w = 0; w < kWide; ++w) store(scores + q * width + w * kLanes, totals[q][w] * scale);
}

// results[q][d] += sum over at most kTerms values of weights[q][i] * values[i][d], for `many` queries and `wide` vectors
// of the values' elements.
template <int many, int wide>
void mix(const float* weights, int64_t width, const float* const* values, int64_t count, float* results, int64_t size) {
  Vector sums[many][wide] = {};
  for (int64_t i = 0; i < count; ++i)
    for (int w = 0; w < wide; ++w) {
      const Vector v = load(values[i] + w * kLanes);
      for (int q = 0; q < many; ++q) sums[q][w] += weights[q * width + i] * v;
    }
  for (int q = 0; q < many; ++q)
    for (int w = 0; w < wide; ++w) {
      float* const result = results + q * size + w * kLanes;
      store(result, load(result) + sums[q][w]);
    }
}

using Score = void (*)(const float* const*, const float*, int64_t, float, float*, int64_t);
using Mix = void (*)(const float*, int64_t, const float* const*, int64_t, float*, int64_t);
constexpr Score kScores[kRows] = {score<1>, score<2>, score<3>, score<4>, score<5>, score<6>, score<7>, score<8>};
constexpr Mix kWideMixes[kRows] = {mix<1, kWide>, mix<2, kWide>, mix<3, kWide>, mix<4, kWide>,
                                   mix<5, kWide>, mix<6, kWide>, mix<7, kWide>, mix<8, kWide>};
constexpr Mix kMixes[kRows] = {mix<1, 1>, mix<2, 1>, mix<3, 1>, mix<4, 1>, mix<5, 1>, mix<6, 1>, mix<7, 1>, mix<8, 1>};

struct Attention {
  const float *query, *keys, *values;
  const int32_t* positions;
  const float* sinks;  // null: none
  float* out;
  int64_t batch, seq, heads, head_dim, groups, length, window;
  float scale, softcap;  // softcap 0: none

  int64_t rows() const { return seq * (heads / groups); }
};

// Up to kTile queries of one sequence and one key head: pairs of token and head of the group, beginning at pair `first`.
class Tile {
 public:
  Tile(const Attention& task, int64_t item, int64_t first, int64_t count, std::vector<float>& scratch)
      : task_(task), item_(item), count_(count) {
    const int64_t b = item / task.groups, g = item % task.groups, shared = task.heads / task.groups;
    for (int64_t q = 0; q < count; ++q) {
      const int64_t token = b * task.seq + (first + q) / shared, head = g * shared + (first + q) % shared;
      offsets_[q] = (token * task.heads + head) * task.head_dim;
      queries_[q] = task.query + offsets_[q];
      sinks_[q] = task.sinks ? task.sinks[head] : kLowest;
      ends_[q] = task.positions[token] + 1;
      begins_[q] = task.window > 0 ? std::max<int64_t>(0, ends_[q] - task.window) : 0;
    }
    // Tokens ascend, so the first query sees the earliest position and the last one the latest.
    lowest_ = begins_[0];
    highest_ = ends_[count - 1];
    width_ = padded(highest_ - lowest_);
    size_ = padded(task.head_dim);
    scratch.resize(size_t(count * width_ + task.head_dim * kSpan + count * size_ + kTerms * size_));
    scores_ = scratch.data();
    block_ = scores_ + count * width_;
    results_ = block_ + task.head_dim * kSpan;
    rows_ = results_ + count * size_;
  }

  void run() {
    for (int64_t p = lowest_; p < highest_; p += kSpan) score_block(p);
    for (int64_t q = 0; q < count_; ++q) totals_[q] = weigh(q);
    std::fill(results_, results_ + count_ * size_, 0.0f);
    for (int64_t p = lowest_; p < highest_; p += kTerms) mix_block(p);
    for (int64_t q = 0; q < count_; ++q)
      for (int64_t d = 0; d < task_.head_dim; ++d) task_.out[offsets_[q] + d] = results_[q * size_ + d] / totals_[q];
  }

 private:
  const float* slot(const float* cache, int64_t position) const {
    return cache + (item_ * task_.length + position % task_.length) * task_.head_dim;
  }

  // Whether any of `many` queries from `first` on sees a position in [begin, end).
  bool seen(int64_t first, int64_t many, int64_t begin, int64_t end) const {
    return begins_[first] < end && ends_[first + many - 1] > begin;
  }

  // The scores of all queries with the keys of positions [p, p + kSpan), the last of them repeated beyond the end.
  void score_block(int64_t p) {
    for (int64_t i = 0; i < kSpan; ++i) {
      const float* const key = slot(task_.keys, std::min(p + i, highest_ - 1));
      for (int64_t d = 0; d < task_.head_dim; ++d) block_[d * kSpan + i] = key[d];
    }
    for (int64_t q = 0; q < count_; q += kRows) {
      const int64_t many = std::min<int64_t>(kRows, count_ - q);
      if (seen(q, many, p, p + kSpan))
        kScores[many - 1](queries_ + q, block_, task_.head_dim, task_.scale, scores_ + q * width_ + p - lowest_, width_);
    }
  }

  // Replaces a query's scores by exp(score - top), 0 for unseen keys; returns their sum, including the sink's share.
  float weigh(int64_t q) {
    float* const row = scores_ + q * width_;
    const int64_t begin = begins_[q] - lowest_, end = ends_[q] - lowest_;
    const int64_t from = begin / kLanes * kLanes, to = (end + kLanes - 1) / kLanes * kLanes;
    if (task_.softcap > 0)
      msport::transform(row, row, begin, end, [cap = task_.softcap](Vector x) { return cap * msport::tanh(x / cap); });
    std::fill(row + from, row + begin, kLowest);
    std::fill(row + end, row + to, kLowest);
    Vector tops = msport::broadcast(sinks_[q]);
    for (int64_t i = from; i < to; i += kLanes) tops = msport::larger(tops, load(row + i));
    const float top = msport::largest(tops);
    Vector totals = {};
    for (int64_t i = from; i < to; i += kLanes) {
      const Vector weights = msport::exp(load(row + i) - top);
      store(row + i, weights);
      totals += weights;
    }
    std::fill(row, row + begin, 0.0f);  // the totals hold e^-87 for each of these
    std::fill(row + end, row + width_, 0.0f);
    return msport::sum(totals) + (task_.sinks ? msport::exp(msport::broadcast(sinks_[q] - top))[0] : 0.0f);
  }

  // Adds the weighted values of positions [p, p + kTerms) to the results.
  void mix_block(int64_t p) {
    const int64_t terms = std::min(kTerms, highest_ - p), whole = task_.head_dim / kLanes * kLanes;
    const float* at[kTerms];
    for (int64_t i = 0; i < terms; ++i) {
      at[i] = slot(task_.values, p + i);
      if (whole == task_.head_dim) continue;
      float* const row = rows_ + i * size_;  // a copy with room for whole vectors
      std::copy(at[i], at[i] + task_.head_dim, row);
      std::fill(row + task_.head_dim, row + size_, 0.0f);
      at[i] = row;
    }
    for (int64_t d = 0; d < task_.head_dim;) {
      const bool wide = d + kSpan <= padded_head();
      for (int64_t q = 0; q < count_; q += kRows) {
        const int64_t many = std::min<int64_t>(kRows, count_ - q);
        if (seen(q, many, p, p + terms))
          (wide ? kWideMixes : kMixes)[many - 1](scores_ + q * width_ + p - lowest_, width_, at, terms,
                                                 results_ + q * size_ + d, size_);
      }
      const int64_t step = wide ? kSpan : kLanes;
      for (int64_t i = 0; i < terms; ++i) at[i] += step;
      d += step;
    }
  }

  int64_t padded_head() const { return (task_.head_dim + kLanes - 1) / kLanes * kLanes; }

  const Attention& task_;
  const int64_t item_, count_;
  const float* queries_[kTile];
  float sinks_[kTile], totals_[kTile];
  int64_t offsets_[kTile], begins_[kTile], ends_[kTile];  // a query sees the positions [begin, end)
  int64_t lowest_, highest_, width_, size_;
  float *scores_, *block_, *results_, *rows_;
};

}  // namespace

// query [batch, seq, heads, head_dim]; keys and values [batch * groups * length, head_dim], ring caches; positions
// [batch, seq] int32, ascending; constants [4] = scale, softcap or 0, window or 0, length; optionally sinks [heads]
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

  // Smaller tiles if there are few, so that every core has work.
  const int64_t rows = task.rows(), items = task.batch * task.groups;
  const int64_t share = (items * rows + 4 * msport::thread_limit() - 1) / (4 * msport::thread_limit());
  const int64_t tile = std::clamp<int64_t>((share + kRows - 1) / kRows * kRows, kRows, kTile);
  const int64_t tiles = (rows + tile - 1) / tile;
  const double cost = 2.0 * double(tile * task.head_dim) * double(task.positions[task.seq - 1] + 1);
  msport::parallel(items * tiles, cost, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % tiles * tile;
      Tile(task, i / tiles, first, std::min(tile, rows - first), scratch).run();
    }
  });
  return 0;
}
