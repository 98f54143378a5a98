// Named ranges around operations and phases. Where a profiler that knows NVTX is attached (Nsight Systems,
// Nsight Compute), each is a range of the domain "topolm"; and they add up time by name for ./bench. Without
// either, a range costs two branches.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace topolm {

class Range {
 public:
  /// `index` says which one, where there are several: the step, the block, the site, the position. A profiler
  /// shows "block 3" and has the number as the payload. `name` must be a literal: it is kept.
  explicit Range(const char* name, int64_t index = -1);
  ~Range();
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;

 private:
  const char* name_;
  Range* parent_ = nullptr;
  int64_t start_ = 0, children_ = 0;
};

struct RangeTotal {
  double seconds = 0;  // self time: ranges inside are not counted
  int64_t calls = 0;
};

/// Starts counting from zero, or stops. Only ranges of the calling thread are counted.
void profile_ranges(bool on);
std::map<std::string, RangeTotal> range_totals();

}  // namespace topolm
