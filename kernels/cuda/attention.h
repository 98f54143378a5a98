// What attention_forward.cu and attention_backward.cu are made of: tiles of a head in shared memory, and the
// two products of flash attention on them. Every kernel is written once, for two kinds of arithmetic:
//   T = bf16   all tensors are bf16: tensor cores, fp32 accumulation
//   T = float  any other mixture: fp32 on CUDA cores, elements converted as they are loaded
// A block is 4 warps. A warp owns 16 M rows of its product's left side and meets the right side in tiles; its
// results lie in registers as the tensor cores lay them out (tensor_core.h), for both kinds of arithmetic.
//
// Head windows. Rows of qkv hold heads side by side, so that head h begins h HS elements into q, k and v.
// With HS = 49 that is 16-byte aligned for every eighth head only; asynchronous copies need it for all. The
// known ways out keep the heads apart: a copy of qkv with rows of 56 (10 ms a micro-step of the published
// model on an A100, derived), or weights padded to 56 a head (2.3 % more FLOPs in all matrix products and a
// second layout of two weights). Instead, tiles hold the window of columns around a head that begins at the
// 16-byte boundary at or before it, which for HS = 49 is 56 = 7 x 16 bytes wide at the most: the tile that
// padding would have given, copied 16 bytes at a time straight from the packed rows, no element of which
// moves. It needs C % 8 = 0, so that all rows begin at such a boundary.
//   What the window holds beside the head must not count. After the head, the copy itself fills in zeros. The
// columns before it, at most 7, are the previous head's: they are cleared in registers, in both factors of
// each product over the head, so that not even a NaN gets from head to head. Products over rows keep columns
// apart: what they compute beside the head is not stored.
//   Where C % 8 is not 0, windows begin at the head and elements are copied one by one.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>
#include <type_traits>

#include "kernels/cuda/tensor_core.h"

