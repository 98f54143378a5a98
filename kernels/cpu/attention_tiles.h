// Attention of bf16 on tiles.
#pragma once

#include "kernels/cpu/attention.h"

#if defined(TOPOLM_AMX)

namespace topolm::TOPOLM_ISA {

/// Floats of scratch that attend_tiles() needs for so many keys.
int64_t attend_tiles_scratch(int64_t keys, int64_t size);

/// What attend() does, for a head whose tensors are all bf16.
void attend_tiles(const AttentionHead& head, float* scratch);

}  // namespace topolm::TOPOLM_ISA

#endif
