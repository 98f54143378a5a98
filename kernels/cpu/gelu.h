// GELU, exact (x Phi(x)) and as GPT-2 approximates it, on rows of elements: for the operation and for what
// follows a matrix product while its result is in the cache.
#pragma once

#include "kernels/cpu/simd.h"
#include "kernels/kernels.h"

namespace topolm::TOPOLM_ISA {

/// gelu(x) = x * gate, gelu'(x) = gate + x * slope.
struct Gate {
  vfloat gate, slope;
};

struct ExactGelu {
  static TOPOLM_INLINE Gate at(vfloat x) {
    const Normal n = normal(x);
    return {n.cumulative, n.density};
  }
};

/// (1 + tanh(u)) / 2 with u = sqrt(2/pi) (x + 0.044715 x^3) is the logistic function of 2u, which keeps its
/// relative precision where 1 + tanh(u) cancels. The exponent is never positive, so nothing overflows.
struct TanhGelu {
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
    f(ExactGelu{});
  else
    f(TanhGelu{});
}

/// out = gelu(x) of n elements; out may be x.
template <class Kind, class Out, class X>
TOPOLM_INLINE void gelu_of(Kind kind, Out* out, const X* x, int64_t n) {
  sweep(n, [=](int64_t i, auto lanes) {
    const vfloat xi = load(x + i, lanes);
    store(out + i, xi * kind.at(xi).gate, lanes);
  });
}

/// dx = dout * gelu'(x) of n elements; dx may be dout.
template <class Kind, class Dx, class Dout, class X>
TOPOLM_INLINE void gelu_gradient(Kind kind, Dx* dx, const Dout* dout, const X* x, int64_t n) {
  sweep(n, [=](int64_t i, auto lanes) {
    const vfloat xi = load(x + i, lanes);
    const Gate g = kind.at(xi);
    store(dx + i, load(dout + i, lanes) * (g.gate + xi * g.slope), lanes);
  });
}

}  // namespace topolm::TOPOLM_ISA
