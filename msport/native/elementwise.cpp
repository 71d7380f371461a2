// The small operators between the matrix products, one pass each. MindSpore composes each from five to ten kernels, so a
// decode step would spend more time starting kernels than computing.
//
// Signature of every function here and how MindSpore calls it: https://www.mindspore.cn, "Custom Operators (Custom-based)",
// func_type "aot". The last of `params` is the output. A result other than 0 makes the graph fail.

#include <cmath>
#include <cstdint>

#include "exponential.h"
#include "parallel.h"
#include "vector.h"

using msport::parallel;
using msport::Vector;

namespace {

constexpr double kExponential = 4.0;  // the cost of an exponential in multiplications, sixteen at a time

int64_t elements(const int* dims, int64_t* const* shapes, int index) {
  int64_t count = 1;
  for (int d = 0; d < dims[index]; ++d) count *= shapes[index][d];
  return count;
}

// params[0] [...] -> params[to] [...]: `map` of every value, a vector at a time.
template <typename Map>
int each(void** params, int to, int* dims, int64_t** shapes, Map map) {
  const float* x = static_cast<const float*>(params[0]);
  float* y = static_cast<float*>(params[to]);
  parallel(elements(dims, shapes, 0), kExponential,
           [=](int64_t begin, int64_t end) { msport::transform(x, y, begin, end, map); });
  return 0;
}

// gate and up [...] -> [...]: `map` of every gate, times up.
template <typename Map>
int gated(void** params, int* dims, int64_t** shapes, Map map) {
  const float* gate = static_cast<const float*>(params[0]);
  const float* up = static_cast<const float*>(params[1]);
  float* y = static_cast<float*>(params[2]);
  parallel(elements(dims, shapes, 0), kExponential, [=](int64_t begin, int64_t end) {
    msport::transform(gate, y, begin, end, map);
    for (int64_t i = begin; i < end; ++i) y[i] *= up[i];
  });
  return 0;
}

// to = from / sqrt(mean(from^2) + epsilon) * weight, all of `size`.
void normalise(const float* from, const float* weight, int64_t size, float epsilon, float* to) {
  Vector squares{};
  int64_t i = 0;
  for (; i + msport::kLanes <= size; i += msport::kLanes) {
    const Vector v = msport::load(from + i);
    squares += v * v;
  }
  float total = msport::sum(squares);
  for (; i < size; ++i) total += from[i] * from[i];
  const float scale = 1.0f / std::sqrt(total / float(size) + epsilon);
  for (int64_t n = 0; n < size; ++n) to[n] = from[n] * scale * weight[n];
}

}  // namespace

// x [..., size], weight [size], epsilon [1] -> x / sqrt(mean(x^2) + epsilon) * weight.
extern "C" int rms_norm(int count, void** params, int* dims, int64_t** shapes, const char**, void*, void*) {
  if (count != 4) return 1;
  const float* x = static_cast<const float*>(params[0]);
  const float* weight = static_cast<const float*>(params[1]);
  const float epsilon = *static_cast<const float*>(params[2]);
  float* y = static_cast<float*>(params[3]);
  const int64_t size = shapes[1][0], rows = elements(dims, shapes, 0) / size;
  parallel(rows, 2.0 * size, [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) normalise(x + r * size, weight, size, epsilon, y + r * size);
  });
  return 0;
}

// x and residual [..., size], weight [size], epsilon [1] -> rms_norm of x + residual, and that sum.
extern "C" int add_rms_norm(int count, void** params, int* dims, int64_t** shapes, const char**, void*, void*) {
  if (count != 6) return 1;
  const float* x = static_cast<const float*>(params[0]);
  const float* residual = static_cast<const float*>(params[1]);
  const float* weight = static_cast<const float*>(params[2]);
  const float epsilon = *static_cast<const float*>(params[3]);
  float* y = static_cast<float*>(params[4]);
  float* total = static_cast<float*>(params[5]);
  const int64_t size = shapes[2][0], rows = elements(dims, shapes, 0) / size;
  parallel(rows, 3.0 * size, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin * size; i < end * size; ++i) total[i] = x[i] + residual[i];
    for (int64_t r = begin; r < end; ++r) normalise(total + r * size, weight, size, epsilon, y + r * size);
  });
  return 0;
}

// x [...], cap [1] -> cap * tanh(x / cap).
extern "C" int soft_cap(int count, void** params, int* dims, int64_t** shapes, const char**, void*, void*) {
  if (count != 3) return 1;
  const float cap = *static_cast<const float*>(params[1]);
  return each(params, 2, dims, shapes, [=](Vector v) { return cap * msport::tanh(v / cap); });
}

// gate and up [...] -> gate / 2 * (1 + tanh(sqrt(2 / pi) * (gate + 0.044715 gate^3))) * up.
extern "C" int gated_gelu_tanh(int count, void** params, int* dims, int64_t** shapes, const char**, void*, void*) {
  if (count != 3) return 1;
  return gated(params, dims, shapes, [](Vector v) {
    return 0.5f * v * (1.0f + msport::tanh(0.797884560802865356f * (v + 0.044715f * v * v * v)));
  });
}

// gate and up [...] -> gate * sigmoid(gate) * up.
extern "C" int gated_silu(int count, void** params, int* dims, int64_t** shapes, const char**, void*, void*) {
  if (count != 3) return 1;
  return gated(params, dims, shapes, [](Vector v) { return v * msport::sigmoid(v); });
}

// x [rows, 2 * size], the gate first -> [rows, size]: gate * sigmoid(gate) * up.
extern "C" int swiglu(int count, void** params, int*, int64_t** shapes, const char**, void*, void*) {
  if (count != 2) return 1;
  const float* x = static_cast<const float*>(params[0]);
  float* y = static_cast<float*>(params[1]);
  const int64_t rows = shapes[0][0], size = shapes[0][1] / 2;
  parallel(rows, kExponential * size, [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* up = x + (2 * r + 1) * size;
      float* to = y + r * size;
      msport::transform(x + 2 * r * size, to, 0, size, [](Vector v) { return v * msport::sigmoid(v); });
      for (int64_t i = 0; i < size; ++i) to[i] *= up[i];
    }
  });
  return 0;
}

// x [rows, 2 * size] with gate and up interleaved, constants [2] = limit, alpha -> [rows, size]:
// gate * sigmoid(alpha * gate) * (up + 1), the gate clamped from above, the up projection from both sides.
extern "C" int clamped_swiglu(int count, void** params, int*, int64_t** shapes, const char**, void*, void*) {
  if (count != 3) return 1;
  const float* x = static_cast<const float*>(params[0]);
  const float limit = static_cast<const float*>(params[1])[0], alpha = static_cast<const float*>(params[1])[1];
  float* y = static_cast<float*>(params[2]);
  const int64_t total = shapes[0][0] * shapes[0][1] / 2;
  parallel(total, kExponential, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += msport::kLanes) {
      const int64_t many = std::min<int64_t>(msport::kLanes, end - i);
      Vector gate{}, up{};
      for (int64_t n = 0; n < many; ++n) {
        gate[n] = x[2 * (i + n)];
        up[n] = x[2 * (i + n) + 1];
      }
      gate = msport::smaller(gate, msport::broadcast(limit));
      up = msport::larger(msport::smaller(up, msport::broadcast(limit)), msport::broadcast(-limit));
      const Vector result = gate * msport::sigmoid(alpha * gate) * (up + 1.0f);
      std::memcpy(y + i, &result, sizeof(float) * size_t(many));
    }
  });
  return 0;
}
