// ./bench --compare: the same training steps in PyTorch (tools/peer/topolm_torch.py), run as a child process.
#pragma once

#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "engine/error.h"
#include "engine/file.h"
#include "model/config.h"

namespace topolm {

struct PeerRun {
  std::string preset, dtype;
  int threads, batch, seq, steps;
};

class Peer {
 public:
  /// Nothing when there is no python3 with PyTorch here.
  static std::optional<Peer> find() {
    const fs::path script = fs::read_symlink("/proc/self/exe").parent_path() / "tools/peer/topolm_torch.py";
    require(fs::exists(script), "'{}' is missing; run ./bench from its source directory", script.string());
    for (const char* python : {"python3", "/usr/bin/python3"})
      if (std::system(fmt::format("{} -c 'import torch' >/dev/null 2>&1", python).c_str()) == 0)
        return Peer(fmt::format("{} '{}'", python, script.string()));
    return {};
  }

  /// The settings that change PyTorch's speed and cannot be known beforehand: libgomp's spinning helps on an
  /// idle machine and fights OpenBLAS's own threads.
  static std::vector<std::string> settings(int threads) {
    return threads > 1 ? std::vector<std::string>{"", "OMP_WAIT_POLICY=PASSIVE"}
                       : std::vector<std::string>{""};
  }

  /// The line of JSON that the script prints. What goes wrong in it is on standard error.
  nlohmann::json run(const PeerRun& r, const std::string& setting) const {
    const std::string line = fmt::format(
        "OMP_NUM_THREADS={0} OPENBLAS_NUM_THREADS={0} MKL_NUM_THREADS={0} {1} {2} --threads {0} --preset {3} "
        "--dtype {4} --batch {5} --seq {6} --steps {7}",
        r.threads, setting, command_, r.preset, r.dtype, r.batch, r.seq, r.steps);
    std::FILE* const pipe = popen(line.c_str(), "r");
    require(pipe != nullptr, "cannot start a child process for PyTorch");
    std::string text;
    for (int c; (c = std::fgetc(pipe)) != EOF;) text += static_cast<char>(c);
    require(pclose(pipe) == 0, "PyTorch's side of the comparison failed: {}", line);
    try {
      return nlohmann::json::parse(text);
    } catch (const nlohmann::json::exception&) {
      fail("PyTorch's side of the comparison printed no JSON: {}", text);
    }
  }

 private:
  explicit Peer(std::string command) : command_(std::move(command)) {}
  std::string command_;
};

}  // namespace topolm
