// The kinds of weight that a product reads, each a struct that decodes a vector of values along the depth.
//
// A matrix has a row for each output. A row is read in chunks of kVectors vectors. Vector v of a chunk holds its depths
// kLanes v, kLanes v + 1, ... or, if kInterleaved, v, v + kVectors, ... If kScaled, each vector is also multiplied with
// `chunk_scale`, made of float32 scales of 32 depths each, which `Groups` decodes row by row. Decoding is exact.
//
// To add a kind, write a struct with the members of `Int8` and hand it to `products` (matmul.h).
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "bytes.h"
#include "vector.h"

namespace msport {

typedef uint16_t Halves __attribute__((vector_size(kLanes * sizeof(uint16_t))));

// The first `count` bytes of a value, followed by zeros.
template <typename Value>
Value load_bytes(const void* from, int64_t count) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
  if constexpr (sizeof(Value) == 64) return (Value)_mm512_maskz_loadu_epi8(~0ull >> (64 - count), from);
  if constexpr (sizeof(Value) == 32) return (Value)_mm256_maskz_loadu_epi8(~0u >> (32 - count), from);
#endif
  Value value{};
  std::memcpy(&value, from, size_t(count));
  return value;
}

struct Float32 {
  using Element = float;
  using Lanes = Vector;
  static Vector widen(Vector values) { return values; }
};

// A bfloat16 is the upper half of a float32.
struct BFloat16 {
  using Element = uint16_t;
  using Lanes = Halves;
  static Vector widen(Halves values) { return (Vector)(__builtin_convertvector(values, Integers) << 16); }
};

struct Float16 {
  using Element = uint16_t;
  using Lanes = Halves;
#if defined(__AVX512F__)
  static Vector widen(Halves values) { return (Vector)_mm512_cvtph_ps((__m256i)values); }
#elif defined(__F16C__)
  static Vector widen(Halves values) { return (Vector)_mm256_cvtph_ps((__m128i)values); }
#elif defined(__aarch64__)
  static Vector widen(Halves values) { return (Vector)vcvt_f32_f16((float16x4_t)values); }
#else
  // Moves exponent and mantissa to their place. A number is then too small by 2^112; a subnormal one gets an implicit one,
  // which is subtracted again, because MindSpore's threads read subnormal float32 numbers as zero.
  static Vector widen(Halves values) {
    const Integers bits = __builtin_convertvector(values, Integers), magnitude = (bits & 0x7fff) << 13;
    const Integers exponent = magnitude & (31 << 23);
    const Vector subnormal = (Vector)(magnitude + (113 << 23)) - 0x1p-14f;
    const Integers special = exponent == (31 << 23);
    const Integers normal = magnitude + (112 << 23) + (special & (112 << 23));
    const Integers found = exponent == 0 ? (Integers)subnormal : normal;
    return (Vector)(found | (bits & 0x8000) << 16);
  }
#endif
};

// A vector of values of a plain format, or the first `count`, followed by zeros.
template <typename Format>
Vector widened(const typename Format::Element* from) {
  typename Format::Lanes lanes;
  std::memcpy(&lanes, from, sizeof lanes);
  return Format::widen(lanes);
}

template <typename Format>
Vector widened(const typename Format::Element* from, int64_t count) {
  return Format::widen(load_bytes<typename Format::Lanes>(from, count * int64_t(sizeof *from)));
}

template <typename Format>
void widen(const typename Format::Element* from, int64_t count, float* to) {
  if (count < kLanes) {
    const Vector few = widened<Format>(from, count);
    std::memcpy(to, &few, sizeof(float) * size_t(count));
    return;
  }
  for (int64_t i = 0; i + kLanes < count; i += kLanes) store(to + i, widened<Format>(from + i));
  store(to + count - kLanes, widened<Format>(from + count - kLanes));
}

