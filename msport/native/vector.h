// A register of floats: sixteen, eight or four at a time. The compiler also splits wider vectors, but into memory.
#pragma once

#include <cstdint>
#include <cstring>

namespace msport {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
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

// Halves are added, which takes fewer steps than one lane after the other.
template <int lanes, typename Lanes>
inline float sum_of(Lanes v) {
  if constexpr (lanes == 4) {
    return (v[0] + v[2]) + (v[1] + v[3]);
  } else {
    typedef float Half __attribute__((vector_size(lanes / 2 * sizeof(float))));
    Half halves[2];
    std::memcpy(halves, &v, sizeof halves);
    return sum_of<lanes / 2>(halves[0] + halves[1]);
  }
}

inline float sum(Vector v) { return sum_of<kLanes>(v); }

inline float largest(Vector v) {
  float top = v[0];
  for (int i = 1; i < kLanes; ++i) top = v[i] > top ? v[i] : top;
  return top;
}

// f of each float in [begin, end), a vector at a time; the last vector is padded with zeros.
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
