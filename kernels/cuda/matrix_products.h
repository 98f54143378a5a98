// The matrix products of linear layers, as done by somebody else: cuBLASLt on a GPU, the CPU's own kernels
// under simt. Shapes and dtypes are those of Kernels::linear_*, and have been checked.
#pragma once

#include "engine/tensor.h"

namespace topolm {

class MatrixProducts {
 public:
  virtual ~MatrixProducts() = default;
  virtual void forward(const Tensor& y, const Tensor& x, const Tensor& weight) = 0;
  virtual void backward_input(const Tensor& dx, const Tensor& dy, const Tensor& weight) = 0;
  virtual void backward_weight(const Tensor& dweight, const Tensor& dy, const Tensor& x) = 0;
};

}  // namespace topolm
