#include "kernels/cuda/gpu_kernels.h"

namespace topolm::TOPOLM_GPU {

void GpuKernels::gelu_forward(const Tensor&, const Tensor&, Gelu) {
  refuse("gelu_forward: there is no CUDA kernel yet");
}
void GpuKernels::gelu_backward(const Tensor&, const Tensor&, const Tensor&, Gelu) {
  refuse("gelu_backward: there is no CUDA kernel yet");
}

}  // namespace topolm::TOPOLM_GPU
