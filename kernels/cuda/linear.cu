// Linear layers: the shapes are checked here; the products are the library's, or our own kernels'.
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/gpu_kernels.h"

namespace topolm::TOPOLM_GPU {

void GpuKernels::linear_forward(const Tensor& y, const Tensor& x, const Tensor& weight) {
  const Range range("linear");
  if (products_ && products_->forward(y, x, weight)) return;
  refuse("linear_forward: there is no CUDA kernel yet");
}

void GpuKernels::linear_backward_input(const Tensor& dx, const Tensor& dy, const Tensor& weight) {
  const Range range("linear_backward_input");
  if (products_ && products_->backward_input(dx, dy, weight)) return;
  refuse("linear_backward_input: there is no CUDA kernel yet");
}

void GpuKernels::linear_backward_weight(const Tensor& dweight, const Tensor& dy, const Tensor& x) {
  const Range range("linear_backward_weight");
  if (products_ && products_->backward_weight(dweight, dy, x)) return;
  refuse("linear_backward_weight: there is no CUDA kernel yet");
}

}  // namespace topolm::TOPOLM_GPU
