#include "model/trainer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/error.h"
#include "engine/profile.h"

namespace topolm {

Trainer::Trainer(Kernels& kernels, const ModelConfig& model, const TrainConfig& train,
                 std::vector<Sheet> sheets)
    : train_((train.check(model), train)),
      model_(kernels, model, std::move(sheets), train.batch, train.seq, train.dtype, true, train.recompute),
      optimizer_(model_, train),
      tokens_(static_cast<size_t>(train.batch) * train.seq),
      targets_(tokens_.size()) {
  model_.weights().initialise(train.seed);
}

void Trainer::resume(const fs::path& checkpoint) {
  Device& device = model_.kernels().device();
  load_weights(checkpoint, model_.config(), device, model_.weights());
  load_optimizer(checkpoint, model_.config(), device, optimizer_);
  done_ = load_trainer_state(checkpoint).step;
}

Batch Trainer::make_batch(const DataLoader& data, int64_t step, int micro) {
  if (ahead_ && micro == 0 && ahead_->step == step && ahead_->data == data)
    return std::exchange(ahead_, std::nullopt)->batch;
  data.batch(step, micro, tokens_, targets_);
  return model_.make_batch(train_.batch, train_.seq, tokens_, targets_,
                           model_.draw_neighborhoods(train_.seed, step, micro));
}

StepReport Trainer::step(const DataLoader& data) {
  const Range range("step", done_ + 1);
  const float scale = 1.0f / static_cast<float>(train_.accumulate);
  model_.zero_losses();
  model_.zero_gradients();
  for (int micro = 0; micro < train_.accumulate; ++micro) {
    model_.set_batch(make_batch(data, done_, micro));
    model_.forward_backward(scale);
  }
  // Two launches or three whose numbers change every step: not worth a recording.
  const double lr = train_.lr_at(done_);
  optimizer_.update(lr, done_ + 1);
  ahead_ = Ahead{data, done_ + 1, make_batch(data, done_ + 1, 0)};
  StepReport report{done_ + 1, model_.losses(), optimizer_.norm(), lr};
  const double total = report.losses.total(model_.config().topography);
  require(std::isfinite(total) && std::isfinite(report.norm),
          "the loss is not finite at step {} (task {}, mean spatial {}, gradient norm {}); the last "
          "checkpoint is "
          "untouched: try a lower --lr or a longer --warmup",
          report.step, report.losses.task, report.losses.mean_spatial(), report.norm);
  ++done_;
  return report;
}

Losses Trainer::evaluate(const EvalLoader& data, int64_t batches) {
  const Range range("evaluate");
  const int64_t count = batches > 0 ? std::min(batches, data.batches()) : data.batches();
  Losses sum{0, std::vector<double>(static_cast<size_t>(model_.config().sites())), 0};
  double weights = 0;
  for (int64_t i = 0; i < count; ++i) {
    const auto weight = static_cast<double>(data.batch(i, tokens_, targets_));
    // The same neighborhoods at every evaluation, and other ones than in training.
    model_.set_batch(train_.batch, train_.seq, tokens_, targets_,
                     model_.draw_neighborhoods(train_.seed, INT32_MAX, i));
    model_.zero_losses();
    model_.forward();
    model_.evaluate();
    const Losses batch = model_.losses();
    weights += weight;
    sum.task += weight * batch.task;
    sum.decay += weight * batch.decay;
    for (size_t s = 0; s < sum.spatial.size(); ++s) sum.spatial[s] += weight * batch.spatial[s];
  }
  require(weights > 0, "there is nothing to evaluate: the validation data has not a single target");
  sum.task /= weights;
  sum.decay /= weights;
  for (double& s : sum.spatial) s /= weights;
  return sum;
}

std::vector<MemoryUse> Trainer::memory() const {
  std::vector<MemoryUse> rows;
  std::vector<const Arena*> arenas = model_.arenas();
  const Arena* const activations = arenas.back();
  arenas.pop_back();
  for (const Arena* a : optimizer_.arenas()) arenas.push_back(a);
  for (const Arena* a : arenas)
    rows.push_back({a->name().substr(a->name().starts_with("the ") ? 4 : 0), a->bytes()});
  for (MemoryUse& use : activations->usage()) rows.push_back({"activations: " + use.name, use.bytes});
  rows.push_back({"working memory of operations", model_.kernels().working_memory()});
  return rows;
}

fs::path Trainer::save(const fs::path& out, const nlohmann::json& data, const std::string& tokenizer,
                       int keep) {
  return save_checkpoint(out, model_, optimizer_, {done_, train_, data}, tokenizer, keep);
}

}  // namespace topolm
