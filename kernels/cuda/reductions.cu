// Sums over whole tensors in two launches: every block adds up one chunk, one block adds up the chunks. The
// chunks, and the order within them, depend on the number of elements alone.
#include "kernels/cuda/gpu_kernels.h"
#include "kernels/cuda/warp.h"

namespace topolm::TOPOLM_GPU {

constexpr int kThreads = 256;
constexpr int kChunk = 1 << 14;  // elements a block: 64 to a thread, so fp32 loses little

struct Plain {
  static constexpr double kFlops = 1;  // for each element, with its addition
  DEVICE float operator()(float x) const { return x; }
};
struct Square {
  static constexpr double kFlops = 2;
  DEVICE float operator()(float x) const { return x * x; }
};

/// partials[block] = the sum of f(x[i]) over elements [block, block + 1) * kChunk of n. x is aligned to N
/// elements, which are loaded as one.
template <class F, int N, class T>
__global__ void __launch_bounds__(kThreads) chunk_sums_kernel(float* partials, const T* x, int64_t n) {
  SHARED(float, shared, [kThreads / kWarp]);
  const int64_t begin = int64_t{blockIdx.x} * kChunk;
  const int count = static_cast<int>(min(int64_t{kChunk}, n - begin)), whole = count / N * N;
  float sums[N] = {};  // side by side: short chains, and short sums for accuracy
  for (int i = static_cast<int>(threadIdx.x) * N; i < whole; i += kThreads * N) {
    const auto v = load_vector<N>(x + begin + i);
    UNROLL for (int k = 0; k < N; ++k) sums[k] += F{}(to_float(v.at[k]));
  }
  if (whole + static_cast<int>(threadIdx.x) < count) sums[0] += F{}(to_float(x[begin + whole + threadIdx.x]));
  UNROLL for (int stride = N / 2; stride > 0; stride /= 2) UNROLL for (int k = 0; k < stride; ++k) sums[k] +=
      sums[k + stride];
  const float sum = block_reduce<kThreads>(sums[0], Add{}, 0.0f, shared);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

/// The sum of the partials, for thread 0. In double: they are few, one for 2^14 elements. All threads of the
/// block must come. shared [kThreads].
DEVICE double sum_of_partials(const float* partials, int64_t count, double* shared) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) sum += static_cast<double>(partials[i]);
  shared[threadIdx.x] = sum;
  for (unsigned stride = kThreads / 2; stride > 0; stride /= 2) {
    __syncthreads();
    if (threadIdx.x < stride) shared[threadIdx.x] += shared[threadIdx.x + stride];
  }
  return shared[0];  // thread 0 wrote it itself
}

/// out[0] = the sum of partials [count]. One block.
__global__ void __launch_bounds__(kThreads)
    final_sum_kernel(float* out, const float* partials, int64_t count) {
  SHARED(double, shared, [kThreads]);
  const double sum = sum_of_partials(partials, count, shared);
  if (threadIdx.x == 0) out[0] = static_cast<float>(sum);
}

/// norm_and_scale = {norm, min(1, max_norm / norm)} of the squares whose sums are partials [count]. One
/// block.
__global__ void __launch_bounds__(kThreads)
    final_norm_kernel(float* norm_and_scale, const float* partials, int64_t count, float max_norm) {
  SHARED(double, shared, [kThreads]);
  const double squares = sum_of_partials(partials, count, shared);
  if (threadIdx.x == 0) {
    const double norm = sqrt(squares);
    norm_and_scale[0] = static_cast<float>(norm);
    // A NaN norm makes the scale NaN too, whatever comparison it meets: it must not pass for "no clipping".
    norm_and_scale[1] = max_norm == 0 || norm <= max_norm ? 1.0f : static_cast<float>(max_norm / norm);
  }
}

/// Launches the sums of F over the chunks of x; they lie in the device's scratch.
template <class F>
const float* GpuKernels::chunk_sums(const Tensor& x) {
  const int64_t n = x.elements(), chunks = ceil_div(n, kChunk);
  auto* const partials = static_cast<float*>(device_->scratch(sizeof(float) * static_cast<size_t>(chunks)));
  const Grid grid{blocks_for(n, kChunk), {kThreads}};
  const Work work{.bytes = x.bytes() + 4.0 * chunks, .flops = F::kFlops * n};
  with_type(x, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    constexpr int N = 16 / sizeof(T);
    if (reinterpret_cast<uintptr_t>(x.data) % 16 == 0)
      launch(KERNEL(chunk_sums_kernel<F, N, T>), grid, work, partials, x.data, n);
    else
      launch(KERNEL(chunk_sums_kernel<F, 1, T>), grid, work, partials, x.data, n);
  });
  return partials;
}

/// What the final launches move and compute.
static Work work_of_chunks(int64_t chunks, int64_t outputs) {
  return {.bytes = 4.0 * (chunks + outputs), .flops = 1.0 * chunks};
}

void GpuKernels::sum(const Tensor& out, const Tensor& x) {
  const Range range("sum");
  check_shape("sum", "out", out, {1});
  const int64_t chunks = ceil_div(x.elements(), kChunk);
  launch(KERNEL(final_sum_kernel), {{1}, {kThreads}}, work_of_chunks(chunks, 1), out.f32(),
         chunk_sums<Plain>(x), chunks);
}

void GpuKernels::sum_of_squares(const Tensor& out, const Tensor& x) {
  const Range range("sum_of_squares");
  check_shape("sum_of_squares", "out", out, {1});
  const int64_t chunks = ceil_div(x.elements(), kChunk);
  launch(KERNEL(final_sum_kernel), {{1}, {kThreads}}, work_of_chunks(chunks, 1), out.f32(),
         chunk_sums<Square>(x), chunks);
}

void GpuKernels::gradient_norm(const Tensor& norm_and_scale, const Tensor& gradient, float max_norm) {
  const Range range("gradient_norm");
  check_shape("gradient_norm", "norm_and_scale", norm_and_scale, {2});
  const int64_t chunks = ceil_div(gradient.elements(), kChunk);
  launch(KERNEL(final_norm_kernel), {{1}, {kThreads}}, work_of_chunks(chunks, 2), norm_and_scale.f32(),
         chunk_sums<Square>(gradient), chunks, max_norm);
}

}  // namespace topolm::TOPOLM_GPU
