// What happens between the projections and the scores: queries and keys are rotated, keys and values go to the caches.
//
// MindSpore would need a kernel for each rotation and for each cache.

#include <algorithm>
#include <cstdint>

#include "parallel.h"

namespace {

// to = the two halves of `from` [size], rotated by the angles with these cosines and sines [size / 2].
void rotate(const float* from, const float* cos, const float* sin, int64_t size, float* to) {
  const int64_t half = size / 2;
  for (int64_t i = 0; i < half; ++i) {
    to[i] = from[i] * cos[i] - from[half + i] * sin[i];
    to[half + i] = from[half + i] * cos[i] + from[i] * sin[i];
  }
}

}  // namespace

// query [batch, seq, heads, head_dim]; key and value [batch, seq, groups, head_dim]; cos and sin [batch, seq, 1,
// head_dim / 2]; both caches [rows, head_dim], in which rows change; slots [batch * seq * groups] int32, the rows of the
// new keys and values, each at most once -> the rotated query.
extern "C" int rotate_and_cache(int count, void** params, int*, int64_t** shapes, const char**, void*, void*) {
  if (count != 9) return 1;
  const float* query = static_cast<const float*>(params[0]);
  const float* key = static_cast<const float*>(params[1]);
  const float* value = static_cast<const float*>(params[2]);
  const float* cos = static_cast<const float*>(params[3]);
  const float* sin = static_cast<const float*>(params[4]);
  float* keys = static_cast<float*>(params[5]);
  float* values = static_cast<float*>(params[6]);
  const int32_t* slots = static_cast<const int32_t*>(params[7]);
  float* rotated = static_cast<float*>(params[8]);
  const int64_t tokens = shapes[0][0] * shapes[0][1], heads = shapes[0][2], size = shapes[0][3], groups = shapes[1][2];
  const int64_t rows = shapes[5][0];
  if (std::any_of(slots, slots + tokens * groups, [=](int32_t slot) { return slot < 0 || slot >= rows; })) return 2;
  msport::parallel(tokens, 4.0 * double((heads + groups) * size), [=](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* const c = cos + t * (size / 2);
      const float* const s = sin + t * (size / 2);
      for (int64_t h = t * heads; h < (t + 1) * heads; ++h) rotate(query + h * size, c, s, size, rotated + h * size);
      for (int64_t g = t * groups; g < (t + 1) * groups; ++g) {
        rotate(key + g * size, c, s, size, keys + int64_t{slots[g]} * size);
        std::copy(value + g * size, value + (g + 1) * size, values + int64_t{slots[g]} * size);
      }
    }
  });
  return 0;
}
