// Operations that are still to come.
#include "engine/error.h"
#include "kernels/cpu/cpu_kernels.h"

namespace topolm::TOPOLM_ISA {

void CpuKernels::embedding_forward(const Tensor&, const Tensor&, const Tensor&, const Tensor&, int64_t) {
  fail("embedding_forward is missing");
}
void CpuKernels::embedding_backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&) {
  fail("embedding_backward is missing");
}
void CpuKernels::gelu_forward(const Tensor&, const Tensor&, Gelu) { fail("gelu_forward is missing"); }
void CpuKernels::gelu_backward(const Tensor&, const Tensor&, const Tensor&, Gelu) {
  fail("gelu_backward is missing");
}
void CpuKernels::cross_entropy_forward(const Tensor&, const Tensor&, const Tensor&) {
  fail("cross_entropy_forward is missing");
}
void CpuKernels::cross_entropy_backward(const Tensor&, const Tensor&, const Tensor&, float) {
  fail("cross_entropy_backward is missing");
}
void CpuKernels::spatial_loss_forward(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                      const Tensor&, const Tensor&, Aggregation) {
  fail("spatial_loss_forward is missing");
}
void CpuKernels::spatial_loss_backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                       const Tensor&, float) {
  fail("spatial_loss_backward is missing");
}
void CpuKernels::sum(const Tensor&, const Tensor&) { fail("sum is missing"); }
void CpuKernels::sum_of_squares(const Tensor&, const Tensor&) { fail("sum_of_squares is missing"); }
void CpuKernels::gradient_norm(const Tensor&, const Tensor&, float) { fail("gradient_norm is missing"); }
void CpuKernels::adamw(std::span<const AdamWTensor>, const Tensor&, const AdamWStep&) {
  fail("adamw is missing");
}

}  // namespace topolm::TOPOLM_ISA
