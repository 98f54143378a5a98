// Runs PTX on the machine of fibers: a kernel's instructions in place of its compiled source.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/gpu_device.h"

namespace topolm::ptx {

struct Kernel;

/// Device memory that a kernel may touch.
struct Memory {
  uint64_t begin = 1, end = 0;
};

/// Runs `kernel` as `launch` says, on `machine`, which runs any launch. Returns the number of instructions
/// executed. Throws Error naming the PTX file and line of an access outside of `memory` (ascending) or of the
/// kernel's arrays, of one that is not aligned, and for a launch that the kernel was not compiled for.
uint64_t run(const Kernel& kernel, const Launch& launch, std::vector<Memory> memory,
             const std::function<void(const Launch&)>& machine);

}  // namespace topolm::ptx
