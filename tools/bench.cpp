// bench: what this machine's CPU can do, what a training step takes of it, and where the time goes. A GPU's
// report is tools/gpu_report.cpp.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <numeric>

#include "engine/parallel.h"
#include "engine/profile.h"
#include "engine/progress.h"
#include "engine/random.h"
#include "kernels/ceiling.h"
#include "model/trainer.h"
#include "tools/bench_peer.h"
#include "tools/main.h"
#include "tools/random_tokens.h"

using namespace topolm;
using nlohmann::json;

namespace {

struct Options {
  std::vector<std::string> presets{"tiny"}, dtypes{"fp32", "bf16"};
  std::vector<int> threads{0};
  int batch = 0, seq = 0, steps = 5, rounds = 3;
  double seconds = 0.3;
  bool recompute = false, ceilings_only = false, compare = false;
  std::string json_file;
};

void add_flags(CLI::App& app, Options& o) {
  app.add_option("--preset", o.presets, "models to time: nano, tiny, base")->delimiter(',');
  app.add_option("--dtype", o.dtypes, "fp32, bf16 or both")->delimiter(',');
  app.add_option("--threads", o.threads, "threads, one or several counts; 0 is one a CPU")
      ->delimiter(',')
      ->check(CLI::Range(0, 4096));
  app.add_option("--batch", o.batch, "sequences a step (tiny and nano: the preset's; base: 2)")
      ->check(CLI::PositiveNumber);
  app.add_option("--seq", o.seq, "tokens a sequence (tiny and nano: the preset's; base: 256)")
      ->check(CLI::PositiveNumber);
  app.add_option("--steps", o.steps, "steps to time, after one that warms up")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--seconds", o.seconds, "to spend on measuring each ceiling")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_flag("--recompute", o.recompute, "as train_topolm's: less memory, more time");
  app.add_flag("--ceilings-only", o.ceilings_only, "measure the machine, time no steps");
  app.add_flag("--compare", o.compare, "race the same steps in PyTorch, by turns");
  app.add_option("--rounds", o.rounds, "turns of --compare")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--json", o.json_file, "write everything measured to this file");
}

// ---- measuring

struct Ceilings {
  int threads;
  double multiply_add;
  MemorySpeed memory;
  std::map<std::string, double> matrix;  // FLOP/s by dtype
};

DType dtype_of(const std::string& word) {
  DType dtype{};
  parse_word(word, dtype);
  return dtype;
}

Ceilings measure_ceilings(const Options& o, int threads) {
  const DeviceOptions device{"cpu", threads, ""};
  Ceilings c{
      threads, measure_multiply_add_speed(device, o.seconds), measure_memory_speed(device, o.seconds), {}};
  const auto kernels = make_kernels(device);
  for (const auto& dtype : o.dtypes)
    c.matrix[dtype] = measure_matrix_speed(*kernels, dtype_of(dtype), o.seconds);
  return c;
}

/// Linux counts the peak afresh after "5" is written here; elsewhere the process's own peak has to do.
void forget_peak_memory() { std::ofstream("/proc/self/clear_refs") << "5"; }

double peak_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (double kilobytes; word == "VmHWM:" && status >> kilobytes) return 1024 * kilobytes;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return 1024.0 * static_cast<double>(usage.ru_maxrss);
}

/// Seconds that all threads of this process have computed. Unlike the wall's clock it stands still while
/// another process has the CPU, so it compares programs on a busy machine, if they do not spin.
double cpu_time() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/// Seconds a step, forward and backward; what has no direction counts as neither.
struct Operation {
  std::string name;
  double forward = 0, backward = 0, neither = 0;
  double total() const { return forward + backward + neither; }
};

