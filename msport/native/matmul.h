// The product of rows of x with a matrix whose rows lie along the depth, for every kind of weight (weights.h).
//
// Few rows are bound by memory: weights are streamed and decoded in registers. For many rows, they are decoded to panels
// (panel.h).
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "panel.h"
#include "weights.h"

namespace msport {

constexpr int kPassRows = 8;
constexpr int64_t kPassColumns = 32;  // whose weights stay in cache for the next pass
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kSums = 16;  // of few rows, so that they stay in registers
#else
constexpr int kSums = 8;
#endif
constexpr int64_t kScaledRows = 16;    // weight rows whose scales are decoded at a time
constexpr int64_t kPrefetched = 2048;  // bytes; hardware alone stops at the end of a page

template <typename Kind>
constexpr int64_t kChunk = Kind::kVectors * kLanes;

template <typename Kind>
constexpr int64_t whole_chunks(int64_t depth) {
  return (depth + kChunk<Kind> - 1) / kChunk<Kind> * kChunk<Kind>;
}

// The scales and offsets of some weight rows as float32, with zeros up to the last chunk.
template <typename Kind>
class Scales {
 public:
  Scales(const Kind& kind, int64_t rows) : kind_(kind) {
    if constexpr (Kind::kScaled) {
      stride_ = (whole_chunks<Kind>(kind.depth) + kBlock - 1) / kBlock;
      scales_.resize(size_t(rows * stride_));
      if (Kind::kShifted) offsets_.resize(scales_.size());
    }
  }

  // Those of rows [row, row + rows), to the slots from `slot` on.
  void decode(int64_t row, int64_t rows, int64_t slot = 0) {
    if constexpr (Kind::kScaled) kind_.scales.decode(row, rows, scales_.data() + slot * stride_, stride_);
    if constexpr (Kind::kShifted) kind_.offsets.decode(row, rows, offsets_.data() + slot * stride_, stride_);
  }

  Vector scale(int64_t slot, int64_t k) const { return Kind::chunk_scale(scales_.data() + slot * stride_ + k / kBlock); }
  Vector offset(int64_t slot, int64_t k) const { return Kind::chunk_scale(offsets_.data() + slot * stride_ + k / kBlock); }

