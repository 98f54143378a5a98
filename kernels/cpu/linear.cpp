// Linear layers: three matrix products.
#include "engine/profile.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/linear_few.h"

namespace topolm::TOPOLM_ISA {

void CpuKernels::linear_forward(const Tensor& y, const Tensor& x, const Tensor& weight) {
  const Range range("linear");
  const int64_t n = x.rows(), in = x.cols(), out = weight.rows();
  check_shape("linear_forward", "weight", weight, {out, in});
  check_shape("linear_forward", "y", y.view({y.rows(), y.cols()}), {n, out});
  if (n > kFewRows)
    return gemm(pool_, workspace_, matrix(y), matrix(x), matrix(weight).transposed(), n, out, in, false);

  linear_few_rows(pool_, workspace_, y, x, weight);
}

void CpuKernels::linear_backward_input(const Tensor& dx, const Tensor& dy, const Tensor& weight) {
  const Range range("linear_backward_input");
  const int64_t n = dy.rows(), in = dx.cols(), out = dy.cols();
  check_shape("linear_backward_input", "weight", weight, {out, in});
  check_shape("linear_backward_input", "dx", dx.view({dx.rows(), in}), {n, in});
  gemm(pool_, workspace_, matrix(dx), matrix(dy), matrix(weight), n, in, out, false);
}

void CpuKernels::linear_backward_weight(const Tensor& dweight, const Tensor& dy, const Tensor& x) {
  const Range range("linear_backward_weight");
  const int64_t n = dy.rows(), in = x.cols(), out = dy.cols();
  (void)dweight.f32();
  check_shape("linear_backward_weight", "dweight", dweight, {out, in});
  check_shape("linear_backward_weight", "x", x.view({x.rows(), in}), {n, in});
  gemm(pool_, workspace_, matrix(dweight), matrix(dy).transposed(), matrix(x), out, in, n, true);
}

}  // namespace topolm::TOPOLM_ISA
