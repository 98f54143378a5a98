// The spatial loss, backward: dx[:, members_k] += scale * (x - mean)[:, members_k] * gradient_k. One kernel
// gathers, multiplies and scatters; before it a small one lays the matrices out as operands.
//
// At base 48x1024 (N = 49152, C = 784 fp32, K = 5, n = 81), derived from the shapes and from an A100's data
// sheet (2.04 TB/s, which is 13.4 bytes a cycle and multiprocessor; 312 TFLOP/s), not measured: x is read, dx
// read and written, 3 x 154 MB = 462 MB: 227 us. 2 N K n^2 = 3.2 GFLOP; executed, a neighborhood is 3 panels
// of 32 by 6 steps of 16, so N/16 x 5 x 3 x 6 x 16 mma of 4096 FLOP = 18 GFLOP: 58 us. Each block reads all
// operands, 5 x 96 x 96 words = 184 KB, from the L2: 570 MB. Its 16 rows take 11000 cycles from memory and
// 6000 of shared memory: 1600 to copy, split and store, 15 panels x 6 steps x 4 loads x 2 x 2.75 = 2000 to
// fetch (4 units in two halves of the banks), and 15 x 32 loads and stores x 4.5 = 2200 to add to dx.
#include "kernels/cuda/gpu_kernels.h"
#include "kernels/cuda/spatial_rows.h"

