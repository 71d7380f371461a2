// A linear layer for few tokens. It is bound by memory, so each weight is read once, in memory order.
//
// MindSpore's matrix product repacks the weight of some shapes at every call: a head of 32000 x 768 took four times as long.

#include <cstdint>

#include "parallel.h"
#include "vector.h"

using msport::kLanes;
using msport::load;
using msport::Vector;

namespace {

constexpr int kRows = 4;      // weight rows at a time, as parallel streams from memory
constexpr int kTokens = 4;    // tokens that share one read of these rows

template <int tokens>
void products(const float* x, const float* weight, const float* bias, int64_t depth, int64_t columns, int64_t begin,
              int64_t end, float* y) {
  int64_t n = begin;
  for (; n + kRows <= end; n += kRows) {
    Vector sums[kRows][tokens] = {};
    int64_t k = 0;
    for (; k + kLanes <= depth; k += kLanes) {
      Vector at[tokens];
      for (int t = 0; t < tokens; ++t) at[t] = load(x + t * depth + k);
      for (int r = 0; r < kRows; ++r) {
        const Vector w = load(weight + (n + r) * depth + k);
        for (int t = 0; t < tokens; ++t) sums[r][t] += w * at[t];
      }
    }
    for (int r = 0; r < kRows; ++r)
      for (int t = 0; t < tokens; ++t) {
        float total = msport::sum(sums[r][t]);
        for (int64_t i = k; i < depth; ++i) total += weight[(n + r) * depth + i] * x[t * depth + i];
        y[t * columns + n + r] = total + (bias ? bias[n + r] : 0.0f);
      }
  }
  for (; n < end; ++n)
    for (int t = 0; t < tokens; ++t) {
      float total = 0;
      for (int64_t i = 0; i < depth; ++i) total += weight[n * depth + i] * x[t * depth + i];
      y[t * columns + n] = total + (bias ? bias[n] : 0.0f);
    }
}

using Products = void (*)(const float*, const float*, const float*, int64_t, int64_t, int64_t, int64_t, float*);
constexpr Products kProducts[kTokens] = {products<1>, products<2>, products<3>, products<4>};

}  // namespace

// x [tokens, depth], weight [columns, depth], optionally bias [columns] -> [tokens, columns].
extern "C" int linear(int count, void** params, int*, int64_t** shapes, const char**, void*, void*) {
  if (count != 3 && count != 4) return 1;
  const float* x = static_cast<const float*>(params[0]);
  const float* weight = static_cast<const float*>(params[1]);
  const float* bias = count == 4 ? static_cast<const float*>(params[2]) : nullptr;
  float* y = static_cast<float*>(params[count - 1]);
  const int64_t tokens = shapes[0][0], depth = shapes[0][1], columns = shapes[1][0];
  for (int64_t t = 0; t < tokens; t += kTokens) {
    const int64_t many = std::min<int64_t>(kTokens, tokens - t);
    msport::parallel(columns, double(depth), [=](int64_t begin, int64_t end) {
      kProducts[many - 1](x + t * depth, weight, bias, depth, columns, begin, end, y + t * columns);
    });
  }
  return 0;
}
