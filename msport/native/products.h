// Products of rows of x with one weight, or with the weight of the group to which each row is routed. Each weight that has
// rows is read once, in place, and no other weight.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "groups.h"
#include "matmul.h"
#include "parallel.h"
#include "transposed.h"

namespace msport {

struct Problem {
  const float* x;        // [tokens, depth]
  const int32_t* group;  // [rows], the weight of each row, or null: the only weight
  const float* bias;     // [weights, columns] or null
  float* y;              // [rows, columns]
  int64_t tokens, rows, depth, weights, columns;
};

// Vectors that no load splits between cache lines.
struct alignas(sizeof(Vector)) Aligned {
  float values[kLanes];
};

class Products {
 public:
  explicit Products(const Problem& problem) : p_(problem), groups_(size_t(problem.weights)) {}

  // 0, or 2 for a group that does not exist.
  template <typename Kind>
  int run(const Kind& kind) {
    if (!assign()) return 2;
    arrange_few(kind);
    constexpr int64_t kShare = 16;  // columns that stay with one thread
    const int64_t shares = (p_.columns + kShare - 1) / kShare;
    parallel(shares, double(p_.rows) * double(p_.depth) * kShare, [&](int64_t begin, int64_t end) {
      for (const Batch& batch : batches_)
        multiply(kind, batch, p_.columns, begin * kShare, std::min(end * kShare, p_.columns));
    });
    return 0;
  }

 private:
  // Sorts the rows by group.
  bool assign() {
    if (p_.group) {
      if (!gather(p_.group, p_.rows, groups_)) return false;
    } else {
      groups_[0].resize(size_t(p_.rows));
      std::iota(groups_[0].begin(), groups_[0].end(), 0);
    }
    x_.reserve(size_t(p_.rows));  // so that pointers to them stay valid
    y_.reserve(size_t(p_.rows));
    for (size_t g = 0; g < groups_.size(); ++g) {
      if (groups_[g].empty()) continue;
      const float* const bias = p_.bias ? p_.bias + int64_t(g) * p_.columns : nullptr;
      batches_.push_back({x_.data() + x_.size(), y_.data() + y_.size(), int64_t(groups_[g].size()), p_.depth, bias,
                          int64_t(g)});
      for (const int64_t row : groups_[g]) {
        x_.push_back(p_.x + row * p_.tokens / p_.rows * p_.depth);
        y_.push_back(p_.y + row * p_.columns);
      }
    }
    return true;
  }

  // Lets the batches of few rows read x as they need it.
  template <typename Kind>
  void arrange_few(const Kind& kind) {
    const auto few = [](const Batch& batch) { return batch.rows <= kFewRows<Kind>; };
    const int64_t stride = arranged_depth(kind);
    if (stride == 0 || std::none_of(batches_.begin(), batches_.end(), few)) return;
    arranged_.resize(size_t(p_.tokens * stride + kLanes - 1) / kLanes);
    float* const arranged = arranged_[0].values;
    for (int64_t t = 0; t < p_.tokens; ++t) arrange(kind, p_.x + t * p_.depth, arranged + t * stride);
    for (const Batch& batch : batches_)
      if (few(batch))
        for (int64_t r = 0; r < batch.rows; ++r) {
          const float*& x = x_[size_t(batch.x - x_.data() + r)];
          x = arranged + (x - p_.x) / p_.depth * stride;
        }
  }

  const Problem p_;
  std::vector<std::vector<int64_t>> groups_;
  std::vector<const float*> x_;
  std::vector<float*> y_;
  std::vector<Batch> batches_;
  std::vector<Aligned> arranged_;
};

}  // namespace msport
