// Named ranges around operations. Off, they cost a branch; on, they add up time by name for ./bench and
// become NVTX ranges where there is a profiler.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace topolm {

class Range {
 public:
  explicit Range(const char* name);
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
