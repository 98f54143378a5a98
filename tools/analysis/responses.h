// How the units of a trained model respond to texts.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "tokenizer/tokenizer.h"

namespace topolm {

/// A checkpoint opened for measuring: its network in fp32, its sheets, its tokenizer.
class Subject {
 public:
  /// `checkpoint` may also be a directory of checkpoints: then it is the newest. Runs up to `rows` tokens at
  /// a time, but never less than one sequence. Throws Error when there is no model, no tokenizer, or either
  /// is damaged.
  Subject(Kernels& kernels, const fs::path& checkpoint, int64_t rows = 2048);

  const ModelConfig& config() const { return network_->config(); }
  const std::vector<Sheet>& sheets() const { return network_->sheets(); }
  const Tokenizer& tokenizer() const { return tokenizer_; }
  TopoLM& network() { return *network_; }
  const fs::path& checkpoint() const { return checkpoint_; }
  int64_t rows() const { return rows_; }

  /// Tokens of a text as it stands: none before it and none behind. Throws Error naming the text when it has
  /// none or is longer than the context.
  std::vector<int32_t> encode(const std::string& text) const;

  /// One sequence of a batch after its forward pass.
  struct Sequence {
    size_t index;    // of the sequence in what was passed in
    int64_t row;     // its first row in the batch
    int64_t tokens;  // its own; padding follows
    int64_t time;    // rows a sequence in this batch
  };
  /// Runs sequences of token ids through the network in batches, right-padded with end-of-text, and calls
  /// `visit(sequences of the batch)` after each; activations are then in network(), which is ready to
  /// evaluate() how well it told each sequence's tokens from those before. What comes of a sequence does not
  /// depend on its batch: attention is causal, so padding changes nothing before it; on the CPU to the bit.
  ///
  /// Sequences of like lengths are put together. With `in_order`, that many stay together as they come, and
  /// padding, up to the longest of them, is text like any other: it is evaluated too. Throws Error for a
  /// sequence that is empty, longer than the context, or has an id outside the vocabulary.
  void run(std::span<const std::vector<int32_t>> sequences,
           const std::function<void(std::span<const Sequence>)>& visit, std::optional<int64_t> in_order = {});
  /// The activations of a site in the batch that ran last, [rows, units], on the host.
  std::vector<float> activations(int site) const;

 private:
  void run_batch(std::span<const std::vector<int32_t>> sequences, std::span<const size_t> members,
                 bool padding_is_text, const std::function<void(std::span<const Sequence>)>& visit);

  fs::path checkpoint_;
  int64_t rows_;
  Tokenizer tokenizer_;
  std::unique_ptr<TopoLM> network_;
};

/// mean: over a text's own tokens. last: its last token. compat: over all positions of its batch of 12 texts
/// in the order given, padding included, as the published code (reference T13, E0).
enum class Pooling { mean, last, compat };

/// [texts, sites, units] responses: a number a text, site and unit.
struct Responses {
  int64_t texts = 0, sites = 0, units = 0;
  std::vector<float> values;

  std::span<const float> of(int64_t text, int64_t site) const {
    return std::span(values).subspan(static_cast<size_t>((text * sites + site) * units),
                                     static_cast<size_t>(units));
  }
};

Responses record_responses(Subject& subject, std::span<const std::string> texts,
                           Pooling pooling = Pooling::mean);

/// As NumPy's .npy (format 1.0, little-endian float32) [texts, sites, units], or as .safetensors with a
/// tensor [texts, units] a site ("h.0.attn"), by the path's extension. Atomic. Throws Error for other
/// extensions.
void write_responses(const fs::path& path, const Responses& responses);

}  // namespace topolm
