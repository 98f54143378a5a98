// What training's and decoding's attention share: one head's tensors, copied into fp32 scratch where they are
// padded and turned round, so that any head size (49 above all) costs little and nothing is padded in memory.
#pragma once

#include "kernels/cpu/gemm.h"

namespace topolm::TOPOLM_ISA {

constexpr int kBlock = 64;  // keys, and in the backward queries, handled at a time
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kQueries = 8;  // rows of a register tile; three vectors wide at most
#else
constexpr int kQueries = 4;
#endif
static_assert(kBlock % kQueries == 0 && kBlock % kLanes == 0);

TOPOLM_INLINE int64_t round_up(int64_t n, int64_t multiple) { return ceil_div(n, multiple) * multiple; }

/// One head of one sequence: `data` are its rows, [.., head_size], wherever they lie in a wider tensor.
TOPOLM_INLINE Matrix head_of(const Tensor& t, int64_t first_row, int64_t first_col) {
  return matrix(t).from(first_row, first_col);
}

/// c (+)= a b for kQueries rows and `vectors` vectors of columns; operands as in multiply_add.
template <int kAcross, int kAlong>
TOPOLM_INLINE void multiply_rows(float* c, int64_t ldc, const float* a, const float* b, int64_t ldb,
                                 int64_t vectors, int64_t depth, bool accumulate) {
  const auto tile = [&]<int V>(std::integral_constant<int, V>) __attribute__((always_inline)) {
    vfloat sums[kQueries][V] = {};
    if (accumulate) {
      TOPOLM_UNROLL
      for (int i = 0; i < kQueries; ++i) {
        TOPOLM_UNROLL
        for (int v = 0; v < V; ++v) sums[i][v] = load(c + i * ldc + v * kLanes);
      }
    }
    multiply_add<kQueries, V, kAcross, kAlong>(sums, a, b, ldb, depth);
    TOPOLM_UNROLL
    for (int i = 0; i < kQueries; ++i) {
      TOPOLM_UNROLL
      for (int v = 0; v < V; ++v) store(c + i * ldc + v * kLanes, sums[i][v]);
    }
    c += V * kLanes;
    b += V * kLanes;
    vectors -= V;
  };
  while (vectors > 0) {
    if (vectors == 1)
      tile(std::integral_constant<int, 1>{});
    else if (vectors == 2 || vectors == 4)
      tile(std::integral_constant<int, 2>{});
    else
      tile(std::integral_constant<int, 3>{});
  }
}

/// out [n, ld] = scale * rows, zeros behind `size` columns.
TOPOLM_INLINE void gather_rows(float* out, int64_t ld, const Matrix& rows, int64_t n, int64_t size,
                               float scale) {
  with_elements(rows, [&](const auto* x) {
    for (int64_t i = 0; i < n; ++i) {
      store(out + i * ld + ld - kLanes, vfloat{});
      sweep(size, [&](int64_t j, auto lanes) {
        store(out + i * ld + j, scale * load(x + i * rows.row_stride + j, lanes), lanes);
      });
    }
  });
}

/// Panels of W rows, [ceil(n / W)][size][W], zeros behind n rows: pack_panel's layout. Writes up to kLanes
/// floats more.
template <int W>
TOPOLM_INLINE void gather_panels(float* out, const Matrix& rows, int64_t n, int64_t size, float scale) {
  with_elements(rows, [&](const auto* x) {
    for (int64_t i = 0; i < n; i += W)
      pack_panel<W>(out + i * size, x + i * rows.row_stride, rows.row_stride, 1, min(W, n - i), size);
  });
  if (scale != 1)
    sweep(round_up(n, W) * size,
          [&](int64_t i, auto lanes) { store(out + i, scale * load(out + i, lanes), lanes); });
}

/// The inverse of gather_rows.
TOPOLM_INLINE void scatter_rows(const Matrix& rows, const float* in, int64_t ld, int64_t n, int64_t size,
                                float scale) {
  with_elements(rows, [&](auto* x) {
    for (int64_t i = 0; i < n; ++i)
      sweep(size, [&](int64_t j, auto lanes) {
        store(x + i * rows.row_stride + j, scale * load(in + i * ld + j, lanes), lanes);
      });
  });
}

/// 0, 1, 2, ...
TOPOLM_INLINE vint lane_indices() {
  vint v;
  for (int i = 0; i < kLanes; ++i) v[i] = i;
  return v;
}

/// Where a head's queries, keys and values are read and where its outputs go. Query i stands at position
/// first_position + i and sees the keys up to its own.
struct AttentionHead {
  Matrix out, query, key, value;
  float* logsumexp;  // one for each query; may be null
  int64_t first_position, queries, size;
};

/// Floats of scratch that attend() needs for so many queries and keys.
int64_t attend_scratch(int64_t queries, int64_t keys, int64_t size);

/// out = softmax(query key^T / sqrt(size)) value, causal. Flash attention (Dao et al. 2022): blocks of keys
/// with a running maximum and sum.
void attend(const AttentionHead& head, float* scratch);

}  // namespace topolm::TOPOLM_ISA
