// Text generation: a key-value cache, so that each new token costs one row; and sampling on the host.
#pragma once

#include <span>
#include <vector>

#include "engine/file.h"
#include "engine/random.h"
#include "model/parameters.h"

namespace topolm {

/// One sequence being continued.
class Generator {
 public:
  /// Reads the weights of `checkpoint`. Up to `prefill` prompt tokens are processed at once.
  Generator(Kernels& kernels, const fs::path& checkpoint, DType dtype, int64_t prefill = 64);

  const ModelConfig& config() const { return config_; }

  /// Starts a new sequence.
  void reset();
  /// Appends tokens; the logits after the last of them [vocab_size]. When the context is full, the older half
  /// is forgotten and the newer half processed again.
  std::span<const float> append(std::span<const int32_t> tokens);

 private:
  void process(std::span<const int32_t> tokens);

  Kernels& kernels_;
  ModelConfig config_;
  Weights weights_;
  Arena arena_;
  Tensor position_, tokens_, residual_, branch_, norm_, mean_, rstd_, qkv_, attention_, hidden_, logits_;
  std::vector<Tensor> keys_, values_;  // [n_layer] of [block_size, n_embd]
  std::vector<int32_t> history_;       // what the cache holds
  std::vector<float> host_logits_;
};

}  // namespace topolm
