// Vectors of floats, as wide as the instruction set this file is compiled for (TOPOLM_ISA), with GCC's vector
// extensions: the same source on AVX-512, AVX2, SSE2 and NEON, with g++ and clang++.
//
// Everything here lives in the instruction set's own namespace and is inlined: code compiled for AVX-512 must
// never be what the linker keeps for a machine without it.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "engine/tensor.h"

#define TOPOLM_INLINE inline __attribute__((always_inline))

// Before a loop of constant length that must be unrolled, so that an array of vectors lives in registers.
#if defined(__clang__)
#define TOPOLM_UNROLL _Pragma("clang loop unroll(full)")
#else
#define TOPOLM_UNROLL _Pragma("GCC unroll 32")
#endif

// How bf16 is multiplied where fp32 arithmetic is not the fastest way: on tiles (real, or emulated for tests
// where there are none), or by VDPBF16PS, which a processor with tiles has at half the speed of fp32.
// g++ and clang++ 14 call them by different names.
#if defined(__AMX_BF16__) || defined(__AMXBF16__) || defined(TOPOLM_AMX_EMULATED)
#define TOPOLM_AMX
#elif defined(__AVX512BF16__)
#define TOPOLM_BF16_DOT
#endif

namespace topolm::TOPOLM_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float vfloat __attribute__((vector_size(kLanes * 4)));
typedef int32_t vint __attribute__((vector_size(kLanes * 4)));
typedef uint32_t vuint __attribute__((vector_size(kLanes * 4)));  // what may pass 2^31
typedef uint16_t vhalf __attribute__((vector_size(kLanes * 2)));

/// How many lanes a load or store touches: all of them, known at compile time, or the first n.
struct Full {};
struct Partial {
  int n;
};

/// Calls f(i, Full{}) for each whole vector of [0, n) and f(i, Partial{rest}) once for what is left.
template <class F>
TOPOLM_INLINE void sweep(int64_t n, F&& f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) f(i, Full{});
  if (i < n) f(i, Partial{static_cast<int>(n - i)});
}

#if defined(__AVX2__) && !defined(__AVX512F__)
TOPOLM_INLINE __m256i mask_of(Partial lanes) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes.n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
#endif

template <class To, class From>
TOPOLM_INLINE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

TOPOLM_INLINE vfloat splat(float x) { return x - vfloat{}; }  // x - 0, not x + 0: keeps -0
TOPOLM_INLINE vint splat(int32_t x) { return x - vint{}; }

// ---- load and store: fp32, bf16, and int8 to read

TOPOLM_INLINE vfloat load(const float* p, Full = {}) {
  vfloat v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

/// Lanes past n are 0.
TOPOLM_INLINE vfloat load(const float* p, Partial lanes) {
#if defined(__AVX512F__)
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << lanes.n) - 1), p);
#elif defined(__AVX2__)
  return _mm256_maskload_ps(p, mask_of(lanes));
#else
  vfloat v{};
  for (int i = 0; i < lanes.n; ++i) v[i] = p[i];
  return v;
#endif
}

TOPOLM_INLINE void store(float* p, vfloat v, Full = {}) { __builtin_memcpy(p, &v, sizeof v); }

TOPOLM_INLINE void store(float* p, vfloat v, Partial lanes) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << lanes.n) - 1), v);
#elif defined(__AVX2__)
  _mm256_maskstore_ps(p, mask_of(lanes), v);
#else
  for (int i = 0; i < lanes.n; ++i) p[i] = v[i];
#endif
}

TOPOLM_INLINE vfloat widen(vhalf h) {
#if defined(__AVX512F__)  // in one instruction, where g++ 12 makes four of the conversion below
  return bit_cast<vfloat>(bit_cast<vint>(_mm512_maskz_cvtepu16_epi32(0xffff, bit_cast<__m256i>(h))) << 16);
#else
  return bit_cast<vfloat>(__builtin_convertvector(h, vint) << 16);
#endif
}

/// Round to nearest even; a NaN stays one. VCVTNEPS2BF16 makes 0 of what is below 2^-126; in software it is
/// 10 cycles a vector slower, as much as half a GELU.
TOPOLM_INLINE vhalf narrow(vfloat v) {
#if defined(__AVX512BF16__)
  return bit_cast<vhalf>(_mm512_cvtneps_pbh(v));
#else
  const vuint bits = bit_cast<vuint>(v);
  const vuint rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return __builtin_convertvector(v == v ? rounded : vuint{} + 0x7fc0, vhalf);
#endif
}

TOPOLM_INLINE vfloat load(const bf16* p, Full = {}) {
  vhalf h;
  __builtin_memcpy(&h, p, sizeof h);
  return widen(h);
}

TOPOLM_INLINE vfloat load(const bf16* p, Partial lanes) {
#if defined(__AVX512F__)
  return widen(bit_cast<vhalf>(_mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << lanes.n) - 1), p)));
#else
  vhalf h{};
  for (int i = 0; i < lanes.n; ++i) h[i] = p[i].bits;
  return widen(h);
#endif
}

