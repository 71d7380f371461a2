// Rows times the MXFP4 weight of the group to which each row is routed, decoded in registers:
// y[i] = x[i / k] * weight[group[i]]^T + bias. The portable form writes the decoded weights to memory first, eight times as many bytes as it read.
//
// The format is that of msport/checkpoint/mxfp4.py: 16 bytes hold 32 values along the depth, the even ones in the low
// halves, scaled by 2^(scale - 127). Decoding and scaling are exact; only the sums are rounded.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "bytes.h"
#include "groups.h"
#include "parallel.h"
#include "vector.h"

using msport::Bytes;
using msport::kLanes;
using msport::load;
using msport::Vector;
using msport::Words;
using msport::zip_high;
using msport::zip_low;

namespace {

constexpr int kBlockBytes = 16;
constexpr int kBlock = 2 * kBlockBytes;
constexpr int kRows = 8;     // rows of x that share one decoded block
constexpr int kColumns = 4;  // rows of the weight that share one read of x, as parallel streams from memory
constexpr int kSums = 16;    // sums of both together, which fill the registers

#if defined(__AVX512F__)
// The unscaled values of a block, the even ones and the odd ones.
inline void decode(const uint8_t* block, Vector& even, Vector& odd) {
  const __m512 table = _mm512_setr_ps(0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.f, -.5f, -1, -1.5f, -2, -3, -4, -6);
  const __m512i codes = _mm512_cvtepu8_epi32((__m128i)load(block));  // a permutation looks at four bits of each
  even = (Vector)_mm512_permutexvar_ps(codes, table);
  odd = (Vector)_mm512_permutexvar_ps(_mm512_srli_epi32(codes, 4), table);
}
#else
// The values of sixteen codes through bfloat16: a float32 is a bfloat16 followed by zeros.
inline Vector values(Bytes codes) {
  constexpr Bytes low{0, 0, 0x80, 0xc0, 0, 0x40, 0x80, 0xc0, 0, 0, 0x80, 0xc0, 0, 0x40, 0x80, 0xc0};
  constexpr Bytes high{0, 0x3f, 0x3f, 0x3f, 0x40, 0x40, 0x40, 0x40, 0x80, 0xbf, 0xbf, 0xbf, 0xc0, 0xc0, 0xc0, 0xc0};
  const Bytes lows = msport::lookup(low, codes), highs = msport::lookup(high, codes);
  const Words halves[] = {(Words)zip_low(lows, highs), (Words)zip_high(lows, highs)};
  const Words quarters[] = {zip_low(Words{}, halves[0]), zip_high(Words{}, halves[0]), zip_low(Words{}, halves[1]),
                            zip_high(Words{}, halves[1])};
  Vector found;
  std::memcpy(&found, quarters, sizeof found);
  return found;
}

// The unscaled values of a block, the even ones and the odd ones.
inline void decode(const uint8_t* block, Vector& even, Vector& odd) {
  const Bytes packed = load(block);
  even = values(packed & uint8_t(15));
  odd = values(packed >> uint8_t(4));
}
#endif

const float* powers_of_two() {
  static const std::vector<float> table = [] {
    std::vector<float> powers(256);
    for (int scale = 0; scale < 256; ++scale) powers[scale] = std::ldexp(1.0f, scale - 127);
    return powers;
  }();
  return table.data();
}

struct Problem {
  const float* x;  // rows of `depth`, in each block the sixteen even values first
  const uint8_t *blocks, *scales;
  float* y;
  int64_t depth, columns, fanout;  // `fanout` rows of y share a row of x
  const float* powers;
  std::vector<std::vector<int64_t>> groups;  // the rows of each group
};

// Adds to `many` rows of y, in `wide` columns from `column` on, their products with the weight of `group`.
template <int many, int wide>
void tile(const Problem& p, const int64_t* rows, int64_t group, int64_t column) {
  const int64_t count = p.depth / kBlock;
  const int64_t first = (group * p.columns + column) * count;
  const uint8_t* const blocks = p.blocks + first * kBlockBytes;
  const uint8_t* const scales = p.scales + first;
  const float* x[many];
  for (int r = 0; r < many; ++r) x[r] = p.x + rows[r] / p.fanout * p.depth;
  Vector sums[many][wide] = {};
  for (int64_t b = 0; b < count; ++b) {
    Vector even[wide], odd[wide];
    for (int c = 0; c < wide; ++c) {
      const float power = p.powers[scales[c * count + b]];
      decode(blocks + (c * count + b) * kBlockBytes, even[c], odd[c]);
      even[c] *= power;
      odd[c] *= power;
    }
    for (int r = 0; r < many; ++r) {
      const Vector low = load(x[r] + b * kBlock), high = load(x[r] + b * kBlock + kLanes);
      for (int c = 0; c < wide; ++c) sums[r][c] += even[c] * low;
      for (int c = 0; c < wide; ++c) sums[r][c] += odd[c] * high;
    }
  }
  for (int r = 0; r < many; ++r)
    for (int c = 0; c < wide; ++c) p.y[rows[r] * p.columns + column + c] += msport::sum(sums[r][c]);
}

constexpr int columns_beside(int rows) { return std::min(kColumns, kSums / rows); }

// Columns [begin, end) of `many` rows of a group.
template <int many>
void columns(const Problem& p, const int64_t* rows, int64_t group, int64_t begin, int64_t end) {
  constexpr int wide = columns_beside(many);
  for (; begin + wide <= end; begin += wide) tile<many, wide>(p, rows, group, begin);
  for (; begin < end; ++begin) tile<many, 1>(p, rows, group, begin);
}

using Columns = void (*)(const Problem&, const int64_t*, int64_t, int64_t, int64_t);
constexpr Columns kColumnsOf[kRows] = {columns<1>, columns<2>, columns<3>, columns<4>,
                                       columns<5>, columns<6>, columns<7>, columns<8>};

// Columns [begin, end) of every row.
void run(const Problem& p, int64_t begin, int64_t end) {
  for (size_t group = 0; group < p.groups.size(); ++group)
    for (size_t first = 0; first < p.groups[group].size(); first += kRows) {
      const size_t many = std::min<size_t>(kRows, p.groups[group].size() - first);
      kColumnsOf[many - 1](p, &p.groups[group][first], group, begin, end);
    }
}

// The values of each block of 32 in the order in which they are decoded.
std::vector<float> even_first(const float* x, int64_t count) {
  std::vector<float> arranged(static_cast<size_t>(count));
  for (int64_t b = 0; b < count; b += kBlock)
    for (int i = 0; i < kLanes; ++i) {
      arranged[b + i] = x[b + 2 * i];
      arranged[b + kLanes + i] = x[b + 2 * i + 1];
    }
  return arranged;
}

}  // namespace

