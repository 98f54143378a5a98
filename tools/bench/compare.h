// ./bench --compare: ours and theirs by turns, A B A B.
#pragma once

#include <map>

#include "tools/bench/bars.h"
#include "tools/bench/peer.h"
#include "tools/bench/step.h"

namespace topolm::bench {

class Comparison {
 public:
  Comparison(const Options& o, Peer peer) : options_(o), peer_(std::move(peer)) {}

  /// Training steps; against llm.c too where --llmc names it.
  void race_step(const std::string& preset, const std::string& dtype, const Ceilings& c);
  /// The spatial loss of all sites, forward and backward, and nothing else; fp32.
  void race_spatial(const std::string& preset, const Ceilings& c);
  /// Clipping and AdamW; fp32.
  void race_optimizer(const std::string& preset, const Ceilings& c);
  /// Decoding one sequence with weights of fp32, bf16 and int8.
  void race_decoding(const std::string& preset, const Ceilings& c);

  /// The README's tables of all races so far.
  void print() const;
  Figures& figures() { return figures_; }
  const nlohmann::json& json() const { return json_; }

 private:
  struct StepRow {
    StepTimes ours;
    Race wall, cpu, llmc;
    double their_memory;
  };
  struct PartRow {
    std::string what;
    int threads;
    Race race;
    std::string note;
  };
  /// Looked for once a model, dtype, thread count and part: it takes longer than the race.
  std::string best_setting(const PeerRun& run);
  /// Rounds of `ours`, in seconds a call, and of what the peer prints for `run`.
  Race race(const PeerRun& run, const std::function<Samples()>& ours);
  PeerRun peer_run(const std::string& preset, const std::string& dtype, int threads, int steps) const;

  const Options& options_;
  Peer peer_;
  Figures figures_;
  std::vector<StepRow> steps_;
  std::vector<PartRow> parts_;
  std::string framework_, blas_;
  std::map<std::string, std::string> settings_;  // that PyTorch was fastest in, by what it ran
  nlohmann::json json_ = nlohmann::json::array();
};

}  // namespace topolm::bench
