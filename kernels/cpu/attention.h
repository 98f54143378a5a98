// What training's and decoding's attention share: products of one head's tensors, copied into scratch where
// one operand is turned round, so that a head size, 49 above all, costs what it is, and nothing is padded in
// memory.
//
// Tokens lie in the lanes and the head's columns in the rows of a register tile: a product of 49 columns
// takes 49 of them, where columns in the lanes would take 64; and softmax over keys is vertical.
#pragma once

#include <cmath>

#include "kernels/cpu/gemm.h"

namespace topolm::TOPOLM_ISA {

constexpr int kBlock = 64;       // rows handled at a time: what is between two products stays in L1
constexpr int kTileVectors = 2;  // of tokens in a register tile
constexpr int kTokens = kTileVectors * kLanes;
constexpr int kRowsAhead = 4;  // asked for before each register tile
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kMaxRows = 8;  // of a register tile, seven for 49: 96 % of the peak; with 10 or 12 not faster
#elif defined(__AVX2__)
constexpr int kMaxRows = 6;
#else
constexpr int kMaxRows = 4;
#endif

TOPOLM_INLINE int64_t round_up(int64_t n, int64_t multiple) { return ceil_div(n, multiple) * multiple; }

// ---- what is multiplied

// An operand is made of units of 32 bits, as many numbers as one multiplication adds up: one float, or two
// bf16 numbers that are neighbours along the axis summed over. Units are kept in arrays of float.

/// fp32 arithmetic, whatever is in memory.
struct Singles {
  static constexpr int kNumbers = 1;
  TOPOLM_INLINE static vfloat multiply_add(vfloat sum, vfloat a, vfloat b) { return sum + a * b; }
  /// Units of kNumbers rows of numbers, one from each.
  TOPOLM_INLINE static vfloat across(const vfloat* rows) { return rows[0]; }
  /// Units of n numbers of one row; zeros behind them.
  template <class T>
  TOPOLM_INLINE static vfloat along(const T* row, int64_t n) {
    return n < kLanes ? load(row, Partial{static_cast<int>(n)}) : load(row);
  }
  /// The inverse.
  template <class T>
  TOPOLM_INLINE static void store_row(T* row, vfloat units, int64_t n) {
    n < kLanes ? store(row, units, Partial{static_cast<int>(n)}) : store(row, units);
  }
  template <class F>
  TOPOLM_INLINE static void with(const Matrix& x, F&& f) {
    with_elements(x, f);
  }
};

#if defined(TOPOLM_BF16_DOT) || defined(TOPOLM_AMX)
/// bf16 in memory and in every product, sums of fp32: twice as fast. What is between two products is rounded.
struct Pairs {
  static constexpr int kNumbers = 2;
#if defined(__AVX512BF16__)
  TOPOLM_INLINE static vfloat multiply_add(vfloat sum, vfloat a, vfloat b) {
    return _mm512_dpbf16_ps(sum, bit_cast<__m512bh>(a), bit_cast<__m512bh>(b));
  }
  TOPOLM_INLINE static vfloat across(const vfloat* rows) {
    alignas(64) static constexpr uint16_t kZip[] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                    21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                    11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const auto both = bit_cast<__m512i>(_mm512_cvtne2ps_pbh(rows[1], rows[0]));  // rounds
    return bit_cast<vfloat>(_mm512_permutexvar_epi16(_mm512_load_si512(kZip), both));
  }
  /// The same rows, each along itself.
  TOPOLM_INLINE static void store_along(float* lines, int64_t ld, const vfloat* rows) {
    const __m512bh both = _mm512_cvtne2ps_pbh(rows[1], rows[0]);
    constexpr size_t kHalf = sizeof both / 2;
    __builtin_memcpy(lines, &both, kHalf);
    __builtin_memcpy(lines + ld, reinterpret_cast<const char*>(&both) + kHalf, kHalf);
  }
#else  // emulated tiles, on any AVX-512
  TOPOLM_INLINE static vfloat across(const vfloat* rows) {
    vint word[2];
    for (int r = 0; r < 2; ++r)
      word[r] = bit_cast<vint>(_mm512_maskz_cvtepu16_epi32(0xffff, bit_cast<__m256i>(narrow(rows[r]))));
    return bit_cast<vfloat>(word[0] | word[1] << 16);
  }
  TOPOLM_INLINE static void store_along(float* lines, int64_t ld, const vfloat* rows) {
    for (int r = 0; r < 2; ++r) {
      const vhalf half = narrow(rows[r]);
      __builtin_memcpy(lines + r * ld, &half, sizeof half);
    }
  }
#endif
  /// One line [size] for each two rows, of their numbers side by side; zeros behind the last row. Writes up
  /// to kLanes units more.
  TOPOLM_INLINE static void gather_steps(float* out, const bf16* rows, int64_t stride, int64_t n,
                                         int64_t size) {
    alignas(64) static constexpr uint16_t kZip[] = {0,  32, 1,  33, 2,  34, 3,  35, 4,  36, 5,
                                                    37, 6,  38, 7,  39, 8,  40, 9,  41, 10, 42,
                                                    11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
    const __m512i low = _mm512_load_si512(kZip), high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    for (int64_t i = 0; i < n; i += 2, out += size)
      for (int64_t j = 0; j < size; j += 2 * kLanes) {
        const bf16* const row = rows + i * stride + j;
        const auto a = bit_cast<__m512i>(along(row, size - j)),
                   b = i + 1 < n ? bit_cast<__m512i>(along(row + stride, size - j)) : __m512i{};
        store(out + j, bit_cast<vfloat>(_mm512_permutex2var_epi16(a, low, b)));
        if (j + kLanes < size)
          store(out + j + kLanes, bit_cast<vfloat>(_mm512_permutex2var_epi16(a, high, b)));
      }
  }
  /// The same of n lines that gather_lines() wrote: shuffles in the L1 where the rows are far away.
  TOPOLM_INLINE static void gather_steps(float* out, const float* lines, int64_t n, int64_t size) {
    gather_steps(out, reinterpret_cast<const bf16*>(lines), round_up(size, kNumbers), n, size);
  }
  /// Units of the first n numbers of a row; zeros behind them.
  TOPOLM_INLINE static vfloat along(const bf16* row, int64_t n) {
    return bit_cast<vfloat>(_mm512_maskz_loadu_epi16(first(n), row));
  }
  /// The inverse.
  TOPOLM_INLINE static void store_row(bf16* row, vfloat units, int64_t n) {
    _mm512_mask_storeu_epi16(row, first(n), bit_cast<__m512i>(units));
  }
  TOPOLM_INLINE static __mmask32 first(int64_t n) {
    return static_cast<__mmask32>((1ull << min(n, 2 * kLanes)) - 1);
  }
  template <class F>
  TOPOLM_INLINE static void with(const Matrix& x, F&& f) {
    f(static_cast<bf16*>(x.data));
  }
};
#endif

// ---- memory

/// Rows that will be wanted soon, asked for a few at a time between the tiles of products. A head's rows are
/// short and far apart, so that a processor guesses them late, and of many prefetches at once it drops some:
/// forward and backward of bf16 take 144 + 307 thousand cycles a head with neither, 130 + 279 when they are
/// asked for block by block, 106 + 233 like this.
class Ahead {
 public:
  /// Rows [begin, end) of `rows`, of which `size` columns are wanted.
  TOPOLM_INLINE void want(const Matrix& rows, int64_t begin, int64_t end, int64_t size) {
    if (first_ == last_) first_ = last_ = queue_;
    if (begin >= end || last_ == queue_ + kQueue) return;
    // Whole vectors: a masked load waits for lines that it masks out, too.
    *last_++ = {static_cast<const char*>(rows.from(begin, 0).data), rows.row_stride * size_of(rows.dtype),
                round_up(size * size_of(rows.dtype), sizeof(vfloat)), end - begin};
  }
  /// Asks for the next n rows.
  TOPOLM_INLINE void ask(int64_t n) {
    if (first_ != last_) ask_now(n);
  }
  /// Asks for what is left.
  TOPOLM_INLINE void ask_for_all() {
    while (first_ != last_) ask_now(first_->left);
  }

