// Text generation: a key-value cache, so that each new token costs one row; tokens are drawn on the device.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "engine/file.h"
#include "engine/random.h"
#include "model/decoding_weights.h"

namespace topolm {

struct GeneratorOptions {
  bool int8 = false;  // matrices in 8 bits, a scale a row; the CPU only
  /// Prompt tokens processed at once: `base` reads 1090 a second by 64, 1600 by 128, 1890 by 256 (two cores).
  int64_t prefill = 256;
  std::span<const Intervention> interventions = {};  // on the weights that are read
};

/// One sequence being continued.
class Generator {
 public:
  /// Reads the weights of `checkpoint`. Activations are of `dtype`, and so are matrices unless they are int8.
  /// Keys and values are cached in bf16, but where everything is fp32 in fp32.
  Generator(Kernels& kernels, const fs::path& checkpoint, DType dtype, const GeneratorOptions& options = {});
  /// With weights of zero: for measurements.
  Generator(Kernels& kernels, const ModelConfig& config, DType dtype, const GeneratorOptions& options = {});

  const ModelConfig& config() const { return config_; }
  Kernels& kernels() { return kernels_; }
  /// Bytes that a token reads: all matrices, and keys and values of `position` tokens before it.
  int64_t bytes_per_token(int64_t position) const;

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
  void linear(const Tensor& y, const Tensor& x, const Tensor& weight, const Tensor& scale);

  Kernels& kernels_;
  ModelConfig config_;
  DecodingWeights weights_;
  Arena arena_;
  Tensor input_;             // [1 + rows] a position and the tokens from there on: one copy brings both
  Tensor embedding_, rows_;  // int8: the tokens' rows of wte, and 0, 1, 2, ...
  Tensor residual_, branch_, norm_, mean_, rstd_, qkv_, attention_, hidden_, logits_, uniform_, token_;
  std::vector<Tensor> keys_, values_;  // [n_layer] of [block_size, n_embd]
  std::vector<int32_t> history_;       // what the cache holds
  std::unique_ptr<Recording> decoding_;
};

}  // namespace topolm
