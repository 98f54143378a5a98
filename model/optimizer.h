// AdamW over all parameters of a model, with the gradient's norm clipped first.
#pragma once

#include <vector>

#include "model/topolm.h"

namespace topolm {

class Optimizer {
 public:
  /// Matrices and embeddings are decayed, LayerNorm weights are not.
  Optimizer(TopoLM& model, const TrainConfig& config);

  /// One update from the model's gradients; `step` counts from 1. Nothing waits for the device.
  void update(double lr, int64_t step);
  /// Norm of the gradient before clipping, of the last update. Waits for the device.
  double norm();

  std::vector<const Arena*> arenas() const { return {&m_.arena, &v_.arena, &arena_}; }
  Parameters& m() { return m_.tensors; }
  Parameters& v() { return v_.tensors; }

 private:
  TopoLM& model_;
  TrainConfig config_;
  ParameterArena m_, v_;
  Arena arena_;
  Tensor norm_and_scale_;
  std::vector<AdamWTensor> table_;
};

}  // namespace topolm
