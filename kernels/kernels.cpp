#include "kernels/kernels.h"

#include "engine/error.h"

namespace topolm {

namespace {

[[noreturn]] void refuse_int8(Device& device) {
  fail("int8 weights are for the CPU, not for {}; use --device cpu, or leave out --weights int8",
       device.name());
}

}  // namespace

// Not inline: a copy compiled for an instruction set could be the one that the linker keeps.
std::string Kernels::matrix_plans() const { return ""; }

void Kernels::linear_gelu_forward(const Tensor& out, const Tensor& hidden, const Tensor& x,
                                  const Tensor& weight, Gelu kind) {
  linear_forward(hidden, x, weight);
  gelu_forward(out, hidden, kind);
}

void Kernels::linear_gelu_backward(const Tensor& dhidden, const Tensor& dy, const Tensor& weight,
                                   const Tensor& hidden, Gelu kind) {
  linear_backward_input(dhidden, dy, weight);
  gelu_backward(dhidden, dhidden, hidden, kind);
}

void Kernels::quantize_rows(const Tensor&, const Tensor&, const Tensor&) { refuse_int8(device()); }

void Kernels::linear_int8_forward(const Tensor&, const Tensor&, const Tensor&, const Tensor&) {
  refuse_int8(device());
}

}  // namespace topolm
