// Linear layers whose weights are 8-bit integers and a scale a row.
#include "engine/profile.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/linear_few.h"

namespace topolm::TOPOLM_ISA {

namespace {

/// One row as 8-bit integers; returns what they are to be multiplied by. A row that holds what is not a
/// number gets a scale that is none: the damage shows in the logits.
float quantize(int8_t* values, const float* x, int64_t n) {
  vfloat largest{}, nothing{};
  sweep(n, [&](int64_t i, auto lanes) {
    const vfloat v = load(x + i, lanes);
    largest = max(largest, v < 0.0f ? -v : v);
    nothing += v * 0.0f;
  });
  const float maximum = reduce_max(largest);
  const float inverse = maximum < 1e-30f ? 0.0f : 127 / maximum;  // no infinity, whatever the row
  sweep(n, [&](int64_t i, auto lanes) {
    const vfloat v = load(x + i, lanes) * inverse;
    const vfloat rounded = round(v == v ? v : vfloat{});  // to the nearest, even where two are
    const vbyte bytes = __builtin_convertvector(__builtin_convertvector(rounded, vint), vbyte);
    __builtin_memcpy(values + i, &bytes, static_cast<size_t>(min(kLanes, n - i)));
  });
  return (maximum < 1e-30f ? 0.0f : maximum / 127) + reduce_add(nothing);
}

/// What follows a product, tile by tile: y = scale * sums.
struct ScaledTile {
  Matrix y;
  const float *sums, *scale;
  int64_t ld;

  static void run(const void* context, int64_t row, int64_t col, int64_t rows, int64_t cols) {
    const ScaledTile& t = *static_cast<const ScaledTile*>(context);
    with_elements(t.y.from(row, col), [&](auto* y) {
      for (int64_t i = 0; i < rows; ++i)
        sweep(cols, [&](int64_t j, auto lanes) {
          const vfloat sum = load(t.sums + (row + i) * t.ld + col + j, lanes);
          store(y + i * t.y.row_stride + j, load(t.scale + col + j, lanes) * sum, lanes);
        });
    });
  }
};

/// Many rows: a block of the weight at a time becomes bf16, which holds 8-bit integers exactly, and is
/// multiplied as any matrix. A prompt of `base`: 1500 tokens/s in groups of few rows, 4100 this way.
void multiply_many_rows(ThreadPool& pool, Workspace& workspace, const Tensor& y, const Tensor& x,
                        const Tensor& values, const float* scale) {
  constexpr int64_t kBlockRows = 512;
  const int64_t n = x.rows(), in = x.cols(), out = values.rows();
  float* const sums = workspace.of_caller(n * kBlockRows + ceil_div(kBlockRows * in, 2));
  auto* const block = reinterpret_cast<bf16*>(sums + n * kBlockRows);
  for (int64_t first = 0; first < out; first += kBlockRows) {
    const int64_t rows = min(kBlockRows, out - first), elements = rows * in;
    const int8_t* const from = values.i8() + first * in;
    constexpr int64_t kPiece = 16 << 10;
    pool.parallel_for(ceil_div(elements, kPiece), [=](int64_t task, int) {
      const int64_t begin = task * kPiece;
      sweep(min(kPiece, elements - begin),
            [&](int64_t i, auto lanes) { store(block + begin + i, load(from + begin + i, lanes), lanes); });
    });
    const ScaledTile scaled{matrix(y).from(0, first), sums, scale + first, rows};
    gemm(pool, workspace, {sums, DType::f32, rows, 1}, matrix(x),
         Matrix{block, DType::bf16, in, 1}.transposed(), n, rows, in, false, {scaled.run, &scaled});
  }
}

}  // namespace

void CpuKernels::quantize_rows(const Tensor& values, const Tensor& scale, const Tensor& weight) {
  const Range range("quantize");
  const int64_t out = weight.rows(), in = weight.cols();
  check_shape("quantize_rows", "values", values, weight.shape);
  check_shape("quantize_rows", "scale", scale, {out});
  int8_t* const q = values.i8();
  float* const s = scale.f32();
  const float* const w = weight.f32();
  const int64_t rows = max(1, (1 << 15) / in);
  pool_.parallel_for(ceil_div(out, rows), [=](int64_t task, int) {
    for (int64_t o = task * rows; o < min(out, (task + 1) * rows); ++o)
      s[o] = quantize(q + o * in, w + o * in, in);
  });
}

void CpuKernels::linear_int8_forward(const Tensor& y, const Tensor& x, const Tensor& values,
                                     const Tensor& scale) {
  const Range range("linear");
  const int64_t n = x.rows(), in = x.cols(), out = values.rows();
  (void)values.i8();
  check_shape("linear_int8_forward", "values", values, {out, in});
  check_shape("linear_int8_forward", "scale", scale, {out});
  check_shape("linear_int8_forward", "y", y.view({y.rows(), y.cols()}), {n, out});
  if (n <= kFewRows)
    linear_few_rows(pool_, workspace_, y, x, values, scale.f32());
  else
    multiply_many_rows(pool_, workspace_, y, x, values, scale.f32());
}

}  // namespace topolm::TOPOLM_ISA
