// Drawing a token: the arithmetic that all devices share, so that they draw the same one, and the CPU's
// Kernels::sample.
//
// A token's probability relative to the best one's is a float in [0, 1], computed by operations that round
// the same everywhere. Its weight is that float as a fixed-point number of 40 bits. Weights are integers:
// their sums do not depend on the order, and are exact up to 2^17 tokens and beyond.
#pragma once

#include <cmath>
#include <cstring>

#include "kernels/kernels.h"

#if defined(__CUDACC__)
#define TOPOLM_ANYWHERE __host__ __device__
#else
#define TOPOLM_ANYWHERE
#endif

namespace topolm {

constexpr int kWeightBits = 40;  // what is less likely than 2^-40 of the best token is never drawn

/// What differences of logits are multiplied by, to become logarithms to base 2 of relative probabilities.
float sampling_scale(double temperature);

/// 2^((logit - best) * scale) within 1e-7 and the rounding of the exponent; 0 below 2^-40, and never above 1.
/// No sum of products that one compiler would contract and another not.
TOPOLM_ANYWHERE inline float relative_probability(float logit, float best, float scale) {
  const float difference = logit - best, n = rintf(difference * scale);
  if (!(n >= -kWeightBits)) return 0;
  const float f = fmaf(difference, scale, -n);  // in [-1/2, 1/2]; 2^f by a least-squares fit
  float p = 1.546144777e-4f;
  p = fmaf(p, f, 1.339086681e-3f);
  p = fmaf(p, f, 9.618056938e-3f);
  p = fmaf(p, f, 5.550356954e-2f);
  p = fmaf(p, f, 2.402265072e-1f);
  p = fmaf(p, f, 6.931471825e-1f);
  p = fmaf(p, f, 1.0f);
  const int32_t bits = (127 + static_cast<int32_t>(n)) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return p * power;
}

TOPOLM_ANYWHERE inline uint64_t sampling_weight(float relative_probability) {
  return static_cast<uint64_t>(relative_probability * static_cast<float>(uint64_t{1} << kWeightBits));
}

/// The weight that the tokens kept by top_p reach together, of all tokens' total.
TOPOLM_ANYWHERE inline uint64_t top_p_weight(uint64_t total, double top_p) {
  const auto wanted = static_cast<uint64_t>(ceil(top_p * static_cast<double>(total)));
  return wanted < total ? wanted : total;
}

/// The token drawn is the first one, in order of ids, where the running sum of weights reaches this.
TOPOLM_ANYWHERE inline uint64_t drawn_weight(uint64_t total, double uniform) {
  const auto passed = static_cast<uint64_t>(uniform * static_cast<double>(total));
  return (passed < total ? passed : total - 1) + 1;
}

/// drawn_weight(), and the first token at which the running sum of weights reaches `wanted`: out of line, for
/// kernels of an instruction set that the linker must not take copies from.
uint64_t weight_drawn(uint64_t total, double uniform);
int64_t token_reaching(std::span<const float> logits, float best, float scale, uint64_t wanted);

/// As Kernels::sample.
int32_t sample(std::span<const float> logits, const Sampling& config, double uniform);

}  // namespace topolm