TOPOLM_INLINE void store(bf16* p, vfloat v, Full = {}) {
  const vhalf h = narrow(v);
  __builtin_memcpy(p, &h, sizeof h);
}

TOPOLM_INLINE void store(bf16* p, vfloat v, Partial lanes) {
  const vhalf h = narrow(v);
#if defined(__AVX512F__)
  _mm256_mask_storeu_epi16(p, static_cast<__mmask16>((1u << lanes.n) - 1), bit_cast<__m256i>(h));
#else
  for (int i = 0; i < lanes.n; ++i) p[i].bits = h[i];
#endif
}

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

/// v, with `other` in the lanes past n.
TOPOLM_INLINE vfloat pad(vfloat v, float, Full) { return v; }
TOPOLM_INLINE vfloat pad(vfloat v, float other, Partial lanes) {
  vint lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  return lane < lanes.n ? v : splat(other);
}

TOPOLM_INLINE float to_float(float x) { return x; }
TOPOLM_INLINE float to_float(bf16 x) { return bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }

// ---- shuffles

using LaneIndices = std::make_integer_sequence<int, kLanes>;

/// a[0] b[0] a[1] b[1] ...: the first kLanes of them in lo, the others in hi.
template <int... I>
TOPOLM_INLINE void zip(vfloat& lo, vfloat& hi, vfloat a, vfloat b, std::integer_sequence<int, I...>) {
  lo = __builtin_shufflevector(a, b, (I % 2 * kLanes + I / 2)...);
  hi = __builtin_shufflevector(a, b, (I % 2 * kLanes + I / 2 + kLanes / 2)...);
}

/// Transposes a square in registers. Zipping the upper half of the rows with the lower half rotates the bits
/// of an element's address (row, column) by one; after log2(kLanes) times it is (column, row).
TOPOLM_INLINE void transpose(vfloat (&rows)[kLanes]) {
  TOPOLM_UNROLL
  for (int bit = 1; bit < kLanes; bit *= 2) {
    vfloat zipped[kLanes];
    TOPOLM_UNROLL
    for (int i = 0; i < kLanes / 2; ++i)
      zip(zipped[2 * i], zipped[2 * i + 1], rows[i], rows[i + kLanes / 2], LaneIndices{});
    TOPOLM_UNROLL
    for (int i = 0; i < kLanes; ++i) rows[i] = zipped[i];
  }
}

/// Lane i of the result is lane i ^ kBit of v.
template <int kBit, int... I>
TOPOLM_INLINE vfloat swap_lanes(vfloat v, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(v, v, (I ^ kBit)...);
}

// ---- reductions, always in the same order

/// Halves the vector until one lane is left.
template <int kBit = kLanes / 2, class F>
TOPOLM_INLINE float reduce(vfloat v, F&& f) {
  v = f(v, swap_lanes<kBit>(v, LaneIndices{}));
  if constexpr (kBit > 1)
    return reduce<kBit / 2>(v, f);
  else
    return v[0];
}

TOPOLM_INLINE float reduce_add(vfloat v) {
  return reduce(v, [](vfloat a, vfloat b) { return a + b; });
}

/// a > b ? a : b, and a < b ? a : b: so b where one is NaN. In one instruction, which g++ 12 does not find:
/// with a comparison and a blend a GELU takes 2 cycles more.
TOPOLM_INLINE vfloat max(vfloat a, vfloat b) {
#if defined(__AVX512F__)
  return _mm512_maskz_max_ps(0xffff, a, b);
#elif defined(__AVX2__)
  return _mm256_max_ps(a, b);
#elif defined(__x86_64__)
  return _mm_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}
TOPOLM_INLINE vfloat min(vfloat a, vfloat b) {
#if defined(__AVX512F__)
  return _mm512_maskz_min_ps(0xffff, a, b);
#elif defined(__AVX2__)
  return _mm256_min_ps(a, b);
#elif defined(__x86_64__)
  return _mm_min_ps(a, b);
#else
  return a < b ? a : b;
#endif
}
TOPOLM_INLINE int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
TOPOLM_INLINE int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }

TOPOLM_INLINE float reduce_max(vfloat v) {
  return reduce(v, [](vfloat a, vfloat b) { return max(a, b); });
}

/// join(... term(i, lanes)) over [0, n), with `nothing` where n is 0; in four chains: one would wait 2 to 4
/// cycles for each addition.
template <class Term, class Join>
TOPOLM_INLINE float fold(int64_t n, float nothing, Term&& term, Join&& join) {
  vfloat parts[4];
  for (vfloat& p : parts) p = splat(nothing);
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    TOPOLM_UNROLL
    for (int k = 0; k < 4; ++k) parts[k] = join(parts[k], term(i + k * kLanes, Full{}));
  }
  sweep(n - i, [&](int64_t j, auto lanes) { parts[0] = join(parts[0], term(i + j, lanes)); });
  return reduce(join(join(parts[0], parts[1]), join(parts[2], parts[3])), join);
}

