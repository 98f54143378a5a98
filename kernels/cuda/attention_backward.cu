// Causal attention, backward. With S = scale Q K^T and P = exp(S - logsumexp), recomputed tile by tile:
//   D = rowsum(dO * O)    dP = dO V^T    dS = P * (dP - D)
//   dV = P^T dO           dK = scale dS^T Q                 dQ = scale dS K
//
// dQ is a sum over keys, dK and dV are sums over queries: a kernel that makes all three in one pass over the
// tiles, with 5 products a tile, must add up one of them across blocks or in memory. Here are two kernels,
// one for dK and dV and one for dQ, which both compute S and dP: 7 products a tile. In exchange every sum
// stays in one warp's registers, so that its order is fixed; nothing is written twice; and every tile of
// every head has a block, however few heads there are. The other way to a fixed order is one block a head
// that walks over all tiles and adds to dQ in memory. Derived for the published model (16 heads of 49, T =
// 1024, 48 sequences, 12 layers) on an A100: the two products more are 1.1 TFLOP a micro-step as executed, 6
// ms at 60 % of its peak. They save adding to dQ in memory 8.5 times on average, 36 GB read and written or 5
// ms of its L2 cache at 5120 bytes a cycle; and one block a head, 768 of them, would be 7 a multiprocessor,
// but one sequence's 16 would leave most of the 108 idle.
#include "kernels/attention_sizes.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/gpu_kernels.h"
#include "kernels/cuda/math.h"
#include "kernels/cuda/warp.h"

namespace topolm::TOPOLM_GPU {

/// dot [B,NH,T] = the sum of dout * out over a head's columns; dout, out [B,T,C] any. One warp a row and
/// head.
__global__ void __launch_bounds__(kAttentionThreads)
    attention_dot_kernel(float* dot, const void* dout, bool dout_half, const void* out, bool out_half,
                         int64_t rows, int length, int n_head, int head_size) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t i = int64_t{blockIdx.x} * kAttentionWarps + threadIdx.x / kWarp;  // row n_head + head
  const int64_t row = i / n_head, at = i * head_size;
  float sum = 0;
  if (row < rows)
    for (int column = lane; column < head_size; column += kWarp)
      sum = fmaf(load_element(dout, dout_half, at + column), load_element(out, out_half, at + column), sum);
  sum = warp_sum(sum);
  if (lane == 0 && row < rows) dot[(row / length * n_head + i % n_head) * length + row % length] = sum;
}

/// A block owns 64 M rows of two matrices and walks over tiles of two others.
template <class T, int W, int M>
struct BackwardTiles {
  static constexpr int kWarpRows = 16 * M, kOwned = kAttentionWarps * kWarpRows, kWalk = W > 64 ? 16 : 32;
  static constexpr int kOwnedTile = kOwned * kTileRow<T, W>, kWalkedTile = kWalk * kTileRow<T, W>;
  static constexpr int kTiles = (2 * kOwnedTile + kStages<T> * 2 * kWalkedTile) * static_cast<int>(sizeof(T));
  static constexpr int kStatistics = kStages<T> * 2 * kWalk * 4;
  static constexpr int kShared = kTiles + kStatistics + kExchange<T, M, kWalk / 8>;
  static_assert(kShared <= kMostShared);
};

