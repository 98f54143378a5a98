// Linear layers: three matrix products, with a GELU behind them or not.
#include "engine/profile.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/gelu.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/linear_few.h"

namespace topolm::TOPOLM_ISA {

namespace {

/// What follows a product, tile by tile: out = gelu(hidden), or out *= gelu'(hidden). Of the values as they
/// were stored, so that the bits are those of two operations.
struct GeluOfTile {
  Matrix out, hidden;
  Gelu kind;

  static void forward(const void* context, int64_t row, int64_t col, int64_t rows, int64_t cols) {
    static_cast<const GeluOfTile*>(context)->sweep_tile(
        row, col, rows, cols,
        [](auto gelu, auto* out, const auto* hidden, auto lanes) { gelu_of(gelu, out, hidden, lanes); });
  }
  static void backward(const void* context, int64_t row, int64_t col, int64_t rows, int64_t cols) {
    static_cast<const GeluOfTile*>(context)->sweep_tile(
        row, col, rows, cols, [](auto gelu, auto* out, const auto* hidden, auto lanes) {
          gelu_gradient(gelu, out, out, hidden, lanes);
        });
  }

 private:
  /// Two rows at a time where the tile is as wide as it can be.
  template <class F>
  TOPOLM_INLINE void sweep_tile(int64_t row, int64_t col, int64_t rows, int64_t cols, F&& f) const {
    with_kind(kind, [&](auto gelu) {
      with_elements(out.from(row, col), [&](auto* to) {
        with_elements(hidden.from(row, col), [&](const auto* from) {
          const int64_t stride = out.row_stride;  // and hidden's
          int64_t i = 0;
          if (cols == Wide::kHalf)
            for (; i + 2 <= rows; i += 2) f(gelu, to + i * stride, from + i * stride, Wide{stride});
          for (; i < rows; ++i)
            sweep(cols,
                  [=](int64_t j, auto lanes) { f(gelu, to + i * stride + j, from + i * stride + j, lanes); });
        });
      });
    });
  }
};

}  // namespace

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

void CpuKernels::linear_gelu_forward(const Tensor& out, const Tensor& hidden, const Tensor& x,
                                     const Tensor& weight, Gelu kind) {
  const int64_t n = x.rows(), in = x.cols(), columns = weight.rows();
  if (n <= kFewRows) return Kernels::linear_gelu_forward(out, hidden, x, weight, kind);
  const Range range("linear_gelu");
  check_shape("linear_gelu_forward", "weight", weight, {columns, in});
  check_shape("linear_gelu_forward", "hidden", hidden.view({hidden.rows(), hidden.cols()}), {n, columns});
  check_shape("linear_gelu_forward", "out", out, hidden.shape);
  const GeluOfTile gelu{matrix(out), matrix(hidden), kind};
  gemm(pool_, workspace_, matrix(hidden), matrix(x), matrix(weight).transposed(), n, columns, in, false,
       {gelu.forward, &gelu, gelu.out});
}

void CpuKernels::linear_gelu_backward(const Tensor& dhidden, const Tensor& dy, const Tensor& weight,
                                      const Tensor& hidden, Gelu kind) {
  const Range range("linear_gelu_backward");
  const int64_t n = dy.rows(), in = dhidden.cols(), out = dy.cols();
  check_shape("linear_gelu_backward", "weight", weight, {out, in});
  check_shape("linear_gelu_backward", "dhidden", dhidden.view({dhidden.rows(), in}), {n, in});
  check_shape("linear_gelu_backward", "hidden", hidden, dhidden.shape);
  const GeluOfTile gelu{matrix(dhidden), matrix(hidden), kind};
  gemm(pool_, workspace_, matrix(dhidden), matrix(dy), matrix(weight), n, in, out, false,
       {gelu.backward, &gelu, gelu.hidden});
}

}  // namespace topolm::TOPOLM_ISA
