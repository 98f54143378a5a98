#include "kernels/cuda/gpu_kernels.h"

namespace topolm::TOPOLM_GPU {

void GpuKernels::attention_forward(const Tensor&, const Tensor&, const Tensor&, int) {
  refuse("attention_forward: there is no CUDA kernel yet");
}

}  // namespace topolm::TOPOLM_GPU
