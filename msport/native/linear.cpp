// Linear layers y = x * weight^T + bias, and those of experts, where each row is routed to the weight of a group.
//
// The weights stay as they lie, of any kind in weights.h, and are widened to float32 in registers; sums are float32. Each
// function returns 0, or 1 for inputs that do not fit, or 2 for a group that does not exist. Shapes:
//   x [tokens, depth] float32, y [rows, columns] float32, bias [columns] or [groups, columns] float32 (may be absent),
//   group [rows] int32 (grouped functions only), where rows / tokens consecutive rows share a row of x.

#include <cstdint>
#include <cstring>

#include "products.h"

using namespace msport;

namespace {

// The arguments of a call, as MindSpore passes them.
struct Call {
  int count;
  void** params;
  int* ranks;
  int64_t** shapes;
  const char** dtypes;  // null: all are float32
  bool grouped;

  int inputs() const { return count - 1; }
  int weight() const { return grouped ? 2 : 1; }  // the index of the first part of the weight
  bool is(int i, const char* dtype) const { return std::strcmp(dtypes ? dtypes[i] : "float32", dtype) == 0; }
  int64_t last(int i) const { return shapes[i][ranks[i] - 1]; }
  template <typename Element>
  const Element* at(int i) const {
    return static_cast<const Element*>(params[i]);
  }
};

// The product of a call with `columns` outputs; the bias, if any, is input `bias`.
template <typename Kind>
int run(const Call& c, const Kind& kind, int64_t columns, int bias) {
  if (bias < c.inputs() - 1) return 1;
  const int64_t tokens = c.shapes[0][0], rows = c.grouped ? c.shapes[1][0] : tokens;
  const int64_t weights = c.grouped ? c.shapes[2][0] : 1;
  if (tokens == 0 || rows == 0) return 0;
  return Products({c.at<float>(0), c.grouped ? c.at<int32_t>(1) : nullptr,
                   bias < c.inputs() ? c.at<float>(bias) : nullptr, static_cast<float*>(c.params[c.count - 1]), tokens,
                   rows, c.last(0), weights, columns})
      .run(kind);
}

template <typename Format>
int run_plain(const Call& c) {
  const auto* const weight = c.at<typename Format::Element>(c.weight());
  if (c.grouped) return run(c, Transposed<Format>{weight, c.last(0)}, c.shapes[2][2], 3);
  return run(c, Plain<Format>{weight, c.last(0)}, c.shapes[1][0], 2);
}

int plain(const Call& c) {
  if (c.inputs() <= c.weight()) return 1;
  if (c.is(c.weight(), "float32")) return run_plain<Float32>(c);
  if (c.is(c.weight(), "float16")) return run_plain<Float16>(c);
  if (c.is(c.weight(), "bfloat16")) return run_plain<BFloat16>(c);
  return 1;
}

// Scales, or offsets, which are input i.
Groups groups_of(const Call& c, int i) {
  const ScaleFormat format = c.is(i, "float16")    ? ScaleFormat::float16
                             : c.is(i, "bfloat16") ? ScaleFormat::bfloat16
                                                   : ScaleFormat::float32;
  return {c.params[i], format, c.last(i), c.last(0)};
}

// codes, scales, offsets (absent, or of the rank of the scales), bias (absent, or of a lower rank).
template <typename Plain, typename Shifted, typename Code>
int integers(const Call& c) {
  const int codes = c.weight(), scales = codes + 1, next = scales + 1;
  if (c.inputs() <= scales) return 1;
  const int64_t depth = c.last(0), columns = c.shapes[codes][c.ranks[codes] - 2];
  const Groups scale = groups_of(c, scales);
  if (next < c.inputs() && c.ranks[next] == c.ranks[scales])
    return run(c, Shifted{c.at<Code>(codes), scale, groups_of(c, next), depth}, columns, next + 1);
  return run(c, Plain{c.at<Code>(codes), scale, {}, depth}, columns, next);
}

int mxfp4(const Call& c) {
  const int blocks = c.weight(), scales = blocks + 1;
  if (c.inputs() <= scales) return 1;
  const int64_t depth = c.last(0);
  const Groups scale{c.params[scales], ScaleFormat::power, c.last(scales), depth};
  return run(c, Nibbles<Fp4, false>{c.at<uint8_t>(blocks), scale, {}, depth}, c.shapes[scales][c.ranks[scales] - 2],
             scales + 1);
}

}  // namespace

#define MSPORT_OPERATOR(name, function)                                                                      \
  extern "C" int name(int count, void** params, int* ranks, int64_t** shapes, const char** dtypes, void*, void*) { \
    return function({count, params, ranks, shapes, dtypes, false});                                                \
  }                                                                                                                \
  extern "C" int grouped_##name(int count, void** params, int* ranks, int64_t** shapes, const char** dtypes, void*, \
                                void*) {                                                                            \
    return function({count, params, ranks, shapes, dtypes, true});                                                  \
  }

// weight [columns, depth], grouped [groups, depth, columns], float32, float16 or bfloat16.
MSPORT_OPERATOR(linear, plain)

// blocks [.., columns, depth / 32, 16] uint8, scales [.., columns, depth / 32] uint8.
MSPORT_OPERATOR(linear_mxfp4, mxfp4)

// codes [.., columns, depth] int8, scales [.., columns, depth / size] float32, float16 or bfloat16, offsets as scales.
MSPORT_OPERATOR(linear_int8, (integers<Int8<false>, Int8<true>, int8_t>))

// codes [.., columns, depth / 2] uint8, the rest as for int8.
MSPORT_OPERATOR(linear_int4, (integers<Nibbles<Int4, false>, Nibbles<Int4, true>, uint8_t>))
