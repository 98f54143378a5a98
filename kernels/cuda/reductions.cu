#include "kernels/cuda/gpu_kernels.h"

namespace topolm::TOPOLM_GPU {

void GpuKernels::sum(const Tensor&, const Tensor&) { refuse("sum: there is no CUDA kernel yet"); }
void GpuKernels::sum_of_squares(const Tensor&, const Tensor&) {
  refuse("sum_of_squares: there is no CUDA kernel yet");
}
void GpuKernels::gradient_norm(const Tensor&, const Tensor&, float) {
  refuse("gradient_norm: there is no CUDA kernel yet");
}

}  // namespace topolm::TOPOLM_GPU
