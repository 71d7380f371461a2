// Sixteen floats at a time; the compiler splits a vector if the processor's registers are narrower.
#pragma once

#include <cstdint>
#include <cstring>

namespace msport {

constexpr int kLanes = 16;
typedef float Vector __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t Integers __attribute__((vector_size(kLanes * sizeof(int32_t))));

inline Vector load(const float* from) {
  Vector v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

inline void store(float* to, Vector v) { std::memcpy(to, &v, sizeof v); }

inline Vector broadcast(float value) { return Vector{} + value; }

// Both return `a` if it is NaN, so that a bound `b` does not turn NaN into a number.
inline Vector larger(Vector a, Vector b) { return b > a ? b : a; }

inline Vector smaller(Vector a, Vector b) { return b < a ? b : a; }

inline float sum(Vector v) {
  float total = 0;
  for (int i = 0; i < kLanes; ++i) total += v[i];
  return total;
}

inline float largest(Vector v) {
  float top = v[0];
  for (int i = 1; i < kLanes; ++i) top = v[i] > top ? v[i] : top;
  return top;
}

// f of each float in [begin, end), sixteen at a time; the last vector is padded with zeros.
template <typename Function>
void transform(const float* from, float* to, int64_t begin, int64_t end, const Function& f) {
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) store(to + i, f(load(from + i)));
  if (i == end) return;
  Vector rest{};
  std::memcpy(&rest, from + i, sizeof(float) * size_t(end - i));
  rest = f(rest);
  std::memcpy(to + i, &rest, sizeof(float) * size_t(end - i));
}

}  // namespace msport
