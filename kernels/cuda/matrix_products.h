// The matrix products of linear layers, as done by somebody else: cuBLASLt on a GPU, the CPU's own kernels
// under simt. Shapes and dtypes are those of Kernels::linear_*, and have been checked. A product that returns
// false was not done, and nothing was written: the kernels of linear.cu do it. One that is done has the range
// of its operation, as the CPU's has.
#pragma once

#include <string>

#include "engine/tensor.h"

namespace topolm {

class MatrixProducts {
 public:
  virtual ~MatrixProducts() = default;
  [[nodiscard]] virtual bool forward(const Tensor& y, const Tensor& x, const Tensor& weight) = 0;
  [[nodiscard]] virtual bool backward_input(const Tensor& dx, const Tensor& dy, const Tensor& weight) = 0;
  [[nodiscard]] virtual bool backward_weight(const Tensor& dweight, const Tensor& dy, const Tensor& x) = 0;
  /// Bytes taken to work in.
  virtual int64_t working_memory() const = 0;
  /// The algorithms chosen so far, as JSON; empty where there is no choice.
  virtual std::string plans() const;
};

}  // namespace topolm
