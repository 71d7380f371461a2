// Assigns rows to groups, for products with one weight per group: mixtures of experts.
#pragma once

#include <cstdint>
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

}  // namespace msport
