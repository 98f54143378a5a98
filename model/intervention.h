// Lesions and drive: what becomes of some units' outputs before they join the residual stream.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/parameters.h"

namespace topolm {

/// The outputs of `units` of a site are multiplied by `gain`: 0 is a lesion, more than 1 drives them, less
/// than 0 turns them around, 1 changes no bit.
struct Intervention {
  int site;  // 0: h.0.attn, 1: h.0.mlp, 2: h.1.attn, ...
  std::vector<int32_t> units;
  float gain = 0;
};

/// Multiplies the rows of the site's output projection, which is the same thing and costs nothing at run
/// time: the output of unit u of a site is row u of its projection times the input. That output is what
/// attention or MLP adds to the residual stream, also in models whose sites tap the stream itself
/// (Tap::post): there the site keeps what earlier blocks have put into the unit. Several interventions on a
/// unit multiply. Throws Error for a site, unit or gain out of range (gain not finite) before it has changed
/// anything.
void intervene(std::span<const Intervention> interventions, const ModelConfig& config, Device& device,
               Weights& weights);

}  // namespace topolm