namespace topolm::TOPOLM_GPU {

constexpr int kThreads = 256;
constexpr int kWarps = 16;  // at most, of a block that multiplies

using Fragment = Vector<uint32_t, 4>;  // what a lane holds of a 16 x 16 operand

/// operands [K, panels, steps, 2, 2, 32]: gradient [K,n,n] as fragments of 16 x 16: rows by panels of 2
/// fragments, columns by steps of 1, the high halves and then the low; 0 past n. One thread for a lane of a
/// fragment, `count` in all.
__global__ void __launch_bounds__(kThreads)
    spatial_operands_kernel(Fragment* operands, const float* gradient, int n, int64_t count) {
  const int64_t index = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int panels = (n + kPanel - 1) / kPanel, steps = (n + kTileRows - 1) / kTileRows;
  const int lane = static_cast<int>(index % kWarp);
  const int64_t fragment = index / kWarp, step = fragment / 2 % steps, panel = fragment / 2 / steps % panels;
  const int64_t q = fragment / 2 / steps / panels;
  const int64_t row = panel * kPanel + fragment % 2 * 16 + lane / 4, column = step * kTileRows + lane % 4 * 2;
  if (index < count) {
    Fragment high, low;
    UNROLL for (int r = 0; r < 4; ++r) {
      const int64_t i = row + r % 2 * 8, j = column + r / 2 * 8;
      const float* const from = gradient + (q * n + i) * n + j;
      const HighLow two = pair(split(i < n && j < n ? from[0] : 0), split(i < n && j + 1 < n ? from[1] : 0));
      high.at[r] = two.high, low.at[r] = two.low;
    }
    operands[2 * fragment * kWarp + lane] = high;
    operands[(2 * fragment + 1) * kWarp + lane] = low;
  }
}

/// dx [rows, c]: a block owns kTileRows rows. A warp multiplies 32 rows of gradient_k, which is symmetric, by
/// the members' columns: dx of 32 members for the block's rows, in registers. As many of these panels at once
/// as there are warps; then they are added to dx in ascending k, for members of one neighborhood are
/// distinct, but not those of two. STAGED: see CentredRows; dynamic shared memory holds a tile and, `stride`
/// words a row, a copy first of x and then of dx. Otherwise stride is c.
template <class T, bool STAGED>
__global__ void __launch_bounds__(kWarps* kWarp, 2)
    spatial_loss_backward_kernel(float* dx, const T* x, const float* mean, const Fragment* operands,
                                 const int32_t* members, float scale, int64_t rows, int c, int k, int n,
                                 int stride, FaultRecord* fault) {
  DYNAMIC_SHARED(uint32_t, words);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int warps = static_cast<int>(blockDim.x) / kWarp, g = lane / 4, t = lane % 4;
  const int panels = (n + kPanel - 1) / kPanel, steps = (n + kTileRows - 1) / kTileRows;
  const int64_t begin = int64_t{blockIdx.x} * kTileRows;
  const int count = static_cast<int>(min(int64_t{kTileRows}, rows - begin));
  x += begin * c, dx += begin * c;

  // The dx that the block adds to: a copy of its rows, which arrives where the copy of x has been while
  // products are under way, or the rows themselves.
  const CentredRows<T, STAGED> tile{words, x, mean, c, count};
  float* sum = dx;
  if constexpr (STAGED) {
    uint32_t* const copy = words + kTileRows * c;
    start_copy(copy, stride, x, count, c);
    copy_async_wait<0>();
    __syncthreads();
    tile.fill(copy, stride);
    __syncthreads();
    start_copy(copy, stride, dx, count, c);
    sum = reinterpret_cast<float*>(copy);
  }

  for (int first = 0; first < k * panels; first += warps) {
    const int last = min(first + warps, k * panels) - 1, task = first + warp;
    const int q = task / panels, panel = task % panels;
    const int32_t* const who = members + int64_t{q} * n;
    float product[2][2][4] = {};  // [16 members][8 rows]
    if (task <= last) {
      const Fragment* operand = operands + int64_t{task} * steps * 4 * kWarp + lane;
      for (int step = 0; step < steps; ++step, operand += 4 * kWarp) {
        uint32_t b_high[2][2], b_low[2][2];
        UNROLL for (int h = 0; h < 2; ++h) {
          int unit[2];
          UNROLL for (int e = 0; e < 2; ++e) {
            const int i = min(n - 1, step * kTileRows + 8 * h + 2 * t + e);
            unit[e] = tile.place(
                column_of(members, int64_t{q} * n + i, c, fault, Fault::spatial_loss_backward_member));
          }
          const Vector<uint32_t, 2> a = tile.template fetch<2>(unit[0], 2 * g),
                                    b = tile.template fetch<2>(unit[1], 2 * g);
          UNROLL for (int v = 0; v < 2; ++v) {
            const HighLow two = pair(a.at[v], b.at[v]);
            b_high[v][h] = two.high, b_low[v][h] = two.low;
          }
        }
        UNROLL for (int u = 0; u < 2; ++u) {
          const Fragment high = operand[2 * u * kWarp], low = operand[(2 * u + 1) * kWarp];
          UNROLL for (int v = 0; v < 2; ++v) mma_split(product[u][v], high.at, low.at, b_high[v], b_low[v]);
        }
      }
    }
    if constexpr (STAGED) copy_async_wait<0>();  // for dx
    for (int turn = first / panels; turn <= last / panels; ++turn) {
      __syncthreads();
      if (task > last || q != turn) continue;
      UNROLL for (int u = 0; u < 2; ++u) UNROLL for (int e = 0; e < 4; ++e) {
        const int i = panel * kPanel + 16 * u + e / 2 * 8 + g, unit = i < n ? who[i] : -1;
        UNROLL for (int v = 0; v < 2; ++v) {
          const int row = 2 * (2 * t + e % 2) + v;
          float* const to = sum + row * stride + unit;
          if (unit >= 0 && unit < c && row < count) *to = fmaf(scale, product[u][v][e], *to);
        }
      }
    }
  }

  if constexpr (STAGED) {
    __syncthreads();
    for (int row = warp; row < count; row += warps)
      for (int j = 4 * lane; j < c; j += 4 * kWarp)
        store_vector<4>(dx + int64_t{row} * c + j, load_vector<4>(sum + row * stride + j));
  }
}

void GpuKernels::spatial_loss_backward(const Tensor& dx, const Tensor& x, const Tensor& mean,
                                       const Tensor& gradient, const Tensor& members, float scale) {
  const Range range("spatial_loss_backward");
  const int64_t rows = x.rows(), c = x.cols(), k = members.rows(), n = members.cols();
  check_shape("spatial_loss_backward", "members", members, {k, n});
  check_shape("spatial_loss_backward", "mean", mean, {c});
  check_shape("spatial_loss_backward", "gradient", gradient, {k, n, n});
  check_shape("spatial_loss_backward", "dx", dx, x.shape);

  const int64_t panels = ceil_div(n, kPanel), steps = ceil_div(n, kTileRows);
  const int64_t count = k * panels * steps * 2 * kWarp,
                bytes = 2 * count * static_cast<int64_t>(sizeof(Fragment));
  auto* const operands = static_cast<Fragment*>(device_->scratch(static_cast<size_t>(bytes)));
  launch(KERNEL(spatial_operands_kernel), {blocks_for(count, kThreads), {kThreads}},
         {.bytes = static_cast<double>(gradient.bytes() + bytes)}, operands, gradient.f32(), n, count);
  with_type(x, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const auto* const in = static_cast<const T*>(x.data);
    const size_t shared = staging_bytes<T, float>(in, dx.data, c);
    launch(
        shared ? KERNEL(spatial_loss_backward_kernel<T, true>)
               : KERNEL(spatial_loss_backward_kernel<T, false>),
        {blocks_for(rows, kTileRows),
         {static_cast<uint32_t>(kWarp * std::min<int64_t>(kWarps, k * panels))},
         shared},
        {.bytes = static_cast<double>(x.bytes() + 2 * dx.bytes() + bytes), .flops = 2.0 * rows * k * n * n},
        dx.f32(), in, mean.f32(), operands, members.i32(), scale, rows, c, k, n,
        shared ? row_stride<float>(c) : c, device_->fault());
  });
}

}  // namespace topolm::TOPOLM_GPU
