// The weights as decoding reads them: every matrix once, in the format that streams from memory.
#pragma once

#include <memory>
#include <span>

#include "engine/file.h"
#include "model/intervention.h"
#include "model/parameters.h"

namespace topolm {

/// Nothing is kept in two formats but the embedding of bf16 runs. Bytes of `base`, 128.8 M parameters:
///
///                          fp32      bf16      int8
///   linear layers, head    512 MB    256 MB    128 MB, and 0.6 MB of scales
///   embedding lookup       the head  158 MB    the head's rows, scaled
///   positions, norms       3.3 MB    3.3 MB    3.3 MB
class DecodingWeights {
 public:
  /// Weights of zero. `int8`: matrices are int8 and a scale a row, whatever the dtype of what they multiply;
  /// Throws Error on devices that have no such products.
  DecodingWeights(Kernels& kernels, const ModelConfig& config, DType dtype, bool int8);

  /// Reads the weights of a checkpoint through one small buffer, with the interventions' gains on them.
  void load(const fs::path& checkpoint, std::span<const Intervention> interventions);

  /// Positions and norms; and wte for the lookup of tokens, unless the matrices are int8.
  const Parameters& fp32() const { return fp32_; }
  /// The matrices, as matrix products read them, and of int8 the scale of each row [OUT].
  const Parameters& operands() const { return operands_; }
  const Parameters& scales() const { return scales_; }
  /// Bytes that a token reads: all matrices, for the head too is one.
  int64_t streamed_bytes() const { return streamed_bytes_; }

  /// Rows of wte, dequantised, to rows [i] of `out` [.., C] on the device (int8 only).
  void look_up(const Tensor& out, std::span<const int32_t> tokens) const;

 private:
  void store(const ParameterInfo& info, int64_t first_row, const Tensor& rows);

  Kernels& kernels_;
  ModelConfig config_;
  std::vector<ParameterInfo> list_;
  bool int8_;
  Arena arena_;
  Parameters fp32_, operands_, scales_;
  int64_t streamed_bytes_ = 0;
};

}  // namespace topolm
