// ./bench --compare: who we race, run as child processes: PyTorch (tools/peer/topolm_torch.py) and llm.c.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "model/config.h"

namespace topolm::bench {

/// What to time. `flags`: of topolm_torch.py, for anything but training steps.
struct PeerRun {
  std::string preset, dtype;
  int threads, batch, seq, steps;
  std::string flags = {};
};

class Peer {
 public:
  /// Nothing when there is no python3 with PyTorch here.
  static std::optional<Peer> find();

  /// The environment that PyTorch is fastest in, from two steps in each: it cannot be known beforehand.
  /// libgomp's spinning helps on an idle machine and fights OpenBLAS's own threads (tiny fp32, 2 threads: 985
  /// ms, 450 without). And OpenBLAS 0.3.21 takes a processor that it does not know for one without AVX-512
  /// (450 ms, 370 with).
  std::string best_setting(PeerRun run) const;

  /// The line of JSON that the script prints. What goes wrong in it is on standard error.
  nlohmann::json run(const PeerRun& r, const std::string& setting) const;

 private:
  explicit Peer(std::string command) : command_(std::move(command)) {}
  std::string command_;
};

/// Training steps of llm.c's CPU reference, from a checkout of it, with its own flags. fp32, no spatial loss.
nlohmann::json run_llmc(const std::string& checkout, const ModelConfig& m, const PeerRun& r);

/// Throws Error unless `checkout` looks like llm.c's.
void check_llmc(const std::string& checkout);

}  // namespace topolm::bench
