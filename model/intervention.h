// Lesions and drive: what becomes of some units' outputs before they join the residual stream.
#pragma once

#include <cstdint>
#include <map>
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

/// The gain of every unit [n_embd] of each site that has any but 1. Throws Error for a site, unit or gain out
/// of range (gain not finite).
std::map<int, std::vector<float>> unit_gains(std::span<const Intervention> interventions,
                                             const ModelConfig& config);

/// Multiplies the rows of the site's output projection, which is the same thing and costs nothing at run
/// time: the output of unit u of a site is row u of its projection times the input. That output is what
/// attention or MLP adds to the residual stream, also in models whose sites tap the stream itself
/// (Tap::post): there the site keeps what earlier blocks have put into the unit. Several interventions on a
/// unit multiply. Throws Error as unit_gains() does, before it has changed anything. A Generator does the
/// same as it loads its weights.
void intervene(std::span<const Intervention> interventions, const ModelConfig& config, Device& device,
               Weights& weights);

}  // namespace topolm
