// ./bench --decode: one sequence token by token, and a prompt in blocks.
#pragma once

#include "model/config.h"
#include "tools/bench/ceilings.h"

namespace topolm::bench {

struct DecodeTimes {
  std::string preset, weights;  // fp32, bf16 or int8
  int threads;
  double tokens_per_second = 0, prefill_tokens_per_second = 0, bytes_per_token = 0, memory = 0;

  double read() const { return tokens_per_second * bytes_per_token; }  // bytes/s
};

/// Weights as --dtype says, and int8 beside bf16 where the device has it.
std::vector<std::string> decoding_weights(const Options& o);

DecodeTimes time_decoding(const Options& o, const std::string& preset, const std::string& weights,
                          int threads);

/// The table of a preset, printed; and what int8 costs in loss.
nlohmann::json measure_decoding(const Options& o, const std::string& preset, const Ceilings& c);

}  // namespace topolm::bench
