// Small kernels, each with one bug that is easily made and hardly seen, and what must catch it. The same
// source without the bug must pass everything in silence.
#pragma once

#include <span>

#include "kernels/cuda/gpu_device.h"

namespace topolm::test {

using BugKernel = void (*)(float* out, const float* in);

constexpr int kBugInputs = 2048;

struct CaughtBy {
  /// Part of the Error that the machine throws under every schedule; null where it throws none.
  const char* message = nullptr;
  /// Letters of the schedules (forward, reverse, Random, priority) of which some seed gives wrong outputs; no
  /// seed of the others does.
  const char* wrong_under = "";
  /// Part of AddressSanitizer's or UBSan's report, and of ThreadSanitizer's; null where they see nothing.
  const char* address_report = nullptr;
  const char* thread_report = nullptr;
};

struct PlantedBug {
  const char* name;
  BugKernel buggy, correct;
  Grid grid;
  int outputs;
  CaughtBy caught_by;
};

std::span<const PlantedBug> planted_bugs();

/// Launch::call of all of them.
void call_bug(const void* kernel, std::span<const Argument> arguments);

}  // namespace topolm::test
