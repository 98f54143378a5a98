#pragma once

#include "kernels/cuda/gpu_device.h"

namespace topolm::TOPOLM_GPU {

constexpr int kWrapperOutputs = 25;  // words a lane

/// Runs a kernel of one warp that uses every wrapper of inline PTX. in: 512 words; out: 32 kWrapperOutputs.
void launch_wrappers(GpuDevice& device, uint32_t* out, const uint32_t* in);

}  // namespace topolm::TOPOLM_GPU
