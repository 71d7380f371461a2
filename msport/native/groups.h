// Assigns rows to groups, for products with one weight per group: mixtures of experts.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

namespace msport {

// The rows of each group; `group` holds the group of each row. False if a group does not exist.
inline bool gather(const int32_t* group, int64_t rows, std::vector<std::vector<int64_t>>& groups) {
  for (int64_t r = 0; r < rows; ++r) {
    if (group[r] < 0 || group[r] >= int64_t(groups.size())) return false;
    groups[group[r]].push_back(r);
  }
  return true;
}

// Sets each row of y [rows, columns] to the bias [groups, columns] of its group, or to zeros without one.
inline void start(const int32_t* group, const float* bias, int64_t rows, int64_t columns, float* y) {
  const size_t bytes = sizeof(float) * size_t(columns);
  for (int64_t r = 0; r < rows; ++r) {
    if (bias)
      std::memcpy(y + r * columns, bias + group[r] * columns, bytes);
    else
      std::memset(y + r * columns, 0, bytes);
  }
}

}  // namespace msport
