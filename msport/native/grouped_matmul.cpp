// Rows times the weight of the group to which each row is routed, read in place:
// y[i] = x[i / k] * weight[group[i]] + bias.
//
// The portable form gathers the weights of every routed expert into a copy first, or multiplies with all experts. This one
// reads the weight of each group that has rows once, for rows in any order, and no other weight.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "groups.h"
#include "parallel.h"
#include "vector.h"

using msport::kLanes;
using msport::load;
using msport::store;
using msport::Vector;

namespace {

constexpr int kVectors = 4;             // vectors of a column tile
constexpr int64_t kTile = kLanes * kVectors;
constexpr int kRows = 6;                // rows that share one pass over a column tile; 24 sums fill the registers
constexpr int64_t kDepth = 64;          // weight rows per partial sum, so that rounding does not grow with depth
constexpr int64_t kAhead = 16;          // weight rows to prefetch: hardware does not follow strides beyond a page
constexpr int kStreams = 16;            // weight rows that a single row of x reads at a time

// Adds x[rows, depth] * weight[depth, kTile] to y[rows, kTile]; `stride` is the length of a row of weight and of y.
template <int rows>
void tile(const float* const* x, const float* weight, int64_t stride, int64_t depth, float* const* y) {
  Vector sums[rows][kVectors] = {};
  for (int64_t k = 0; k < depth; ++k) {
    const float* row = weight + k * stride;
    for (int v = 0; v < kVectors; ++v) __builtin_prefetch(row + kAhead * stride + v * kLanes);
    Vector w[kVectors];
    for (int v = 0; v < kVectors; ++v) w[v] = load(row + v * kLanes);
    for (int r = 0; r < rows; ++r)
      for (int v = 0; v < kVectors; ++v) sums[r][v] += x[r][k] * w[v];
  }
  for (int r = 0; r < rows; ++r)
    for (int v = 0; v < kVectors; ++v) store(y[r] + v * kLanes, load(y[r] + v * kLanes) + sums[r][v]);
}

using Tile = void (*)(const float* const*, const float*, int64_t, int64_t, float* const*);
constexpr Tile kTiles[kRows] = {tile<1>, tile<2>, tile<3>, tile<4>, tile<5>, tile<6>};

// The columns that do not fill a tile.
void edge(const float* x, const float* weight, int64_t stride, int64_t depth, int64_t columns, float* y) {
  for (int64_t k = 0; k < depth; ++k)
    for (int64_t n = 0; n < columns; ++n) y[n] += x[k] * weight[k * stride + n];
}

// Adds x[depth] * weight[depth, columns] to y[columns], reading the weight in memory order.
void stream(const float* x, const float* weight, int64_t stride, int64_t depth, int64_t columns, float* y) {
  int64_t k = 0;
  for (; k + kStreams <= depth; k += kStreams) {
    const float* row = weight + k * stride;
    for (int64_t n = 0; n + kLanes <= columns; n += kLanes) {
      Vector sum = load(y + n);
      for (int i = 0; i < kStreams; ++i) {
        __builtin_prefetch(row + (i + kStreams) * stride + n);
        sum += x[k + i] * load(row + i * stride + n);
      }
      store(y + n, sum);
    }
  }
  const int64_t whole = columns / kLanes * kLanes;
  edge(x, weight + whole, stride, k, columns - whole, y + whole);
  edge(x + k, weight + k * stride, stride, depth - k, columns, y);
}

struct Problem {
  const float* x;
  const float* weight;
  float* y;
  int64_t depth, columns, fanout;  // `fanout` rows of y share a row of x
  std::vector<std::vector<int64_t>> groups;  // the rows of each group

  // Columns [begin, end) of every row. `begin` is a multiple of kTile.
  void run(int64_t begin, int64_t end) const {
    for (size_t g = 0; g < groups.size(); ++g) {
      const float* const matrix = weight + int64_t(g) * depth * columns;
      if (groups[g].size() == 1) {
        const int64_t row = groups[g][0];
        stream(x + row / fanout * depth, matrix + begin, columns, depth, end - begin, y + row * columns + begin);
        continue;
      }
      for (int64_t k = 0; k < depth; k += kDepth)
        for (int64_t n = begin; n < end; n += kTile)
          block(groups[g], matrix + k * columns + n, k, std::min(kDepth, depth - k), n, std::min(kTile, end - n));
    }
  }

  void block(const std::vector<int64_t>& rows, const float* w, int64_t k, int64_t count, int64_t n, int64_t width) const {
    for (size_t first = 0; first < rows.size(); first += kRows) {
      const int many = int(std::min<size_t>(kRows, rows.size() - first));
      const float* from[kRows];
      float* to[kRows];
      for (int r = 0; r < many; ++r) {
        from[r] = x + rows[first + r] / fanout * depth + k;
        to[r] = y + rows[first + r] * columns + n;
      }
      if (width < kTile)
        for (int r = 0; r < many; ++r) edge(from[r], w, columns, count, width, to[r]);
      else
        kTiles[many - 1](from, w, columns, count, to);
    }
  }
};

}  // namespace

// x [rows / fanout, depth] float32, group [rows] int32, weight [groups, depth, columns] float32, optionally bias
// [groups, columns] float32 -> y [rows, columns] float32. Returns 2 for a group that does not exist.
extern "C" int grouped_matmul(int count, void** params, int*, int64_t** shapes, const char**, void*, void*) {
  if (count != 4 && count != 5) return 1;
  const int64_t rows = shapes[1][0], groups = shapes[2][0];
  const int32_t* group = static_cast<const int32_t*>(params[1]);
  const float* bias = count == 5 ? static_cast<const float*>(params[3]) : nullptr;
  Problem problem{static_cast<const float*>(params[0]), static_cast<const float*>(params[2]),
                  static_cast<float*>(params[count - 1]), shapes[2][1], shapes[2][2], rows / shapes[0][0],
                  std::vector<std::vector<int64_t>>(groups)};
  if (!msport::gather(group, rows, problem.groups)) return 2;
  msport::start(group, bias, rows, problem.columns, problem.y);
  // Threads take disjoint tiles of columns.
  const int64_t tiles = (problem.columns + kTile - 1) / kTile;
  msport::parallel(tiles, double(rows) * problem.depth * kTile, [&](int64_t begin, int64_t end) {
    problem.run(begin * kTile, std::min(problem.columns, end * kTile));
  });
  return 0;
}
