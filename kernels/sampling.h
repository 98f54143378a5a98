// Drawing a token on the host: the CPU's Kernels::sample, and the reference for the others.
#pragma once

#include "kernels/kernels.h"

namespace topolm {

/// As Kernels::sample.
int32_t sample(std::span<const float> logits, const Sampling& config, double uniform);

}  // namespace topolm
