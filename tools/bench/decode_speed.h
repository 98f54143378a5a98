// How fast tokens are generated.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "model/generator.h"
#include "tools/bench/measure.h"

namespace topolm::bench {

struct DecodeSpeed {
  double tokens_per_second;          // one sequence, drawn and fed back one by one, from position 16 on
  double prefill_tokens_per_second;  // of a prompt
  double bytes_per_token;            // matrices, keys and values that a token reads, halfway
};

/// Decodes `tokens` (fewer where the context ends) with weights of zero, which cost what others cost.
inline DecodeSpeed decode_speed(Kernels& kernels, const ModelConfig& config, DType dtype, bool int8,
                                int tokens) {
  Generator generator(kernels, config, dtype, {.int8 = int8});
  const std::vector<int32_t> text(static_cast<size_t>(std::min<int64_t>(256, config.block_size)), 1);
  const auto prefill = [&](size_t count) {
    const double start = now();
    generator.reset();
    generator.append(std::span(text).first(count));
    kernels.device().synchronize();
    return static_cast<double>(count) / (now() - start);
  };
  prefill(text.size());  // the workspace grows, pages are touched
  DecodeSpeed speed{0, prefill(text.size()), 0};

  const size_t prompt = std::min<size_t>(16, text.size() / 2);
  const int64_t count = std::min<int64_t>(tokens, config.block_size - static_cast<int64_t>(prompt));
  prefill(prompt);
  const double start = now();
  for (int64_t i = 0; i < count; ++i) {
    const int32_t id = generator.next({}, 0.5, config.vocab_size);
    generator.append({&id, 1});
  }
  kernels.device().synchronize();
  speed.tokens_per_second = static_cast<double>(count) / (now() - start);
  speed.bytes_per_token =
      static_cast<double>(generator.bytes_per_token(static_cast<int64_t>(prompt) + count / 2));
  return speed;
}

}  // namespace topolm::bench
