// ./bench --busy: a step beside processes that compute without end.
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "engine/error.h"
#include "engine/parallel.h"
#include "tools/bench/step.h"

namespace topolm::bench {

namespace {

class BusyProcesses {
 public:
  explicit BusyProcesses(int count) {
    for (int i = 0; i < count; ++i) {
      const pid_t parent = getpid(), child = fork();
      require(child >= 0, "--busy: cannot start {} processes", count);
      if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);  // not one of them outlives us
        for (volatile unsigned n = 0; getppid() == parent;)
          for (int k = 0; k < 100'000'000; ++k) n = n + 1;
        _exit(0);
      }
      children_.push_back(child);
    }
  }
  ~BusyProcesses() {
    for (const pid_t child : children_) kill(child, SIGKILL), waitpid(child, nullptr, 0);
  }
  BusyProcesses(const BusyProcesses&) = delete;
  BusyProcesses& operator=(const BusyProcesses&) = delete;

 private:
  std::vector<pid_t> children_;
};

}  // namespace

nlohmann::json race_busy(const Options& o, const std::string& preset, const std::string& dtype, int threads,
                         Figures& figures) {
  // Everybody who computes gets as much of the CPUs as everybody else, but a thread no more than one.
  const double fair = std::max(1.0, static_cast<double>(threads + o.busy) / available_cpus());
  Samples idle, busy, ratios;
  for (int round = 0; round < o.rounds; ++round) {
    idle.add(time_steps(o, preset, dtype, threads).seconds.median());
    const BusyProcesses others(o.busy);
    busy.add(time_steps(o, preset, dtype, threads).seconds.median());
    ratios.add(busy.values.back() / (fair * idle.values.back()));
  }
  print_heading(o.markdown,
                fmt::format("{} {}, {}, beside {}", preset, dtype, counted(threads, "thread"),
                            o.busy == 1 ? "a busy process" : fmt::format("{} busy processes", o.busy)));
  print_line(
      o.markdown,
      fmt::format("{:.1f} ms a step, {:.1f} ms alone; its fair share would be {:.1f} ms: {} times that",
                  1e3 * busy.median(), 1e3 * idle.median(), 1e3 * fair * idle.median(), spread(ratios)));
  if (o.busy >= available_cpus()) figures[fmt::format("busy {} {}", preset, dtype)] = ratios;
  return {{"preset", preset},
          {"dtype", dtype},
          {"threads", threads},
          {"processes", o.busy},
          {"fair_share", fair},
          {"idle_seconds", idle.values},
          {"busy_seconds", busy.values},
          {"ratios", ratios.values}};
}

}  // namespace topolm::bench
