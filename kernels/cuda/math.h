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

constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

DEVICE float exp_fast(float x) { return exp2_fast(x * kLog2E); }
DEVICE float log_fast(float x) { return log2_fast(x) * kLn2; }

}  // namespace topolm::TOPOLM_GPU
