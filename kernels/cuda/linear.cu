// Linear layers: the shapes are checked here; the products are the library's, or our own kernels'.
//
// All three products are out[m,n] = sum over k of a[m,k] b[n,k], the operands lying in memory as they may:
//
//   forward          y  [N,OUT]  = x weight^T   a = x    [M,K] by rows       b = weight [N,K] by rows
//   backward, input  dx [N,IN]   = dy weight    a = dy   [M,K] by rows       b = weight [K,N] by columns
//   backward, weight dw [OUT,IN] += dy^T x      a = dy   [K,M] by columns    b = x      [K,N] by columns
//
// A block computes a tile of 128 x 112 outputs: 112 divides the widths of the published model (784, 2352,
// 3136), where tiles of 128 columns would compute 11 % for nothing. It walks along k in steps of 64 bytes,
// the tiles of both operands coming by asynchronous copies two steps ahead. bf16 is multiplied by tensor
// cores, fp32 by ordinary fused multiply-adds: 56 sums a thread in either case.
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/gpu_kernels.h"
#include "kernels/cuda/tensor_core.h"
#include "kernels/cuda/warp.h"

namespace topolm::TOPOLM_GPU {

constexpr int kProductThreads = 256;
constexpr int kTileM = 128, kTileN = 112;
constexpr int kStages = 3;  // 48 KB of shared memory: two blocks fit even where a multiprocessor has 100 KB
using Chunk = Vector<uint32_t, 4>;  // what one asynchronous copy moves
template <class T>
constexpr int kPerChunk = sizeof(Chunk) / sizeof(T);
template <class T>
constexpr int kDepth = 4 * kPerChunk<T>;  // k of one step

namespace {

/// SIZE rows and kDepth<T> of the k of an operand, in shared memory line by line as in global memory.
/// ldmatrix and vector loads read the same chunk of eight neighbouring lines at a time; these are in eight
/// different groups of banks: by an exchange of chunks in lines of four, by an odd number of chunks in long
/// lines.
template <class T, int SIZE, Layout LAYOUT>
struct Tile {
  static constexpr bool kRows = LAYOUT == Layout::rows;
  static constexpr int kLines = kRows ? SIZE : kDepth<T>;
  static constexpr int kLineChunks = (kRows ? kDepth<T> : SIZE) / kPerChunk<T>;
  static constexpr int kPitch = kRows ? kLineChunks : kLineChunks + 1;
  static constexpr int kChunks = kLines * kPitch;
  static_assert(kRows ? kPitch == 4 : kPitch % 2 == 1);

  DEVICE static int place(int line, int chunk) {
    return line * kPitch + (kRows ? chunk ^ line / 2 % 4 : chunk);
  }

  // Every thread copies at most one chunk of one line, and of another one kPassLines further on.
  static constexpr int kLineThreads = kRows ? 4 : 128 / kPerChunk<T>;
  static constexpr int kPassLines = kProductThreads / kLineThreads;
  static_assert(kLineChunks <= kLineThreads && kPassLines < kLines && kLines <= 2 * kPassLines);
  DEVICE static int line() { return static_cast<int>(threadIdx.x / kLineThreads); }
  DEVICE static int chunk() { return static_cast<int>(threadIdx.x % kLineThreads); }

  /// This thread's first element of the tile that begins at (row, k).
  DEVICE static const T* first(const T* operand, int64_t stride, int64_t row, int64_t k) {
    return operand + ((kRows ? row : k) + line()) * stride + (kRows ? k : row) + chunk() * kPerChunk<T>;
  }

