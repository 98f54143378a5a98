#include "tools/bench/peer.h"

#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "engine/error.h"
#include "engine/file.h"
#include "tools/bench/measure.h"

using nlohmann::json;

namespace topolm::bench {

namespace {

fs::path script(const std::string& name) {
  const fs::path path = fs::read_symlink("/proc/self/exe").parent_path() / "tools/peer" / name;
  require(fs::exists(path), "'{}' is missing; run ./bench from its source directory", path.string());
  return path;
}

/// Runs a command line; the last line that it prints is JSON.
json last_line(const std::string& who, const std::string& command) {
  std::FILE* const pipe = popen(command.c_str(), "r");
  require(pipe != nullptr, "cannot start a child process for {}", who);
  std::string text;
  for (int c; (c = std::fgetc(pipe)) != EOF;) text += static_cast<char>(c);
  require(pclose(pipe) == 0, "{}'s side of the comparison failed: {}", who, command);
  while (text.ends_with('\n')) text.pop_back();
  try {
    return json::parse(text.substr(text.rfind('\n') + 1));  // from 0 where there is but one line
  } catch (const json::exception&) {
    fail("{}'s side of the comparison printed no JSON: {}", who, text);
  }
}

}  // namespace

std::optional<Peer> Peer::find() {
  const std::string path = script("topolm_torch.py").string();
  for (const char* python : {"python3", "/usr/bin/python3"})
    if (std::system(fmt::format("{} -c 'import torch' >/dev/null 2>&1", python).c_str()) == 0)
      return Peer(fmt::format("{} '{}'", python, path));
  return {};
}

std::string Peer::best_setting(PeerRun r) const {
  r.steps = 2;
  std::string best;
  double least = Samples{run(r, best).at("ms")}.median();
  std::vector<std::string> others;
  if (r.threads > 1) others.push_back("OMP_WAIT_POLICY=PASSIVE ");
  const std::vector<std::string> sets = cpu_instruction_sets();
  if (std::find(sets.begin(), sets.end(), "avx512") != sets.end())
    others.push_back("OPENBLAS_CORETYPE=SkylakeX ");
  for (const std::string& other : others) {
    const std::string setting = best + other;
    if (const double ms = Samples{run(r, setting).at("ms")}.median(); ms < least) least = ms, best = setting;
  }
  if (!best.empty()) best.pop_back();
  return best;
}

json Peer::run(const PeerRun& r, const std::string& setting) const {
  return last_line(
      "PyTorch",
      fmt::format("OMP_NUM_THREADS={0} OPENBLAS_NUM_THREADS={0} MKL_NUM_THREADS={0} {1} {2} --threads "
                  "{0} --preset {3} --dtype {4} --batch {5} --seq {6} --steps {7} {8}",
                  r.threads, setting, command_, r.preset, r.dtype, r.batch, r.seq, r.steps, r.flags));
}

void check_llmc(const std::string& checkout) {
  require(fs::exists(fs::path(checkout) / "train_gpt2.c"),
          "--llmc: '{}' has no train_gpt2.c; give a checkout of github.com/karpathy/llm.c", checkout);
}

json run_llmc(const std::string& checkout, const ModelConfig& m, const PeerRun& r) {
  return last_line("llm.c", fmt::format("OMP_NUM_THREADS={} sh '{}' '{}' {} {} {} {} {} {} {} {}", r.threads,
                                        script("llmc.sh").string(), checkout, m.n_layer, m.n_head, m.n_embd,
                                        m.vocab_size, m.block_size, r.batch, r.seq, r.steps));
}

}  // namespace topolm::bench
