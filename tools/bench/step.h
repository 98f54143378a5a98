// ./bench: one training step, spatial loss, clipping and AdamW included, and where its time goes.
#pragma once

#include <map>

#include "engine/profile.h"
#include "model/trainer.h"
#include "tools/bench/bars.h"
#include "tools/bench/ceilings.h"

namespace topolm::bench {

/// What of a preset fits into ./bench: the preset's own batch, but of base 2 x 256 tokens.
TrainConfig bench_training(const Options& o, const std::string& preset, const std::string& dtype);

/// Seconds a step, forward and backward; what has no direction counts as neither.
struct StepPart {
  std::string name;
  double forward = 0, backward = 0, neither = 0;
  double total() const { return forward + backward + neither; }
};

struct StepTimes {
  std::string preset, dtype;
  ModelConfig model;
  TrainConfig train;
  int threads;
  Samples seconds, cpu_seconds;  // on the wall's clock, and of all threads' work
  double memory = 0;
  Losses losses;
  std::map<std::string, RangeTotal> ranges;

  double tokens() const { return static_cast<double>(train.batch) * train.seq; }
  double flops() const { return model.flops_per_token(train.seq) * tokens() / seconds.median(); }
  /// The mean of the timed steps by parts, and what is left as the last: together all of it.
  std::vector<StepPart> parts() const;
  double share(const std::string& part) const;  // of the step, in percent
};

StepTimes time_steps(const Options& o, const std::string& preset, const std::string& dtype, int threads);
void print_step(const Options& o, const StepTimes& t, const Ceilings& c);
nlohmann::json to_json(const StepTimes& t, const Ceilings& c);

/// --busy: steps beside processes that compute without end, against steps alone, by turns.
nlohmann::json race_busy(const Options& o, const std::string& preset, const std::string& dtype, int threads,
                         Figures& figures);

}  // namespace topolm::bench
