// GELU as an operation of its own.
#include "kernels/cpu/gelu.h"

#include "engine/profile.h"
#include "kernels/cpu/cpu_kernels.h"

namespace topolm::TOPOLM_ISA {

namespace {

constexpr int64_t kChunk = 1 << 13;  // elements a task: some ten microseconds of exponentials
constexpr int64_t kAhead = 512;      // elements that are fetched ahead

/// Asks for what four vectors will need (tiny in bf16, operands cold: forward 240 -> 190 us, gradient 315 ->
/// 225).
template <class... T>
TOPOLM_INLINE void fetch(const T*... operands) {
  for (int64_t i = 0; i < 2 * Wide::kHalf; i += 16) (__builtin_prefetch(operands + kAhead + i), ...);
}

}  // namespace

void CpuKernels::gelu_forward(const Tensor& out, const Tensor& x, Gelu kind) {
  const Range range("gelu");
  check_shape("gelu_forward", "out", out, x.shape);
  const int64_t n = x.elements();
  with_type(out, [&](auto* out_type) {
    with_type(x, [&](auto* x_type) {
      with_kind(kind, [&](auto gelu) {
        auto* const o = static_cast<decltype(out_type)>(out.data);
        const auto* const in = static_cast<decltype(x_type)>(x.data);
        pool_.parallel_for(ceil_div(n, kChunk), [=](int64_t task, int) {
          const int64_t begin = task * kChunk;
          sweep_wide(min(kChunk, n - begin), [=](int64_t i, auto lanes) {
            fetch(o + begin + i, in + begin + i);
            gelu_of(gelu, o + begin + i, in + begin + i, lanes);
          });
        });
      });
    });
  });
}

void CpuKernels::gelu_backward(const Tensor& dx, const Tensor& dout, const Tensor& x, Gelu kind) {
  const Range range("gelu_backward");
  check_shape("gelu_backward", "dx", dx, x.shape);
  check_shape("gelu_backward", "dout", dout, x.shape);
  const int64_t n = x.elements();
  with_type(dx, [&](auto* dx_type) {
    with_type(dout, [&](auto* dout_type) {
      with_type(x, [&](auto* x_type) {
        with_kind(kind, [&](auto gelu) {
          auto* const o = static_cast<decltype(dx_type)>(dx.data);
          const auto* const d = static_cast<decltype(dout_type)>(dout.data);
          const auto* const in = static_cast<decltype(x_type)>(x.data);
          pool_.parallel_for(ceil_div(n, kChunk), [=](int64_t task, int) {
            const int64_t begin = task * kChunk;
            sweep_wide(min(kChunk, n - begin), [=](int64_t i, auto lanes) {
              fetch(o + begin + i, d + begin + i, in + begin + i);
              gelu_gradient(gelu, o + begin + i, d + begin + i, in + begin + i, lanes);
            });
          });
        });
      });
    });
  });
}

}  // namespace topolm::TOPOLM_ISA
