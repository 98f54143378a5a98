// The training loop's body: one optimizer step, one evaluation, save and resume.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/data_loader.h"
#include "model/checkpoint.h"

namespace topolm {

struct StepReport {
  int64_t step;  // steps done, this one included
  Losses losses;
  double norm;  // of the gradient, before clipping
  double lr;
};

class Trainer {
 public:
  /// Initial weights from the seed in `train`.
  Trainer(Kernels& kernels, const ModelConfig& model, const TrainConfig& train, std::vector<Sheet> sheets);

  /// Continues from a checkpoint of the same configuration.
  void resume(const fs::path& checkpoint);

  /// One optimizer step over `accumulate` micro-batches. Throws Error when the loss or the gradient is not
  /// finite; the weights are then lost, the last checkpoint is not. The host waits for the device only to
  /// read the losses; it has prepared the next step's first batch by then.
  StepReport step(const DataLoader& data);

  /// Losses over the first `batches` batches of `data` in order (0: all of it), weighted by their targets.
  Losses evaluate(const EvalLoader& data, int64_t batches);

  fs::path save(const fs::path& out, const nlohmann::json& data, const std::string& tokenizer, int keep);

  /// Where the device's memory is, the activations by their names at the moment when most of them are needed;
  /// the sum is all that the device was asked for. After a step, what operations work in is among it.
  std::vector<MemoryUse> memory() const;

  int64_t steps_done() const { return done_; }
  TopoLM& model() { return model_; }
  const TopoLM& model() const { return model_; }

 private:
  Batch make_batch(const DataLoader& data, int64_t step, int micro);

  TrainConfig train_;
  TopoLM model_;
  Optimizer optimizer_;
  int64_t done_ = 0;
  std::vector<int32_t> tokens_, targets_;
  /// The first batch of a step to come, and what it was drawn from.
  struct Ahead {
    DataLoader data;
    int64_t step;
    Batch batch;
  };
  std::optional<Ahead> ahead_;
};

}  // namespace topolm
