// MXFP4 to bfloat16, float16 or float32: see msport/encodings/mxfp4.py, whose NumPy form is the definition.
//
// The table of all values, [scale][code], comes from there. For most scales a value is the one at scale 127 with the
// difference added to its exponent field; `regular` marks these scales; values of the other scales are looked up one
// at a time. Scales are checked by the caller: none is 255, and no value is beyond the format.
//
// A call runs only on the calling thread, because the converter already has one thread per core.
#include <cstdint>
#include <cstring>

#include "bytes.h"

using msport::Bytes;
using msport::load;
using msport::lookup;
using msport::Words;
using msport::zip_high;
using msport::zip_low;

namespace {

constexpr int kBlockBytes = 16;
constexpr int kLanes = 16;  // rows that are transposed at once
constexpr int kTile = 64;   // rows whose values are written together, as whole cache lines
constexpr int kCacheLine = 64;
constexpr int kUnitScale = 127;

// With `streamed`, `to` is aligned and the line is not fetched before it is overwritten, which halves the traffic.
template <bool streamed>
inline void store(void* to, Words words) {
#if defined(__SSE2__)
  if (streamed) return _mm_stream_si128(static_cast<__m128i*>(to), (__m128i)words);
#elif defined(__clang__)
  if (streamed) return __builtin_nontemporal_store(words, static_cast<Words*>(to));
#endif
  std::memcpy(to, &words, sizeof words);
}

template <bool streamed>
inline void put(uint16_t* to, Words bits) {
  store<streamed>(to, bits);
}

// A float32 here is a bfloat16 followed by zeros.
template <bool streamed>
inline void put(uint32_t* to, Words bits) {
  store<streamed>(to, zip_low(Words{}, bits));
  store<streamed>(to + 4, zip_high(Words{}, bits));
}

struct Matrix {
  const uint8_t *blocks, *scales;
  int64_t rows, groups;
  int64_t blocks_stride, scales_stride, out_stride;  // bytes from one row to the next; of `out`, in its own rows
};

template <typename Element>
class Format {
 public:
  Format(const void* values, const uint8_t* regular, int32_t exponent_shift)
      : values_(static_cast<const Element*>(values)), regular_(regular), shift_(exponent_shift) {
    for (int code = 0; code < 16; ++code) {
      const uint32_t bits = value(kUnitScale, code) >> (8 * sizeof(Element) - 16);
      low_[code] = bits & 0xff;
      high_[code] = bits >> 8;
    }
  }

  Element value(uint8_t scale, int code) const { return values_[scale * 16 + code]; }
  bool regular(uint8_t scale) const { return regular_[scale]; }

  // Added to the upper 16 bits of a value at scale 127, unless it is zero.
  Words step(Words scales) const { return (scales - uint16_t(kUnitScale)) << shift_; }

  // The upper 16 bits of the values of sixteen codes: the first eight, whose steps are `first`, and the others.
  template <bool streamed>
  void decode(Bytes codes, Words first, Words last, Element* to) const {
    const Bytes low = lookup(low_, codes), high = lookup(high_, codes);
    put<streamed>(to, moved((Words)zip_low(low, high), first));
    put<streamed>(to + 8, moved((Words)zip_high(low, high), last));
  }

 private:
  static Words moved(Words bits, Words step) { return bits + (step & (Words)((bits & uint16_t(0x7fff)) != 0)); }

