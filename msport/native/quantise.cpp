// Groups of weights to int4 or int8 codes: see msport/encodings/quantise.py, whose NumPy form is the definition.
//
// A lane of a vector is a group, so a group's sums run in the order of its inputs on every processor, and nothing is
// added across lanes. Compile with -ffp-contract=off: NumPy does not fuse a product and a sum.
//
// A call runs only on the calling thread, because the converter already has one thread per core.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX512F__)
#include <immintrin.h>
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

namespace {

typedef float Floats __attribute__((vector_size(kLanes * 4)));
typedef int32_t Integers __attribute__((vector_size(kLanes * 4)));
typedef int16_t Shorts __attribute__((vector_size(kLanes * 2)));
typedef int8_t Bytes __attribute__((vector_size(kLanes)));

enum Type : int32_t { kFloat32, kFloat16, kBfloat16 };

constexpr int32_t kMagnitude = 0x7fffffff;
constexpr int32_t kInfinity = 0x7f800000;
constexpr int kTogether = 3;  // candidates whose sums are independent, so that their additions overlap

inline Floats all(float value) { return Floats{} + value; }

// `nearest`: to an integer, the even one of two, for magnitudes below 2**22.
#if defined(__AVX512F__)
inline Floats smaller(Floats a, Floats b) { return _mm512_min_ps(a, b); }
inline Floats larger(Floats a, Floats b) { return _mm512_max_ps(a, b); }
inline Floats nearest(Floats v) {
  return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#else
inline Floats smaller(Floats a, Floats b) { return a < b ? a : b; }
inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }
inline Floats nearest(Floats v) {
  const float magic = 12582912.0f;  // 1.5 * 2**23: the sum has no room for a fraction
  return (v + magic) - magic;
}
#endif

inline Floats clip(Floats v, Floats low, Floats high) { return smaller(larger(v, low), high); }

template <typename Vector>
inline Vector pick(Integers where, Vector yes, Vector no) {
  return where ? yes : no;
}

// The upper bits of float32 values, rounded to nearest even, without the last `dropped` ones.
inline Floats shortened(Floats v, int dropped) {
  const Integers bits = (Integers)v;
  const Integers even = (bits >> dropped) & 1;
  return (Floats)((bits + ((1 << (dropped - 1)) - 1) + even) & ~((1 << dropped) - 1));
}

// `v` as a number of `type`, in float32. A magnitude that it has only below its smallest scale becomes that scale.
inline Floats as_scale(Floats v, Type type) {
  const Floats sign = (Floats)((Integers)v & ~kMagnitude);
  Floats size = (Floats)((Integers)v & kMagnitude);
  float least = 0x1p-126f;
  if (type == kFloat16) {
    const Floats below = (size + 0.5f) - 0.5f;  // multiples of 2**-24
    size = pick(size < 0x1p-14f, below, shortened(size, 13));
    size = pick(size > 65504.0f, (Floats)(Integers{} + kInfinity), size);
    least = 0x1p-24f;
  } else if (type == kBfloat16) {
    size = shortened(size, 16);
  }
  size = larger(size, all(least));
  return (Floats)((Integers)size | (Integers)sign);
}

// The low and the high halves of two vectors, their elements in turn.
#if defined(__clang__)
#define MSPORT_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define MSPORT_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Integers{__VA_ARGS__})
#endif

inline Integers zip_low(Integers a, Integers b) {
#if defined(__AVX512F__)
  return MSPORT_SHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
#elif defined(__AVX2__)
  return MSPORT_SHUFFLE(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
#else
  return MSPORT_SHUFFLE(a, b, 0, 4, 1, 5);
#endif
}

inline Integers zip_high(Integers a, Integers b) {
#if defined(__AVX512F__)
  return MSPORT_SHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
#elif defined(__AVX2__)
  return MSPORT_SHUFFLE(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#else
  return MSPORT_SHUFFLE(a, b, 2, 6, 3, 7);
#endif
}

// kLanes vectors in place: log2(kLanes) rounds of a perfect shuffle of all elements.
inline void transpose(Integers* lines) {
  for (int round = 1; round < kLanes; round *= 2) {
    Integers shuffled[kLanes];
    for (int i = 0; i < kLanes / 2; ++i) {
      shuffled[2 * i] = zip_low(lines[i], lines[i + kLanes / 2]);
      shuffled[2 * i + 1] = zip_high(lines[i], lines[i + kLanes / 2]);
    }
    std::memcpy(lines, shuffled, sizeof shuffled);
  }
}

inline int32_t widen(uint16_t half) {
  const int32_t size = (half & 0x7fff) << 13;
  float value;
  std::memcpy(&value, &size, sizeof value);
  value *= 0x1p112f;  // float32 has 112 more in its exponent
  int32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if ((half & 0x7c00) == 0x7c00) bits |= kInfinity;
  return bits | (half & 0x8000) << 16;
}

inline int32_t value_bits(const char* from, int64_t i, Type type) {
  int32_t whole;
  uint16_t half;
  if (type == kFloat32) {
    std::memcpy(&whole, from + 4 * i, sizeof whole);
    return whole;
  }
  std::memcpy(&half, from + 2 * i, sizeof half);
  return type == kBfloat16 ? int32_t(uint32_t(half) << 16) : widen(half);
}

// kLanes values from number i on.
inline Integers load(const char* from, int64_t i, Type type) {
  Integers bits;
  Shorts halves;
  if (type == kFloat32) {
    std::memcpy(&bits, from + 4 * i, sizeof bits);
    return bits;
  }
  std::memcpy(&halves, from + 2 * i, sizeof halves);
  if (type == kBfloat16) return __builtin_convertvector(halves, Integers) << 16;
  const Integers wide = __builtin_convertvector(halves, Integers);
  const Integers size = (Integers)((Floats)((wide & 0x7fff) << 13) * 0x1p112f);
  const Integers special = ((wide & 0x7c00) == 0x7c00) & kInfinity;
  return size | special | ((wide & 0x8000) << 16);
}

struct Job {
  const char* values;
  int64_t inputs, group, values_stride, codes_stride, scales_stride;  // strides in bytes, from one output to the next
  Type type, scale_type;
  int32_t bits;
  const float* candidates;
  int64_t candidate_count;
  char *codes, *scales, *offsets;  // offsets: null if the codes are symmetric

  int64_t groups() const { return inputs / group; }
  int64_t value_size() const { return type == kFloat32 ? 4 : 2; }
  int64_t scale_size() const { return scale_type == kFloat32 ? 4 : 2; }
  const char* group_of(int64_t number) const {
    return values + number / groups() * values_stride + number % groups() * group * value_size();
  }
  char* codes_of(int64_t number) const {
    return codes + number / groups() * codes_stride + number % groups() * group * bits / 8;
  }
  int64_t place_of(int64_t number) const {
    return number / groups() * scales_stride + number % groups() * scale_size();
  }
};

// What the search knows of kLanes groups.
struct Range {
  Floats span;    // symmetric: the value of largest magnitude; else from the least to the greatest value
  Floats middle;  // of the least and the greatest value; unused if symmetric
};

struct Levels {
  Floats scale, inverse, low, high;
};

class Groups {
 public:
  explicit Groups(const Job& job) : job_(job), values_(size_t(job.group)), top_(float((1 << job.bits) - 1)) {}

  // Fills kLanes groups, those behind `count` with the first one again. False if a value is not finite.
  bool read(int64_t first, int64_t count) {
    const char* from[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) from[lane] = job_.group_of(first + (lane < count ? lane : 0));
    Integers largest{};
    int64_t i = 0;
    for (; i + kLanes <= job_.group; i += kLanes) {
      Integers lines[kLanes];
      for (int lane = 0; lane < kLanes; ++lane) lines[lane] = load(from[lane], i, job_.type);
      transpose(lines);
      for (int k = 0; k < kLanes; ++k) largest = keep(i + k, lines[k], largest);
    }
    for (; i < job_.group; ++i) {
      Integers line{};
      for (int lane = 0; lane < kLanes; ++lane) line[lane] = value_bits(from[lane], i, job_.type);
      largest = keep(i, line, largest);
    }
    for (int lane = 0; lane < kLanes; ++lane)
      if (largest[lane] >= kInfinity) return false;
    return true;
  }

  void quantise(int64_t first, int64_t count) {
    const Range range = bounds();
    Levels best = levels(as_scale(range.span / job_.candidates[0], job_.scale_type), range);
    search(range, &best);
    write(best, first, count);
  }

 private:
  Integers keep(int64_t i, Integers bits, Integers largest) {
    values_[size_t(i)] = (Floats)bits;
    const Integers size = bits & kMagnitude;
    return pick(size > largest, size, largest);
  }

  Range bounds() const {
    Floats low = values_[0], high = values_[0];
    for (const Floats& v : values_) {
      low = smaller(low, v);
      high = larger(high, v);
    }
    Range range{};
    if (job_.offsets == nullptr) {
      range.span = pick(high >= -low, high, low);
    } else {
      low = smaller(low, Floats{});
      high = larger(high, Floats{});
      range.span = high - low;
      range.middle = (low + high) * 0.5f;
    }
    range.span = pick(range.span == 0.0f, all(job_.candidates[0]), range.span);
    return range;
  }

  Levels levels(Floats scale, const Range& range) const {
    Levels found{scale, 1.0f / scale, all(-0.5f * (top_ + 1)), Floats{}};
    if (job_.offsets != nullptr)
      found.low = clip(nearest(range.middle * found.inverse - 0.5f * top_), all(-top_), Floats{});
    found.high = found.low + top_;
    return found;
  }

  static Floats level(Floats value, const Levels& at) { return nearest(clip(value, at.low, at.high)); }

  // The squared errors of kTogether candidates. A bound that no value reaches need not be applied.
  template <bool low, bool high>
  void measure(const Levels* at, Floats* errors) const {
    Floats sums[kTogether] = {};
    for (const Floats& v : values_) {
      for (int k = 0; k < kTogether; ++k) {
        const Floats scaled = v * at[k].inverse;
        Floats bounded = low ? larger(scaled, at[k].low) : scaled;
        if (high) bounded = smaller(bounded, at[k].high);
        const Floats rest = scaled - nearest(bounded);
        sums[k] += rest * rest;
      }
    }
    for (int k = 0; k < kTogether; ++k) errors[k] = sums[k] * at[k].scale * at[k].scale;
  }

  // Whether some value of symmetric groups is so large that it is not rounded to `bound` or a smaller magnitude.
  static bool reach(const Range& range, const Levels* at, float bound) {
    Integers beyond{};
    for (int k = 0; k < kTogether; ++k) {
      const Floats largest = range.span * at[k].inverse;
      beyond |= !(largest < bound + 0.5f) | !(largest > -(bound + 0.5f));
    }
    int32_t any = 0;
    for (int lane = 0; lane < kLanes; ++lane) any |= beyond[lane];
    return any != 0;
  }

  void measure(const Range& range, const Levels* at, Floats* errors) const {
    const float bound = 0.5f * (top_ + 1);
    if (job_.offsets != nullptr || reach(range, at, bound))
      measure<true, true>(at, errors);
    else if (reach(range, at, bound - 1))
      measure<false, true>(at, errors);
    else
      measure<false, false>(at, errors);
  }

  void search(const Range& range, Levels* best) const {
    Floats least{};
    for (int64_t begin = 0; begin < job_.candidate_count; begin += kTogether) {
      Levels at[kTogether];
      Floats errors[kTogether];
      for (int k = 0; k < kTogether; ++k) {
        // A place that is left over holds the last candidate again, which is never better than itself.
        const float candidate = job_.candidates[std::min(begin + k, job_.candidate_count - 1)];
        at[k] = levels(as_scale(range.span / candidate, job_.scale_type), range);
      }
      measure(range, at, errors);
      if (begin == 0) least = errors[0];
      for (int k = 0; k < kTogether; ++k) {
        const Integers better = errors[k] < least;
        best->scale = pick(better, at[k].scale, best->scale);
        best->inverse = pick(better, at[k].inverse, best->inverse);
        best->low = pick(better, at[k].low, best->low);
        best->high = pick(better, at[k].high, best->high);
        least = pick(better, errors[k], least);
      }
    }
  }

  void write(const Levels& at, int64_t first, int64_t count) {
    const Floats offset = at.low + 0.5f * (top_ + 1);
    for (int lane = 0; lane < count; ++lane) {
      const int64_t place = job_.place_of(first + lane);
      store(job_.scales + place, at.scale[lane]);
      if (job_.offsets != nullptr) store(job_.offsets + place, offset[lane]);
    }
    char* to[kLanes];
    for (int lane = 0; lane < count; ++lane) to[lane] = job_.codes_of(first + lane);
    const int per_byte = 8 / job_.bits;
    const int64_t bytes = job_.group / per_byte;
    int64_t i = 0;
    for (; i + kLanes <= bytes; i += kLanes) {
      Integers lines[kLanes];
      for (int k = 0; k < kLanes; ++k) lines[k] = byte(i + k, at, offset);
      transpose(lines);
      for (int lane = 0; lane < count; ++lane) {
        const Bytes line = __builtin_convertvector(lines[lane], Bytes);
        std::memcpy(to[lane] + i, &line, sizeof line);
      }
    }
    for (; i < bytes; ++i) {
      const Integers line = byte(i, at, offset);
      for (int lane = 0; lane < count; ++lane) to[lane][i] = char(line[lane]);
    }
  }

  // Byte i of each group: one code or two.
  Integers byte(int64_t i, const Levels& at, Floats offset) const {
    if (job_.bits == 8) return code(i, at, offset);
    return (code(2 * i, at, offset) & 15) | (code(2 * i + 1, at, offset) & 15) << 4;
  }

  Integers code(int64_t i, const Levels& at, Floats offset) const {
    return __builtin_convertvector(level(values_[size_t(i)] * at.inverse, at) - offset, Integers);
  }

  // `value` is one of the scales' type.
  void store(char* to, float value) const {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if (job_.scale_type == kFloat32) {
      std::memcpy(to, &bits, sizeof bits);
      return;
    }
    uint16_t half = uint16_t(bits >> 16);
    if (job_.scale_type == kFloat16) {
      const uint32_t size = bits & kMagnitude;
      float magnitude;
      std::memcpy(&magnitude, &size, sizeof magnitude);
      half = uint16_t((bits >> 16) & 0x8000);
      if (magnitude < 0x1p-14f)
        half |= uint16_t(magnitude * 0x1p24f);
      else
        half |= uint16_t(std::min(size - (112u << 23), 0x7c00u << 13) >> 13);
    }
    std::memcpy(to, &half, sizeof half);
  }

  const Job& job_;
  std::vector<Floats> values_;  // [group]
  float top_;                   // the greatest code above the least one
};

}  // namespace

// Quantises `rows` outputs of `inputs` values each, which are contiguous within an output, as are codes, scales and
// offsets. `offsets` may be null. The types are 0: float32, 1: float16, 2: bfloat16. Returns 1, with the results
// undefined, if a value is NaN or infinite, else 0.
extern "C" int32_t quantise_groups(const void* values, int64_t rows, int64_t inputs, int64_t group,
                                   int64_t values_stride, int32_t type, int32_t bits, int32_t scale_type,
                                   const float* candidates, int64_t candidate_count, void* codes, int64_t codes_stride,
                                   void* scales, void* offsets, int64_t scales_stride) {
  const Job job{static_cast<const char*>(values),
                inputs,
                group,
                values_stride,
                codes_stride,
                scales_stride,
                Type(type),
                Type(scale_type),
                bits,
                candidates,
                candidate_count,
                static_cast<char*>(codes),
                static_cast<char*>(scales),
                static_cast<char*>(offsets)};
  Groups groups(job);
  const int64_t total = rows * job.groups();
  for (int64_t first = 0; first < total; first += kLanes) {
    const int64_t count = std::min<int64_t>(kLanes, total - first);
    if (!groups.read(first, count)) return 1;
    groups.quantise(first, count);
  }
  return 0;
}
