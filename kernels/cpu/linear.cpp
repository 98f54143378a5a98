// Linear layers: three matrix products, with a GELU behind them or not, and a path for the few rows of
// decoding.
#include "engine/profile.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/gelu.h"
#include "kernels/cpu/gemm.h"

namespace topolm::TOPOLM_ISA {

namespace {

constexpr int64_t kFewRows = 4;            // up to here the weight is streamed once, unpacked
constexpr int64_t kTaskWeights = 1 << 15;  // elements of the weight that a task streams

/// y [M, out] = x [M, in] weight^T, x in fp32; rows [begin, end) of the weight.
template <int M, class W, class Y>
TOPOLM_INLINE void multiply_few_rows(Y* y, const float* x, const W* weight, int64_t in, int64_t out,
                                     int64_t begin, int64_t end) {
  for (int64_t o = begin; o < end; o += kLanes) {
    const int64_t rows = min(kLanes, end - o);
    vfloat products[M];
    dot_rows(products, weight + o * in, in, rows, x, in, in);
    for (int i = 0; i < M; ++i)
      sweep(rows, [&](int64_t, auto lanes) { store(y + i * out + o, products[i], lanes); });
  }
}

template <class W, class Y>
__attribute__((noinline)) void multiply_few_rows(Y* y, const float* x, const W* weight, int64_t n, int64_t in,
                                                 int64_t out, int64_t begin, int64_t end) {
  switch (n) {
    case 1:
      return multiply_few_rows<1>(y, x, weight, in, out, begin, end);
    case 2:
      return multiply_few_rows<2>(y, x, weight, in, out, begin, end);
    case 3:
      return multiply_few_rows<3>(y, x, weight, in, out, begin, end);
    case 4:
      return multiply_few_rows<4>(y, x, weight, in, out, begin, end);
  }
}

/// What follows a product, tile by tile: out = gelu(hidden), or out *= gelu'(hidden). Of the values as they
/// were stored, so that the bits are those of two operations.
struct GeluOfTile {
  Matrix out, hidden;
  Gelu kind;

  static void forward(const void* context, int64_t row, int64_t col, int64_t rows, int64_t cols) {
    static_cast<const GeluOfTile*>(context)->for_each_row(
        row, col, rows, [=](auto gelu, auto* out, const auto* hidden) { gelu_of(gelu, out, hidden, cols); });
  }
  static void backward(const void* context, int64_t row, int64_t col, int64_t rows, int64_t cols) {
    static_cast<const GeluOfTile*>(context)->for_each_row(
        row, col, rows,
        [=](auto gelu, auto* out, const auto* hidden) { gelu_gradient(gelu, out, out, hidden, cols); });
  }

 private:
  template <class F>
  TOPOLM_INLINE void for_each_row(int64_t row, int64_t col, int64_t rows, F&& f) const {
    with_kind(kind, [&](auto gelu) {
      with_elements(out.from(row, col), [&](auto* to) {
        with_elements(hidden.from(row, col), [&](const auto* from) {
          for (int64_t i = 0; i < rows; ++i) f(gelu, to + i * out.row_stride, from + i * hidden.row_stride);
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

  float* const rows = workspace_.shared(n * in);
  with_type(x, [&](auto* type) {
    const auto* const from = static_cast<decltype(type)>(x.data);
    sweep(n * in, [&](int64_t i, auto lanes) { store(rows + i, load(from + i, lanes), lanes); });
  });
  const int64_t task_rows = max(1, kTaskWeights / in / kLanes) * kLanes;
  with_type(y, [&](auto* y_type) {
    with_type(weight, [&](auto* weight_type) {
      auto* const to = static_cast<decltype(y_type)>(y.data);
      const auto* const w = static_cast<decltype(weight_type)>(weight.data);
      pool_.parallel_for(ceil_div(out, task_rows), [=](int64_t task, int) {
        multiply_few_rows(to, rows, w, n, in, out, task * task_rows, min(out, (task + 1) * task_rows));
      });
    });
  });
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
       {gelu.forward, &gelu});
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
       {gelu.backward, &gelu});
}

}  // namespace topolm::TOPOLM_ISA