 private:
  struct Rows {
    const char* next;
    int64_t stride, bytes, left;
  };
  __attribute__((noinline)) void ask_now(int64_t n) {
    asm volatile("");  // or g++ finds that prefetches have no effect, and drops the call
    Rows& rows = *first_;
    n = min(n, rows.left);
    for (int64_t i = 0; i < n; ++i, rows.next += rows.stride) {
      for (int64_t at = 0; at < rows.bytes; at += 64) __builtin_prefetch(rows.next + at);
      __builtin_prefetch(rows.next + rows.bytes - 1);
    }
    rows.left -= n;
    if (rows.left == 0) ++first_;
  }

  static constexpr int kQueue = 8;
  Rows queue_[kQueue];
  Rows *first_ = queue_, *last_ = queue_;
};

// ---- products

/// A unit in all lanes, whatever its bits.
TOPOLM_INLINE vfloat broadcast(const float* unit) {
  int32_t bits;
  __builtin_memcpy(&bits, unit, 4);
  return bit_cast<vfloat>(splat(bits));
}

/// Calls f(R) with the constant R = rows <= kMaxRows.
template <int R = kMaxRows, class F>
TOPOLM_INLINE void with_rows(int64_t rows, F&& f) {
  if constexpr (R > 0) {
    if (rows == R)
      f(std::integral_constant<int, R>{});
    else
      with_rows<R - 1>(rows, f);
  }
}

/// What happens to c before the products are added.
enum class Before { clear, keep, scale };

/// R rows and V vectors of multiply(); unit (i, k) of a is at a[i * across + k * along].
template <class Product, Before kBefore, int R, int V>
TOPOLM_INLINE void multiply_tile(float* c, int64_t ldc, const float* a, int64_t across, int64_t along,
                                 const float* b, int64_t ldb, int64_t depth, const vfloat* factor) {
  vfloat sums[R][V] = {};
  if constexpr (kBefore != Before::clear) {
    TOPOLM_UNROLL
    for (int i = 0; i < R; ++i) {
      TOPOLM_UNROLL
      for (int v = 0; v < V; ++v) {
        sums[i][v] = load(c + i * ldc + v * kLanes);
        if constexpr (kBefore == Before::scale) sums[i][v] *= factor[v];
      }
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    vfloat row[V];
    TOPOLM_UNROLL
    for (int v = 0; v < V; ++v) row[v] = load(b + k * ldb + v * kLanes);
    TOPOLM_UNROLL
    for (int i = 0; i < R; ++i) {
      const vfloat x = broadcast(a + i * across + k * along);
      TOPOLM_UNROLL
      for (int v = 0; v < V; ++v) sums[i][v] = Product::multiply_add(sums[i][v], x, row[v]);
    }
  }
  TOPOLM_UNROLL
  for (int i = 0; i < R; ++i) {
    TOPOLM_UNROLL
    for (int v = 0; v < V; ++v) store(c + i * ldc + v * kLanes, sums[i][v]);
  }
}

/// c [rows][vectors] = a b, or += when kept, or factor c + a b with a factor for each lane of kTileVectors.
/// Row k of b, of the depth's units, is at b + k * ldb. Unit (i, k) of a is at a[i * lda + k], or, when a is
/// transposed, at a[k * lda + i].
template <class Product, Before kBefore, bool kTransposed>
__attribute__((noinline)) void multiply(float* c, int64_t ldc, const float* a, int64_t lda, const float* b,
                                        int64_t ldb, int64_t rows, int64_t vectors, int64_t depth,
                                        Ahead& ahead, const vfloat* factor = nullptr) {
  const int64_t tiles = ceil_div(rows, kMaxRows);
  for (int64_t v = 0; v < vectors; v += kTileVectors)
    for (int64_t tile = 0, i = 0; tile < tiles; ++tile) {
      const int64_t next = rows * (tile + 1) / tiles;
      ahead.ask(kRowsAhead);
      with_rows(
          next - i, [&](auto R) __attribute__((always_inline)) {
            const auto columns = [&](auto V) __attribute__((always_inline)) {
              multiply_tile<Product, kBefore, R(), V()>(
                  c + i * ldc + v * kLanes, ldc, a + i * (kTransposed ? 1 : lda), kTransposed ? 1 : lda,
                  kTransposed ? lda : 1, b + v * kLanes, ldb, depth, factor);
            };
            if (v + 1 < vectors)
              columns(std::integral_constant<int, kTileVectors>{});
            else
              columns(std::integral_constant<int, 1>{});
          });
      i = next;
    }
}

// ---- operands

/// A line for each row, along the head's columns; zeros behind them. Lines are `ld` units apart, or as long
/// as they must be. Writes up to kLanes units more.
template <class Product>
TOPOLM_INLINE void gather_lines(float* out, const Matrix& rows, int64_t n, int64_t size, int64_t ld = 0) {
  const int64_t units = ceil_div(size, Product::kNumbers);
  if (ld == 0) ld = units;
  Product::with(rows, [&](const auto* x) {
    for (int64_t i = 0; i < n; ++i)
      for (int64_t u = 0, j = 0; u < units; u += kLanes, j += kLanes * Product::kNumbers)
        store(out + i * ld + u, Product::along(x + i * rows.row_stride + j, size - j));
  });
}

/// Turns lines round: out[u * kTokens + i] is unit u of line i, whatever is there from line n on: whole
/// vectors of lines are read, and up to kLanes units more.
TOPOLM_INLINE void gather_panel(float* out, const float* lines, int64_t n, int64_t units) {
  for (int64_t v = 0; v * kLanes < n; ++v)
    for (int64_t u = 0; u < units; u += kLanes) {
      vfloat square[kLanes];
      TOPOLM_UNROLL
      for (int i = 0; i < kLanes; ++i) square[i] = load(lines + (v * kLanes + i) * units + u);
      transpose(square);
      for (int64_t i = 0; i < min(kLanes, units - u); ++i)
        store(out + (u + i) * kTokens + v * kLanes, square[i]);
    }
}

/// The inverse, of floats: row i < n of `rows` becomes factor[i] times column i of in [size][kTokens]. Reads
/// whole squares: up to 2 * kLanes lines more.
template <class Product>
TOPOLM_INLINE void scatter_panel(const Matrix& rows, const float* in, int64_t n, int64_t size,
                                 const vfloat (&factor)[kTileVectors]) {
  constexpr int kNumbers = Product::kNumbers;
  Product::with(rows, [&](auto* x) {
    for (int64_t v = 0; v * kLanes < n; ++v)
      for (int64_t j = 0; j < size; j += kLanes * kNumbers) {
        vfloat square[kLanes];
        TOPOLM_UNROLL
        for (int i = 0; i < kLanes; ++i) {
          vfloat columns[kNumbers];
          TOPOLM_UNROLL
          for (int m = 0; m < kNumbers; ++m)
            columns[m] = factor[v] * load(in + (j + i * kNumbers + m) * kTokens + v * kLanes);
          square[i] = Product::across(columns);
        }
        transpose(square);
        for (int64_t i = 0; i < min(kLanes, n - v * kLanes); ++i)
          Product::store_row(x + (v * kLanes + i) * rows.row_stride + j, square[i], size - j);
      }
  });
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

/// Floats of scratch that attend() needs for so many keys.
int64_t attend_scratch(int64_t keys, int64_t size);

/// out = softmax(query key^T / sqrt(size)) value, causal. Flash attention (Dao et al. 2022): blocks of keys
/// with a running maximum and sum.
void attend(const AttentionHead& head, float* scratch);

constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

/// softmax(s / sqrt(size)) is 2^(s * factor) over its sum.
TOPOLM_INLINE float score_factor(int64_t size) { return kLog2E / std::sqrt(static_cast<float>(size)); }

/// Whether all of them are bf16: then products may be of bf16 numbers, and what is between two of them
/// rounded.
template <class... Matrices>
TOPOLM_INLINE bool all_bf16(const Matrices&... m) {
  return ((m.dtype == DType::bf16) && ...);
}

}  // namespace topolm::TOPOLM_ISA
