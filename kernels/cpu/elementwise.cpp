// Construction of a device, and the operations that touch each element once.
#include "engine/profile.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/simd.h"

namespace topolm::TOPOLM_ISA {

#define TOPOLM_STRING2(x) #x
#define TOPOLM_STRING(x) TOPOLM_STRING2(x)

std::unique_ptr<Kernels> make_cpu_kernels(int threads) { return std::make_unique<CpuKernels>(threads); }

CpuKernels::CpuKernels(int threads)
    : pool_(threads), device_(TOPOLM_STRING(TOPOLM_ISA), pool_.threads()), workspace_(pool_.threads()) {}

Device& CpuKernels::device() { return device_; }

namespace {
constexpr int64_t kChunk = 1 << 15;  // elements a task: 128 KB of fp32, a few microseconds of work

/// From here on a tensor is written past the caches: what they cannot hold is not read first to be
/// overwritten. The gradients of base, 512 MB on two threads: 14 -> 5.4 ms.
constexpr int64_t kPastCaches = int64_t{1} << 23;

/// p aligned as a vector. What other threads see of it before stream_end() is not defined.
TOPOLM_INLINE void stream(float* p, vfloat v) {
#if defined(__AVX512F__)
  _mm512_stream_ps(p, v);
#elif defined(__AVX2__)
  _mm256_stream_ps(p, v);
#elif defined(__x86_64__)
  _mm_stream_ps(p, v);
#else
  store(p, v);
#endif
}
TOPOLM_INLINE void stream_end() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}
}  // namespace

void CpuKernels::fill(const Tensor& out, float value) {
  const Range range("fill");
  float* const o = out.f32();
  const int64_t n = out.elements();
  const bool past_caches = n >= kPastCaches && reinterpret_cast<uintptr_t>(o) % sizeof(vfloat) == 0;
  pool_.parallel_for(ceil_div(n, kChunk), [=](int64_t task, int) {
    float* const p = o + task * kChunk;
    if (past_caches && n - task * kChunk >= kChunk) {
      for (int64_t i = 0; i < kChunk; i += kLanes) stream(p + i, splat(value));
      stream_end();
      return;
    }
    sweep(min(kChunk, n - task * kChunk), [=](int64_t i, auto lanes) { store(p + i, splat(value), lanes); });
  });
}

void CpuKernels::cast(const Tensor& out, const Tensor& in) {
  const Range range("cast");
  check_shape("cast", "in", in, out.shape);
  const int64_t n = out.elements();
  with_type(out, [&](auto* to) {
    with_type(in, [&](auto* from) {
      auto* const o = static_cast<decltype(to)>(out.data);
      const auto* const x = static_cast<decltype(from)>(in.data);
      pool_.parallel_for(ceil_div(n, kChunk), [=](int64_t task, int) {
        const int64_t begin = task * kChunk;
        sweep(min(kChunk, n - begin),
              [=](int64_t i, auto lanes) { store(o + begin + i, load(x + begin + i, lanes), lanes); });
      });
    });
  });
}

void CpuKernels::add_scaled(const Tensor& out, const Tensor& in, float scale) {
  const Range range("add_scaled");
  check_shape("add_scaled", "in", in, out.shape);
  float* const o = out.f32();
  const int64_t n = out.elements();
  with_type(in, [&](auto* type) {
    const auto* const x = static_cast<decltype(type)>(in.data);
    pool_.parallel_for(ceil_div(n, kChunk), [=](int64_t task, int) {
      const int64_t begin = task * kChunk;
      sweep(min(kChunk, n - begin), [=](int64_t i, auto lanes) {
        store(o + begin + i, load(o + begin + i, lanes) + scale * load(x + begin + i, lanes), lanes);
      });
    });
  });
}

}  // namespace topolm::TOPOLM_ISA
