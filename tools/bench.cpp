// bench: what this machine's CPU can do, what a training step takes of it and where the time goes, every
// operation beside its floor, decoding, and all of it beside its rivals. A GPU's report is
// tools/gpu_report.cpp.
#include "engine/error.h"
#include "engine/file.h"
#include "engine/parallel.h"
#include "tools/bench/compare.h"
#include "tools/bench/decode.h"
#include "tools/bench/operations.h"
#include "tools/main.h"

using namespace topolm;
using namespace topolm::bench;
using nlohmann::json;

namespace {

void add_flags(CLI::App& app, Options& o) {
  app.add_option("--preset", o.presets,
                 "models to time: nano, tiny, base (default: tiny; of --bars tiny and base)")
      ->delimiter(',');
  app.add_option("--dtype", o.dtypes, "fp32, bf16 or both")->delimiter(',');
  app.add_option("--threads", o.threads, "threads, one or several counts; 0 is one a CPU")
      ->delimiter(',')
      ->check(CLI::Range(0, 4096));
  app.add_option("--isa", o.isa, "the CPU's instruction set (default: the best it has)");
  app.add_option("--batch", o.batch, "sequences a step (tiny and nano: the preset's; base: 2)")
      ->check(CLI::PositiveNumber);
  app.add_option("--seq", o.seq, "tokens a sequence (tiny and nano: the preset's; base: 256)")
      ->check(CLI::PositiveNumber);
  app.add_option("--steps", o.steps, "steps to time, after one that warms up")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_flag("--recompute", o.recompute, "steps as train_topolm --recompute's: less memory, more time");
  app.add_option("--tokens", o.tokens, "tokens to decode")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--seconds", o.seconds, "to spend on each ceiling, and a quarter of it on each operation")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  const char* const what = "What to measure besides the ceilings (default: steps, operations, decoding)";
  app.add_flag("--ceilings-only", o.ceilings_only, "nothing")->group(what);
  app.add_flag("--operations", o.operations, "every operation beside its floor, matrix products by shape")
      ->group(what);
  app.add_flag("--decode", o.decode, "tokens a second, of a prompt and beyond it")->group(what);
  app.add_option("--busy", o.busy, "a step beside N busy processes")->check(CLI::Range(1, 4096))->group(what);
  app.add_flag("--compare", o.compare, "steps and their parts against PyTorch, by turns")->group(what);
  app.add_option("--llmc", o.llmc, "with --compare: steps against this checkout of llm.c too")->group(what);
  app.add_flag("--bars", o.bars, "all of it, and which of the bars that we set ourselves are reached")
      ->group(what);
  app.add_option("--rounds", o.rounds, "turns of --compare and --busy")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--model", o.model, "checkpoint to measure the loss of int8 weights on");
  app.add_flag("--markdown", o.markdown, "print tables as Markdown, for the README");
  app.add_option("--json", o.json_file, "write everything measured to this file");
}

/// --bars is --compare, --busy and the matrix products of tiny and base with all CPUs.
void prepare(Options& o) {
  if (o.presets.empty())
    o.presets = o.bars ? std::vector<std::string>{"tiny", "base"} : std::vector<std::string>{"tiny"};
  for (const auto& dtype : o.dtypes) dtype_of(dtype);  // wrong words before anything is measured
  for (const auto& preset : o.presets) model_preset(preset);
  if (!o.llmc.empty()) check_llmc(o.llmc);
  if (!o.bars) return;
  o.compare = true;
  if (o.busy == 0) o.busy = available_cpus();
}

void print_machine(const Options& o, json& report) {
  const std::string description = make_kernels(o.device(0))->device().description();
  double load = 0;
  getloadavg(&load, 1);
  fmt::print("machine   {}; load {:.1f} on {} CPUs\n", description, load, available_cpus());
  if (load > 1)
    fmt::print(
        "          busy with something else: ceilings of moments and steps of seconds compare badly\n");
  report["load"] = load;
  report["machine"] = description;
}

void race(const Options& o, const Peer& peer, const std::vector<Ceilings>& ceilings, json& report) {
  Comparison comparison(o, peer);
  for (const Ceilings& c : ceilings)
    for (const auto& preset : o.presets) {
      for (const auto& dtype : o.dtypes) comparison.race_step(preset, dtype, c);
      comparison.race_spatial(preset, c);
      comparison.race_optimizer(preset, c);
      comparison.race_decoding(preset, c);
    }
  comparison.print();
  report["compare"] = comparison.json();
  if (!o.bars) return;
  const Ceilings& c = ceilings.front();
  for (const auto& preset : o.presets)
    for (const auto& dtype : o.dtypes)
      comparison.figures()["products " + preset + " " + dtype] = {
          {percent(product_speed(o, preset, dtype, c), c.multiply_add.at(dtype))}};
  report["busy"].push_back(race_busy(o, o.presets.front(), "fp32", c.threads, comparison.figures()));
  report["bars"] = print_bars(o, comparison.figures());
}

void run(Options o) {
  prepare(o);
  const std::optional<Peer> peer = o.compare ? Peer::find() : std::nullopt;
  require(!o.compare || peer,
          "--compare needs a python3 with PyTorch, and there is none here; on Debian: apt install "
          "python3-torch libopenblas0-pthread");
  json report;
  print_machine(o, report);
  std::vector<Ceilings> ceilings;
  for (const int threads : o.threads) {
    ceilings.push_back(measure_ceilings(o, threads ? threads : available_cpus()));
    report["ceilings"].push_back(to_json(ceilings.back()));
  }
  print_ceilings(o, ceilings);
  if (o.ceilings_only) o.presets.clear();
  const bool all = !o.operations && !o.decode && !o.compare && !o.busy;
  for (const auto& preset : o.presets)
    for (const Ceilings& c : ceilings) {
      for (const auto& dtype : o.dtypes) {
        if (all || o.compare) {
          const StepTimes t = time_steps(o, preset, dtype, c.threads);
          print_step(o, t, c);
          report["steps"].push_back(to_json(t, c));
        }
        if (all || o.operations) report["operations"].push_back(measure_operations(o, preset, dtype, c));
        if (o.busy && !o.bars) {
          Figures figures;
          report["busy"].push_back(race_busy(o, preset, dtype, c.threads, figures));
        }
      }
      if (all || o.decode)
        for (json& t : measure_decoding(o, preset, c.threads)) report["decoding"].push_back(std::move(t));
    }
  if ((all || o.decode) && !o.ceilings_only)
    report["weight_loss"] = measure_weight_loss(o, ceilings.front().threads);
  if (peer) race(o, *peer, ceilings, report);
  if (!o.json_file.empty()) write_file(o.json_file, report.dump(1) + "\n");
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Measures this machine and TopoLM on it.", "bench");
  add_flags(app, options);
  return run_main(app, argc, argv, [&] { run(options); });
}