  /// Copies a tile of which `rows` rows and `depth` of k exist (or more); the rest becomes zeros. It is there
  /// after copy_async_wait and a barrier. ALIGNED: all lines begin at multiples of 16 bytes.
  template <bool ALIGNED>
  DEVICE static void load(Chunk* tile, const T* first, int64_t stride, int rows, int depth) {
    const int lines = kRows ? rows : depth, elements = kRows ? depth : rows;
    UNROLL
    for (int l = 0; l < 2 * kPassLines; l += kPassLines) {
      if (kLineChunks < kLineThreads && chunk() >= kLineChunks) continue;
      if (kLines < 2 * kPassLines && l + line() >= kLines) continue;
      const int left = l + line() < lines ? elements - chunk() * kPerChunk<T> : 0;
      const T* const from = first + l * stride;
      Chunk* const to = tile + place(line(), chunk()) + l * kPitch;
      if constexpr (ALIGNED) {
        copy_async_16(to, from, left > 0 ? 16 : 0);
      } else {
        Vector<T, kPerChunk<T>> v;
        UNROLL
        for (int e = 0; e < kPerChunk<T>; ++e) v.at[e] = e < left ? from[e] : T{};
        *reinterpret_cast<Vector<T, kPerChunk<T>>*>(to) = v;
      }
    }
  }

  /// The address of element (row + down, k), of which the rest of its chunk follows. down: a multiple of 8,
  /// the same in all threads; so addresses differ by constants.
  DEVICE static const T* at(const Chunk* tile, int row, int down, int k) {
    const int line = kRows ? row : k, element = kRows ? k : row;
    return reinterpret_cast<const T*>(tile + place(line, element / kPerChunk<T>)) + element % kPerChunk<T> +
           down * (kRows ? kPitch * kPerChunk<T> : 1);
  }
};

/// A thread's share of a tile of outputs: multiply adds the product of two tiles, for_each visits the sums.
template <class T>
struct Sums;

/// Tensor cores. Warps are 4 x 2, each with 32 x 56 outputs: 2 x 7 fragments of m16n8.
template <>
struct Sums<bf16> {
  [[maybe_unused]] static constexpr int kBlocks = 2;  // of a multiprocessor at a time
  static constexpr int kM = 2, kN = 7;
  float sum[kM][kN][4] = {};

  DEVICE static int lane() { return static_cast<int>(threadIdx.x % kWarp); }
  DEVICE static int first_row() { return static_cast<int>(threadIdx.x / (2 * kWarp)) * (16 * kM); }
  DEVICE static int first_column() { return static_cast<int>(threadIdx.x / kWarp % 2) * (8 * kN); }

  template <Layout A, Layout B>
  DEVICE void multiply(const Chunk* a_tile, const Chunk* b_tile) {
    using TileA = Tile<bf16, kTileM, A>;
    using TileB = Tile<bf16, kTileN, B>;
    UNROLL
    for (int k = 0; k < kDepth<bf16>; k += 16) {
      // The 8x8 matrices of a fragment of A: the second one lies 8 rows on, the third one 8 of k.
      const int in_matrix = lane() % 8, down = lane() / 8 % 2 * 8, right = lane() / 16 * 8;
      uint32_t a[kM][4];
      UNROLL
      for (int i = 0; i < kM; ++i) {
        if constexpr (A == Layout::rows)
          ldmatrix(a[i], TileA::at(a_tile, first_row() + down + in_matrix, 16 * i, k + right));
        else
          ldmatrix<4, true>(a[i], TileA::at(a_tile, first_row() + down, 16 * i, k + right + in_matrix));
      }
      UNROLL
      for (int j = 0; j < kN; ++j) {
        uint32_t b[2];
        if constexpr (B == Layout::rows)
          ldmatrix(b, TileB::at(b_tile, first_column() + in_matrix, 8 * j, k + down));
        else
          ldmatrix<2, true>(b, TileB::at(b_tile, first_column(), 8 * j, k + down + in_matrix));
        UNROLL
        for (int i = 0; i < kM; ++i) mma_m16n8k16(sum[i][j], a[i], b);
      }
    }
  }

