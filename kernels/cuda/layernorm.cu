// Layer normalisation without bias, alone or behind the residual addition. A warp owns a row. Where the row
// is short enough its lanes keep it in registers, so that it is read once: K vectors of 4 a lane, 16 bytes
// each. A row of C = 784 is 196 vectors, 6 1/8 a lane; K = 8 holds sheets up to 32 x 32 and K = 2 those up to
// 16 x 16. Longer rows (K = 0) are read again for every pass, and where C or an address does not allow
// vectors, one element at a time.
#include <algorithm>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/gpu_kernels.h"
#include "kernels/cuda/warp.h"

namespace topolm::TOPOLM_GPU {

constexpr int kWarps = 4, kThreads = kWarps * kWarp;
constexpr float kEpsilon = 1e-5f;

/// Calls f(k, column) for every vector of N columns that belongs to this lane. With K > 0 there are at most
/// K, and arrays indexed by k stay in registers.
template <int N, int K, class F>
DEVICE void for_each_vector(int cols, F&& f) {
  const int first = static_cast<int>(threadIdx.x) % kWarp * N;
  if constexpr (K > 0) {
    UNROLL
    for (int k = 0; k < K; ++k)
      if (first + k * kWarp * N < cols) f(k, int64_t{first} + k * kWarp * N);
  } else {
    for (int64_t column = first; column < cols; column += kWarp * N) f(0, column);
  }
}

struct None {};

/// sum[n,:] = x[n,:] + branch[n,:], or x[n,:] itself where Branch is None;
/// out[n,:] = (sum[n,:] - mean[n]) * rstd[n] * weight, one warp a row n. sum may be x. The variance is that
/// of a second pass: E[x^2] - E[x]^2 would cancel for the large-mean units of a residual stream.
template <int N, int K, class Out, class Branch>
__global__ void __launch_bounds__(kThreads)
    layernorm_forward_kernel(float* sum, Out* out, float* mean, float* rstd, const float* x,
                             const Branch* branch, const float* __restrict__ weight, int64_t rows, int cols) {
  constexpr bool kResidual = !std::is_same_v<Branch, None>;
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp, offset = row * cols;
  if (row < rows) {  // for a whole warp or for none of it
    const auto read = [&](int64_t column) {
      Vector<float, N> v = load_vector<N>(x + offset + column);
      if constexpr (kResidual) {
        const Vector<Branch, N> b = load_vector<N>(branch + offset + column);
        UNROLL
        for (int i = 0; i < N; ++i) v.at[i] += to_float(b.at[i]);
      }
      return v;
    };
    Vector<float, N> held[K > 0 ? K : 1] = {};
    if constexpr (K > 0) for_each_vector<N, K>(cols, [&](int k, int64_t column) { held[k] = read(column); });
    const auto value = [&](int k, int64_t column) {
      if constexpr (K > 0)
        return held[k];
      else
        return read(column);
    };

    float total = 0, squares = 0;
    for_each_vector<N, K>(cols, [&](int k, int64_t column) {
      const Vector<float, N> v = value(k, column);
      UNROLL
      for (int i = 0; i < N; ++i) total += v.at[i];
    });
    const float m = warp_sum(total) / static_cast<float>(cols);
    for_each_vector<N, K>(cols, [&](int k, int64_t column) {
      const Vector<float, N> v = value(k, column);
      UNROLL
      for (int i = 0; i < N; ++i) squares = fmaf(v.at[i] - m, v.at[i] - m, squares);
    });
    const float r = rsqrtf(warp_sum(squares) / static_cast<float>(cols) + kEpsilon);
    for_each_vector<N, K>(cols, [&](int k, int64_t column) {
      const Vector<float, N> v = value(k, column), w = load_vector<N>(weight + column);
      Vector<Out, N> o;
      UNROLL
      for (int i = 0; i < N; ++i) o.at[i] = from_float<Out>((v.at[i] - m) * r * w.at[i]);
      if constexpr (kResidual) store_vector(sum + offset + column, v);
      store_vector(out + offset + column, o);
    });
    if (threadIdx.x % kWarp == 0) {
      mean[row] = m;
      rstd[row] = r;
    }
  }
}

namespace {

void check_row_statistics(const char* operation, const Tensor& x, const Tensor& weight, const Tensor& mean,
                          const Tensor& rstd) {
  check_shape(operation, "weight", weight, {x.cols()});
  check_shape(operation, "mean", mean, {x.rows()});
  check_shape(operation, "rstd", rstd, {x.rows()});
}

/// Calls f with N and K as constants.
template <class F>
void with_layout(int64_t cols, std::initializer_list<Tensor> tensors, F&& f) {
  const auto call = [&]<int N, int K>() {
    f(std::integral_constant<int, N>{}, std::integral_constant<int, K>{});
  };
  const int64_t vectors_a_lane = ceil_div(cols, 4 * kWarp);
  if (cols % 4 != 0 || in_vectors(4, tensors) == 0)
    call.template operator()<1, 0>();
  else if (vectors_a_lane <= 2)
    call.template operator()<4, 2>();
  else if (vectors_a_lane <= 8)
    call.template operator()<4, 8>();
  else
    call.template operator()<4, 0>();
}

}  // namespace

void GpuKernels::layernorm_forward(const Tensor& out, const Tensor& mean, const Tensor& rstd, const Tensor& x,
                                   const Tensor& weight) {
  const Range range("layernorm");
  check_shape("layernorm_forward", "out", out, x.shape);
  check_row_statistics("layernorm_forward", x, weight, mean, rstd);
  const int64_t n = x.rows(), c = x.cols();
  with_type(out, [&](auto* type) {
    with_layout(c, {out, x, weight}, [&](auto vector, auto held) {
      using Out = std::remove_pointer_t<decltype(type)>;
      constexpr int N = decltype(vector)::value, K = decltype(held)::value;
      launch(KERNEL(layernorm_forward_kernel<N, K, Out, None>), {blocks_for(n, kWarps), {kThreads}},
             {.bytes = static_cast<double>(x.bytes() + out.bytes() + weight.bytes() + 8 * n)}, nullptr,
             out.data, mean.f32(), rstd.f32(), x.f32(), nullptr, weight.f32(), n, c);
    });
  });
}

void GpuKernels::residual_layernorm_forward(const Tensor& sum, const Tensor& out, const Tensor& mean,
                                            const Tensor& rstd, const Tensor& residual, const Tensor& branch,
                                            const Tensor& weight) {
  const Range range("layernorm");
  for (const auto& [name, t] : {std::pair{"sum", &sum}, {"out", &out}, {"branch", &branch}})
    check_shape("residual_layernorm_forward", name, *t, residual.shape);
  check_row_statistics("residual_layernorm_forward", residual, weight, mean, rstd);
  const int64_t n = sum.rows(), c = sum.cols();
  with_type(out, [&](auto* out_type) {
    with_type(branch, [&](auto* branch_type) {
      with_layout(c, {sum, out, residual, branch, weight}, [&](auto vector, auto held) {
        using Out = std::remove_pointer_t<decltype(out_type)>;
        using Branch = std::remove_pointer_t<decltype(branch_type)>;
        constexpr int N = decltype(vector)::value, K = decltype(held)::value;
        launch(KERNEL(layernorm_forward_kernel<N, K, Out, Branch>), {blocks_for(n, kWarps), {kThreads}},
               {.bytes = static_cast<double>(residual.bytes() + branch.bytes() + sum.bytes() + out.bytes() +
                                             weight.bytes() + 8 * n)},
               sum.f32(), out.data, mean.f32(), rstd.f32(), residual.f32(), branch.data, weight.f32(), n, c);
      });
    });
  });
}

// With xhat = (x - mean) * rstd and g = dout * weight:  dx = rstd * (g - mean(g) - xhat * mean(g * xhat)),
// and dweight = the sum of dout * xhat over the rows. Products that are added to something are written as
// fmaf, so that no compiler has a choice.

/// dx[n,:] += the gradient of row n, one warp a row; partial[block,:] = the sum of dout * xhat over the
/// block's rows: each lane sums its own columns of its warp's rows in shared memory, which needs no barrier
/// and leaves the registers to the row; at the end the block adds its warps up. With K = 0 a thread takes a
/// column of all the block's rows instead, which have just been read.
template <int N, int K, class DOut>
__global__ void __launch_bounds__(kThreads, 3)
    layernorm_backward_kernel(float* dx, float* partial, const DOut* dout, const float* x,
                              const float* weight, const float* mean, const float* rstd, int64_t rows,
                              int cols, int rows_a_block) {
  using Held = Vector<float, N>;
  constexpr int kHeld = K > 0 ? K : 1;
  SHARED(Held, dweight_of_warp, [K > 0 ? kWarps : 1][kHeld * kWarp]);
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t begin = int64_t{blockIdx.x} * rows_a_block, end = min(rows, begin + rows_a_block);
  if constexpr (K > 0)
    for_each_vector<N, K>(cols, [&](int, int64_t column) { dweight_of_warp[warp][column / N] = {}; });
  for (int64_t row = begin + warp; row < end; row += kWarps) {  // the same number of times for all lanes
    const float m = mean[row], r = rstd[row];
    float* const dx_row = dx + row * cols;
    // Zeros that nobody uses end the life of the last row's values, which would keep their registers.
    Held g[kHeld] = {}, xhat[kHeld] = {}, old[kHeld] = {};
    float sum_g = 0, sum_gx = 0;
    const auto read = [&](int k, int64_t column) {  // g is dout at first
      const Vector<DOut, N> d = load_vector<N>(dout + row * cols + column);
      xhat[k] = load_vector<N>(x + row * cols + column);
      UNROLL
      for (int i = 0; i < N; ++i) g[k].at[i] = to_float(d.at[i]), xhat[k].at[i] = (xhat[k].at[i] - m) * r;
    };
    const auto weigh = [&](int k, int64_t column) {
      const Held w = load_vector<N>(weight + column);
      UNROLL
      for (int i = 0; i < N; ++i) {
        sum_g = fmaf(g[k].at[i], w.at[i], sum_g);
        g[k].at[i] *= w.at[i];
        sum_gx = fmaf(g[k].at[i], xhat[k].at[i], sum_gx);
      }
    };
    if constexpr (K > 0) {
      for_each_vector<N, K>(cols, read);
      for_each_vector<N, K>(cols, [&](int k, int64_t column) {
        Held& sum = dweight_of_warp[warp][column / N];
        UNROLL
        for (int i = 0; i < N; ++i) sum.at[i] = fmaf(g[k].at[i], xhat[k].at[i], sum.at[i]);
        weigh(k, column);
      });
    } else {
      for_each_vector<N, K>(cols, [&](int k, int64_t column) { read(k, column), weigh(k, column); });
    }
    const float mean_g = warp_sum(sum_g) / static_cast<float>(cols);
    const float mean_gx = warp_sum(sum_gx) / static_cast<float>(cols);
    const auto read_dx = [&](int k, int64_t column) { old[k] = load_vector<N>(dx_row + column); };
    const auto add_to_dx = [&](int k, int64_t column) {
      UNROLL
      for (int i = 0; i < N; ++i)
        old[k].at[i] = fmaf(fmaf(-xhat[k].at[i], mean_gx, g[k].at[i]) - mean_g, r, old[k].at[i]);
      store_vector(dx_row + column, old[k]);
    };
    if constexpr (K > 0) {
      for_each_vector<N, K>(cols, read_dx);  // all of them before the first store: they wait together
      for_each_vector<N, K>(cols, add_to_dx);
    } else {
      for_each_vector<N, K>(cols, [&](int k, int64_t column) {
        read(k, column), weigh(k, column), read_dx(k, column), add_to_dx(k, column);
      });
    }
  }

  float* const partial_row = partial + int64_t{blockIdx.x} * cols;
  if constexpr (K > 0) {
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < cols / N; i += kThreads) {
      Held sum = dweight_of_warp[0][i];
      UNROLL
      for (int w = 1; w < kWarps; ++w) {
        const Held other = dweight_of_warp[w][i];
        UNROLL
        for (int j = 0; j < N; ++j) sum.at[j] += other.at[j];
      }
      store_vector(partial_row + i * N, sum);
    }
  } else {
    for (int column = static_cast<int>(threadIdx.x); column < cols; column += kThreads) {
      float sum = 0;
      for (int64_t row = begin; row < end; ++row) {
        const float xhat = (x[row * cols + column] - mean[row]) * rstd[row];
        sum = fmaf(to_float(dout[row * cols + column]), xhat, sum);
      }
      partial_row[column] = sum;
    }
  }
}

