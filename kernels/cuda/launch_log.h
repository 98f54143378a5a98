// Launches as data, for reports: what was launched, in which shape, and what it must move and compute.
#pragma once

#include <string>
#include <vector>

#include "kernels/cuda/gpu_device.h"

namespace topolm {

struct LaunchRecord {
  std::string kernel;    // as in the source: "layernorm_forward_kernel<T>"
  const void* function;  // tells the instantiations apart
  Grid grid;
  Work work;
};

/// In the order of the launches.
using LaunchLog = std::vector<LaunchRecord>;

}  // namespace topolm