 private:
  const Kind& kind_;
  int64_t stride_ = 0;
  std::vector<float> scales_, offsets_;
};

// Adds the products of a chunk of weight rows with as many depths of x. A single row of x is scaled after its sum, more
// rows share scaled weights. `slots` are where the scales of the weight rows are.
template <typename Kind, int rows, int tokens>
[[gnu::always_inline]] inline void add_chunk(Vector (&sums)[rows][tokens], const typename Kind::Chunk (&chunks)[rows],
                                             const Scales<Kind>& scales, const int64_t (&slots)[rows],
                                             const float* const* x, int64_t k) {
  Vector scale[rows], offset[rows], partial[rows];
  for (int r = 0; r < rows; ++r) {
    if constexpr (Kind::kScaled) scale[r] = scales.scale(slots[r], k);
    if constexpr (Kind::kShifted) offset[r] = scales.offset(slots[r], k);
  }
  constexpr bool scaled_last = Kind::kScaled && tokens == 1;
#pragma GCC unroll 8
  for (int v = 0; v < Kind::kVectors; ++v) {
    Vector at[tokens];
    for (int t = 0; t < tokens; ++t) at[t] = load(x[t] + k + v * kLanes);
    for (int r = 0; r < rows; ++r) {
      Vector w = Kind::value(chunks[r], v);
      if constexpr (Kind::kShifted) w += offset[r];
      if constexpr (scaled_last) {
        partial[r] = v ? partial[r] + w * at[0] : w * at[0];
      } else {
        if constexpr (Kind::kScaled) w *= scale[r];
        for (int t = 0; t < tokens; ++t) sums[r][t] += w * at[t];
      }
    }
  }
  if constexpr (scaled_last)
    for (int r = 0; r < rows; ++r) sums[r][0] += partial[r] * scale[r];
}

// Weight rows at a time; they share the reads of x. Each is the next row of a stream from memory, which is read in its
// order: the columns are split among the streams.
constexpr int rows_beside(int tokens) { return tokens <= 2 ? 2 : std::max(1, std::min(4, kSums / tokens)); }

// Columns [begin, end) of `tokens` rows, which are x and y; the weight of column 0 is row `first`.
template <typename Kind, int tokens>
void multiply_few(const Kind& kind, int64_t first, const float* const* x, float* const* y, const float* bias,
                  int64_t begin, int64_t end) {
  constexpr int rows = rows_beside(tokens);
  constexpr int parts = Kind::kVectors == 1 && rows * tokens <= 2 ? 4 : 1;  // independent sums, which hide their latency
  constexpr int64_t step = parts * kChunk<Kind>;
  constexpr int64_t ahead = kPrefetched / Kind::kChunkBytes * kChunk<Kind>;
  const int64_t length = (end - begin + rows - 1) / rows;  // of a stream
  Scales<Kind> scales(kind, rows * kScaledRows);
  for (int64_t n = 0; n < length; ++n) {
    int64_t column[rows], row[rows], slots[rows];  // the last column again if a stream is shorter
    for (int r = 0; r < rows; ++r) {
      column[r] = std::min(begin + r * length + n, end - 1);
      row[r] = first + column[r];
      slots[r] = r * kScaledRows + n % kScaledRows;
      const int64_t left = std::max<int64_t>(1, std::min(length - n, end - begin - r * length - n));
      if (left == 1 || n % kScaledRows == 0) scales.decode(row[r], std::min(kScaledRows, left), slots[r]);
    }
    Vector sums[parts][rows][tokens] = {};
    const auto add = [&](int part, int64_t k) __attribute__((always_inline)) {
      typename Kind::Chunk chunks[rows];
      for (int r = 0; r < rows; ++r) {
        kind.prefetch(row[r], k + ahead);
        chunks[r] = kind.chunk(row[r], k);
      }
      add_chunk<Kind>(sums[part], chunks, scales, slots, x, k);
    };
    int64_t k = 0;
    for (; k + step <= kind.depth; k += step)
      for (int part = 0; part < parts; ++part) add(part, k + part * kChunk<Kind>);
    for (; k + kChunk<Kind> <= kind.depth; k += kChunk<Kind>) add(0, k);
    if (k < kind.depth) {
      typename Kind::Chunk chunks[rows];
      for (int r = 0; r < rows; ++r) chunks[r] = kind.last_chunk(row[r], k);
      add_chunk<Kind>(sums[0], chunks, scales, slots, x, k);
    }
    for (int part = 1; part < parts; ++part)
      for (int r = 0; r < rows; ++r)
        for (int t = 0; t < tokens; ++t) sums[0][r][t] += sums[part][r][t];
    for (int t = 0; t < tokens; ++t)
      for (int r = 0; r < rows; ++r) y[t][column[r]] = sum(sums[0][r][t]) + (bias ? bias[column[r]] : 0.0f);
  }
}

#if defined(__AVX512F__)
#define MSPORT_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define MSPORT_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif defined(__AVX__)
#define MSPORT_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define MSPORT_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
#define MSPORT_LOW 0, 4, 1, 5
#define MSPORT_HIGH 2, 6, 3, 7
#endif

// Of a square: each round of a perfect shuffle rotates the index of all elements by a bit.
inline void transpose(Integers (&lines)[kLanes]) {
#pragma GCC unroll 4
  for (int round = 1; round < kLanes; round *= 2) {
    Integers shuffled[kLanes];
    for (int i = 0; i < kLanes / 2; ++i) {
      const Integers first = lines[i], second = lines[i + kLanes / 2];
      shuffled[2 * i] = MSPORT_ZIP(first, second, MSPORT_LOW);
      shuffled[2 * i + 1] = MSPORT_ZIP(first, second, MSPORT_HIGH);
    }
    for (int i = 0; i < kLanes; ++i) lines[i] = shuffled[i];
  }
}

// Decodes kLanes weight rows from `row` on (the last of them again from `end` on), depths [k, k + depth), to columns of a
// panel.
template <typename Kind>
void decode_columns(const Kind& kind, const Scales<Kind>& scales, int64_t slot, int64_t row, int64_t end, int64_t k,
                    int64_t depth, float* to) {
  for (int64_t stop = k + depth; k < stop; k += kChunk<Kind>, to += kChunk<Kind> * kTileColumns) {
    typename Kind::Chunk chunks[kLanes];
    const bool whole = k + kChunk<Kind> <= kind.depth;
    for (int i = 0; i < kLanes; ++i) {
      const int64_t at = std::min(row + i, end - 1);
      kind.prefetch(at, k + kPanelDepth);
      chunks[i] = whole ? kind.chunk(at, k) : kind.last_chunk(at, k);
    }
    for (int v = 0; v < Kind::kVectors; ++v) {
      Integers lines[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        Vector w = Kind::value(chunks[i], v);
        if constexpr (Kind::kShifted) w += scales.offset(slot + i, k);
        if constexpr (Kind::kScaled) w *= scales.scale(slot + i, k);
        lines[i] = (Integers)w;
      }
      transpose(lines);
      for (int i = 0; i < kLanes; ++i) {
        const int at = Kind::kInterleaved ? i * Kind::kVectors + v : v * kLanes + i;
        store(to + at * kTileColumns, (Vector)lines[i]);
      }
    }
  }
}

// Columns [begin, end) of many rows.
template <typename Kind>
void multiply_many(const Kind& kind, int64_t first, const Batch& batch, int64_t begin, int64_t end) {
  Scales<Kind> scales(kind, kTileColumns);
  multiply_panels(batch, begin, end, [&](Panel& panel, int64_t column, int64_t width, int64_t k, int64_t depth) {
    const int64_t row = first + column, stop = row + width;
    if (k == 0) scales.decode(row, width);
    for (int64_t i = 0; i < width; i += kLanes)
      decode_columns(kind, scales, i, row + i, stop, k, depth, panel.at(0, i));
  });
}

// Up to this many rows, passes over the weights are faster than panels, most of all where decoding takes long.
template <typename Kind>
constexpr int64_t kFewRows = Kind::kScaled ? 24 : 12;

// Columns [begin, end) of few rows, kPassRows at a time.
template <typename Kind>
void multiply_passes(const Kind& kind, int64_t first, const Batch& batch, int64_t begin, int64_t end) {
  for (int64_t row = 0; row < batch.rows; row += kPassRows) {
    const int64_t rows = std::min<int64_t>(kPassRows, batch.rows - row);
    const float* x[kPassRows];
    float* y[kPassRows];
    for (int64_t r = 0; r < kPassRows; ++r) {  // the last of them again if there are fewer
      x[r] = batch.x[row + std::min(r, rows - 1)];
      y[r] = batch.y[row + std::min(r, rows - 1)];
    }
    const auto pass = rows == 1   ? multiply_few<Kind, 1>
                      : rows == 2 ? multiply_few<Kind, 2>
                      : rows <= 4 ? multiply_few<Kind, 4>
                                  : multiply_few<Kind, kPassRows>;
    pass(kind, first, x, y, batch.bias, begin, end);
  }
}

// Columns [begin, end), `columns` in all, of the product of a batch with a weight of the stack. If there are few rows, x
// lies as `arrange` leaves it.
template <typename Kind>
void multiply(const Kind& kind, const Batch& batch, int64_t columns, int64_t begin, int64_t end) {
  const int64_t first = batch.weight * columns;
  if (batch.rows > kFewRows<Kind>) return multiply_many(kind, first, batch, begin, end);
  const int64_t step = batch.rows > kPassRows ? kPassColumns : end - begin;
  for (; begin < end; begin += step) multiply_passes(kind, first, batch, begin, std::min(begin + step, end));
}

// The length of a row of x as `arrange` leaves it, or 0 if `multiply` reads x as it lies.
template <typename Kind>
int64_t arranged_depth(const Kind& kind) {
  const int64_t whole = whole_chunks<Kind>(kind.depth);
  return Kind::kInterleaved || whole != kind.depth ? whole : 0;
}

// A row of x with the depths of each chunk in its order; `to` has whole chunks and is zero.
template <typename Kind>
void arrange(const Kind& kind, const float* from, float* to) {
  if (!Kind::kInterleaved) {
    std::memcpy(to, from, sizeof(float) * size_t(kind.depth));
    return;
  }
  int64_t k = 0;
  for (; k + kChunk<Kind> <= kind.depth; k += kChunk<Kind>)
    for (int v = 0; v < Kind::kVectors; ++v)
      for (int i = 0; i < kLanes; ++i) to[k + v * kLanes + i] = from[k + i * Kind::kVectors + v];
  for (int64_t i = 0; k + i < kind.depth; ++i) to[k + i % Kind::kVectors * kLanes + i / Kind::kVectors] = from[k + i];
}

}  // namespace msport
