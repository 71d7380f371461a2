// Sixteen bytes at a time: tables of sixteen entries, and interleaving.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace msport {

typedef uint8_t Bytes __attribute__((vector_size(16)));
typedef uint16_t Words __attribute__((vector_size(16)));

#ifdef __clang__
#define MSPORT_ZIP(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define MSPORT_ZIP(a, b, ...) __builtin_shuffle(a, b, decltype(a){__VA_ARGS__})
#endif

inline Bytes zip_low(Bytes a, Bytes b) {
  return MSPORT_ZIP(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
inline Bytes zip_high(Bytes a, Bytes b) {
  return MSPORT_ZIP(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
inline Words zip_low(Words a, Words b) { return MSPORT_ZIP(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
inline Words zip_high(Words a, Words b) { return MSPORT_ZIP(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }

// table[index] for each of sixteen indices below 16.
inline Bytes lookup(Bytes table, Bytes index) {
#if defined(__SSSE3__)
  return (Bytes)_mm_shuffle_epi8((__m128i)table, (__m128i)index);
#elif defined(__aarch64__)
  return (Bytes)vqtbl1q_u8((uint8x16_t)table, (uint8x16_t)index);
#else
  Bytes found{};
  for (int i = 0; i < 16; ++i) found[i] = table[index[i]];
  return found;
#endif
}

inline Bytes load(const uint8_t* from) {
  Bytes bytes{};
  std::memcpy(&bytes, from, sizeof bytes);
  return bytes;
}

}  // namespace msport
