// The product of many rows: a panel of float32 weights in cache, [depth, columns], is decoded once and read by all rows.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "vector.h"

namespace msport {

constexpr int kTileRows = 6;  // the sums of a tile fill the registers
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kTileVectors = 4;
#else
constexpr int kTileVectors = 2;
#endif
constexpr int64_t kTileColumns = kTileVectors * kLanes;
constexpr int64_t kPanelDepth = 128;  // depths per partial sum, so that rounding does not grow with the depth

struct Panel {
  alignas(64) float weights[kPanelDepth * kTileColumns];
  float* at(int64_t k, int64_t column) { return weights + k * kTileColumns + column; }
};

// Rows of x and of y that meet the same weight.
struct Batch {
  const float* const* x;
  float* const* y;
  int64_t rows, depth;
  const float* bias;  // one for each column, or null
  int64_t weight;     // the index of the weight in a stack of them
};

// A tile of y: `rows` rows, some vectors of columns from `column` on, of which the last has `last` columns.
struct Tile {
  const float* const* x;
  float* const* y;
  const float* bias;
  int64_t column;
  int last;
};

inline Vector load(const float* from, int64_t count) {
  if (count == kLanes) return load(from);
  Vector v{};
  std::memcpy(&v, from, sizeof(float) * size_t(count));
  return v;
}

inline void store(float* to, Vector v, int64_t count) {
  if (count == kLanes) return store(to, v);
  std::memcpy(to, &v, sizeof(float) * size_t(count));
}

// Adds x[rows, k .. k + depth] times the panel to the tile of y, which begins with the bias if k is 0.
template <int rows, int vectors>
void multiply(const Tile& tile, const float* weights, int64_t k, int64_t depth) {
  Vector sums[rows][vectors] = {};
  const float* x[rows];
  for (int r = 0; r < rows; ++r) x[r] = tile.x[r] + k;
  for (int64_t i = 0; i < depth; ++i) {
    Vector w[vectors];
    for (int v = 0; v < vectors; ++v) w[v] = load(weights + i * kTileColumns + v * kLanes);
    for (int r = 0; r < rows; ++r)
      for (int v = 0; v < vectors; ++v) sums[r][v] += x[r][i] * w[v];
  }
  for (int v = 0; v < vectors; ++v) {
    const int64_t column = tile.column + v * kLanes, count = v == vectors - 1 ? tile.last : kLanes;
    const Vector bias = tile.bias ? load(tile.bias + column, count) : Vector{};
    for (int r = 0; r < rows; ++r) {
      float* const y = tile.y[r] + column;
      store(y, sums[r][v] + (k ? load(y, count) : bias), count);
    }
  }
}

using Multiply = void (*)(const Tile&, const float*, int64_t, int64_t);

template <int vectors>
constexpr Multiply multiply_rows(int64_t rows) {
  constexpr Multiply found[] = {multiply<1, vectors>, multiply<2, vectors>, multiply<3, vectors>,
                                multiply<4, vectors>, multiply<5, vectors>, multiply<6, vectors>};
  return found[rows - 1];
}

inline Multiply multiply_tile(int64_t rows, int64_t vectors) {
  switch (vectors) {
    case 1: return multiply_rows<1>(rows);
    case 2: return multiply_rows<std::min(2, kTileVectors)>(rows);
    case 3: return multiply_rows<std::min(3, kTileVectors)>(rows);
    default: return multiply_rows<kTileVectors>(rows);
  }
}

// Columns [begin, end) of a batch. fill(panel, column, width, k, depth) writes these weights to the panel.
template <typename Fill>
void multiply_panels(const Batch& batch, int64_t begin, int64_t end, const Fill& fill) {
  Panel panel;
  const int64_t tiles = (batch.rows + kTileRows - 1) / kTileRows;
  for (int64_t column = begin; column < end; column += kTileColumns) {
    const int64_t width = std::min(kTileColumns, end - column), vectors = (width + kLanes - 1) / kLanes;
    const int last = int(width - (vectors - 1) * kLanes);
    for (int64_t k = 0; k < batch.depth; k += kPanelDepth) {
      const int64_t depth = std::min(kPanelDepth, batch.depth - k);
      fill(panel, column, width, k, depth);
      for (int64_t t = 0; t < tiles; ++t) {  // of nearly equal heights
        const int64_t row = batch.rows * t / tiles, rows = batch.rows * (t + 1) / tiles - row;
        multiply_tile(rows, vectors)({batch.x + row, batch.y + row, batch.bias, column, last}, panel.weights, k, depth);
      }
    }
  }
}

}  // namespace msport
