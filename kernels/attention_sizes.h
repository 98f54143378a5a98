// The shapes of attention, checked for every device in one place.
#pragma once

#include "engine/tensor.h"

namespace topolm {

struct AttentionSizes {
  int64_t batch, length, width, head_size;
};

/// Throws Error naming `operation` unless out is [B,T,C], qkv [B,T,3C], logsumexp [B,NH,T], and NH divides C.
AttentionSizes check_attention(const char* operation, const Tensor& out, const Tensor& qkv,
                               const Tensor& logsumexp, int n_head);

/// The same for attention_cached: one sequence, of which `length` rows are new.
AttentionSizes check_attention_cached(const Tensor& out, const Tensor& key_cache, const Tensor& value_cache,
                                      const Tensor& qkv, const Tensor& position, int n_head);

}  // namespace topolm
