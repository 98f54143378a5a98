// Four vectors side by side. Each of a function's many steps waits 3 to 4 cycles for the one before, and a
// processor holds too few of the vectors that follow to fill them. Where the steps of four alternate, a GELU
// of 16 lanes takes 13.0 cycles instead of 14.5 in bf16, 11.6 instead of 12.6 in fp32 (Zen 5).
#pragma once

#include "kernels/cpu/simd.h"

namespace topolm::TOPOLM_ISA {

/// What a function that is written for any V takes in a vfloat's place.
struct Vectors {
  static constexpr int kCount = 4;
  vfloat v[kCount];

  Vectors() = default;
  TOPOLM_INLINE Vectors(float x) {
    for (vfloat& each : v) each = splat(x);
  }
};

template <class F, class... Rest>
TOPOLM_INLINE Vectors map(F&& f, const Vectors& a, const Rest&... rest) {
  Vectors result;
  TOPOLM_UNROLL
  for (int i = 0; i < Vectors::kCount; ++i) result.v[i] = f(a.v[i], rest.v[i]...);
  return result;
}

TOPOLM_INLINE Vectors operator+(const Vectors& a, const Vectors& b) {
  return map([](vfloat x, vfloat y) { return x + y; }, a, b);
}
TOPOLM_INLINE Vectors operator-(const Vectors& a, const Vectors& b) {
  return map([](vfloat x, vfloat y) { return x - y; }, a, b);
}
TOPOLM_INLINE Vectors operator*(const Vectors& a, const Vectors& b) {
  return map([](vfloat x, vfloat y) { return x * y; }, a, b);
}
TOPOLM_INLINE Vectors operator/(const Vectors& a, const Vectors& b) {
  return map([](vfloat x, vfloat y) { return x / y; }, a, b);
}

/// The lanes of Vectors: two of them here, two `stride` elements on.
struct Wide {
  static constexpr int64_t kHalf = 2 * kLanes;
  int64_t stride = kHalf;
};

template <class T>
TOPOLM_INLINE Vectors load(const T* p, Wide lanes) {
  Vectors x;
  TOPOLM_UNROLL
  for (int i = 0; i < Vectors::kCount; ++i) x.v[i] = load(p + i / 2 * lanes.stride + i % 2 * kLanes);
  return x;
}
template <class T>
TOPOLM_INLINE void store(T* p, const Vectors& x, Wide lanes) {
  TOPOLM_UNROLL
  for (int i = 0; i < Vectors::kCount; ++i) store(p + i / 2 * lanes.stride + i % 2 * kLanes, x.v[i]);
}

/// sweep, four vectors at a time while there are as many.
template <class F>
TOPOLM_INLINE void sweep_wide(int64_t n, F&& f) {
  int64_t i = 0;
  for (; i + 2 * Wide::kHalf <= n; i += 2 * Wide::kHalf) f(i, Wide{});
  sweep(n - i, [&](int64_t j, auto lanes) { f(i + j, lanes); });
}

}  // namespace topolm::TOPOLM_ISA
