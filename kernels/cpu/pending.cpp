// Operations that are still to come.
#include "engine/error.h"
#include "kernels/cpu/cpu_kernels.h"

namespace topolm::TOPOLM_ISA {

void CpuKernels::linear_forward(const Tensor&, const Tensor&, const Tensor&) {
  fail("linear_forward is missing");
}
void CpuKernels::linear_backward_input(const Tensor&, const Tensor&, const Tensor&) {
  fail("linear_backward_input is missing");
}
void CpuKernels::linear_backward_weight(const Tensor&, const Tensor&, const Tensor&) {
  fail("linear_backward_weight is missing");
}
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

}  // namespace topolm::TOPOLM_ISA
