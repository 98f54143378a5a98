// Matrix products in the manner of Goto and van de Geijn (2008): operands are copied into panels, in the
// order in which a register tile reads them, and a micro-kernel keeps kTileRows x kTileCols sums in
// registers. Packing is where bf16 becomes fp32 (or pairs: gemm_tile.h) and where a transposed operand is
// turned round, so one micro-kernel serves the three products of a linear layer. Rows of A that are what the
// tile reads are not copied at all.
#pragma once

#include "engine/parallel.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu_device.h"

namespace topolm::TOPOLM_ISA {

// The tile leaves room for two vectors of B and one of A among the registers, and has more independent sums
// than the FMA units have in flight. 14 divides the published model's 784, 588 = 3*196 and 3136.
#if defined(__AVX512F__)
constexpr int kTileRows = 14;
#elif defined(__AVX2__)
constexpr int kTileRows = 6;
#elif defined(__aarch64__)
constexpr int kTileRows = 8;
#else
constexpr int kTileRows = 4;
#endif
constexpr int kTileCols = 2 * kLanes;

/// For rows read side by side, which are more streams than a processor foresees: base's forward products take
/// 3 % less, in fp32 and bf16.
TOPOLM_INLINE void prefetch_ahead(const void* row) {
  __builtin_prefetch(static_cast<const char*>(row) + 256);
}

/// Copies a panel of `width` <= W lines: out[k * W + i] = x[i * across + k * along] for k < depth, and 0 for
/// i in [width, W). One of the strides is 1.
template <int W, class T>
TOPOLM_INLINE void pack_panel(float* out, const T* x, int64_t across, int64_t along, int64_t width,
                              int64_t depth) {
  static_assert(W % kLanes == 0);
  if (along == 1) {
    sweep(depth, [&](int64_t k, auto lanes) {
      for (int g = 0; g < W; g += kLanes) {
        vfloat square[kLanes];
        TOPOLM_UNROLL
        for (int i = 0; i < kLanes; ++i)
          square[i] = g + i < width ? load(x + (g + i) * across + k, lanes) : vfloat{};
        for (int i = 0; i < kLanes; ++i) prefetch_ahead(x + (g + i) * across + k);
        transpose(square);
        const int64_t rows = min(kLanes, depth - k);
        for (int64_t i = 0; i < rows; ++i) store(out + (k + i) * W + g, square[i]);
      }
    });
    return;
  }
  for (int64_t k = 0; k < depth; ++k)
    for (int g = 0; g < W; g += kLanes) {
      const T* const p = x + k * along + g;
      const int64_t n = width - g;
      store(out + k * W + g, n >= kLanes ? load(p)
                             : n > 0     ? load(p, Partial{static_cast<int>(n)})
                                         : vfloat{});
    }
}

/// A matrix where it lies: element (i, j) is at data[i * row_stride + j * col_stride]; one stride is 1.
struct Matrix {
  void* data;
  DType dtype;
  int64_t row_stride, col_stride;

  TOPOLM_INLINE Matrix transposed() const { return {data, dtype, col_stride, row_stride}; }
  /// What is left of the matrix from element (i, j) on.
  TOPOLM_INLINE Matrix from(int64_t i, int64_t j) const {
    const int64_t bytes = (i * row_stride + j * col_stride) * size_of(dtype);
    return {static_cast<char*>(data) + bytes, dtype, row_stride, col_stride};
  }
};

/// Calls f with the address of the matrix, of its elements' type.
template <class F>
TOPOLM_INLINE void with_elements(const Matrix& x, F&& f) {
  if (x.dtype == DType::bf16)
    f(static_cast<bf16*>(x.data));
  else
    f(static_cast<float*>(x.data));
}

/// The tensor's rows and columns. Throws Error unless it is fp32 or bf16.
TOPOLM_INLINE Matrix matrix(const Tensor& t) {
  return {t.dtype == DType::bf16 ? t.data : t.f32(), t.dtype, t.cols(), 1};
}

/// What follows a product while its result is in the cache: run(context, i, j, rows, cols) once for each tile
/// of C, when the elements [i, i + rows) x [j, j + cols) have their final values.
struct Epilogue {
  void (*run)(const void* context, int64_t i, int64_t j, int64_t rows, int64_t cols) = nullptr;
  const void* context = nullptr;
  Matrix beside = {};  // what run reads or writes beside C, if any: fetched while a tile is multiplied
};

/// Asks for rows x cols of x, at most two lines of the cache in a row.
TOPOLM_INLINE void fetch_tile(const Matrix& x, int64_t rows, int64_t cols) {
  for (int64_t i = 0; i < rows; ++i) {
    const char* const p = static_cast<const char*>(x.data) + i * x.row_stride * size_of(x.dtype);
    __builtin_prefetch(p);
    __builtin_prefetch(p + cols * size_of(x.dtype) - 1);
  }
}

/// c [m, n] = a [m, k] b [k, n], or += when `accumulate` (then c is fp32); c is row-major. Any dtypes.
void gemm(ThreadPool& pool, Workspace& workspace, const Matrix& c, const Matrix& a, const Matrix& b,
          int64_t m, int64_t n, int64_t k, bool accumulate, const Epilogue& epilogue = {});

}  // namespace topolm::TOPOLM_ISA
