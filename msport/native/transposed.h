// The product of rows of x with plain weights [weights, depth, columns], whose rows lie along the columns: the experts of
// Transformers' checkpoints.
#pragma once

#include <algorithm>
#include <cstdint>

#include "panel.h"
#include "weights.h"

namespace msport {

template <typename Format>
struct Transposed {
  static constexpr bool kScaled = false;

  const typename Format::Element* weight;
  int64_t depth;
};

// Adds x[depth] * weight[depth, columns] to y[columns], reading the weight in memory order.
template <typename Format>
void stream(const float* x, const typename Format::Element* weight, int64_t stride, int64_t depth, int64_t columns,
            float* y) {
  constexpr int kStreams = 16;  // weight rows at a time; more would not stay in the L1 cache
  for (int64_t k = 0; k < depth; k += kStreams) {
    const int64_t rows = std::min<int64_t>(kStreams, depth - k);
    const typename Format::Element* row = weight + k * stride;
    for (int64_t n = 0; n < columns; n += kLanes) {
      const int64_t count = std::min<int64_t>(kLanes, columns - n);
      Vector sum = load(y + n, count);
      if (rows == kStreams && count == kLanes)
        for (int i = 0; i < kStreams; ++i) {
          __builtin_prefetch(row + (i + kStreams) * stride + n);
          sum += x[k + i] * widened<Format>(row + i * stride + n);
        }
      else
        for (int64_t i = 0; i < rows; ++i) sum += x[k + i] * widened<Format>(row + i * stride + n, count);
      store(y + n, sum, count);
    }
  }
}

// Columns [begin, end), `columns` in all, of the product of a batch with a weight of the stack.
template <typename Format>
void multiply(const Transposed<Format>& kind, const Batch& batch, int64_t columns, int64_t begin, int64_t end) {
  const typename Format::Element* const weight = kind.weight + batch.weight * kind.depth * columns;
  if (batch.rows == 1) {
    float* const y = batch.y[0] + begin;
    if (batch.bias)
      std::copy(batch.bias + begin, batch.bias + end, y);
    else
      std::fill_n(y, end - begin, 0.0f);
    return stream<Format>(batch.x[0], weight + begin, columns, kind.depth, end - begin, y);
  }
  multiply_panels(batch, begin, end, [&](Panel& panel, int64_t column, int64_t width, int64_t k, int64_t depth) {
    constexpr int64_t kAhead = 16;  // weight rows to prefetch: hardware does not follow strides beyond a page
    for (int64_t i = 0; i < depth; ++i) {
      const typename Format::Element* const row = weight + (k + i) * columns + column;
      for (int64_t n = 0; n < width; n += kLanes) {
        __builtin_prefetch(row + kAhead * columns + n);
        const int64_t count = std::min<int64_t>(kLanes, width - n);
        store(panel.at(i, n), count == kLanes ? widened<Format>(row + n) : widened<Format>(row + n, count));
      }
    }
  });
}

// x is read as it lies.
template <typename Format>
int64_t arranged_depth(const Transposed<Format>&) {
  return 0;
}

template <typename Format>
void arrange(const Transposed<Format>&, const float*, float*) {}

}  // namespace msport
