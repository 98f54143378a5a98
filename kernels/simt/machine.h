// A CUDA machine made of fibers: blocks over host threads, one fiber for each CUDA thread. What it runs is
// the source of the CUDA kernels; what it is for is finding their bugs.
#pragma once

#include "engine/parallel.h"
#include "kernels/cuda/gpu_device.h"

namespace topolm::simt {

/// Which thread of a block runs next, and in which order blocks do. Kernels must not care.
enum class Order {
  forward,
  reverse,
  random,    // uniform: fair, so no thread gets far ahead of the others
  priority,  // random priorities, whole warps together, drawn anew at every barrier: finds missing barriers
};

struct Settings {
  Order order = Order::forward;
  uint64_t seed = 1;
};

/// Runs a launch to its end. Throws Error naming the kernel when a thread does what CUDA forbids.
void run(const Launch& launch, const Settings& settings, ThreadPool& pool);

}  // namespace topolm::simt
