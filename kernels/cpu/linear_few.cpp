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

typedef int8_t vbyte __attribute__((vector_size(kLanes)));

TOPOLM_INLINE vfloat widen(vbyte b) {
#if defined(__AVX512F__)  // in one instruction, where g++ 12 makes seven of the conversion below
  const vint wide = bit_cast<vint>(_mm512_maskz_cvtepi8_epi32(0xffff, bit_cast<__m128i>(b)));
#else
  const vint wide = __builtin_convertvector(b, vint);
#endif
  return __builtin_convertvector(wide, vfloat);
}

TOPOLM_INLINE vfloat load(const int8_t* p, Full = {}) {
  vbyte b;
  __builtin_memcpy(&b, p, sizeof b);
  return widen(b);
}

TOPOLM_INLINE vfloat load(const int8_t* p, Partial lanes) {
#if defined(__AVX512F__)
  return widen(bit_cast<vbyte>(_mm_maskz_loadu_epi8(static_cast<__mmask16>((1u << lanes.n) - 1), p)));
#else
  vbyte b{};
  for (int i = 0; i < lanes.n; ++i) b[i] = p[i];
  return widen(b);
#endif
}

using topolm::TOPOLM_ISA::load;

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

/// One row as 8-bit integers; returns what they are to be multiplied by. A row that holds what is not a
/// number gets a scale that is none: the damage shows in the logits.
float quantize(int8_t* values, const float* x, int64_t n) {
  vfloat largest{}, nothing{};
  sweep(n, [&](int64_t i, auto lanes) {
    const vfloat v = load(x + i, lanes);
    largest = max(largest, v < 0.0f ? -v : v);
    nothing += v * 0.0f;
  });
  const float maximum = reduce_max(largest);
  const float inverse = maximum < 1e-30f ? 0.0f : 127 / maximum;  // no infinity, whatever the row
  sweep(n, [&](int64_t i, auto lanes) {
    const vfloat v = load(x + i, lanes) * inverse;
    const vfloat rounded = round(v == v ? v : vfloat{});  // to the nearest, even where two are
    const vbyte bytes = __builtin_convertvector(__builtin_convertvector(rounded, vint), vbyte);
    __builtin_memcpy(values + i, &bytes, static_cast<size_t>(min(kLanes, n - i)));
  });
  return (maximum < 1e-30f ? 0.0f : maximum / 127) + reduce_add(nothing);
}

}  // namespace

void linear_few_rows(ThreadPool& pool, Workspace& workspace, const Tensor& y, const Tensor& x,
                     const Tensor& weight) {
  const float* const rows = in_fp32(workspace, x);
  with_type(weight, [&](auto* type) {
    stream(pool, y, rows, static_cast<const std::remove_pointer_t<decltype(type)>*>(weight.data), nullptr,
           x.rows(), x.cols(), weight.rows());
  });
}

void CpuKernels::quantize_rows(const Tensor& values, const Tensor& scale, const Tensor& weight) {
  const Range range("quantize");
  const int64_t out = weight.rows(), in = weight.cols();
  check_shape("quantize_rows", "values", values, weight.shape);
  check_shape("quantize_rows", "scale", scale, {out});
  int8_t* const q = values.i8();
  float* const s = scale.f32();
  const float* const w = weight.f32();
  const int64_t rows = max(1, (1 << 15) / in);
  pool_.parallel_for(ceil_div(out, rows), [=](int64_t task, int) {
    for (int64_t o = task * rows; o < min(out, (task + 1) * rows); ++o)
      s[o] = quantize(q + o * in, w + o * in, in);
  });
}

void CpuKernels::linear_int8_forward(const Tensor& y, const Tensor& x, const Tensor& values,
                                     const Tensor& scale) {
  const Range range("linear");
  const int64_t n = x.rows(), in = x.cols(), out = values.rows();
  check_shape("linear_int8_forward", "values", values, {out, in});
  check_shape("linear_int8_forward", "scale", scale, {out});
  check_shape("linear_int8_forward", "y", y.view({y.rows(), y.cols()}), {n, out});
  const float* const rows = in_fp32(workspace_, x);
  for (int64_t i = 0; i < n; i += kFewRows) {
    const int64_t few = min(kFewRows, n - i);
    stream(pool_, y.row_range(i, few), rows + i * in, values.i8(), scale.f32(), few, in, out);
  }
}

}  // namespace topolm::TOPOLM_ISA
