// GELU, exact (x Phi(x)) and as GPT-2 approximates it.
#include "engine/profile.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/simd.h"

namespace topolm::TOPOLM_ISA {

namespace {

constexpr int64_t kChunk = 1 << 13;  // elements a task: some ten microseconds of exponentials

/// gelu(x) = x * gate, gelu'(x) = gate + x * slope.
struct Gate {
  vfloat gate, slope;
};

struct Exact {
  static TOPOLM_INLINE Gate at(vfloat x) {
    const Normal n = normal(x);
    return {n.cumulative, n.density};
  }
};

/// (1 + tanh(u)) / 2 with u = sqrt(2/pi) (x + 0.044715 x^3) is the logistic function of 2u, which keeps its
/// relative precision where 1 + tanh(u) cancels. The exponent is never positive, so nothing overflows.
struct Tanh {
  static TOPOLM_INLINE Gate at(vfloat x) {
    const vfloat square = x * x;
    const vfloat two_u = x * (square * (2 * 0.7978845608f * 0.044715f) + 2 * 0.7978845608f);
    const vfloat e = exp(two_u < 0.0f ? two_u : -two_u);
    const vfloat upper = 1.0f / (1.0f + e), lower = e * upper;  // the gate at |x| and at -|x|
    return {two_u < 0.0f ? lower : upper,
            upper * lower * (square * (6 * 0.7978845608f * 0.044715f) + 2 * 0.7978845608f)};
  }
};

template <class F>
TOPOLM_INLINE void with_kind(Gelu kind, F&& f) {
  if (kind == Gelu::erf)
    f(Exact{});
  else
    f(Tanh{});
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
          sweep(min(kChunk, n - begin), [=](int64_t i, auto lanes) {
            const vfloat xi = load(in + begin + i, lanes);
            store(o + begin + i, xi * gelu.at(xi).gate, lanes);
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
            sweep(min(kChunk, n - begin), [=](int64_t i, auto lanes) {
              const vfloat xi = load(in + begin + i, lanes);
              const Gate g = gelu.at(xi);
              store(o + begin + i, load(d + begin + i, lanes) * (g.gate + xi * g.slope), lanes);
            });
          });
        });
      });
    });
  });
}

}  // namespace topolm::TOPOLM_ISA
