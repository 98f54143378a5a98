// GELU, exact (x Phi(x)) and as GPT-2 approximates it, on rows of elements: for the operation and for what
// follows a matrix product while its result is in the cache.
#pragma once

#include "kernels/cpu/wide.h"
#include "kernels/kernels.h"

namespace topolm::TOPOLM_ISA {

/// Both kinds are x times a gate of which gate(x) + gate(-x) = 1. So what is computed is the tail: the gate
/// at -t for t = |x|, small and precise where 1 - gate(t) would cancel, and gelu's derivative there.
///   gelu(x) = max(0, x) - t gate(-t),   gelu'(x) = gelu'(-t) for x < 0, else 1 - gelu'(-t)
/// Beyond kFar the exponential in it is 0.
template <class V>
struct Tail {
  V gate, derivative;
};

/// The normal distribution below -t, within a relative 5e-7 (1 + t^2/2): the exponent's own rounding counts
/// t^2/2 times. The distribution times e^(t^2/2) is fitted (minimax, relative 5e-8 (1 + t^2/2)) in
/// s = 1 - 1/(1 + 0.336 t), as it rounds least where t is small. Neighbouring terms are paired: half the
/// latency of Horner's rule.
struct ExactGelu {
  static constexpr float kFar = kPowerZero == -127 ? 13.27f : 14.5f;

  template <class V>
  static TOPOLM_INLINE Tail<V> at(V t) {
    const V gauss = exp2_of_bounded(t * (t * (-0.5f * 1.44269504f)));
    const V s = 1.0f - 1.0f / (t * 0.336f + 1.0f), square = s * s;
    V fit = (s * -0.0475800588f + 0.113094103f) * square + (s * 0.00803240388f - 0.147893438f);
    fit = fit * square + (s * -0.265608211f + 1.02720649f);
    fit = fit * square + (s * -1.18733085f + 0.5f);
    return {gauss * fit, gauss * (fit - t * 0.39894228f)};
  }
};

/// (1 + tanh(u)) / 2 with u = sqrt(2/pi) (x + 0.044715 x^3) is the logistic function of 2u.
struct TanhGelu {
  static constexpr float kFar = kPowerZero == -127 ? 10.04f : 10.75f;

  template <class V>
  static TOPOLM_INLINE Tail<V> at(V t) {
    constexpr float kLinear = 2 * 0.7978845608f, kCubic = kLinear * 0.044715f, kLog2e = 1.44269504f;
    const V square = t * t;
    const V e = exp2_of_bounded(t * (square * (-kCubic * kLog2e) - kLinear * kLog2e));
    const V upper = 1.0f / (1.0f + e), gate = e * upper;
    return {gate, gate - t * (square * (3 * kCubic) + kLinear) * (gate * upper)};
  }
};

template <class F>
TOPOLM_INLINE void with_kind(Gelu kind, F&& f) {
  if (kind == Gelu::erf)
    f(ExactGelu{});
  else
    f(TanhGelu{});
}

/// |x| as a kind wants it; in this order a NaN stays one.
template <class Kind, class V>
TOPOLM_INLINE V bounded(V x) {
  return map([](vfloat v) { return min(splat(Kind::kFar), abs(v)); }, x);
}

/// out = gelu(x) of the elements in some lanes; out may be x.
template <class Kind, class Out, class X, class Lanes>
TOPOLM_INLINE void gelu_of(Kind kind, Out* out, const X* x, Lanes lanes) {
  const auto xi = load(x, lanes), t = bounded<Kind>(xi);
  store(out, map([](vfloat v) { return max(vfloat{}, v); }, xi) - t * kind.at(t).gate, lanes);
}

/// dx = dout * gelu'(x) of the elements in some lanes; dx may be dout.
template <class Kind, class Dx, class Dout, class X, class Lanes>
TOPOLM_INLINE void gelu_gradient(Kind kind, Dx* dx, const Dout* dout, const X* x, Lanes lanes) {
  const auto xi = load(x, lanes), below = kind.at(bounded<Kind>(xi)).derivative;
  const auto slope = map([](vfloat v, vfloat b) { return v < 0.0f ? b : 1.0f - b; }, xi, below);
  store(dx, load(dout, lanes) * slope, lanes);
}

}  // namespace topolm::TOPOLM_ISA
