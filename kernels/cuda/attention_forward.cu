// Causal attention, forward: FlashAttention-2 (Dao 2023). A block takes a tile of one head's queries past the
// keys and values that they see, and keeps a running maximum and sum of each row: the T x T scores never
// exist.
#include "kernels/attention_sizes.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/gpu_kernels.h"
#include "kernels/cuda/math.h"
#include "kernels/cuda/warp.h"

namespace topolm::TOPOLM_GPU {

/// Keys and values that a warp reads from shared memory serve 32 rows, or 16 where the head is too wide for
/// the registers. With 16 rows the four warps of a block take as long to read as to compute: 64 keys of 56
/// columns are 56 products of 8 cycles on an sm_80's tensor cores, and 4 x 14 KB at 128 bytes a cycle from
/// its shared memory, 448 cycles each, derived from its data sheet.
template <class T, int W>
struct ForwardTiles {
  static constexpr int kRowTiles = W > 64 ? 1 : 2;
  static constexpr int kWarpRows = 16 * kRowTiles, kQueries = kAttentionWarps * kWarpRows;
  static constexpr int kKeys = kWalked<T, W>;
  static constexpr int kQueryTile = kQueries * kTileRow<T, W>, kKeyTile = kKeys * kTileRow<T, W>;
  static constexpr int kShared = (kQueryTile + kStages<T> * 2 * kKeyTile) * static_cast<int>(sizeof(T)) +
                                 kExchange<T, kRowTiles, kKeys / 8>;
  static_assert(kShared <= kMostShared);
};

/// out [B,T,C] = softmax(scale q k^T) v for each head, over the keys at or before the query; qkv [B,T,3C],
/// logsumexp [B,NH,T]; any T, head windows of at most W columns. exponent_scale = scale log2(e): the softmax
/// is computed with powers of two. One block a tile of queries. Tiles of a head are neighbours, so that they
/// find its keys and values in the L2 cache; the last tile, which sees most keys, begins first.
template <class T, int W>
__global__ void __launch_bounds__(kAttentionThreads, 2)
    attention_forward_kernel(void* out, bool out_half, float* logsumexp, const void* qkv, bool qkv_half,
                             int length, int n_head, int head_size, bool aligned, float exponent_scale) {
  using Tiles = ForwardTiles<T, W>;
  constexpr int M = Tiles::kRowTiles, kKeys = Tiles::kKeys;
  DYNAMIC_SHARED(T, queries);
  T* const stages = queries + Tiles::kQueryTile;
  float* const exchange = reinterpret_cast<float*>(stages + kStages<T> * 2 * Tiles::kKeyTile);

  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int query_tiles = (length + Tiles::kQueries - 1) / Tiles::kQueries;
  const int block = static_cast<int>(blockIdx.x), sequence_head = block / query_tiles;
  const int first_query = (query_tiles - 1 - block % query_tiles) * Tiles::kQueries;
  const int warp_query = first_query + warp * Tiles::kWarpRows, lane_query = warp_query + lane / 4;
  const Head head = head_of(sequence_head, length, n_head, head_size, aligned);
  const uint32_t head_columns = first_columns(head.window);
  const int64_t stride = 3 * head.width;

  const auto load_keys = [&](int tile) {
    const int first = tile * kKeys;
    const int64_t at = head.qkv + first * stride;
    T* const keys = stages + tile % kStages<T> * 2 * Tiles::kKeyTile;
    load_tile<kKeys, W>(keys, qkv, qkv_half, at + head.width, stride, length - first, head.window);
    load_tile<kKeys, W>(keys + Tiles::kKeyTile, qkv, qkv_half, at + 2 * head.width, stride, length - first,
                        head.window);
    copy_async_commit();
  };

  // Row r of the warp's 16 M is held by four lanes, as half i = r / 8 % 2 of row tile m = r / 16.
  float o[M][W / 8][4], maximum[M][2], sum[M][2];
  clear(o);
  UNROLL
  for (int m = 0; m < M; ++m) {
    UNROLL
    for (int i = 0; i < 2; ++i) {
      maximum[m][i] = -INFINITY;
      sum[m][i] = 0;  // over the columns that this lane holds
    }
  }

  load_tile<Tiles::kQueries, W>(queries, qkv, qkv_half, head.qkv + first_query * stride, stride,
                                length - first_query, head.window);
  copy_async_commit();
  if constexpr (kStages<T> == 2) load_keys(0);
  copy_async_wait<kStages<T> - 1>();
  __syncthreads();
  constexpr bool kKept = W < 64;
  LeftRows<T, W, M, kKept> left;
  left.load(queries + warp * Tiles::kWarpRows * kTileRow<T, W>, head_columns);
  const int key_tiles = (min(first_query + Tiles::kQueries, length) + kKeys - 1) / kKeys;
  for (int tile = 0; tile < key_tiles; ++tile) {
    if constexpr (kStages<T> == 1) {
      __syncthreads();  // no warp still reads the last tile
      load_keys(tile);
    }
    copy_async_wait<0>();
    __syncthreads();
    // The other stage was last read before this barrier.
    if constexpr (kStages<T> == 2)
      if (tile + 1 < key_tiles) load_keys(tile + 1);
    const int first_key = tile * kKeys;
    if (first_key >= warp_query + Tiles::kWarpRows) continue;  // the warp's queries see none of these keys

    const T* const keys = stages + tile % kStages<T> * 2 * Tiles::kKeyTile;
    float p[M][kKeys / 8][4];
    multiply_transposed<W>(p, left, keys, head_columns);
    if (first_key + kKeys - 1 > warp_query) {
      UNROLL
      for (int m = 0; m < M; ++m) {
        UNROLL
        for (int n = 0; n < kKeys / 8; ++n) {
          UNROLL
          for (int i = 0; i < 4; ++i) {
            const int key = first_key + 8 * n + lane % 4 * 2 + i % 2, query = lane_query + 16 * m + i / 2 * 8;
            if (key > query) p[m][n][i] = -INFINITY;
          }
        }
      }
    }
    UNROLL
    for (int m = 0; m < M; ++m) {
      UNROLL
      for (int i = 0; i < 2; ++i) {
        float largest = p[m][0][2 * i];
        UNROLL
        for (int n = 0; n < kKeys / 8; ++n)
          largest = fmaxf(largest, fmaxf(p[m][n][2 * i], p[m][n][2 * i + 1]));
        // Key 0 is seen by all queries, so the maximum is finite from the first tile on.
        const float previous = maximum[m][i];
        maximum[m][i] = fmaxf(previous, warp_max(largest, 4) * exponent_scale);
        const float shrink = exp2_fast(previous - maximum[m][i]);
        float tile_sum = 0;
        UNROLL
        for (int n = 0; n < kKeys / 8; ++n) {
          UNROLL
          for (int j = 2 * i; j < 2 * i + 2; ++j) {
            p[m][n][j] = exp2_fast(fmaf(p[m][n][j], exponent_scale, -maximum[m][i]));
            tile_sum += p[m][n][j];
          }
        }
        sum[m][i] = fmaf(sum[m][i], shrink, tile_sum);
        UNROLL
        for (int n = 0; n < W / 8; ++n) {
          o[m][n][2 * i] *= shrink;
          o[m][n][2 * i + 1] *= shrink;
        }
      }
    }
    multiply_add<W>(o, p, keys + Tiles::kKeyTile, exchange);
  }

  UNROLL
  for (int m = 0; m < M; ++m) {
    UNROLL
    for (int i = 0; i < 2; ++i) {
      const float total = warp_sum(sum[m][i], 4), inverse = 1.0f / total;
      const int query = lane_query + 16 * m + 8 * i;
      if (lane % 4 == 0 && query < length)
        logsumexp[head.row + query] = (maximum[m][i] + log2_fast(total)) * kLn2;
      UNROLL
      for (int n = 0; n < W / 8; ++n) {
        o[m][n][2 * i] *= inverse;
        o[m][n][2 * i + 1] *= inverse;
      }
    }
  }
  store_rows<W>(out, out_half, head.out + warp_query * head.width, head.width, length - warp_query,
                head.window, o);
}

void GpuKernels::attention_forward(const Tensor& out, const Tensor& logsumexp, const Tensor& qkv,
                                   int n_head) {
  const Range range("attention");
  const AttentionSizes sizes = check_attention("attention_forward", out, qkv, logsumexp, n_head);
  const TileChoice choice = choose_tiles("attention_forward", {&out, &qkv}, n_head, sizes.head_size);
  const double pairs = 0.5 * static_cast<double>(sizes.batch * n_head) *
                       static_cast<double>(sizes.length * (sizes.length + 1));  // of query and key
  const Work work{.bytes = static_cast<double>(out.bytes() + logsumexp.bytes() + qkv.bytes()),
                  .flops = 4.0 * static_cast<double>(sizes.head_size) * pairs};
  const float exponent_scale = kLog2E / std::sqrt(static_cast<float>(sizes.head_size));
  with_tiles(choice, [&](auto* type, auto width) {
    using T = std::remove_pointer_t<decltype(type)>;
    constexpr int W = decltype(width)::value;
    using Tiles = ForwardTiles<T, W>;
    const Extent blocks = blocks_for(sizes.length, Tiles::kQueries);
    launch(KERNEL(attention_forward_kernel<T, W>),
           {{blocks.x * static_cast<uint32_t>(sizes.batch * n_head)}, {kAttentionThreads}, Tiles::kShared},
           work, out.data, out.dtype == DType::bf16, logsumexp.f32(), qkv.data, qkv.dtype == DType::bf16,
           sizes.length, n_head, sizes.head_size, choice.aligned, exponent_scale);
  });
}

}  // namespace topolm::TOPOLM_GPU
