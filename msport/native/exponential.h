// Exponential functions of sixteen floats, to within two units in the last place; the C library computes one at a time.
//
// x = n ln 2 + r with |r| <= ln(2) / 2, and e^x = 2^n e^r; the polynomial of e^r is that of Moshier's Cephes library
// (expf), https://www.netlib.org/cephes.
#pragma once

#include "vector.h"

namespace msport {

struct Exponential {
  Vector power;   // 2^n
  Vector excess;  // e^r - 1
};

// For x in [-87.3, 88.3]; other x are moved to the border, where 2^n is still a normal number.
inline Exponential split_exponential(Vector x) {
  constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  x = smaller(larger(x, broadcast(-87.3f)), broadcast(88.3f));
  const Vector shifted = x * 1.44269504088896341f + kRounder, n = shifted - kRounder;
  const Vector r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts, the first exact in few bits
  Vector p = broadcast(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const Integers exponent = (Integers)shifted - (Integers)broadcast(kRounder);
  return {(Vector)((exponent + 127) << 23), p * r * r + r};
}

inline Vector exp(Vector x) {
  const Exponential e = split_exponential(x);
  return e.power * e.excess + e.power;
}

// Also accurate near 0, where 1 - 2 / (e^2x + 1) would cancel.
inline Vector tanh(Vector x) {
  const Vector magnitude = x < 0.0f ? -x : x;
  const Exponential e = split_exponential(smaller(2.0f * magnitude, broadcast(40.0f)));
  const Vector grown = e.power * e.excess + (e.power - 1.0f);  // e^2|x| - 1
  const Vector y = grown / (grown + 2.0f);
  return x < 0.0f ? -y : y;
}

inline Vector sigmoid(Vector x) { return 1.0f / (1.0f + exp(-x)); }

}  // namespace msport