// x [rows / fanout, depth] float32, group [rows] int32, blocks [groups, columns, depth / 32, 16] uint8, scales [groups,
// columns, depth / 32] uint8, bias [groups, columns] float32 -> y [rows, columns] float32. Returns 2 for a group that does
// not exist.
extern "C" int packed_matmul(int count, void** params, int*, int64_t** shapes, const char**, void*, void*) {
  if (count != 6) return 1;
  const int64_t tokens = shapes[0][0], depth = shapes[0][1], rows = shapes[1][0], columns = shapes[2][1];
  const int32_t* group = static_cast<const int32_t*>(params[1]);
  const std::vector<float> x = even_first(static_cast<const float*>(params[0]), tokens * depth);
  Problem problem{x.data(), static_cast<const uint8_t*>(params[2]), static_cast<const uint8_t*>(params[3]),
                  static_cast<float*>(params[5]), depth, columns, rows / tokens, powers_of_two(),
                  std::vector<std::vector<int64_t>>(shapes[2][0])};
  if (!msport::gather(group, rows, problem.groups)) return 2;
  msport::start(group, static_cast<const float*>(params[4]), rows, columns, problem.y);
  msport::parallel(columns, double(rows) * depth, [&](int64_t begin, int64_t end) { run(problem, begin, end); });
  return 0;
}