constexpr int kSumWarps = 16;

/// dweight[c] += the sum of partial[:,c]; a block takes 32 columns, its warps every 16th row.
__global__ void __launch_bounds__(kSumWarps* kWarp)
    layernorm_backward_weight_kernel(float* dweight, const float* partial, int rows, int cols) {
  SHARED(float, sum_of_warp, [kSumWarps][kWarp]);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t column = int64_t{blockIdx.x} * kWarp + lane;
  float sum = 0;
  if (column < cols)
    for (int64_t row = warp; row < rows; row += kSumWarps) sum += partial[row * cols + column];
  sum_of_warp[warp][lane] = sum;
  __syncthreads();
  if (warp == 0 && column < cols) {
    sum = 0;
    for (int w = 0; w < kSumWarps; ++w) sum += sum_of_warp[w][lane];
    dweight[column] += sum;
  }
}

void GpuKernels::layernorm_backward(const Tensor& dx, const Tensor& dweight, const Tensor& dout,
                                    const Tensor& x, const Tensor& weight, const Tensor& mean,
                                    const Tensor& rstd) {
  const Range range("layernorm_backward");
  check_shape("layernorm_backward", "dx", dx, x.shape);
  check_shape("layernorm_backward", "dout", dout, x.shape);
  check_shape("layernorm_backward", "dweight", dweight, weight.shape);
  check_row_statistics("layernorm_backward", x, weight, mean, rstd);
  const int64_t n = x.rows(), c = x.cols();
  // Few rows: many blocks. Many rows: up to 8 a warp, so that partial sums stay small beside what is read.
  const int64_t rows_a_block = kWarps * std::clamp<int64_t>(n / 2048, 1, 8);
  const int64_t blocks = ceil_div(n, rows_a_block);
  auto* const partial = static_cast<float*>(device_->scratch(static_cast<size_t>(4 * blocks * c)));
  with_type(dout, [&](auto* type) {
    with_layout(c, {dx, dout, x, weight}, [&](auto vector, auto held) {
      using DOut = std::remove_pointer_t<decltype(type)>;
      constexpr int N = decltype(vector)::value, K = decltype(held)::value;
      launch(KERNEL(layernorm_backward_kernel<N, K, DOut>), {blocks_for(blocks, 1), {kThreads}},
             {.bytes = static_cast<double>(2 * dx.bytes() + dout.bytes() + x.bytes() + weight.bytes() +
                                           8 * n + 4 * blocks * c)},
             dx.f32(), partial, dout.data, x.f32(), weight.f32(), mean.f32(), rstd.f32(), n, c, rows_a_block);
    });
  });
  launch(KERNEL(layernorm_backward_weight_kernel), {blocks_for(c, kWarp), {kSumWarps * kWarp}},
         {.bytes = 4.0 * (blocks * c + 2 * c)}, dweight.f32(), partial, blocks, c);
}

}  // namespace topolm::TOPOLM_GPU
