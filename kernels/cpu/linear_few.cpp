// Linear layers of few rows, at the speed of memory: the weight is read once, in the order in which it lies,
// in fp32, bf16 or int8; x is in fp32 and stays in the cache.
#include "kernels/cpu/linear_few.h"

#include <type_traits>

#include "engine/profile.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/simd.h"

namespace topolm::TOPOLM_ISA {

namespace {

// Bytes of the weight that a task streams: an eighth of a small matrix, so that threads finish together, but
// not so little that a task ends when its stream has just begun. `base` in int8, GB/s on two threads of a
// machine that reads 67: 39 in tasks of 32 KB, 51 of 64, 59 of 128, 68 of 256.
constexpr int64_t kSmallestTask = 64 << 10, kLargestTask = 512 << 10;

// The hardware's own prefetching does not keep up with bf16 and int8 (base, bf16, two threads: 45 GB/s
// without, 57, 62, 65, 60 with 2, 4, 8, 16 KB). Where a matrix ends, this fetches the beginning of the next.
constexpr int64_t kPrefetchBytes = 8 << 10;
constexpr int64_t kCacheLine = 64;

// Sums side by side, to hide the latency of an FMA; and rows of x at a time, as many as have room in
// registers. The first decides the order of a sum, so it is the same for any number of rows.
constexpr int kSums = 4;
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kTogether = 4;
#else
constexpr int kTogether = 2;
#endif

/// products[m] = weight . x[m] for M rows of x.
template <int M, class W>
TOPOLM_INLINE void dot(float* products, const W* weight, const float* x, int64_t in) {
  vfloat sums[M][kSums] = {};
  int64_t k = 0;
  for (; k + kSums * kLanes <= in; k += kSums * kLanes) {
    TOPOLM_UNROLL
    for (int s = 0; s < kSums; ++s) {
      const W* const p = weight + k + s * kLanes;
      if (s * kLanes * static_cast<int64_t>(sizeof(W)) % kCacheLine == 0)
        __builtin_prefetch(reinterpret_cast<const char*>(p) + kPrefetchBytes);
      const vfloat w = load(p);
      TOPOLM_UNROLL
      for (int m = 0; m < M; ++m) sums[m][s] += w * load(x + m * in + k + s * kLanes);
    }
  }
  sweep(
      in - k, [&](int64_t i, auto lanes) __attribute__((always_inline)) {
        const vfloat w = load(weight + k + i, lanes);
        TOPOLM_UNROLL
        for (int m = 0; m < M; ++m) sums[m][0] += w * load(x + m * in + k + i, lanes);
      });
  TOPOLM_UNROLL
  for (int m = 0; m < M; ++m) products[m] = reduce_add((sums[m][0] + sums[m][1]) + (sums[m][2] + sums[m][3]));
}

template <int M, class W>
TOPOLM_INLINE void dots(float* products, const W* weight, const float* x, int64_t in) {
  if constexpr (M > kTogether) {
    dot<kTogether>(products, weight, x, in);
    dot<M - kTogether>(products + kTogether, weight, x + kTogether * in, in);  // the weight is in the cache
  } else {
    dot<M>(products, weight, x, in);
  }
}

/// Columns [begin, end) of y [M, out].
template <int M, class W, class Y>
TOPOLM_INLINE void multiply(Y* y, const float* x, const W* weight, const float* scale, int64_t in,
                            int64_t out, int64_t begin, int64_t end) {
  for (int64_t o = begin; o < end; ++o) {
    float products[M];
    dots<M>(products, weight + o * in, x, in);
    const float factor = scale ? scale[o] : 1.0f;
    for (int m = 0; m < M; ++m) store(y + m * out + o, splat(factor * products[m]), Partial{1});
  }
}

template <class W, class Y>
__attribute__((noinline)) void multiply(Y* y, const float* x, const W* weight, const float* scale, int64_t n,
                                        int64_t in, int64_t out, int64_t begin, int64_t end) {
  switch (n) {
    case 1:
      return multiply<1>(y, x, weight, scale, in, out, begin, end);
    case 2:
      return multiply<2>(y, x, weight, scale, in, out, begin, end);
    case 3:
      return multiply<3>(y, x, weight, scale, in, out, begin, end);
    case 4:
      return multiply<4>(y, x, weight, scale, in, out, begin, end);
  }
}

/// y [n, out] = scale * (x weight^T), x [n, in] in fp32; scale may be null.
template <class W>
void stream(ThreadPool& pool, const Tensor& y, const float* x, const W* weight, const float* scale, int64_t n,
            int64_t in, int64_t out) {
  const int64_t row = in * static_cast<int64_t>(sizeof(W));
  const int64_t task_bytes = min(max(out * row / 8, kSmallestTask), kLargestTask);
  const int64_t rows = max(1, task_bytes / row);
  with_type(y, [&](auto* type) {
    auto* const to = static_cast<decltype(type)>(y.data);
    pool.parallel_for(ceil_div(out, rows), [=](int64_t task, int) {
      multiply(to, x, weight, scale, n, in, out, task * rows, min(out, (task + 1) * rows));
    });
  });
}

/// The rows of x in fp32: where they are, or a copy in the workspace. Throws Error unless they are fp32 or
/// bf16.
const float* in_fp32(Workspace& workspace, const Tensor& x) {
  if (x.dtype == DType::f32) return x.f32();
  const bf16* const from = x.bf16();
  const int64_t n = x.elements();
  float* const rows = workspace.shared(n);
  sweep(n, [&](int64_t i, auto lanes) { store(rows + i, load(from + i, lanes), lanes); });
  return rows;
}

}  // namespace

void linear_few_rows(ThreadPool& pool, Workspace& workspace, const Tensor& y, const Tensor& x,
                     const Tensor& weight, const float* scale) {
  const float* const rows = in_fp32(workspace, x);
  const int64_t n = x.rows(), in = x.cols(), out = weight.rows();
  if (weight.dtype == DType::i8) return stream(pool, y, rows, weight.i8(), scale, n, in, out);
  with_type(weight, [&](auto* type) {
    stream(pool, y, rows, static_cast<const std::remove_pointer_t<decltype(type)>*>(weight.data), scale, n,
           in, out);
  });
}

}  // namespace topolm::TOPOLM_ISA
