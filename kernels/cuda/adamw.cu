#include "kernels/cuda/gpu_kernels.h"

namespace topolm::TOPOLM_GPU {

void GpuKernels::adamw(std::span<const AdamWTensor>, const Tensor&, const AdamWStep&) {
  refuse("adamw: there is no CUDA kernel yet");
}

}  // namespace topolm::TOPOLM_GPU