/// The sum of term(i, lanes) over [0, n), where lanes past n give 0; the largest, where they give -infinity.
template <class Term>
TOPOLM_INLINE float sum_of(int64_t n, Term&& term) {
  return fold(n, 0, term, [](vfloat a, vfloat b) { return a + b; });
}
template <class Term>
TOPOLM_INLINE float max_of(int64_t n, Term&& term) {
  return fold(n, -__builtin_inff(), term, [](vfloat a, vfloat b) { return max(a, b); });
}

// ---- functions

TOPOLM_INLINE vfloat sqrt(vfloat x) {
#if defined(__AVX512F__)
  return _mm512_maskz_sqrt_ps(0xffff, x);  // the plain form: g++ 12 warns of an uninitialised operand
#elif defined(__AVX2__)
  return _mm256_sqrt_ps(x);
#elif defined(__x86_64__)
  return _mm_sqrt_ps(x);
#else
  for (int i = 0; i < kLanes; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
#endif
}

/// The whole number nearest to x, the even one of two; times_power(p, n) is 2^n p. The ends of an
/// exponential: AVX-512 has instructions for both. Exponents go down to kPowerZero, where the result is 0.
#if defined(__AVX512F__)
constexpr float kPowerZero = -151;
TOPOLM_INLINE vfloat round(vfloat x) { return _mm512_maskz_roundscale_ps(0xffff, x, 8); }
TOPOLM_INLINE vfloat times_power(vfloat p, vfloat n) { return _mm512_maskz_scalef_ps(0xffff, p, n); }
#else
constexpr float kPowerZero = -127;
constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
TOPOLM_INLINE vfloat round(vfloat x) { return (x + kMagic) - kMagic; }
TOPOLM_INLINE vfloat times_power(vfloat p, vfloat n) {
  return p * bit_cast<vfloat>((bit_cast<vuint>(n + kMagic) << 23) + 0x3f800000);
}
#endif

/// f of a vector, and (wide.h) of each of several.
template <class F, class... Rest>
TOPOLM_INLINE vfloat map(F&& f, vfloat a, Rest... rest) {
  return f(a, rest...);
}

/// 2^x for kPowerZero <= x <= 0, within 2 ulp. NaN stays NaN, and 2^0 is 1. What softmax needs: its exponents
/// are differences to the largest, and their factor is free.
template <class V>
TOPOLM_INLINE V exp2_of_bounded(V x) {
  const V n = map([](vfloat v) { return round(v); }, x), r = x - n;
  V p = r * 1.326471274e-03f + 9.671523348e-03f;  // minimax, of relative error 9e-8
  p = p * r + 5.550733877e-02f;
  p = p * r + 2.402224192e-01f;
  p = p * r + 6.931469775e-01f;
  p = p * r + 1.0f;
  return map([](vfloat v, vfloat w) { return times_power(v, w); }, p, n);
}

/// The same for any x <= 0; 2^-126 below that: not 0.
TOPOLM_INLINE vfloat exp2_of_negative(vfloat x) {
  return exp2_of_bounded(max(splat(-126.0f), x));  // in this order: a comparison with NaN is false
}

/// e^x for x <= 0, within 2 ulp; 0 below -87; NaN stays NaN. x is reduced in Cody and Waite's two steps, so
/// that its own rounding does not count x times.
template <class V>
TOPOLM_INLINE V exp_of_negative(V x) {
  const V n = map([](vfloat v) { return round(v); }, x * 1.44269504f);
  const V r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  V p = r * 8.290305679e-03f + 4.189797569e-02f;  // minimax, of relative error 9e-8
  p = p * r + 1.666763660e-01f;
  p = p * r + 4.999914919e-01f;
  p = p * r + 9.999997070e-01f;
  p = p * r + 1.0f;
  return map([](vfloat v, vfloat w, vfloat y) { return y < -87.0f ? vfloat{} : times_power(v, w); }, p, n, x);
}

/// log2(x) for normal x > 0, within 3e-7 (1 + |log2(x)|); NaN stays NaN. With x = 2^n m and
/// s = (m - 1) / (m + 1), log(m) = 2 (s + s^3/3 + s^5/5 + ...), |s| <= 0.172.
TOPOLM_INLINE vfloat log2(vfloat x) {
  const vint shifted = bit_cast<vint>(x) - 0x3f3504f3;  // of sqrt(1/2)
  const vfloat m = bit_cast<vfloat>((shifted & 0x7fffff) + 0x3f3504f3);
  const vfloat s = (m - 1.0f) / (m + 1.0f), y = s * s;
  vfloat p = y * 0.320598895f + 0.412198596f;  // 2 / (k log(2)), k = 9, 7, 5, 3, 1
  p = p * y + 0.577078016f;
  p = p * y + 0.961796694f;
  p = p * y + 2.885390082f;
  return x == x ? p * s + __builtin_convertvector(shifted >> 23, vfloat) : x;
}

/// |x|; of NaN a NaN.
TOPOLM_INLINE vfloat abs(vfloat x) { return bit_cast<vfloat>(bit_cast<vint>(x) & 0x7fffffff); }

}  // namespace topolm::TOPOLM_ISA