/// dk and dv, columns C .. 3C-1 of dqkv [B,T,3C], from dout [B,T,C], qkv [B,T,3C], logsumexp and dot
/// [B,NH,T]. One block a tile of 64 keys, which walks over the queries that see them. It computes S^T and
/// dP^T, keys in rows: so they are already, in registers, the left factors of dV and dK.
template <class T, int W>
__global__ void __launch_bounds__(kAttentionThreads, 2)
    attention_backward_keys_kernel(void* dqkv, bool dqkv_half, const void* dout, bool dout_half,
                                   const void* qkv, bool qkv_half, const float* logsumexp, const float* dot,
                                   int length, int n_head, int head_size, bool aligned, float scale) {
  using Tiles = BackwardTiles<T, W, 1>;
  constexpr int kQueries = Tiles::kWalk;
  DYNAMIC_SHARED(T, keys);
  T* const values = keys + Tiles::kOwnedTile;
  T* const stages = values + Tiles::kOwnedTile;
  float* const statistics = reinterpret_cast<float*>(stages + kStages<T> * 2 * Tiles::kWalkedTile);
  float* const exchange = statistics + kStages<T> * 2 * kQueries;  // statistics: logsumexp log2(e), then dot

  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int key_tiles = (length + Tiles::kOwned - 1) / Tiles::kOwned;
  const int block = static_cast<int>(blockIdx.x), sequence_head = block / key_tiles;
  const int first_key = block % key_tiles * Tiles::kOwned;  // the first, which most queries see, begins first
  const int warp_key = first_key + 16 * warp, lane_key = warp_key + lane / 4;
  const Head head = head_of(sequence_head, length, n_head, head_size, aligned);
  const uint32_t head_columns = first_columns(head.window);
  const int64_t width = head.width, stride = 3 * width;
  const float exponent_scale = scale * kLog2E;

  const auto load_queries = [&](int tile) {
    const int first = tile * kQueries, stage = tile % kStages<T>;
    T* const queries = stages + stage * 2 * Tiles::kWalkedTile;
    load_tile<kQueries, W>(queries, qkv, qkv_half, head.qkv + first * stride, stride, length - first,
                           head.window);
    load_tile<kQueries, W>(queries + Tiles::kWalkedTile, dout, dout_half, head.out + first * width, width,
                           length - first, head.window);
    copy_async_commit();
    float* const row_statistics = statistics + stage * 2 * kQueries;
    for (int i = static_cast<int>(threadIdx.x); i < kQueries; i += kAttentionThreads) {
      const bool exists = first + i < length;  // P is 0 where it does not
      row_statistics[i] = exists ? logsumexp[head.row + first + i] * kLog2E : INFINITY;
      row_statistics[kQueries + i] = exists ? dot[head.row + first + i] : 0.0f;
    }
  };

  float dk[1][W / 8][4], dv[1][W / 8][4];
  clear(dk);
  clear(dv);
  load_tile<Tiles::kOwned, W>(keys, qkv, qkv_half, head.qkv + first_key * stride + width, stride,
                              length - first_key, head.window);
  load_tile<Tiles::kOwned, W>(values, qkv, qkv_half, head.qkv + first_key * stride + 2 * width, stride,
                              length - first_key, head.window);
  copy_async_commit();
  const int first_tile = first_key / kQueries, last_tile = (length - 1) / kQueries;
  if constexpr (kStages<T> == 2) load_queries(first_tile);
  copy_async_wait<kStages<T> - 1>();
  __syncthreads();
  LeftRows<T, W, 1, W <= 64> left_keys, left_values;
  left_keys.load(keys + 16 * warp * kTileRow<T, W>, head_columns);
  left_values.load(values + 16 * warp * kTileRow<T, W>, head_columns);
  for (int tile = first_tile; tile <= last_tile; ++tile) {
    if constexpr (kStages<T> == 1) {
      __syncthreads();  // no warp still reads the last tile
      load_queries(tile);
    }
    copy_async_wait<0>();
    __syncthreads();
    // The other stage was last read before this barrier.
    if constexpr (kStages<T> == 2)
      if (tile < last_tile) load_queries(tile + 1);
    const int first_query = tile * kQueries;
    if (first_query + kQueries <= warp_key) continue;  // none of these queries sees the warp's keys

    const T* const queries = stages + tile % kStages<T> * 2 * Tiles::kWalkedTile;
    const float* const row_statistics = statistics + tile % kStages<T> * 2 * kQueries;
    float p[1][kQueries / 8][4], ds[1][kQueries / 8][4];
    multiply_transposed<W>(p, left_keys, queries, head_columns);
    multiply_transposed<W>(ds, left_values, queries + Tiles::kWalkedTile, head_columns);
    UNROLL
    for (int n = 0; n < kQueries / 8; ++n) {
      const int column = 8 * n + lane % 4 * 2;
      const Vector<float, 2> lse = load_vector<2>(row_statistics + column),
                             d = load_vector<2>(row_statistics + kQueries + column);
      UNROLL
      for (int i = 0; i < 4; ++i) {
        const float exponent = fmaf(p[0][n][i], exponent_scale, -lse.at[i % 2]);
        p[0][n][i] = first_query + column + i % 2 >= lane_key + i / 2 * 8 ? exp2_fast(exponent) : 0.0f;
        ds[0][n][i] = p[0][n][i] * (ds[0][n][i] - d.at[i % 2]);
      }
    }
    multiply_add<W>(dv, p, queries + Tiles::kWalkedTile, exchange);
    multiply_add<W>(dk, ds, queries, exchange);
  }

  multiply_by(dk, scale);
  const int64_t at = head.qkv + warp_key * stride;
  store_rows<W>(dqkv, dqkv_half, at + width, stride, length - warp_key, head.window, dk);
  store_rows<W>(dqkv, dqkv_half, at + 2 * width, stride, length - warp_key, head.window, dv);
}

