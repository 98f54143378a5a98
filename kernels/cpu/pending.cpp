// Operations that are still to come.
#include "engine/error.h"
#include "kernels/cpu/cpu_kernels.h"

namespace topolm::TOPOLM_ISA {

void CpuKernels::attention_forward(const Tensor&, const Tensor&, const Tensor&, int) {
  fail("attention_forward is missing");
}
void CpuKernels::attention_backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                    int) {
  fail("attention_backward is missing");
}
void CpuKernels::attention_cached(const Tensor&, const Tensor&, const Tensor&, const Tensor&, int64_t, int) {
  fail("attention_cached is missing");
}
void CpuKernels::spatial_loss_forward(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                      const Tensor&, const Tensor&, Aggregation) {
  fail("spatial_loss_forward is missing");
}
void CpuKernels::spatial_loss_backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                       const Tensor&, float) {
  fail("spatial_loss_backward is missing");
}

}  // namespace topolm::TOPOLM_ISA
