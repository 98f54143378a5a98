#include "kernels/cuda/gpu_kernels.h"

namespace topolm::TOPOLM_GPU {

void GpuKernels::embedding_forward(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                   const Tensor&) {
  refuse("embedding_forward: there is no CUDA kernel yet");
}
void GpuKernels::embedding_backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                    const Tensor&) {
  refuse("embedding_backward: there is no CUDA kernel yet");
}

}  // namespace topolm::TOPOLM_GPU
