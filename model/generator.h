// Text generation: a key-value cache, so that each new token costs one row; tokens are drawn on the device.
#pragma once

#include <memory>
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
  /// With weights of zero: for measurements.
  Generator(Kernels& kernels, const ModelConfig& config, DType dtype, int64_t prefill = 64);

  const ModelConfig& config() const { return config_; }
  Kernels& kernels() { return kernels_; }
  Weights& weights() { return weights_; }

  /// Starts a new sequence.
  void reset();
  /// Appends tokens. When the context is full, the older half is forgotten and the newer half processed
  /// again. Does not wait for the device.
  void append(std::span<const int32_t> tokens);
  /// Draws the token after the last one appended from the first `known` entries of the vocabulary, as
  /// `uniform` in [0, 1) decides. Throws Error when the logits are not finite.
  int32_t next(const Sampling& sampling, double uniform, int64_t known);
  /// The logits after the last token appended [vocab_size], in host memory.
  std::vector<float> logits();

 private:
  void process(std::span<const int32_t> tokens);
  void run(int64_t m);

  Kernels& kernels_;
  ModelConfig config_;
  Weights weights_;
  Arena arena_;
  Tensor input_;  // [1 + rows] a position and the tokens from there on: one copy brings both
  Tensor residual_, branch_, norm_, mean_, rstd_, qkv_, attention_, hidden_, logits_, uniform_, token_;
  std::vector<Tensor> keys_, values_;  // [n_layer] of [block_size, n_embd]
  std::vector<int32_t> history_;       // what the cache holds
  std::unique_ptr<Recording> decoding_;
};

}  // namespace topolm
