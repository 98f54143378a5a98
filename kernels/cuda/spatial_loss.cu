#include "kernels/cuda/gpu_kernels.h"

namespace topolm::TOPOLM_GPU {

void GpuKernels::spatial_loss_forward(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                      const Tensor&, const Tensor&, Aggregation) {
  refuse("spatial_loss_forward: there is no CUDA kernel yet");
}
void GpuKernels::spatial_loss_backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                       const Tensor&, float) {
  refuse("spatial_loss_backward: there is no CUDA kernel yet");
}

}  // namespace topolm::TOPOLM_GPU