double median_of(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

struct StepTimes {
  std::string preset, dtype;
  ModelConfig model;
  TrainConfig train;
  int threads;
  std::vector<double> seconds, cpu_seconds;  // on the wall's clock, and of all threads' work
  double memory = 0;
  Losses losses;
  std::map<std::string, RangeTotal> ranges;

  double median() const { return median_of(seconds); }
  double tokens() const { return static_cast<double>(train.batch) * train.seq; }
  double flops() const { return model.flops_per_token(train.seq) * tokens() / median(); }
};

StepTimes time_steps(const Options& o, const std::string& preset, const std::string& dtype, int threads) {
  StepTimes t{preset, dtype, model_preset(preset), train_preset(preset), threads, {}, {}, 0, {}, {}};
  if (preset == "base") t.train.batch = 2, t.train.seq = 256, t.train.accumulate = 1;
  if (o.batch) t.train.batch = o.batch;
  if (o.seq) t.train.seq = o.seq;
  t.train.dtype = dtype_of(dtype);
  t.train.recompute = o.recompute;
  forget_peak_memory();
  const auto kernels = make_kernels({"cpu", threads, ""});
  const TokenFile tokens =
      random_tokens(t.model.vocab_size, int64_t{t.train.batch} * t.train.seq + (1 << 20));
  const DataLoader data(tokens, t.train.batch, t.train.seq, t.train.seed);
  Trainer trainer(*kernels, t.model, t.train, make_sheets(t.model, "random", t.train.seed));
  trainer.step(data);  // pages are touched, working space grows, threads wake
  profile_ranges(true);
  for (int i = 0; i < o.steps; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const double cpu_start = cpu_time();
    t.losses = trainer.step(data).losses;
    t.cpu_seconds.push_back(cpu_time() - cpu_start);
    t.seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  t.ranges = range_totals();
  profile_ranges(false);
  t.memory = peak_memory();
  return t;
}

/// Where the time of a step goes: the mean of the timed steps, and with the rest all of it.
std::vector<Operation> operations(const StepTimes& t) {
  const double steps = static_cast<double>(t.seconds.size());
  double rest = std::accumulate(t.seconds.begin(), t.seconds.end(), 0.0) / steps;
  const auto seconds = [&](std::initializer_list<const char*> names) {
    double sum = 0;
    for (const char* name : names)
      if (const auto found = t.ranges.find(name); found != t.ranges.end())
        sum += found->second.seconds / steps;
    rest -= sum;
    return sum;
  };
  std::vector<Operation> table = {
      {"linear layers", seconds({"linear"}), seconds({"linear_backward_input", "linear_backward_weight"})},
      {"attention", seconds({"attention"}), seconds({"attention_backward"})},
      {"spatial loss", seconds({"spatial_loss"}), seconds({"spatial_loss_backward"})},
      {"cross entropy", 0, 0, seconds({"cross_entropy"})},
      {"layernorm, residual", seconds({"layernorm"}), seconds({"layernorm_backward"})},
      {"gelu", seconds({"gelu"}), seconds({"gelu_backward"})},
      {"embedding", seconds({"embedding"}), seconds({"embedding_backward"})},
      {"fill, cast, add", 0, 0, seconds({"fill", "cast", "add_scaled", "sum", "sum_of_squares"})},
      {"optimizer", 0, 0, seconds({"gradient_norm", "adamw"})}};
  table.push_back({"rest", 0, 0, rest});
  return table;
}

// ---- printing

double percent(double part, double whole) { return 100 * part / whole; }

void print_ceilings(const Options& o, const std::vector<Ceilings>& all) {
  fmt::print("\n{:<10}{:>20}", "ceilings", "multiply-add fp32");
  for (const auto& dtype : o.dtypes) fmt::print("{:>18}", "product " + dtype);
  fmt::print("{:>12}{:>12}{:>12}\n", "read", "copy", "triad");
  for (const Ceilings& c : all) {
    fmt::print("{:<10}{:>12.1f} GFLOP/s", fmt::format("{} thread{}", c.threads, c.threads == 1 ? "" : "s"),
               c.multiply_add * 1e-9);
    for (const auto& dtype : o.dtypes) fmt::print("{:>10.1f} GFLOP/s", c.matrix.at(dtype) * 1e-9);
    for (const double speed : {c.memory.read, c.memory.copy, c.memory.triad})
      fmt::print("{:>7.1f} GB/s", speed * 1e-9);
    fmt::print("\n");
  }
}

/// What an operation does in a second beside what the machine can, where the two are of one kind.
std::string speed(const StepTimes& t, const Ceilings& c, const Operation& o) {
  const double layers = t.model.n_layer, n = t.model.n_embd,
               parameters = static_cast<double>(t.model.parameters());
  const auto of_products = [&](double flops) {
    return fmt::format("{:.1f} GFLOP/s, {:.0f} % of product {}", flops / o.total() * 1e-9,
                       percent(flops / o.total(), c.matrix.at(t.dtype)), t.dtype);
  };
  if (o.name == "linear layers")
    return of_products(6 * t.tokens() * (12 * layers * n * n + t.model.vocab_size * n));
  if (o.name == "attention") return of_products(6 * t.tokens() * layers * n * t.train.seq);
  if (o.name != "optimizer") return "";
  // Reads the gradient twice and weight, m, v; writes those three and the bf16 copy.
  const double bytes = parameters * (t.dtype == "bf16" ? 34 : 32);
  return fmt::format("{:.1f} GB/s, triad {:.1f} GB/s", bytes / o.total() * 1e-9, c.memory.triad * 1e-9);
}

void print_step(const StepTimes& t, const Ceilings& c) {
  fmt::print("\n{} {}, {} thread{}: {} sequences of {} tokens, spatial loss on {} sites\n", t.preset, t.dtype,
             t.threads, t.threads == 1 ? "" : "s", t.train.batch, t.train.seq, t.model.sites());
  const auto [fastest, slowest] = std::minmax_element(t.seconds.begin(), t.seconds.end());
  fmt::print("  {:.1f} ms a step ({:.1f} to {:.1f} in {} steps), {} tokens/s, peak memory {}\n",
             1e3 * t.median(), 1e3 * *fastest, 1e3 * *slowest, t.seconds.size(),
             human_count(t.tokens() / t.median()), human_bytes(t.memory));
  fmt::print("  {:.1f} GFLOP/s of the model: {:.0f} % of product {}, {:.0f} % of fp32 multiply-adds\n\n",
             t.flops() * 1e-9, percent(t.flops(), c.matrix.at(t.dtype)), t.dtype,
             percent(t.flops(), c.multiply_add));
  fmt::print("  {:<20}{:>12}{:>13}{:>11}{:>9}\n", "operation", "forward", "backward", "total", "share");
  const auto table = operations(t);
  double all = 0;
  for (const Operation& o : table) all += o.total();
  const auto ms = [](double seconds) { return seconds == 0 ? "" : fmt::format("{:.2f} ms", 1e3 * seconds); };
  for (const Operation& o : table)
    fmt::print("  {:<20}{:>12}{:>13}{:>11}{:>7.1f} %   {}\n", o.name, ms(o.forward), ms(o.backward),
               ms(o.total()), percent(o.total(), all), speed(t, c, o));
}

json to_json(const StepTimes& t, const Ceilings& c) {
  json j = {{"preset", t.preset},
            {"dtype", t.dtype},
            {"threads", t.threads},
            {"batch", t.train.batch},
            {"seq", t.train.seq},
            {"parameters", t.model.parameters()},
            {"seconds", t.seconds},
            {"median_ms", 1e3 * t.median()},
            {"cpu_seconds", t.cpu_seconds},
            {"tokens_per_second", t.tokens() / t.median()},
            {"flops_per_second", t.flops()},
            {"percent_of_matrix_speed", percent(t.flops(), c.matrix.at(t.dtype))},
            {"percent_of_multiply_add", percent(t.flops(), c.multiply_add)},
            {"peak_memory_bytes", t.memory},
            {"task_loss", t.losses.task},
            {"spatial_loss", t.losses.mean_spatial()}};
  const auto table = operations(t);
  double all = 0;
  for (const Operation& o : table) all += o.total();
  for (const Operation& o : table)
    j["operations"].push_back({{"name", o.name},
                               {"forward_ms", 1e3 * o.forward},
                               {"backward_ms", 1e3 * o.backward},
                               {"ms", 1e3 * o.total()},
                               {"percent", percent(o.total(), all)}});
  for (const auto& [name, total] : t.ranges)
    j["ranges"][name] = {{"seconds", total.seconds}, {"calls", total.calls}};
  return j;
}

json to_json(const Ceilings& c) {
  return {{"threads", c.threads},
          {"multiply_add_flops_per_second", c.multiply_add},
          {"matrix_flops_per_second", c.matrix},
          {"read_bytes_per_second", c.memory.read},
          {"copy_bytes_per_second", c.memory.copy},
          {"triad_bytes_per_second", c.memory.triad}};
}

// ---- the comparison

/// Milliseconds of both, round by round.
struct Race {
  std::vector<double> ours, theirs, ratios;

  void add(double our, double their) {
    ours.push_back(our), theirs.push_back(their), ratios.push_back(their / our);
  }
  std::string text() const {
    const auto [low, high] = std::minmax_element(ratios.begin(), ratios.end());
    return fmt::format(
        "{:>8.1f} ms against {:>8.1f} ms: {:.2f} times as fast ({:.2f} to {:.2f} in {} rounds)",
        median_of(ours), median_of(theirs), median_of(ratios), *low, *high, ratios.size());
  }
  json to_json() const { return {{"ours_ms", ours}, {"theirs_ms", theirs}, {"ratios", ratios}}; }
};

/// The setting that PyTorch is fastest with, from two steps in each.
std::string best_setting(const Peer& peer, PeerRun run) {
  run.steps = 2;
  std::map<double, std::string> by_time;
  for (const auto& setting : Peer::settings(run.threads))
    by_time[median_of(peer.run(run, setting).at("ms"))] = setting;
  return by_time.begin()->second;
}

/// Ours and PyTorch's by turns. A machine's speed drifts within minutes, so a ratio is taken within a round.
json compare(const Options& o, const Peer& peer, const StepTimes& first) {
  const PeerRun run{first.preset, first.dtype, first.threads, first.train.batch, first.train.seq, o.steps};
  const std::string setting = best_setting(peer, run);
  Race wall, cpu;
  json last;
  for (int round = 0; round < o.rounds; ++round) {
    const StepTimes t = time_steps(o, run.preset, run.dtype, run.threads);
    last = peer.run(run, setting);
    wall.add(1e3 * t.median(), median_of(last.at("ms")));
    cpu.add(1e3 * median_of(t.cpu_seconds), median_of(last.at("cpu_ms")));
  }
  const std::string framework = last.at("framework"), blas = last.at("blas");
  fmt::print("\n  against {}\n  step        {}\n", framework, wall.text());
  if (run.threads == 1) fmt::print("  CPU time    {}\n", cpu.text());  // threads that wait may spin
  fmt::print("  peak memory {}, against {}; {}{}{}\n", human_bytes(first.memory),
             human_bytes(last.at("peak_rss_bytes")), blas, setting.empty() ? "" : ", ", setting);
  if (blas.starts_with("reference") && run.dtype == "fp32")
    fmt::print(
        "  NOTE: the reference BLAS is no rival: install libopenblas0-pthread, or put it in "
        "LD_LIBRARY_PATH\n");
  std::fflush(stdout);
  return {{"preset", run.preset},   {"dtype", run.dtype},   {"threads", run.threads}, {"setting", setting},
          {"wall", wall.to_json()}, {"cpu", cpu.to_json()}, {"theirs", last}};
}

// ------------------------------------------------------------------------------------------------------------

void run(const Options& o) {
  json report;
  for (const auto& dtype : o.dtypes) dtype_of(dtype);  // wrong words before anything is measured
  for (const auto& preset : o.presets) model_preset(preset);
  const std::optional<Peer> peer = o.compare ? Peer::find() : std::nullopt;
  require(!o.compare || peer,
          "--compare needs a python3 with PyTorch, and there is none here; on Debian: apt install "
          "python3-torch libopenblas0-pthread");
  const std::string description = make_kernels({"cpu", 0, ""})->device().description();
  double load = 0;
  getloadavg(&load, 1);
  fmt::print("machine   {}; load {:.1f} on {} CPUs\n", description, load, available_cpus());
  if (load > 1)
    fmt::print(
        "          busy with something else: ceilings of moments and steps of seconds compare badly\n");
  report["load"] = load;
  report["machine"] = description;

  std::vector<Ceilings> ceilings;
  for (const int threads : o.threads) {
    ceilings.push_back(measure_ceilings(o, threads ? threads : available_cpus()));
    report["ceilings"].push_back(to_json(ceilings.back()));
  }
  print_ceilings(o, ceilings);
  if (!o.ceilings_only)
    for (const auto& preset : o.presets)
      for (const auto& dtype : o.dtypes)
        for (const Ceilings& c : ceilings) {
          const StepTimes t = time_steps(o, preset, dtype, c.threads);
          print_step(t, c);
          std::fflush(stdout);
          report["steps"].push_back(to_json(t, c));
          if (peer) report["compare"].push_back(compare(o, *peer, t));
        }
  if (!o.json_file.empty()) write_file(o.json_file, report.dump(1) + "\n");
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Measures this machine and TopoLM's training steps on it.", "bench");
  add_flags(app, options);
  return run_main(app, argc, argv, [&] { run(options); });
}
