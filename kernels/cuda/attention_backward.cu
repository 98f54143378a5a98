#include "kernels/cuda/gpu_kernels.h"

namespace topolm::TOPOLM_GPU {

void GpuKernels::attention_backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                    int) {
  refuse("attention_backward: there is no CUDA kernel yet");
}

}  // namespace topolm::TOPOLM_GPU