  const Element* values_;
  const uint8_t* regular_;
  int shift_;
  Bytes low_, high_;
};

// 16 x 16 bytes in place: four rounds of a perfect shuffle of all 256 rotate their 8-bit index by half.
inline void transpose(Bytes* lines) {
  for (int round = 0; round < 4; ++round) {
    Bytes shuffled[kLanes];
    for (int i = 0; i < kLanes / 2; ++i) {
      shuffled[2 * i] = zip_low(lines[i], lines[i + kLanes / 2]);
      shuffled[2 * i + 1] = zip_high(lines[i], lines[i + kLanes / 2]);
    }
    std::memcpy(lines, shuffled, sizeof shuffled);
  }
}

template <typename Element>
inline Element* at(Element* out, int64_t row, int64_t stride) {
  return reinterpret_cast<Element*>(reinterpret_cast<char*>(out) + row * stride);
}

// Rows [row, end) of one group, value by value.
template <typename Element>
void look_up(const Matrix& m, const Format<Element>& format, int64_t group, int64_t row, int64_t end, Element* out) {
  for (; row < end; ++row) {
    const uint8_t* block = m.blocks + row * m.blocks_stride + group * kBlockBytes;
    const uint8_t scale = m.scales[row * m.scales_stride + group];
    for (int i = 0; i < kBlockBytes; ++i) {
      at(out, 32 * group + 2 * i, m.out_stride)[row] = format.value(scale, block[i] & 15);
      at(out, 32 * group + 2 * i + 1, m.out_stride)[row] = format.value(scale, block[i] >> 4);
    }
  }
}

// Rows [row, row + lines * kLanes) of all groups, to columns.
template <bool streamed, int lines, typename Element>
void decode_tile(const Matrix& m, const Format<Element>& format, int64_t row, Element* out) {
  const uint8_t* blocks = m.blocks + row * m.blocks_stride;
  const uint8_t* scales = m.scales + row * m.scales_stride;
  for (int64_t group = 0; group < m.groups; ++group) {
    Bytes packed[lines][kLanes];  // after transposing: the same byte of sixteen blocks
    Words first[lines], last[lines];
    bool regular = true;
    for (int line = 0; line < lines; ++line) {
      Bytes scale{};
      for (int i = 0; i < kLanes; ++i) {
        const int64_t r = line * kLanes + i;
        packed[line][i] = load(blocks + r * m.blocks_stride + group * kBlockBytes);
        scale[i] = scales[r * m.scales_stride + group];
        regular &= format.regular(scale[i]);
      }
      first[line] = format.step((Words)zip_low(scale, Bytes{}));
      last[line] = format.step((Words)zip_high(scale, Bytes{}));
    }
    if (!regular) {
      look_up(m, format, group, row, row + lines * kLanes, out);
      continue;
    }
    for (int line = 0; line < lines; ++line) transpose(packed[line]);
    for (int i = 0; i < kBlockBytes; ++i) {
      Element* even = at(out, 32 * group + 2 * i, m.out_stride) + row;
      Element* odd = at(out, 32 * group + 2 * i + 1, m.out_stride) + row;
      for (int line = 0; line < lines; ++line)
        format.template decode<streamed>(packed[line][i] & uint8_t(15), first[line], last[line], even + line * kLanes);
      for (int line = 0; line < lines; ++line)
        format.template decode<streamed>(packed[line][i] >> uint8_t(4), first[line], last[line], odd + line * kLanes);
    }
  }
}

template <bool streamed, typename Element>
void decode_columns(const Matrix& m, const Format<Element>& format, Element* out) {
  int64_t row = 0;
  for (; row + kTile <= m.rows; row += kTile) decode_tile<streamed, kTile / kLanes>(m, format, row, out);
  for (; row + kLanes <= m.rows; row += kLanes) decode_tile<false, 1>(m, format, row, out);
  for (int64_t group = 0; group < m.groups; ++group) look_up(m, format, group, row, m.rows, out);
}

inline bool fills_lines(const void* out, int64_t stride) {
  return reinterpret_cast<uintptr_t>(out) % kCacheLine == 0 && stride % kCacheLine == 0;
}

template <typename Element>
void decode(const Matrix& m, const Format<Element>& format, void* to) {
  Element* out = static_cast<Element*>(to);
  const bool streamed = fills_lines(out, m.out_stride);
  streamed ? decode_columns<true>(m, format, out) : decode_columns<false>(m, format, out);
#if defined(__SSE2__)
  if (streamed) _mm_sfence();  // so that the thread that gets the result sees it
#endif
}

}  // namespace

// Decodes [rows, groups, 16] and [rows, groups], both contiguous within a row, to [32 * groups, rows].
// `values` are [256][16] of `width` bytes each, `exponent_shift` is where the exponent field begins within their upper
// 16 bits.
extern "C" void mxfp4_decode(const uint8_t* blocks, const uint8_t* scales, void* out, int64_t rows, int64_t groups,
                             int64_t blocks_stride, int64_t scales_stride, int64_t out_stride, const void* values,
                             const uint8_t* regular, int32_t exponent_shift, int32_t width) {
  const Matrix m{blocks, scales, rows, groups, blocks_stride, scales_stride, out_stride};
  if (width == 2)
    decode(m, Format<uint16_t>(values, regular, exponent_shift), out);
  else
    decode(m, Format<uint32_t>(values, regular, exponent_shift), out);
}