// [rows, depth] of a plain format.
template <typename Format>
struct Plain {
  static constexpr int kVectors = 1;
  static constexpr bool kInterleaved = false, kScaled = false, kShifted = false;
  using Chunk = Vector;
  static constexpr int kChunkBytes = sizeof(typename Format::Lanes);

  const typename Format::Element* weight;
  int64_t depth;

  void prefetch(int64_t row, int64_t k) const { __builtin_prefetch(weight + row * depth + k); }
  Chunk chunk(int64_t row, int64_t k) const { return widened<Format>(weight + row * depth + k); }
  Chunk last_chunk(int64_t row, int64_t k) const { return widened<Format>(weight + row * depth + k, depth - k); }
  static Vector value(const Chunk& chunk, int) { return chunk; }
};

constexpr int64_t kBlock = 32;  // depths that share a scale, at least

enum class ScaleFormat { float32, float16, bfloat16, power };

// The scales (or offsets) of the groups of each row, [rows, depth / size].
struct Groups {
  const void* values;
  ScaleFormat format;
  int64_t count, blocks;  // of a row

  Groups() = default;
  Groups(const void* values, ScaleFormat format, int64_t count, int64_t depth)
      : values(values), format(format), count(count), blocks((depth + kBlock - 1) / kBlock) {}

  // One float32 for each block of some rows, which lie `stride` apart.
  [[gnu::noinline]] void decode(int64_t row, int64_t rows, float* to, int64_t stride) const {
    if (stride == count) return widen_all(row * count, rows * count, to);
    const int64_t each = blocks / count;
    for (; rows > 0; --rows, ++row, to += stride) {
      float* const from = to + blocks - count;  // spread in place
      widen_all(row * count, count, from);
      for (int64_t group = 0; each > 1 && group < count; ++group) {
        const float value = from[group];
        for (int64_t i = 0; i < each; ++i) to[group * each + i] = value;
      }
    }
  }

  void widen_all(int64_t first, int64_t many, float* to) const {
    switch (format) {
      case ScaleFormat::float32: return widen<Float32>(static_cast<const float*>(values) + first, many, to);
      case ScaleFormat::float16: return widen<Float16>(static_cast<const uint16_t*>(values) + first, many, to);
      case ScaleFormat::bfloat16: return widen<BFloat16>(static_cast<const uint16_t*>(values) + first, many, to);
      case ScaleFormat::power: return powers(static_cast<const uint8_t*>(values) + first, many, to);
    }
  }

  // 2^(scale - 127); a scale is the exponent field of a float32.
  static void powers(const uint8_t* from, int64_t count, float* to) {
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t bits = from[i] ? uint32_t(from[i]) << 23 : 0x400000;
      std::memcpy(to + i, &bits, sizeof bits);
    }
  }
};

// A lane for each 32-bit word of a chunk, with the value of the word's block: `each` words make a block.
template <int each>
Vector spread(const float* of_blocks) {
#if defined(__AVX512F__)
  static_assert(each == 4 || each == 8);
  const __m512i lanes = each == 4 ? _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3)
                                  : _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
  const __m128 values = each == 4 ? _mm_loadu_ps(of_blocks) : _mm_castpd_ps(_mm_load_sd((const double*)of_blocks));
  return (Vector)_mm512_permutexvar_ps(lanes, _mm512_castps128_ps512(values));
#else
  Vector found;
  for (int i = 0; i < kLanes; ++i) found[i] = of_blocks[i / each];
  return found;
#endif
}

// The two's complement number of `bits` bits at place v of each 32-bit word. As the last bits of the mantissa of a power of
// two it needs neither shift nor conversion; inverting its sign adds half its range.
template <int bits>
Vector integer(Integers words, int v) {
  constexpr int half = 1 << (bits - 1), places = 23 / bits;
  const int shift = v < places ? 0 : 16, place = v * bits - shift;
  const Integers mantissa = (words >> shift) & (((1 << bits) - 1) << place);
  return (Vector)(mantissa ^ ((127 + 23 - place) << 23 | half << place)) - float((1 << (23 - place)) + half);
}

