// The approximate instructions that kernels use, each beside its twin for the CPU. The PTX interpreter
// (tests/ptx) computes them as the twins do, so that source and PTX give the same bits.
#pragma once

#include "kernels/cuda/gpu.h"

namespace topolm::TOPOLM_GPU {

/// 2^x, within 2 ulp; 0 where the result would be subnormal.
DEVICE float exp2_fast(float x) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  const float y = exp2f(x);
  return y < 0x1p-126f ? 0.0f : y;
#endif
}

/// log2(x), absolute error below 2^-22 near 1; x must be normal.
DEVICE float log2_fast(float x) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return log2f(x);
#endif
}

/// 1/x within 1 ulp; 0 where the result would be subnormal; x must be normal, infinite or NaN.
DEVICE float reciprocal_fast(float x) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  const float y = 1.0f / x;
  return fabsf(y) < 0x1p-126f ? 0.0f : y;
#endif
}

constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

DEVICE float exp_fast(float x) { return exp2_fast(x * kLog2E); }
DEVICE float log_fast(float x) { return log2_fast(x) * kLn2; }

/// The normal distribution at x: density and cumulative, both within a relative 5e-7 (1 + x^2/2), also in the
/// tails where (1 + erf)/2 cancels: the exponent's own rounding counts x^2/2 times. P(X > |x|) e^(x^2/2) is
/// a polynomial in t = 1/(1 + 0.4|x|): a minimax fit, relative error 7e-8, up to where e^(-x^2/2) is flushed.
struct Normal {
  float density, cumulative;
};
DEVICE Normal normal(float x) {
  const float gauss = exp2_fast(x * x * (-0.5f * kLog2E));
  const float t = reciprocal_fast(fmaf(fabsf(x), 0.4f, 1.0f));
  float q = fmaf(t, -4.00736555e-02f, 2.02640519e-01f);
  q = fmaf(q, t, -3.77381802e-01f);
  q = fmaf(q, t, 2.54642725e-01f);
  q = fmaf(q, t, -1.45555530e-02f);
  q = fmaf(q, t, 1.59196883e-01f);
  q = fmaf(q, t, 1.55620456e-01f);
  q = fmaf(q, t, 1.59923300e-01f);
  q = fmaf(q, t, -1.28961992e-05f);
  return {gauss * 0.39894228f, x < 0.0f ? gauss * q : fmaf(-gauss, q, 1.0f)};
}

}  // namespace topolm::TOPOLM_GPU
