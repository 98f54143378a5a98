// A CUDA machine made of fibers: blocks over host threads, one fiber for each CUDA thread. What it runs is
// the source of the CUDA kernels; what it is for is finding their bugs:
//   - any order of threads and blocks (schedule.h), the same one for the same seed, launch and block;
//   - shared memory is NaN when a block starts, and an asynchronous copy may land late;
//   - threads that do not meet as CUDA demands are an Error that names kernel, block, threads and lines;
//   - AddressSanitizer knows where each shared array ends; ThreadSanitizer takes every CUDA thread for a
//     thread, and knows of no order between them but that of barriers, __syncwarp and launches.
#pragma once

#include "engine/parallel.h"
#include "kernels/cuda/gpu_device.h"
#include "kernels/simt/schedule.h"

namespace topolm::simt {

// What every GPU from sm_80 on grants a block.
constexpr size_t kMaxStaticShared = 48 << 10, kMaxShared = 99 << 10;

/// Runs a launch, the `number`th of its device, to its end. Throws Error naming the kernel when it cannot
/// start, or when a thread does what CUDA forbids.
void run(const Launch& launch, uint64_t number, const Settings& settings, ThreadPool& pool);

}  // namespace topolm::simt