  /// visit(row, column, two sums side by side).
  template <class F>
  DEVICE void for_each(F&& visit) const {
    UNROLL
    for (int i = 0; i < kM; ++i) {
      UNROLL
      for (int j = 0; j < kN; ++j) {
        const int row = first_row() + 16 * i + lane() / 4, column = first_column() + 8 * j + lane() % 4 * 2;
        visit(row, column, sum[i][j][0], sum[i][j][1]);
        visit(row + 8, column, sum[i][j][2], sum[i][j][3]);
      }
    }
  }
};

/// Fused multiply-adds. Threads are 16 x 16, each with 8 x 7 outputs, 16 apart: neighbouring lanes read
/// neighbouring rows of B.
template <>
struct Sums<float> {
  // In the 128 registers that two would leave a thread, it spills.
  [[maybe_unused]] static constexpr int kBlocks = 1;
  static constexpr int kM = kTileM / 16, kN = kTileN / 16;
  float sum[kM][kN] = {};

  DEVICE static int first_row() { return static_cast<int>(threadIdx.x / 16); }
  DEVICE static int first_column() { return static_cast<int>(threadIdx.x % 16); }

  /// Elements k .. k+3 of row + down.
  template <class TILE, Layout LAYOUT>
  DEVICE static Vector<float, 4> read(const Chunk* tile, int row, int down, int k) {
    if constexpr (LAYOUT == Layout::rows) {
      return load_vector<4>(TILE::at(tile, row, down, k));
    } else {
      Vector<float, 4> v;
      UNROLL
      for (int e = 0; e < 4; ++e) v.at[e] = *TILE::at(tile, row, down, k + e);
      return v;
    }
  }

  template <Layout A, Layout B>
  DEVICE void multiply(const Chunk* a_tile, const Chunk* b_tile) {
    ROLLED
    for (int k = 0; k < kDepth<float>; k += 4) {
      Vector<float, 4> b[kN];
      UNROLL
      for (int j = 0; j < kN; ++j) b[j] = read<Tile<float, kTileN, B>, B>(b_tile, first_column(), 16 * j, k);
      UNROLL
      for (int i = 0; i < kM; ++i) {
        const Vector<float, 4> a = read<Tile<float, kTileM, A>, A>(a_tile, first_row(), 16 * i, k);
        UNROLL
        for (int j = 0; j < kN; ++j) {
          UNROLL
          for (int e = 0; e < 4; ++e) sum[i][j] = fmaf(a.at[e], b[j].at[e], sum[i][j]);
        }
      }
    }
  }

  /// visit(row, column, sum).
  template <class F>
  DEVICE void for_each(F&& visit) const {
    UNROLL
    for (int i = 0; i < kM; ++i) {
      UNROLL
      for (int j = 0; j < kN; ++j) visit(first_row() + 16 * i, first_column() + 16 * j, sum[i][j]);
    }
  }
};

/// Writes a tile's sums to their places in a matrix, or adds them to what is there.
template <class Out>
struct Writer {
  Out* tile;
  int64_t stride;
  int rows, columns;  // of the tile that exist
  bool add, pairs;    // pairs: two neighbours, the first in an even column, can be stored as one

  DEVICE float value(const Out* p, float sum) const { return add ? to_float(*p) + sum : sum; }

