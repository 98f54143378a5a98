// Softmax cross entropy: one block a row. Both passes read the row from where it lies; the second one finds
// it in L2: at two blocks of 1024 threads on a multiprocessor, fewer rows are under way (100 KB each at
// V = 50304 in bf16) than the L2 of an A100 or H100 holds.
//
// The target stays out of the sum. With m the largest of the other logits and s the sum of their
// e^(x_j - m), the loss is log(1 + s e^(m - x_target)): nothing is subtracted from anything near it, so a
// loss of 1e-6, and the gradient of a target that is almost certain, are as accurate as any other.
#include <cfloat>

#include "kernels/cuda/gpu_kernels.h"
#include "kernels/cuda/math.h"
#include "kernels/cuda/warp.h"

namespace topolm::TOPOLM_GPU {

constexpr int kMaxThreads = 1024, kMaxWarps = kMaxThreads / kWarp;

struct Softmax {
  float loss;
  float largest;  // of the row
  float total;    // sum of e^(x_j - largest)
  float others;   // the same without the target
};

/// log(1 + x) for x >= 0 within a few ulp. The instruction's error is absolute: near log(1) it would be all
/// that is left, so small x take the series of 2 atanh(x / (2 + x)).
DEVICE float log1p_fast(float x) {
  const float s = x / (2.0f + x), z = s * s;
  float series = 1.0f / 9.0f;
  series = fmaf(series, z, 1.0f / 7.0f);
  series = fmaf(series, z, 1.0f / 5.0f);
  series = fmaf(series, z, 1.0f / 3.0f);
  series = fmaf(series, z, 1.0f);
  return x < 0.5f ? 2.0f * s * series : log_fast(1.0f + x);
}

/// op over the block; every thread gets the result. `shared` holds a float for each warp.
template <class Op>
DEVICE float reduce_over_block(float x, Op op, float identity, float* shared WITH_CALLER) {
  const unsigned lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp;
  x = warp_reduce(x, op, kWarp FROM_CALLER);
  if (lane == 0) shared[threadIdx.x / kWarp] = x;
  __syncthreads();
  return warp_reduce(lane < warps ? shared[lane] : identity, op, kWarp FROM_CALLER);
}

/// Reads a row of v logits once, N at a time; all threads get the result. A NaN anywhere makes the loss and
/// the total NaN, and so does a largest logit that is infinite. shared [2 * kMaxWarps].
template <int N, class T>
DEVICE Softmax read_row(const T* row, int v, int target, float* shared) {
  const float x_target = to_float(row[target]);
  // Not -infinity: a thread that meets only masked logits would subtract infinities. Nor does the largest
  // need to notice a NaN, the sum does.
  float largest = -FLT_MAX, sum = 0;
  for (int64_t i = int64_t{threadIdx.x} * N; i < v; i += int64_t{blockDim.x} * N) {
    const auto x = load_vector<N>(row + i);
    const int64_t place = target - i;
    float others[N], top = largest, fresh = 0;
    UNROLL for (int k = 0; k < N; ++k) {
      others[k] = place == k ? -INFINITY : to_float(x.at[k]);
      top = fmaxf(top, others[k]);
    }
    UNROLL for (int k = 0; k < N; ++k) fresh += exp_fast(others[k] - top);
    sum = fmaf(sum, exp_fast(largest - top), fresh);  // one rescaling for N logits
    largest = top;
  }
  const float top = reduce_over_block(largest, Max{}, -FLT_MAX, shared);
  sum = reduce_over_block(sum * exp_fast(largest - top), Add{}, 0.0f, shared + kMaxWarps);

  Softmax s;
  s.largest = fmaxf(top, x_target);
  s.others = sum * exp_fast(top - s.largest);
  const float own = exp_fast(x_target - s.largest);
  s.total = own + s.others;
  s.loss = x_target < top ? (top - x_target) + log_fast(s.total) : log1p_fast(s.others / own);
  return s;
}

/// Whether a row counts: its target is not -1, and lies in the vocabulary. Reports one that does not.
DEVICE bool has_target(int target, int v, Fault::Kind kind, FaultRecord* fault) {
  if (threadIdx.x == 0 && (target < -1 || target >= v)) report(fault, kind, target, blockIdx.x, v);
  return target >= 0 && target < v;
}

/// losses[n] of logits [gridDim.x, v] and targets [gridDim.x]. v is a multiple of N, rows are aligned to N.
template <int N, class T>
__global__ void __launch_bounds__(kMaxThreads)
    cross_entropy_forward_kernel(float* losses, const T* logits, const int32_t* targets, int v,
                                 FaultRecord* fault) {
  SHARED(float, shared, [2 * kMaxWarps]);
  const int target = targets[blockIdx.x];
  float loss = 0;
  if (has_target(target, v, Fault::cross_entropy_forward_target, fault))  // the same for the whole block
    loss = read_row<N>(logits + int64_t{blockIdx.x} * v, v, target, shared).loss;
  if (threadIdx.x == 0) losses[blockIdx.x] = loss;
}

/// The same, and logits = scale * (softmax - onehot).
template <int N, class T>
__global__ void __launch_bounds__(kMaxThreads)
    cross_entropy_backward_kernel(float* losses, T* logits, const int32_t* targets, int v, float scale,
                                  FaultRecord* fault) {
  SHARED(float, shared, [2 * kMaxWarps]);
  T* const row = logits + int64_t{blockIdx.x} * v;
  const int target = targets[blockIdx.x];
  const bool counts = has_target(target, v, Fault::cross_entropy_backward_target, fault);
  Softmax s{};
  if (counts)
    s = read_row<N>(row, v, target, shared);  // its barriers keep the target's logit until all have it
  const float factor = counts ? scale / s.total : 0.0f;
  for (int64_t i = int64_t{threadIdx.x} * N; i < v; i += int64_t{blockDim.x} * N) {
    auto x = load_vector<N>(row + i);
    const int64_t place = target - i;
    UNROLL for (int k = 0; k < N; ++k) {
      const float e = place == k ? -s.others : exp_fast(to_float(x.at[k]) - s.largest);
      x.at[k] = from_float<T>(counts ? e * factor : 0.0f);
    }
    store_vector(row + i, x);
  }
  if (threadIdx.x == 0) losses[blockIdx.x] = s.loss;
}

namespace {

/// Calls f(type, vector) with a null pointer of the logits' type and how many are read as one, 16 bytes or
/// single ones, as a type: std::integral_constant.
template <class F>
void for_logits(const char* operation, const Tensor& losses, const Tensor& logits, const Tensor& targets,
                F&& f) {
  check_shape(operation, "losses", losses.view({losses.elements()}), {logits.rows()});
  check_shape(operation, "targets", targets.view({targets.elements()}), {logits.rows()});
  if (logits.cols() > INT32_MAX) refuse("%s: token ids have 31 bits", operation);
  with_type(logits, [&](auto* type) {
    constexpr int kVector = 16 / sizeof *type;
    if (logits.cols() % kVector == 0 && reinterpret_cast<uintptr_t>(logits.data) % 16 == 0)
      f(type, std::integral_constant<int, kVector>{});
    else
      f(type, std::integral_constant<int, 1>{});
  });
}

Grid grid_of(const Tensor& logits, int vector) {
  const int64_t warps = ceil_div(logits.cols(), int64_t{kWarp} * vector);
  return {{static_cast<uint32_t>(logits.rows())},
          {static_cast<uint32_t>(kWarp * (warps < kMaxWarps ? warps : kMaxWarps))}};
}

}  // namespace

void GpuKernels::cross_entropy_forward(const Tensor& losses, const Tensor& logits, const Tensor& targets) {
  const Range range("cross_entropy");
  for_logits("cross_entropy_forward", losses, logits, targets, [&](auto* type, auto vector) {
    using T = std::remove_pointer_t<decltype(type)>;
    constexpr int N = decltype(vector)::value;
    // Maximum, difference, exponential (2), sum.
    const Work work{.bytes = logits.bytes() + 8.0 * logits.rows(), .flops = 5.0 * logits.elements()};
    launch(KERNEL(cross_entropy_forward_kernel<N, T>), grid_of(logits, N), work, losses.f32(), logits.data,
           targets.i32(), logits.cols(), device_->fault());
  });
}

void GpuKernels::cross_entropy_backward(const Tensor& losses, const Tensor& logits, const Tensor& targets,
                                        float scale) {
  const Range range("cross_entropy");
  for_logits("cross_entropy_backward", losses, logits, targets, [&](auto* type, auto vector) {
    using T = std::remove_pointer_t<decltype(type)>;
    constexpr int N = decltype(vector)::value;
    // And the difference, the exponential (2) and the product of the second pass.
    const Work work{.bytes = 2.0 * logits.bytes() + 8.0 * logits.rows(), .flops = 9.0 * logits.elements()};
    launch(KERNEL(cross_entropy_backward_kernel<N, T>), grid_of(logits, N), work, losses.f32(), logits.data,
           targets.i32(), logits.cols(), scale, device_->fault());
  });
}

}  // namespace topolm::TOPOLM_GPU
