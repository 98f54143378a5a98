// The register tile of a matrix product, in two arithmetics: fp32, and pairs of bf16 (VDPBF16PS: twice the
// speed of fp32 where it is fast). Packed operands are made of cells of 32 bits: an fp32 number, or the
// elements k and k+1 of a line. So a pair is broadcast, transposed and stored as a float is, and one kernel
// serves both.
#pragma once

#include "kernels/cpu/gemm.h"

namespace topolm::TOPOLM_ISA {

/// Lines of a packed panel of W: whole vectors, so that tasks which pack one beside another share no cell.
constexpr int packed_lines(int w) { return (w + kLanes - 1) / kLanes * kLanes; }

/// A tile for the last rows, where they are few: 512 rows are 36 tiles and one of 8.
constexpr int kShortRows = kTileRows / 2 + 1;

/// sum + a b; of pairs, both products.
template <bool kPairs>
TOPOLM_INLINE vfloat multiply_add(vfloat sum, vfloat a, vfloat b) {
#if defined(TOPOLM_BF16_DOT)
  if constexpr (kPairs) return _mm512_dpbf16_ps(sum, bit_cast<__m512bh>(a), bit_cast<__m512bh>(b));
#endif
  return sum + a * b;
}

/// The cell at p, which may have any address, in every lane.
TOPOLM_INLINE vfloat splat_cell(const char* p) {
  int32_t cell;
  __builtin_memcpy(&cell, p, sizeof cell);
  return bit_cast<vfloat>(splat(cell));
}

/// A pair of which memory holds the first element only: the other is 0.
TOPOLM_INLINE vfloat splat_half(const char* p) {
  uint16_t half;
  __builtin_memcpy(&half, p, sizeof half);
  return bit_cast<vfloat>(splat(int32_t{half}));
}

// ---- packing: out[cell * W + i] for `width` <= W lines i, and 0 for i in [width, W), as pack_panel does

#if defined(TOPOLM_BF16_DOT)

/// Cells from the first n halves at p; n may be past a whole vector.
TOPOLM_INLINE vfloat load_pairs(const bf16* p, int64_t n) {
  if (n >= 2 * kLanes) return bit_cast<vfloat>(_mm512_loadu_si512(p));
  return bit_cast<vfloat>(_mm512_maskz_loadu_epi16((uint64_t{1} << n) - 1, p));
}

using HalfIndices = std::make_integer_sequence<int, 2 * kLanes>;

/// Cells of one element of each.
template <int... I>
TOPOLM_INLINE vfloat zip_halves(vhalf first, vhalf second, std::integer_sequence<int, I...>) {
  return bit_cast<vfloat>(__builtin_shufflevector(first, second, (I % 2 * kLanes + I / 2)...));
}

template <int W>
TOPOLM_INLINE void pack_pairs(float* out, const bf16* x, int64_t across, int64_t along, int64_t width,
                              int64_t depth) {
  const int64_t cells = ceil_div(depth, 2);
  if (along == 1) {
    for (int64_t k = 0; k < cells; k += kLanes)
      for (int g = 0; g < W; g += kLanes) {
        vfloat square[kLanes];
        TOPOLM_UNROLL
        for (int i = 0; i < kLanes; ++i)
          square[i] = g + i < width ? load_pairs(x + (g + i) * across + 2 * k, depth - 2 * k) : vfloat{};
        for (int i = 0; i < kLanes; ++i) prefetch_ahead(x + (g + i) * across + 2 * k);
        transpose(square);
        const int64_t rows = min(kLanes, cells - k);
        for (int64_t i = 0; i < rows; ++i) store(out + (k + i) * W + g, square[i]);
      }
    return;
  }
  for (int g = 0; g < W; g += kLanes) {
    const auto mask = static_cast<__mmask16>((1u << max(0, min(kLanes, width - g))) - 1);
    const bf16* p = x + g;
    for (int64_t k = 0; k < cells; ++k, p += 2 * along) {
      const __m256i even = _mm256_maskz_loadu_epi16(mask, p);
      const __m256i odd = _mm256_maskz_loadu_epi16(2 * k + 1 < depth ? mask : 0, p + along);
      store(out + k * W + g, zip_halves(bit_cast<vhalf>(even), bit_cast<vhalf>(odd), HalfIndices{}));
    }
  }
}

#endif

/// Packs elements [0, depth) of `width` lines of x, whose lines are its rows.
template <int W, bool kPairs>
TOPOLM_INLINE void pack_lines(float* out, const Matrix& x, int64_t width, int64_t depth) {
#if defined(TOPOLM_BF16_DOT)
  if constexpr (kPairs)
    return pack_pairs<W>(out, static_cast<const bf16*>(x.data), x.row_stride, x.col_stride, width, depth);
#endif
  with_elements(x, [&](const auto* p) { pack_panel<W>(out, p, x.row_stride, x.col_stride, width, depth); });
}

// ---- multiplication

/// Rows of A under a tile: packed in panels of kTileRows, or where they lie, each row's cells side by side.
struct Rows {
  const char* data;
  int64_t row_bytes;
};

/// What becomes of a tile's sums: c = sums (+ addend, where not null; it may be c itself), of which the first
/// rows x cols are valid.
struct TileTarget {
  Matrix c;
  const float* addend;
  int64_t ld_addend, rows, cols;
};

/// sums = a b over `depth` elements.
template <int R, int V, bool kPairs, bool kInPlace>
TOPOLM_INLINE void multiply_tile(vfloat (&sums)[R][V], Rows a, const float* b, int64_t depth) {
  // Rows in place are addressed from every third one: 14 pointers would not fit in the registers.
  constexpr int kPointers = kInPlace ? (R + 2) / 3 : 1;
  const char* row[kPointers];
  for (int i = 0; i < kPointers; ++i) row[i] = a.data + 3 * i * a.row_bytes;
  const auto step = [&](auto&& splat_at) __attribute__((always_inline)) {
    vfloat line[V];
    TOPOLM_UNROLL
    for (int v = 0; v < V; ++v) line[v] = load(b + v * kLanes);
    TOPOLM_UNROLL
    for (int i = 0; i < R; ++i) {
      const vfloat x =
          splat_at(kInPlace ? row[i / 3 % kPointers] + i % 3 * a.row_bytes : row[0] + i * int64_t{4});
      TOPOLM_UNROLL
      for (int v = 0; v < V; ++v) sums[i][v] = multiply_add<kPairs>(sums[i][v], x, line[v]);
    }
  };
  const int64_t cells = !kPairs ? depth : kInPlace ? depth / 2 : (depth + 1) / 2;
  for (int64_t k = 0; k < cells; ++k) {
    step([](const char* p) __attribute__((always_inline)) { return splat_cell(p); });
    TOPOLM_UNROLL
    for (int i = 0; i < kPointers; ++i) row[i] += 4 * (kInPlace ? 1 : packed_lines(kTileRows));
    b += V * kLanes;
  }
  if constexpr (kPairs && kInPlace)
    if (depth % 2 == 1) step([](const char* p) __attribute__((always_inline)) { return splat_half(p); });
}

template <int R, int V, class T>
TOPOLM_INLINE void store_tile(vfloat (&sums)[R][V], T* c, const TileTarget& to) {
  const int64_t ldc = to.c.row_stride;
  if (to.rows == R && to.cols == V * kLanes) {
    TOPOLM_UNROLL
    for (int i = 0; i < R; ++i) {
      TOPOLM_UNROLL
      for (int v = 0; v < V; ++v) {
        if (to.addend) sums[i][v] += load(to.addend + i * to.ld_addend + v * kLanes);
        store(c + i * ldc + v * kLanes, sums[i][v]);
      }
    }
    return;
  }
  alignas(64) float tile[R][V * kLanes];
  TOPOLM_UNROLL
  for (int i = 0; i < R; ++i) {
    TOPOLM_UNROLL
    for (int v = 0; v < V; ++v) store(&tile[i][v * kLanes], sums[i][v]);
  }
  for (int64_t i = 0; i < to.rows; ++i)
    sweep(to.cols, [&](int64_t j, auto lanes) {
      vfloat sum = load(&tile[i][j], lanes);
      if (to.addend) sum += load(to.addend + i * to.ld_addend + j, lanes);
      store(c + i * ldc + j, sum, lanes);
    });
}

template <int R, int V, bool kPairs, bool kInPlace>
__attribute__((noinline)) void compute_tile(const TileTarget& to, Rows a, const float* b, int64_t depth) {
  const int64_t row_bytes = to.c.row_stride * size_of(to.c.dtype);
  for (int64_t i = 0; i < to.rows; ++i) {
    const char* const p = static_cast<const char*>(to.c.data) + i * row_bytes;
    __builtin_prefetch(p, 1);
    if (V > 1) __builtin_prefetch(p + V * kLanes * size_of(to.c.dtype) - 1, 1);
  }
  vfloat sums[R][V] = {};
  multiply_tile<R, V, kPairs, kInPlace>(sums, a, b, depth);
  with_elements(
      to.c, [&](auto* c) __attribute__((always_inline)) { store_tile(sums, c, to); });
}

}  // namespace topolm::TOPOLM_ISA
