// Drawing a token. All devices draw the same one: kernels/sampling.h has the arithmetic.
#include "engine/profile.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/simd.h"
#include "kernels/sampling.h"

namespace topolm::TOPOLM_ISA {

#if defined(__AVX2__) || defined(__aarch64__)

namespace {

constexpr int64_t kBlock = 2048;  // tokens whose weights are added up in 32 bits: 2^20 * 2048 / kLanes fits

TOPOLM_INLINE vfloat fused_multiply_add(vfloat a, vfloat b, vfloat c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__)
  return _mm256_fmadd_ps(a, b, c);
#else
  for (int i = 0; i < kLanes; ++i) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return c;
#endif
}

/// relative_probability(), to the bit.
TOPOLM_INLINE vfloat relative_probabilities(vfloat difference, float scale) {
  vfloat x = difference * scale;
  const auto nothing = x < -40.5f;  // rounds to less than -40
  x = x < -64.0f ? splat(-64.0f) : x;
  const vfloat magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  const vfloat shifted = x + magic, n = shifted - magic;
  const vfloat f = fused_multiply_add(nothing ? vfloat{} : difference, splat(scale), -n);
  vfloat p = splat(1.546144777e-4f);
  for (const float c :
       {1.339086681e-3f, 9.618056938e-3f, 5.550356954e-2f, 2.402265072e-1f, 6.931471825e-1f, 1.0f})
    p = fused_multiply_add(p, f, splat(c));
  const vint power = (bit_cast<vint>(shifted) - bit_cast<vint>(magic) + 127) << 23;
  return nothing ? vfloat{} : p * bit_cast<vfloat>(power);
}

/// The sum of the sampling_weight()s, each in two halves of 20 bits.
uint64_t sum_of_weights(const float* logits, int64_t n, float best, float scale) {
  vint high{}, low{};
  sweep(n, [&](int64_t i, auto lanes) {
    const vfloat logit = pad(load(logits + i, lanes), -__builtin_inff(), lanes);
    const vfloat p = relative_probabilities(logit - best, scale) * 0x1p20f;
    const vint whole = __builtin_convertvector(p, vint);
    high += whole;
    low += __builtin_convertvector((p - __builtin_convertvector(whole, vfloat)) * 0x1p20f, vint);
  });
  uint64_t sum = 0;
  for (int i = 0; i < kLanes; ++i)
    sum += (static_cast<uint64_t>(static_cast<uint32_t>(high[i])) << 20) + static_cast<uint32_t>(low[i]);
  return sum;
}

/// The largest logit; NaN if one is.
float largest_of(const float* logits, int64_t n) {
  vfloat largest = splat(-__builtin_inff()), nothing{};
  sweep(n, [&](int64_t i, auto lanes) {
    const vfloat logit = pad(load(logits + i, lanes), -__builtin_inff(), lanes);
    largest = max(logit, largest);
    nothing = logit == logit ? nothing : logit;
  });
  const float total = reduce_add(nothing);
  return total == total ? reduce_max(largest) : total;
}

}  // namespace

// Where every token may be drawn, the sorting of the general form is not needed: of 50304 logits in 0.02 ms
// on two threads and not in 1.0, half of what decoding `base` in int8 takes.
void CpuKernels::sample(const Tensor& token, const Tensor& logits, const Tensor& uniform,
                        const Sampling& sampling) {
  const Range range("sample");
  check_shape("sample", "token", token, {1});
  check_shape("sample", "uniform", uniform, {1});
  const int64_t n = logits.elements();
  const float* const x = logits.f32();
  const float best = largest_of(x, n), u = *uniform.f32();
  int32_t& drawn = *token.i32();
  if (!__builtin_isfinite(best)) {
    drawn = -1;
  } else if (sampling.temperature == 0) {
    for (drawn = 0; x[drawn] != best;) ++drawn;
  } else if (sampling.top_k > 0 || sampling.top_p < 1 || sampling.min_p > 0) {
    drawn = topolm::sample({x, static_cast<size_t>(n)}, sampling, u);
  } else {
    const float scale = sampling_scale(sampling.temperature);
    const int64_t blocks = ceil_div(n, kBlock);
    auto* const sums = reinterpret_cast<uint64_t*>(workspace_.shared(2 * blocks));
    pool_.parallel_for(blocks, [=](int64_t b, int) {
      sums[b] = sum_of_weights(x + b * kBlock, min(kBlock, n - b * kBlock), best, scale);
    });
    uint64_t total = 0;
    for (int64_t b = 0; b < blocks; ++b) total += sums[b];
    uint64_t wanted = weight_drawn(total, u);
    int64_t b = 0;
    for (; sums[b] < wanted; ++b) wanted -= sums[b];
    const int64_t begin = b * kBlock;
    drawn =
        static_cast<int32_t>(begin + token_reaching({x + begin, static_cast<size_t>(min(kBlock, n - begin))},
                                                    best, scale, wanted));
  }
}

#else  // what has no fused multiply-add would have to imitate it

void CpuKernels::sample(const Tensor& token, const Tensor& logits, const Tensor& uniform,
                        const Sampling& sampling) {
  const Range range("sample");
  check_shape("sample", "token", token, {1});
  check_shape("sample", "uniform", uniform, {1});
  *token.i32() =
      topolm::sample({logits.f32(), static_cast<size_t>(logits.elements())}, sampling, *uniform.f32());
}

#endif

}  // namespace topolm::TOPOLM_ISA
