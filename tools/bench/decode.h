// ./bench --decode: one sequence token by token, a prompt in blocks, and what weights of 8 bits cost in loss.
#pragma once

#include "model/config.h"
#include "tools/bench/ceilings.h"
#include "tools/bench/decode_speed.h"

namespace topolm::bench {

struct DecodeTimes {
  std::string preset, weights;  // fp32, bf16 or int8
  int threads;
  DecodeSpeed speed;
  double read_bandwidth;  // bytes/s, measured beside it
  double memory;

  double read() const { return speed.tokens_per_second * speed.bytes_per_token; }  // bytes/s
};

/// The formats of weights that --dtype stands for: int8 multiplies activations of bf16, so it comes with
/// bf16.
std::vector<std::string> decoding_weights(const Options& o);

DecodeTimes time_decoding(const Options& o, const std::string& preset, const std::string& weights,
                          int threads);

/// The table of a preset, printed.
nlohmann::json measure_decoding(const Options& o, const std::string& preset, int threads);

/// What bf16 and int8 weights cost in loss, printed: of --model, else of a nano model trained on the spot.
nlohmann::json measure_weight_loss(const Options& o, int threads);

}  // namespace topolm::bench
