// What a unit responds to most: the tokens of a text at which it is most active.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tools/analysis/responses.h"

namespace topolm {

struct StrongestTokens {
  std::vector<int32_t> tokens;      // the text
  int k = 0;                        // places a unit
  std::vector<uint16_t> positions;  // [sites, units, k] in the text, strongest first
  std::vector<float> values;        // [sites, units, k] the activations there
};

/// Runs the text in windows of the context, each on its own, and finds for every unit the k positions of
/// largest activation; of two that are equal the earlier comes first. Throws Error for a text of fewer than k
/// or more than 65,536 tokens.
StrongestTokens find_strongest(Subject& subject, std::span<const int32_t> tokens, int k = 5);

}  // namespace topolm