/// Two row tiles a warp, as in the forward pass, where there are registers and shared memory for them.
template <class T, int W>
constexpr int kQueryRowTiles = sizeof(T) == 2 && W <= 64 ? 2 : 1;

/// dq, columns 0 .. C-1 of dqkv, from the same. One block a tile of 64 queries, which walks over the keys
/// that they see; the last tile, which sees most, begins first.
template <class T, int W>
__global__ void __launch_bounds__(kAttentionThreads, 2)
    attention_backward_queries_kernel(void* dqkv, bool dqkv_half, const void* dout, bool dout_half,
                                      const void* qkv, bool qkv_half, const float* logsumexp,
                                      const float* dot, int length, int n_head, int head_size, bool aligned,
                                      float scale) {
  constexpr int M = kQueryRowTiles<T, W>;
  using Tiles = BackwardTiles<T, W, M>;
  constexpr int kKeys = Tiles::kWalk;
  DYNAMIC_SHARED(T, queries);
  T* const douts = queries + Tiles::kOwnedTile;
  T* const stages = douts + Tiles::kOwnedTile;
  float* const exchange = reinterpret_cast<float*>(stages + kStages<T> * 2 * Tiles::kWalkedTile);

  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int query_tiles = (length + Tiles::kOwned - 1) / Tiles::kOwned;
  const int block = static_cast<int>(blockIdx.x), sequence_head = block / query_tiles;
  const int first_query = (query_tiles - 1 - block % query_tiles) * Tiles::kOwned;
  const int warp_query = first_query + warp * Tiles::kWarpRows, lane_query = warp_query + lane / 4;
  const Head head = head_of(sequence_head, length, n_head, head_size, aligned);
  const uint32_t head_columns = first_columns(head.window);
  const int64_t width = head.width, stride = 3 * width;
  const float exponent_scale = scale * kLog2E;

  const auto load_keys = [&](int tile) {
    const int first = tile * kKeys;
    T* const keys = stages + tile % kStages<T> * 2 * Tiles::kWalkedTile;
    const int64_t at = head.qkv + first * stride;
    load_tile<kKeys, W>(keys, qkv, qkv_half, at + width, stride, length - first, head.window);
    load_tile<kKeys, W>(keys + Tiles::kWalkedTile, qkv, qkv_half, at + 2 * width, stride, length - first,
                        head.window);
    copy_async_commit();
  };

  float dq[M][W / 8][4], row_logsumexp[M][2], row_dot[M][2];
  clear(dq);
  UNROLL
  for (int m = 0; m < M; ++m) {
    UNROLL
    for (int i = 0; i < 2; ++i) {
      const int query = lane_query + 16 * m + 8 * i;
      row_logsumexp[m][i] = query < length ? logsumexp[head.row + query] * kLog2E : INFINITY;
      row_dot[m][i] = query < length ? dot[head.row + query] : 0.0f;
    }
  }
  load_tile<Tiles::kOwned, W>(queries, qkv, qkv_half, head.qkv + first_query * stride, stride,
                              length - first_query, head.window);
  load_tile<Tiles::kOwned, W>(douts, dout, dout_half, head.out + first_query * width, width,
                              length - first_query, head.window);
  copy_async_commit();
  const int last_tile = (min(first_query + Tiles::kOwned, length) - 1) / kKeys;
  if constexpr (kStages<T> == 2) load_keys(0);
  copy_async_wait<kStages<T> - 1>();
  __syncthreads();
  LeftRows<T, W, M, W <= 64> left_queries;
  LeftRows<T, W, M, M == 1 && W <= 64> left_douts;
  left_queries.load(queries + warp * Tiles::kWarpRows * kTileRow<T, W>, head_columns);
  left_douts.load(douts + warp * Tiles::kWarpRows * kTileRow<T, W>, head_columns);
  for (int tile = 0; tile <= last_tile; ++tile) {
    if constexpr (kStages<T> == 1) {
      __syncthreads();  // no warp still reads the last tile
      load_keys(tile);
    }
    copy_async_wait<0>();
    __syncthreads();
    // The other stage was last read before this barrier.
    if constexpr (kStages<T> == 2)
      if (tile < last_tile) load_keys(tile + 1);
    const int first_key = tile * kKeys;
    if (first_key >= warp_query + Tiles::kWarpRows) continue;  // the warp's queries see none of these keys

    const T* const keys = stages + tile % kStages<T> * 2 * Tiles::kWalkedTile;
    float p[M][kKeys / 8][4], ds[M][kKeys / 8][4];
    multiply_transposed<W>(p, left_queries, keys, head_columns);
    multiply_transposed<W>(ds, left_douts, keys + Tiles::kWalkedTile, head_columns);
    UNROLL
    for (int m = 0; m < M; ++m) {
      UNROLL
      for (int n = 0; n < kKeys / 8; ++n) {
        UNROLL
        for (int i = 0; i < 4; ++i) {
          const int key = first_key + 8 * n + lane % 4 * 2 + i % 2, query = lane_query + 16 * m + i / 2 * 8;
          const float exponent = fmaf(p[m][n][i], exponent_scale, -row_logsumexp[m][i / 2]);
          const float probability = key <= query ? exp2_fast(exponent) : 0.0f;
          ds[m][n][i] = probability * (ds[m][n][i] - row_dot[m][i / 2]);
        }
      }
    }
    multiply_add<W>(dq, ds, keys, exchange);
  }

  multiply_by(dq, scale);
  store_rows<W>(dqkv, dqkv_half, head.qkv + warp_query * stride, stride, length - warp_query, head.window,
                dq);
}

