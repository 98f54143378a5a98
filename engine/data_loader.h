// Batches of a token stream. Inputs are data[o, o + T), targets data[o + 1, o + T + 1): every position
// predicts the next token.
#pragma once

#include <cstdint>
#include <span>

#include "engine/token_file.h"

namespace topolm {

/// Training batches: each sequence begins anywhere in the stream with equal probability, with replacement, as
/// in the official TopoLM code and nanoGPT's get_batch. A batch is a function of (seed, step, micro_step)
/// alone, so stopping and resuming replays nothing and skips nothing.
class DataLoader {
 public:
  /// Throws Error when the stream is shorter than one sequence and its last target.
  DataLoader(TokenFile data, int64_t batch, int64_t time, uint64_t seed);

  /// Fills tokens and targets, both [batch, time]. Processes that share a step use different micro steps.
  void batch(int64_t step, int64_t micro_step, std::span<int32_t> tokens, std::span<int32_t> targets) const;

  /// Whether both give the same batches of the same stream.
  bool operator==(const DataLoader&) const = default;

 private:
  TokenFile data_;
  int64_t batch_, time_;
  uint64_t seed_;
};

/// Evaluation batches: consecutive windows that predict every token but the first exactly once. What the last
/// windows lack is padded: token 0, target -1, which the loss ignores.
class EvalLoader {
 public:
  EvalLoader(TokenFile data, int64_t batch, int64_t time);

  int64_t batches() const;
  /// Fills tokens and targets, both [batch, time], and returns how many targets are not padding: the weight
  /// of this batch's mean loss in the mean over the stream.
  int64_t batch(int64_t i, std::span<int32_t> tokens, std::span<int32_t> targets) const;

 private:
  TokenFile data_;
  int64_t batch_, time_;
};

}  // namespace topolm