namespace topolm::TOPOLM_GPU {

constexpr int kAttentionWarps = 4, kAttentionThreads = kAttentionWarps * kWarp;

/// Bytes of shared memory that a block can have on every architecture from sm_80 on.
constexpr int kMostShared = 99 << 10;

/// Of a tile row in shared memory, in elements. Rows are 16-byte aligned, and an odd number of 16 bytes long:
/// the 8 rows that ldmatrix reads at once, or the 8 float4 of a quarter warp, lie in different banks.
template <class T, int W>
constexpr int kTileRow = sizeof(T) == 2 ? (W / 8 | 1) * 8 : W + 4;

/// Rows of the tiles that a block walks over: what registers (bf16) or shared memory (float) have room for.
template <class T, int W>
constexpr int kWalked = (sizeof(T) == 2 ? 64 : 32) / (W > 64 ? 2 : 1);

/// Sets of tiles: with two, one is copied while the other is computed with. In fp32 there is no room for two.
template <class T>
constexpr int kStages = sizeof(T) == 2 ? 2 : 1;

/// The columns of a tile that belong to the head are begin .. end-1 of W.
struct Window {
  int begin, end;  // begin <= 7
  bool aligned;    // the window begins at a 16-byte boundary in every row
};

/// One head of one sequence: where it begins, counted in elements.
struct Head {
  Window window;
  int64_t width;          // C
  int64_t qkv, out, row;  // its window in the sequence's first row of qkv and of out; its row of [B,NH,T]
};

DEVICE Head head_of(int sequence_head, int length, int n_head, int head_size, bool aligned) {
  const int column = sequence_head % n_head * head_size, begin = aligned ? column % 8 : 0;
  const int64_t width = int64_t{n_head} * head_size, sequence = int64_t{sequence_head / n_head} * length;
  return {{begin, begin + head_size, aligned},
          width,
          sequence * 3 * width + column - begin,
          sequence * width + column - begin,
          int64_t{sequence_head} * length};
}

/// Element i of a tensor of bf16 where `half`, of float otherwise.
DEVICE float load_element(const void* p, bool half, int64_t i) {
  return half ? to_float(static_cast<const bf16*>(p)[i]) : static_cast<const float*>(p)[i];
}

DEVICE void store_element(void* p, bool half, int64_t i, float x) {
  if (half)
    static_cast<bf16*>(p)[i] = to_bf16(x);
  else
    static_cast<float*>(p)[i] = x;
}

/// tile[r, :] = the window in row r of a matrix, r < ROWS; `at` is the element at which the window begins in
/// row 0, `stride` the matrix's columns. Rows from `rows` on and columns from window.end on become 0. All
/// threads of the block call it. Done after copy_async_wait and a barrier.
template <int ROWS, int W, class T>
DEVICE void load_tile(T* tile, const void* matrix, bool half, int64_t at, int64_t stride, int rows,
                      const Window& window) {
  const int thread = static_cast<int>(threadIdx.x);
  if (sizeof(T) == 2 && window.aligned) {
    constexpr int kPieces = W / 8;  // of 16 bytes
#pragma unroll 1
    for (int i = thread; i < ROWS * kPieces; i += kAttentionThreads) {
      const int row = i / kPieces, column = i % kPieces * 8;
      const int count = row < rows ? max(0, min(8, window.end - column)) : 0;
      copy_async_16(tile + row * kTileRow<T, W> + column,
                    static_cast<const bf16*>(matrix) + (count > 0 ? at + row * stride + column : 0),
                    2 * count);
    }
  } else if (sizeof(T) == 4 && !half) {
#pragma unroll 1
    for (int i = thread; i < ROWS * W; i += kAttentionThreads) {
      const int row = i / W, column = i % W;
      const bool exists = row < rows && column < window.end;
      copy_async_4(tile + row * kTileRow<T, W> + column,
                   static_cast<const float*>(matrix) + (exists ? at + row * stride + column : 0),
                   exists ? 4 : 0);
    }
  } else {
#pragma unroll 2
    for (int i = thread; i < ROWS * W; i += kAttentionThreads) {
      const int row = i / W, column = i % W;
      const bool exists = row < rows && column < window.end;
      const bf16 x = exists ? static_cast<const bf16*>(matrix)[at + row * stride + column] : bf16{0};
      if constexpr (sizeof(T) == 2)
        tile[row * kTileRow<T, W> + column] = x;
      else
        tile[row * kTileRow<T, W> + column] = to_float(x);
    }
  }
}

/// Stores the head's columns of a warp's 16 M rows by W columns; rows from `rows` on do not exist.
template <int W, int M>
DEVICE void store_rows(void* matrix, bool half, int64_t at, int64_t stride, int rows, const Window& window,
                       const float (&c)[M][W / 8][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const bool pairs = half && window.aligned;  // even columns of the window are 4-byte aligned
  UNROLL
  for (int m = 0; m < M; ++m) {
    UNROLL
    for (int i = 0; i < 2; ++i) {
      const int row = 16 * m + 8 * i + lane / 4;
      if (row >= rows) continue;
      UNROLL
      for (int n = 0; n < W / 8; ++n) {
        const int column = 8 * n + lane % 4 * 2;
        const int64_t p = at + row * stride + column;
        const bool first = (n > 0 || column >= window.begin) && column < window.end,
                   second = (n > 0 || column + 1 >= window.begin) && column + 1 < window.end;
        const float x = c[m][n][2 * i], y = c[m][n][2 * i + 1];
        if (pairs && first && second) {
          store_vector<2>(static_cast<bf16*>(matrix) + p, {{to_bf16(x), to_bf16(y)}});
        } else {
          if (first) store_element(matrix, half, p, x);
          if (second) store_element(matrix, half, p + 1, y);
        }
      }
    }
  }
}

template <int M, int N>
DEVICE void clear(float (&c)[M][N][4]) {
  UNROLL
  for (int m = 0; m < M; ++m) {
    UNROLL
    for (int n = 0; n < N; ++n) {
      UNROLL
      for (int i = 0; i < 4; ++i) c[m][n][i] = 0;
    }
  }
}

template <int M, int N>
DEVICE void multiply_by(float (&c)[M][N][4], float factor) {
  UNROLL
  for (int m = 0; m < M; ++m) {
    UNROLL
    for (int n = 0; n < N; ++n) {
      UNROLL
      for (int i = 0; i < 4; ++i) c[m][n][i] *= factor;
    }
  }
}

// ---- products over the head: scores and their gradients

/// Which halves of a register with columns 2t, 2t+1 of a tile (t = lane % 4) belong to the head.
DEVICE uint32_t first_columns(const Window& window) {
  const int column = static_cast<int>(threadIdx.x) % 4 * 2;
  return (column >= window.begin ? 0x0000ffffu : 0) | (column + 1 >= window.begin ? 0xffff0000u : 0);
}

/// A warp's 16 M rows of W columns as the left factor, the same for all tiles: KEPT in registers or, where
/// they are needed for other things, read again for each tile.
template <class T, int W, int M, bool KEPT>
struct LeftRows;

template <int W, int M, bool KEPT>
struct LeftRows<bf16, W, M, KEPT> {
  const bf16* rows;
  uint32_t head_columns, whole[KEPT ? M : 1][W / 16][4], half[KEPT ? M : 1][2];

  DEVICE void load(const bf16* p, uint32_t mask) {
    rows = p, head_columns = mask;
    if constexpr (KEPT) {
      UNROLL
      for (int m = 0; m < M; ++m) {
        UNROLL
        for (int k = 0; k < W / 16; ++k) read_whole(whole[m][k], m, k);
        if constexpr (W % 16 == 8) read_half(half[m], m);
      }
    }
  }

  /// Columns 16 k .. 16 k + 15 of row tile m.
  DEVICE void get_whole(uint32_t (&a)[4], int m, int k) const {
    if constexpr (KEPT) {
      UNROLL
      for (int i = 0; i < 4; ++i) a[i] = whole[m][k][i];
    } else {
      read_whole(a, m, k);
    }
  }

  /// The last 8 columns of it.
  DEVICE void get_half(uint32_t (&a)[2], int m) const {
    if constexpr (KEPT) {
      a[0] = half[m][0];
      a[1] = half[m][1];
    } else {
      read_half(a, m);
    }
  }

 private:
  DEVICE const bf16* row(int m) const {
    return rows + (16 * m + static_cast<int>(threadIdx.x) % 16) * kTileRow<bf16, W>;
  }
  DEVICE void read_whole(uint32_t (&a)[4], int m, int k) const {
    ldmatrix<4>(a, row(m) + 16 * k + static_cast<int>(threadIdx.x) % kWarp / 16 * 8);
    if (k == 0) {
      a[0] &= head_columns;
      a[1] &= head_columns;
    }
  }
  DEVICE void read_half(uint32_t (&a)[2], int m) const { ldmatrix<2>(a, row(m) + W - 8); }
};

/// c = a b^T over W columns; b points to 8 N rows of a tile.
template <int W, int M, int N, bool KEPT>
DEVICE void multiply_transposed(float (&c)[M][N][4], const LeftRows<bf16, W, M, KEPT>& a, const bf16* b,
                                uint32_t head_columns) {
  constexpr int kRow = kTileRow<bf16, W>;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const bf16* const whole = b + (lane % 8 + lane / 16 * 8) * kRow + lane / 8 % 2 * 8;
  const bf16* const half = b + lane % 16 * kRow + W - 8;
  clear(c);
  UNROLL
  for (int k = 0; k < W / 16; ++k) {
    uint32_t left[M][4];
    UNROLL
    for (int m = 0; m < M; ++m) a.get_whole(left[m], m, k);
    UNROLL
    for (int n = 0; n < N; n += 2) {
      uint32_t r[4];
      ldmatrix<4>(r, whole + 8 * n * kRow + 16 * k);
      if (k == 0) {
        r[0] &= head_columns;
        r[2] &= head_columns;
      }
      UNROLL
      for (int m = 0; m < M; ++m) {
        mma_m16n8k16(c[m][n], left[m], {r[0], r[1]});
        mma_m16n8k16(c[m][n + 1], left[m], {r[2], r[3]});
      }
    }
  }
  if constexpr (W % 16 == 8) {
    uint32_t left[M][2];
    UNROLL
    for (int m = 0; m < M; ++m) a.get_half(left[m], m);
    UNROLL
    for (int n = 0; n < N; n += 2) {
      uint32_t r[2];
      ldmatrix<2>(r, half + 8 * n * kRow);
      UNROLL
      for (int m = 0; m < M; ++m) {
        mma_m16n8k8(c[m][n], left[m], r[0]);
        mma_m16n8k8(c[m][n + 1], left[m], r[1]);
      }
    }
  }
}

template <int W, int M, bool KEPT>
struct LeftRows<float, W, M, KEPT> {
  const float* rows;
  DEVICE void load(const float* p, uint32_t) { rows = p; }
};

/// The same in fp32. No column beside the head is ever loaded, so there is nothing to clear.
template <int W, int M, int N, bool KEPT>
DEVICE void multiply_transposed(float (&c)[M][N][4], const LeftRows<float, W, M, KEPT>& a, const float* b,
                                uint32_t) {
  constexpr int kRow = kTileRow<float, W>;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const float* const left = a.rows + lane / 4 * kRow;
  const float* const right = b + lane % 4 * 2 * kRow;
  clear(c);
#pragma unroll 1
  for (int k = 0; k < W; k += 4) {
    Vector<float, 4> x[2 * M];
    UNROLL
    for (int i = 0; i < 2 * M; ++i) x[i] = load_vector<4>(left + 8 * i * kRow + k);
    UNROLL
    for (int n = 0; n < N; ++n) {
      UNROLL
      for (int j = 0; j < 2; ++j) {
        const Vector<float, 4> y = load_vector<4>(right + (8 * n + j) * kRow + k);
        UNROLL
        for (int i = 0; i < 2 * M; ++i) {
          float& sum = c[i / 2][n][i % 2 * 2 + j];
          UNROLL
          for (int e = 0; e < 4; ++e) sum = fmaf(x[i].at[e], y.at[e], sum);
        }
      }
    }
  }
}

// ---- products over rows: outputs and gradients

/// Bytes of `exchange` for the whole block.
template <class T, int M, int N>
constexpr int kExchange = sizeof(T) == 2 ? 0 : kAttentionWarps * 16 * M*(8 * N + 4) * 4;

/// c += p b: p are the warp's rows by the 8 N rows of tile b, rounded to bf16.
template <int W, int M, int N>
DEVICE void multiply_add(float (&c)[M][W / 8][4], const float (&p)[M][N][4], const bf16* b, float*) {
  constexpr int kRow = kTileRow<bf16, W>;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  UNROLL
  for (int k = 0; k < N / 2; ++k) {
    // Two 8-column results side by side are, as they lie in registers, a 16-column left factor.
    uint32_t a[M][4];
    UNROLL
    for (int m = 0; m < M; ++m) {
      UNROLL
      for (int i = 0; i < 4; ++i) {
        const float* const pair = p[m][2 * k + i / 2] + i % 2 * 2;
        a[m][i] = pack_bf16(pair[0], pair[1]);
      }
    }
    const bf16* const rows = b + (16 * k + lane % 16) * kRow;
    UNROLL
    for (int n = 0; n + 1 < W / 8; n += 2) {
      uint32_t r[4];
      ldmatrix<4, true>(r, rows + 8 * n + lane / 16 * 8);
      UNROLL
      for (int m = 0; m < M; ++m) {
        mma_m16n8k16(c[m][n], a[m], {r[0], r[1]});
        mma_m16n8k16(c[m][n + 1], a[m], {r[2], r[3]});
      }
    }
    if constexpr (W % 16 == 8) {
      uint32_t r[2];
      ldmatrix<2, true>(r, rows + W - 8);
      UNROLL
      for (int m = 0; m < M; ++m) mma_m16n8k16(c[m][W / 8 - 1], a[m], r);
    }
  }
}

/// The same in fp32. A lane needs whole rows of p, which four lanes hold: they meet in the warp's part of
/// `exchange`.
template <int W, int M, int N>
DEVICE void multiply_add(float (&c)[M][W / 8][4], const float (&p)[M][N][4], const float* b,
                         float* exchange) {
  constexpr int kRow = kTileRow<float, W>, kColumns = 8 * N + 4;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float* const rows = exchange + (static_cast<int>(threadIdx.x) / kWarp * 16 * M + lane / 4) * kColumns;
  __syncwarp();  // the last product has been made
  UNROLL
  for (int i = 0; i < 2 * M; ++i) {
    UNROLL
    for (int n = 0; n < N; ++n) {
      const float* const pair = p[i / 2][n] + i % 2 * 2;
      store_vector<2>(rows + 8 * i * kColumns + 8 * n + lane % 4 * 2, {{pair[0], pair[1]}});
    }
  }
  __syncwarp();
#pragma unroll 1
  for (int k = 0; k < 8 * N; k += 2) {
    Vector<float, 2> x[2 * M];
    UNROLL
    for (int i = 0; i < 2 * M; ++i) x[i] = load_vector<2>(rows + 8 * i * kColumns + k);
    UNROLL
    for (int e = 0; e < 2; ++e) {
      UNROLL
      for (int n = 0; n < W / 8; ++n) {
        const Vector<float, 2> y = load_vector<2>(b + (k + e) * kRow + 8 * n + lane % 4 * 2);
        UNROLL
        for (int i = 0; i < 2 * M; ++i) {
          UNROLL
          for (int j = 0; j < 2; ++j) {
            float& sum = c[i / 2][n][i % 2 * 2 + j];
            sum = fmaf(x[i].at[e], y.at[j], sum);
          }
        }
      }
    }
  }
}

// ---- for the launchers

struct TileChoice {
  bool tensor_cores, aligned;
  int width;
};

/// Tensor cores where all of `tensors` are bf16, head windows where they are aligned, the narrowest tile that
/// holds every window. C = n_head head_size.
inline TileChoice choose_tiles(const char* operation, std::initializer_list<const Tensor*> tensors,
                               int n_head, int64_t head_size) {
  constexpr int64_t kWidest = 128;
  if (head_size > kWidest)
    refuse("%s: heads of %d columns; the GPU's kernels hold up to %d", operation, static_cast<int>(head_size),
           static_cast<int>(kWidest));
  int64_t width = 0;  // of the widest window
  for (int64_t head = 0; head < std::min(8, n_head); ++head)
    width = std::max(width, head * head_size % 8 + head_size);
  bool half = true, aligned = n_head * head_size % 8 == 0 && width <= kWidest;
  for (const Tensor* t : tensors) {
    half = half && t->dtype == DType::bf16;
    aligned = aligned && reinterpret_cast<uintptr_t>(t->data) % 16 == 0;
  }
  aligned = aligned && half;
  return {half, aligned, static_cast<int>(aligned ? width : head_size)};
}

/// Calls f with a null pointer of the arithmetic's type and the tile's width as a constant. Few widths: each
/// is three more kernels to compile, for both types and all architectures.
template <class F>
void with_tiles(const TileChoice& choice, F&& f) {
  const auto with_width = [&](auto* type) {
    if (choice.width <= 16)
      f(type, std::integral_constant<int, 16>{});
    else if (choice.width <= 56)
      f(type, std::integral_constant<int, 56>{});
    else if (choice.width <= 64)
      f(type, std::integral_constant<int, 64>{});
    else
      f(type, std::integral_constant<int, 128>{});
  };
  if (choice.tensor_cores)
    with_width(static_cast<bf16*>(nullptr));
  else
    with_width(static_cast<float*>(nullptr));
}

}  // namespace topolm::TOPOLM_GPU
