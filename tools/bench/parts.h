// ./bench: pieces of a training step by themselves, as --compare races them.
#pragma once

#include "model/config.h"
#include "tools/bench/measure.h"

namespace topolm::bench {

/// Seconds of the spatial loss of all sites, forward, then backward; fp32.
Samples time_spatial(const Options& o, const std::string& preset, int threads);

/// Seconds of clipping and AdamW over all parameters; fp32.
Samples time_optimizer(const Options& o, const std::string& preset, int threads);

/// Fills a tensor of fp32, bf16 or int8 with numbers around 0.
void fill_with_numbers(Device& device, const Tensor& t);
/// Distinct units of as many neighborhoods as a site draws, [K, units].
std::vector<int32_t> some_members(const ModelConfig& m);

}  // namespace topolm::bench
