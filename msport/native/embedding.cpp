// Rows of a table of embeddings, widened to float32. The table stays as it lies.

#include <cstdint>
#include <cstring>

#include "parallel.h"
#include "weights.h"

namespace {

template <typename Format>
void look_up(const int32_t* ids, int64_t count, const void* table, int64_t hidden, float* y) {
  const auto* const rows = static_cast<const typename Format::Element*>(table);
  msport::parallel(count, double(hidden), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) msport::widen<Format>(rows + ids[i] * hidden, hidden, y + i * hidden);
  });
}

}  // namespace

// ids [...] int32, table [vocabulary, hidden] float32, float16 or bfloat16 -> [..., hidden] float32. Returns 1 for inputs
// that do not fit, 2 for an id that is not in the table.
extern "C" int embedding(int count, void** params, int* ranks, int64_t** shapes, const char** dtypes, void*, void*) {
  if (count != 3) return 1;
  int64_t ids = 1;
  for (int i = 0; i < ranks[0]; ++i) ids *= shapes[0][i];
  const int32_t* id = static_cast<const int32_t*>(params[0]);
  for (int64_t i = 0; i < ids; ++i)
    if (id[i] < 0 || id[i] >= shapes[1][0]) return 2;
  const char* const dtype = dtypes[1];
  const auto found = std::strcmp(dtype, "float32") == 0    ? look_up<msport::Float32>
                     : std::strcmp(dtype, "float16") == 0  ? look_up<msport::Float16>
                     : std::strcmp(dtype, "bfloat16") == 0 ? look_up<msport::BFloat16>
                                                           : nullptr;
  if (!found) return 1;
  found(id, ids, params[1], shapes[1][1], static_cast<float*>(params[2]));
  return 0;
}
