#include "engine/profile.h"

#include <chrono>

#include "engine/nvtx.h"

namespace topolm {

namespace {

int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

struct Recorder {
  bool on = false;
  Range* open = nullptr;
  std::map<std::string, RangeTotal> totals;
};
thread_local Recorder recorder;

}  // namespace

Range::Range(const char* name, int64_t index) : name_(name) {
  if (nvtx_listens()) nvtx_push(name, index);
  if (!recorder.on) return;
  parent_ = recorder.open;
  recorder.open = this;
  start_ = now();
}

Range::~Range() {
  if (nvtx_listens()) nvtx_pop();
  if (recorder.open != this) return;
  const int64_t elapsed = now() - start_;
  RangeTotal& total = recorder.totals[name_];
  total.seconds += static_cast<double>(elapsed - children_) * 1e-9;
  ++total.calls;
  if (parent_) parent_->children_ += elapsed;
  recorder.open = parent_;
}

void profile_ranges(bool on) {
  recorder = {};
  recorder.on = on;
}

std::map<std::string, RangeTotal> range_totals() { return recorder.totals; }

}  // namespace topolm