  DEVICE void operator()(int row, int column, float sum) const {
    Out* const p = tile + row * stride + column;
    if (row < rows && column < columns) *p = from_float<Out>(value(p, sum));
  }
  DEVICE void operator()(int row, int column, float sum, float next) const {
    Out* const p = tile + row * stride + column;
    if (!pairs) {
      (*this)(row, column, sum);
      (*this)(row, column + 1, next);
    } else if (row < rows && column < columns) {
      store_vector<2, Out>(p, {from_float<Out>(value(p, sum)), from_float<Out>(value(p + 1, next))});
    }
  }
};

/// How many pieces of `size` cover n.
DEVICE int64_t cover(int64_t n, int size) { return (n + size - 1) / size; }

}  // namespace

/// out[m,n] (+)= sum over k of a[m,k] b[n,k], for operands in layouts A and B; any sizes. Part blockIdx.y of
/// the k, `part` of them, a multiple of kDepth, goes into the blockIdx.y-th matrix of out.
///
/// Blocks take the tiles of 16 rows of tiles column by column. So the blocks that run together share 16 tiles
/// of A, which stay in the L2 cache, and B comes from memory once in 16 rows of tiles: the head's weight
/// (79 MB in bf16) does not fit the cache.
template <class In, class Out, Layout A, Layout B, bool ALIGNED>
__global__ void __launch_bounds__(kProductThreads, Sums<In>::kBlocks)
    product_kernel(Out* out, const In* a, const In* b, int64_t m, int64_t n, int64_t k, int64_t part,
                   bool add, bool pairs) {
  using TileA = Tile<In, kTileM, A>;
  using TileB = Tile<In, kTileN, B>;
  SHARED(Chunk, a_tiles, [kStages][TileA::kChunks]);
  SHARED(Chunk, b_tiles, [kStages][TileB::kChunks]);

  constexpr uint32_t kGroup = 16;
  const uint32_t rows = static_cast<uint32_t>(cover(m, kTileM));
  const uint32_t columns = static_cast<uint32_t>(cover(n, kTileN));
  const uint32_t group = blockIdx.x / (kGroup * columns), in_group = blockIdx.x % (kGroup * columns);
  const uint32_t group_rows = min(kGroup, rows - group * kGroup);
  const int64_t row = int64_t{group * kGroup + in_group % group_rows} * kTileM;
  const int64_t column = int64_t{in_group / group_rows} * kTileN;
  const int64_t begin = blockIdx.y * part, end = min(begin + part, k);
  const int steps = static_cast<int>(cover(end - begin, kDepth<In>));
  const int a_rows = static_cast<int>(min(m - row, int64_t{kTileM}));
  const int b_rows = static_cast<int>(min(n - column, int64_t{kTileN}));
  const int64_t a_stride = A == Layout::rows ? k : m, b_stride = B == Layout::rows ? k : n;
  const In* a_next = TileA::first(a, a_stride, row, begin);
  const In* b_next = TileB::first(b, b_stride, column, begin);

  // Every step commits a group of copies, empty or not: so the newest but one is always the next tile.
  const auto load = [&](int step) {
    if (step < steps) {
      const int depth = static_cast<int>(min(end - begin - int64_t{step} * kDepth<In>, int64_t{kDepth<In>}));
      TileA::template load<ALIGNED>(a_tiles[step % kStages], a_next, a_stride, a_rows, depth);
      TileB::template load<ALIGNED>(b_tiles[step % kStages], b_next, b_stride, b_rows, depth);
      a_next += kDepth<In> * (A == Layout::rows ? 1 : m);
      b_next += kDepth<In> * (B == Layout::rows ? 1 : n);
    }
    copy_async_commit();
  };
  Sums<In> sums;
  for (int step = 0; step < kStages - 1; ++step) load(step);
  for (int step = 0; step < steps; ++step) {
    copy_async_wait<kStages - 2>();
    __syncthreads();  // this step's tiles are there, and all threads are done with those of the step before
    load(step + kStages - 1);
    sums.template multiply<A, B>(a_tiles[step % kStages], b_tiles[step % kStages]);
  }
  sums.for_each(Writer<Out>{out + (blockIdx.y * m + row) * n + column, n, a_rows, b_rows, add, pairs});
}

/// out[i] (+)= the sum over p of parts[p, i], in ascending p; i < n.
template <class Out>
__global__ void __launch_bounds__(kProductThreads)
    add_parts_kernel(Out* out, const float* parts, int64_t n, int count, bool add) {
  const int64_t i = int64_t{blockIdx.x} * kProductThreads + threadIdx.x;
  if (i >= n) return;
  float sum = 0;
  for (int p = 0; p < count; ++p) sum += parts[p * n + i];
  out[i] = from_float<Out>(add ? to_float(out[i]) + sum : sum);
}

/// y[r,o] = sum over i of x[r,i] weight[o,i]; r < rows <= kFewRows, o < out, i < in. One warp a row of the
/// weight, which is read once: decoding is bound by that. Each row's sum is the same, whatever `rows` is.
constexpr int kFewRows = 4, kFewRowsWarps = 4;
template <class In, class Out, bool ALIGNED>
__global__ void __launch_bounds__(kFewRowsWarps* kWarp)
    few_rows_kernel(Out* y, const In* x, const In* weight, int rows, int64_t in, int64_t out) {
  constexpr int kVector = ALIGNED ? kPerChunk<In> : 1;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t o = int64_t{blockIdx.x} * kFewRowsWarps + threadIdx.x / kWarp;
  const In* const weight_row = weight + min(o, out - 1) * in;  // all lanes of the block reach warp_sum
  float sums[kFewRows] = {};
  for (int64_t i = lane * kVector; i < in; i += kWarp * kVector) {
    const auto w = load_vector<kVector>(weight_row + i);
    UNROLL
    for (int r = 0; r < kFewRows; ++r) {
      if (r < rows) {
        const auto v = load_vector<kVector>(x + r * in + i);
        UNROLL
        for (int e = 0; e < kVector; ++e) sums[r] = fmaf(to_float(v.at[e]), to_float(w.at[e]), sums[r]);
      }
    }
  }
  UNROLL
  for (int r = 0; r < kFewRows; ++r) {
    const float sum = warp_sum(sums[r]);
    if (lane == 0 && r < rows && o < out) y[r * out + o] = from_float<Out>(sum);
  }
}

namespace {

template <class T>
bool aligned(const T* p, size_t bytes, int64_t stride) {
  return reinterpret_cast<uintptr_t>(p) % bytes == 0 && stride * sizeof(T) % bytes == 0;
}

void check_types(const char* operation, const char* a_name, const Tensor& a, const char* b_name,
                 const Tensor& b) {
  if (a.dtype != b.dtype)
    refuse("%s: %s and %s are of different types, %s and %s", operation, a_name, b_name,
           name_of(a.dtype).data(), name_of(b.dtype).data());
}

/// Calls f with null pointers of the types of out and in, and true where `is` is: as template arguments.
template <class F>
void with_types(const Tensor& out, const Tensor& in, F&& f) {
  with_type(out, [&](auto* o) { with_type(in, [&](auto* i) { f(o, i); }); });
}

}  // namespace

template <Layout A, Layout B, class Out, class In>
void GpuKernels::multiply(Out* out, const In* a, const In* b, int64_t m, int64_t n, int64_t k, bool add) {
  // Where there are few tiles and k is long (a weight's gradient: all tokens; the head's input: the
  // vocabulary), k is cut into parts until there are 512 blocks, more than fit on 132 multiprocessors, but
  // into none shorter than 512. The parts are then added in order.
  const int64_t tiles = ceil_div(m, kTileM) * ceil_div(n, kTileN);
  const int64_t wanted = max(min(512 / tiles, k / 512), int64_t{1});
  const int64_t part = ceil_div(ceil_div(k, wanted), kDepth<In>) * kDepth<In>, parts = ceil_div(k, part);
  const bool vectors = aligned(a, 16, A == Layout::rows ? k : m) && aligned(b, 16, B == Layout::rows ? k : n);
  const double operands = 1.0 * (m + n) * k * sizeof(In), outputs = 1.0 * m * n * sizeof(Out);
  const double sums = 1.0 * m * n * parts * sizeof(float), flops = 2.0 * m * n * k;
  const Grid grid{{static_cast<uint32_t>(tiles), static_cast<uint32_t>(parts)}, {kProductThreads}};
  const auto run = [&](auto* to, bool add_to, double written) {
    using To = std::remove_pointer_t<decltype(to)>;
    const auto kernel =
        vectors ? KERNEL(product_kernel<In, To, A, B, true>) : KERNEL(product_kernel<In, To, A, B, false>);
    launch(kernel, grid, {.bytes = operands + written, .flops = flops}, to, a, b, m, n, k, part, add_to,
           aligned(to, 2 * sizeof(To), n));
  };
  if (parts == 1) return run(out, add, add ? 2 * outputs : outputs);
  float* const to = static_cast<float*>(device_->scratch(static_cast<size_t>(sums)));
  run(to, false, sums);
  launch(KERNEL(add_parts_kernel<Out>), {blocks_for(m * n, kProductThreads), {kProductThreads}},
         {.bytes = sums + (add ? 2 * outputs : outputs), .flops = 1.0 * m * n * parts}, out, to, m * n, parts,
         add);
}

void GpuKernels::linear_forward(const Tensor& y, const Tensor& x, const Tensor& weight) {
  const int64_t n = x.rows(), in = x.cols(), out = weight.rows();
  check_shape("linear_forward", "weight", weight, {out, in});
  check_shape("linear_forward", "y", y.view({y.rows(), y.cols()}), {n, out});
  check_types("linear_forward", "x", x, "weight", weight);
  if (n > kFewRows && products_ && products_->forward(y, x, weight)) return;
  const Range range("linear");
  with_types(y, x, [&](auto* out_type, auto* in_type) {
    using Out = std::remove_pointer_t<decltype(out_type)>;
    using In = std::remove_pointer_t<decltype(in_type)>;
    auto* const to = static_cast<Out*>(y.data);
    const auto *const a = static_cast<const In*>(x.data), *const b = static_cast<const In*>(weight.data);
    if (n > kFewRows) return multiply<Layout::rows, Layout::rows>(to, a, b, n, out, in, false);
    const Grid grid{blocks_for(out, kFewRowsWarps), {kFewRowsWarps * kWarp}};
    const Work work{.bytes = static_cast<double>(x.bytes() + weight.bytes() + y.bytes()),
                    .flops = 2.0 * n * in * out};
    if (aligned(a, 16, in) && aligned(b, 16, in))
      launch(KERNEL(few_rows_kernel<In, Out, true>), grid, work, to, a, b, n, in, out);
    else
      launch(KERNEL(few_rows_kernel<In, Out, false>), grid, work, to, a, b, n, in, out);
  });
}

void GpuKernels::linear_backward_input(const Tensor& dx, const Tensor& dy, const Tensor& weight) {
  const int64_t n = dy.rows(), in = dx.cols(), out = dy.cols();
  check_shape("linear_backward_input", "weight", weight, {out, in});
  check_shape("linear_backward_input", "dx", dx.view({dx.rows(), in}), {n, in});
  check_types("linear_backward_input", "dy", dy, "weight", weight);
  if (products_ && products_->backward_input(dx, dy, weight)) return;
  const Range range("linear_backward_input");
  with_types(dx, dy, [&](auto* out_type, auto* in_type) {
    multiply<Layout::rows, Layout::columns>(static_cast<decltype(out_type)>(dx.data),
                                            static_cast<decltype(in_type)>(dy.data),
                                            static_cast<decltype(in_type)>(weight.data), n, in, out, false);
  });
}

void GpuKernels::linear_backward_weight(const Tensor& dweight, const Tensor& dy, const Tensor& x) {
  const int64_t n = dy.rows(), in = x.cols(), out = dy.cols();
  check_shape("linear_backward_weight", "dweight", dweight, {out, in});
  check_shape("linear_backward_weight", "x", x.view({x.rows(), in}), {n, in});
  check_types("linear_backward_weight", "dy", dy, "x", x);
  float* const to = dweight.f32();
  if (products_ && products_->backward_weight(dweight, dy, x)) return;
  const Range range("linear_backward_weight");
  with_type(x, [&](auto* type) {
    multiply<Layout::columns, Layout::columns>(to, static_cast<decltype(type)>(dy.data),
                                               static_cast<decltype(type)>(x.data), out, in, n, true);
  });
}

}  // namespace topolm::TOPOLM_GPU