void GpuKernels::attention_backward(const Tensor& dqkv, const Tensor& dout, const Tensor& qkv,
                                    const Tensor& out, const Tensor& logsumexp, int n_head) {
  const Range range("attention_backward");
  const AttentionSizes sizes = check_attention("attention_backward", out, qkv, logsumexp, n_head);
  check_shape("attention_backward", "dqkv", dqkv, qkv.shape);
  check_shape("attention_backward", "dout", dout, out.shape);
  const auto half = [](const Tensor& t) { return t.dtype == DType::bf16; };
  const TileChoice choice = choose_tiles("attention_backward", {&dqkv, &dout, &qkv}, n_head, sizes.head_size);
  const float scale = 1 / std::sqrt(static_cast<float>(sizes.head_size));
  const int64_t rows = out.rows(), heads = sizes.batch * n_head;
  const double elements = static_cast<double>(out.elements()), statistics = 8.0 * logsumexp.elements();
  const double pairs = 0.5 * static_cast<double>(heads) *
                       static_cast<double>(sizes.length * (sizes.length + 1));  // of query and key
  const double product = 2.0 * static_cast<double>(sizes.head_size) * pairs;

  auto* const dot = static_cast<float*>(device_->scratch(static_cast<size_t>(logsumexp.bytes())));
  launch(
      KERNEL(attention_dot_kernel), {blocks_for(rows * n_head, kAttentionWarps), {kAttentionThreads}},
      {.bytes = static_cast<double>(dout.bytes() + out.bytes() + logsumexp.bytes()), .flops = 2 * elements},
      dot, dout.data, half(dout), out.data, half(out), rows, sizes.length, n_head, sizes.head_size);
  with_tiles(choice, [&](auto* type, auto width) {
    using T = std::remove_pointer_t<decltype(type)>;
    constexpr int W = decltype(width)::value;
    using KeyTiles = BackwardTiles<T, W, 1>;
    using QueryTiles = BackwardTiles<T, W, kQueryRowTiles<T, W>>;
    const auto grid = [&](int owned, int shared) {
      return Grid{{blocks_for(sizes.length, owned).x * static_cast<uint32_t>(heads)},
                  {kAttentionThreads},
                  static_cast<size_t>(shared)};
    };
    const double inputs = static_cast<double>(dout.bytes() + qkv.bytes()) + statistics;
    launch(KERNEL(attention_backward_keys_kernel<T, W>), grid(KeyTiles::kOwned, KeyTiles::kShared),
           {.bytes = inputs + 2.0 / 3 * dqkv.bytes(), .flops = 4 * product}, dqkv.data, half(dqkv), dout.data,
           half(dout), qkv.data, half(qkv), logsumexp.f32(), dot, sizes.length, n_head, sizes.head_size,
           choice.aligned, scale);
    launch(KERNEL(attention_backward_queries_kernel<T, W>), grid(QueryTiles::kOwned, QueryTiles::kShared),
           {.bytes = inputs + 1.0 / 3 * dqkv.bytes(), .flops = 3 * product}, dqkv.data, half(dqkv), dout.data,
           half(dout), qkv.data, half(qkv), logsumexp.f32(), dot, sizes.length, n_head, sizes.head_size,
           choice.aligned, scale);
  });
}

}  // namespace topolm::TOPOLM_GPU