// [rows, depth] int8 codes: (code + offset) * scale. A chunk is a vector of 32-bit words of four codes.
template <bool shifted>
struct Int8 {
  static constexpr int kVectors = 4;
  static constexpr bool kInterleaved = true, kScaled = true, kShifted = shifted;
  using Chunk = Integers;
  static constexpr int kChunkBytes = sizeof(Chunk);

  const int8_t* codes;
  Groups scales, offsets;
  int64_t depth;

  void prefetch(int64_t row, int64_t k) const { __builtin_prefetch(codes + row * depth + k); }
  Chunk chunk(int64_t row, int64_t k) const {
    Chunk chunk;
    std::memcpy(&chunk, codes + row * depth + k, sizeof chunk);
    return chunk;
  }
  Chunk last_chunk(int64_t row, int64_t k) const { return load_bytes<Chunk>(codes + row * depth + k, depth - k); }
  static Vector value(const Chunk& chunk, int v) { return integer<8>(chunk, v); }
  static Vector chunk_scale(const float* of_blocks) { return spread<8>(of_blocks); }
};

#if defined(__AVX512F__)
// The entry of a table for code v of each 32-bit word; the instruction looks at four bits of each lane.
inline Vector look_up(__m512 table, Integers words, int v) {
  return (Vector)_mm512_permutexvar_ps((__m512i)(words >> 4 * v), table);
}
#endif

// Code v of each 32-bit word as a two's complement number.
struct Int4 {
#if defined(__AVX512F__)
  static Vector value(Integers words, int v) {
    return look_up(_mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1), words, v);
  }
#else
  static Vector value(Integers words, int v) { return integer<4>(words, v); }
#endif
};

// Code v of each 32-bit word as a sign, two bits of exponent and one of mantissa.
struct Fp4 {
#if defined(__AVX512F__)
  static Vector value(Integers words, int v) {
    return look_up(_mm512_setr_ps(0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.f, -.5f, -1, -1.5f, -2, -3, -4, -6), words, v);
  }
#else
  // A float32 with this exponent and mantissa; 0 and 0.5 are the subnormal numbers.
  static Vector value(Integers words, int v) {
    const Integers codes = words >> 4 * v, subnormal = (codes & 6) == 0;
    const Vector number = (Vector)(((codes & 7) << 22) + (126 << 23) + (subnormal & (1 << 23)));
    const Vector magnitude = number - (Vector)(subnormal & (Integers)broadcast(1.0f));
    return (Vector)((Integers)magnitude | (codes & 8) << 28);
  }
#endif
};

// [rows, depth / 2] bytes of two codes each, the even one in the low half: (code + offset) * scale. A chunk is a vector
// of 32-bit words of eight codes.
template <typename Code, bool shifted>
struct Nibbles {
  static constexpr int kVectors = 8;
  static constexpr bool kInterleaved = true, kScaled = true, kShifted = shifted;
  using Chunk = Integers;
  static constexpr int kChunkBytes = sizeof(Chunk);

  const uint8_t* codes;
  Groups scales, offsets;
  int64_t depth;

  void prefetch(int64_t row, int64_t k) const { __builtin_prefetch(codes + (row * depth + k >> 1)); }
  Chunk chunk(int64_t row, int64_t k) const {
    Chunk chunk;
    std::memcpy(&chunk, codes + (row * depth + k >> 1), sizeof chunk);
    return chunk;
  }
  Chunk last_chunk(int64_t row, int64_t k) const {
    return load_bytes<Chunk>(codes + (row * depth + k >> 1), (depth - k) / 2);
  }
  static Vector value(const Chunk& chunk, int v) { return Code::value(chunk, v); }
  static Vector chunk_scale(const float* of_blocks) { return spread<4>(of_blocks); }
};

}  // namespace msport
