// gpu_report: what a GPU makes of the kernels. Ceilings, every kernel against them, the training step,
// decoding; as Markdown. `make gpu-report` runs it after the tests; --device simt is its rehearsal without a
// GPU.
#include <algorithm>
#include <chrono>
#include <iostream>

#include "engine/arena.h"
#include "kernels/ceiling.h"
#include "kernels/cuda/timed_device.h"
#include "model/generator.h"
#include "model/trainer.h"
#include "tools/main.h"
#include "tools/random_tokens.h"

using namespace topolm;

namespace {

struct Options {
  DeviceOptions device{"cuda", 0, "", ""};
  std::string preset = "base", dtype = "bf16", only = "all", out = "gpu-report.md";
  int batch = 48, steps = 10;
  int64_t seq = 0, tokens = 256;
  double peak = 0;
};

void add_flags(CLI::App& app, Options& o) {
  app.add_option("--device", o.device.name, "cuda, or simt to rehearse")->capture_default_str();
  app.add_option("--preset", o.preset, "nano, tiny or base")->capture_default_str();
  app.add_option("--dtype", o.dtype, "fp32 or bf16")->capture_default_str();
  app.add_option("--batch", o.batch, "sequences a step; halved until it fits")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--seq", o.seq, "tokens a sequence (default: the model's context)");
  app.add_option("--steps", o.steps, "training steps to time")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--tokens", o.tokens, "tokens to decode")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--peak", o.peak,
                 "the data sheet's dense TFLOP/s of --dtype, for the MFU beside the measured one");
  app.add_option("--only", o.only, "all, or the step alone for a profiler")
      ->check(CLI::IsMember({"all", "step"}))
      ->capture_default_str();
  app.add_option("--out", o.out, "Markdown file to write; - is standard output")->capture_default_str();
}

// ---- measuring

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double median_of(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

struct Ceilings {
  double bytes, flops;  // a second, copying memory and multiplying large matrices
};

Ceilings measure_ceilings(Kernels& kernels, DType dtype) {
  const int64_t count = kernels.device().name() == "cuda" ? int64_t{1} << 28 : 1 << 16;
  Arena arena(kernels.device(), "the memory speed test");
  Tensor from, to;
  arena.add(from, "from", DType::f32, {count});
  arena.add(to, "to", DType::f32, {count});
  arena.commit();
  double best = 1e30;
  for (int i = 0; i < 10; ++i) {
    kernels.device().synchronize();
    const double start = now();
    kernels.cast(to, from);
    kernels.device().synchronize();
    best = std::min(best, now() - start);
  }
  return {8.0 * static_cast<double>(count) / best, measure_matrix_speed(kernels, dtype, 0.3)};
}

struct Run {
  ModelConfig model;
  TrainConfig train;
  double tokens() const { return static_cast<double>(train.batch) * train.seq; }
};

Run plan(const Options& o) {
  Run run{model_preset(o.preset), train_preset(o.preset)};
  parse_word(o.dtype, run.train.dtype);
  run.train.batch = o.batch;
  run.train.seq = static_cast<int>(o.seq ? o.seq : run.model.block_size);
  run.train.accumulate = 1;
  run.train.check(run.model);
  return run;
}

/// A trainer with the largest batch that fits: --batch, or a half, a quarter, ... of it.
std::unique_ptr<Trainer> largest_trainer(Kernels& kernels, Run& run) {
  for (;; run.train.batch /= 2) try {
      return std::make_unique<Trainer>(kernels, run.model, run.train,
                                       make_sheets(run.model, "random", run.train.seed));
    } catch (const Error& e) {
      if (run.train.batch == 1 || std::string(e.what()).find("memory") == std::string::npos) throw;
    }
}

/// Seconds of each step, the first three not counted: plans are chosen, graphs recorded.
std::vector<double> time_steps(Trainer& trainer, const DataLoader& data, int steps) {
  std::vector<double> seconds;
  for (int i = 0; i < steps + 3; ++i) {
    const double start = now();
    trainer.step(data);
    if (i >= 3) seconds.push_back(now() - start);
  }
  return seconds;
}

// ---- writing

std::string share(double part, double whole) { return fmt::format("{:.1f} %", 100 * part / whole); }

/// A row a kernel: its time, and what it achieved of the ceilings.
std::string kernel_table(const LaunchTimes& times, const Ceilings& c) {
  std::vector<std::pair<std::string, LaunchTime>> rows(times.begin(), times.end());
  std::sort(rows.begin(), rows.end(),
            [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  double all = 0;
  for (const auto& [name, t] : rows) all += t.seconds;
  std::string text =
      "| kernel | launches | ms | share | GB/s | of copying | TFLOP/s | of products "
      "|\n|---|---|---|---|---|---|---|---|\n";
  for (const auto& [name, t] : rows)
    text += fmt::format("| {} | {} | {:.3f} | {} | {:.1f} | {} | {:.3f} | {} |\n", name, t.launches,
                        1e3 * t.seconds, share(t.seconds, all), 1e-9 * t.work.bytes / t.seconds,
                        share(t.work.bytes / t.seconds, c.bytes), 1e-12 * t.work.flops / t.seconds,
                        share(t.work.flops / t.seconds, c.flops));
  return text + fmt::format("| all | | {:.3f} | | | | | |\n\n", 1e3 * all);
}

/// Model FLOPs a token by llm.c's count (all parameters, the unmasked half of attention), and by PaLM's
/// (parameters that multiply, all of attention).
std::pair<double, double> flops_a_token(const ModelConfig& m, int64_t time) {
  const double attention = 6.0 * m.n_layer * m.n_embd * static_cast<double>(time);
  const double parameters = static_cast<double>(m.parameters());
  return {6 * parameters + attention,
          6 * (parameters - static_cast<double>(m.block_size) * m.n_embd) + 2 * attention};
}

std::string step_section(const Options& o, const Run& run, const std::vector<double>& seconds,
                         const Ceilings& c) {
  const double step = median_of(seconds);
  const auto [fastest, slowest] = std::minmax_element(seconds.begin(), seconds.end());
  const std::pair<double, double> count = flops_a_token(run.model, run.train.seq);
  const auto mfu = [&](double flops_a_second) {
    return fmt::format("{} by llm.c's count, {} by PaLM's",
                       share(count.first * run.tokens() / step, flops_a_second),
                       share(count.second * run.tokens() / step, flops_a_second));
  };
  return fmt::format(
      "## Training step\n\n{} {}, {} x {} tokens, spatial loss on {} sites, backward, clipping and AdamW "
      "included:\n"
      "median {:.2f} ms ({:.2f} to {:.2f} in {} steps), {:.0f} tokens/s.\n\nMFU, of the products measured "
      "here: {}.\n{}\n",
      o.preset, o.dtype, run.train.batch, run.train.seq, run.model.sites(), 1e3 * step, 1e3 * *fastest,
      1e3 * *slowest, seconds.size(), run.tokens() / step, mfu(c.flops),
      o.peak > 0 ? fmt::format("MFU, of the {} TFLOP/s given: {}.\n", o.peak, mfu(1e12 * o.peak)) : "");
}

std::string kernels_section(const Options& o, Run run, const Ceilings& c) {
  LaunchTimes times;
  const auto kernels = make_timed_kernels(o.device, times);
  const TokenFile tokens = random_tokens(run.model.vocab_size, 4 * static_cast<int64_t>(run.tokens()) + 1000);
  const DataLoader data(tokens, run.train.batch, run.train.seq, run.train.seed);
  const auto trainer = largest_trainer(*kernels, run);
  trainer->step(data);
  times.clear();
  trainer->step(data);
  double all = 0, spatial = 0;
  for (const auto& [name, t] : times) {
    all += t.seconds;
    if (name.starts_with("spatial")) spatial += t.seconds;
  }
  std::string text = fmt::format(
      "## Kernels of a training step\n\nEach launch timed by itself, {} x {} tokens. Bytes and FLOPs are "
      "what the launch "
      "cannot do without (`make kernel-report`).\n\n{}Spatial loss: {} of the kernels' time.\n\n",
      run.train.batch, run.train.seq, kernel_table(times, c), share(spatial, all));

  Generator generator(*kernels, run.model, run.train.dtype);
  const int64_t context = run.model.block_size / 2;
  generator.append(std::vector<int32_t>(static_cast<size_t>(context)));
  times.clear();
  generator.append(std::vector<int32_t>{0});
  (void)generator.next({}, 0.5, run.model.vocab_size);
  return text + fmt::format("## Kernels of a decoded token\n\nAt position {}.\n\n{}", context,
                            kernel_table(times, c));
}

std::string decode_section(const Options& o, Kernels& kernels, const Run& run, const Ceilings& c) {
  Generator generator(kernels, run.model, run.train.dtype);
  const int64_t count = std::min<int64_t>(o.tokens, run.model.block_size - 4);
  const auto decode = [&](int64_t n) {
    for (int64_t i = 0; i < n; ++i)
      generator.append(std::vector<int32_t>{generator.next({}, 0.5, run.model.vocab_size)});
  };
  generator.append(std::vector<int32_t>{0});
  decode(3);  // recorded, replayed
  const double start = now();
  decode(count - 3);
  const double seconds = (now() - start) / static_cast<double>(count - 3);
  const double size = static_cast<double>(size_of(run.train.dtype));
  const double weights = size * static_cast<double>(run.model.parameters());
  const double cache = size * 2.0 * run.model.n_layer * run.model.n_embd * static_cast<double>(count) / 2;
  return fmt::format(
      "## Decoding\n\n{} {}, one sequence, {} tokens: {:.1f} tokens/s, {:.3f} ms each.\nWeights and half the "
      "cache read "
      "once a token: {:.1f} GB/s, {} of copying.\n\n",
      o.preset, o.dtype, count, 1 / seconds, 1e3 * seconds, 1e-9 * (weights + cache) / seconds,
      share((weights + cache) / seconds, c.bytes));
}

void run(const Options& o) {
  Run run = plan(o);
  std::string text;
  const auto kernels = make_kernels(o.device);
  require(kernels->device().name() != "cpu",
          "gpu_report is for --device cuda, or simt to rehearse; ./bench is the CPU's");
  const TokenFile tokens =
      random_tokens(run.model.vocab_size, 40 * static_cast<int64_t>(run.tokens()) + 1000);
  {
    const auto trainer = largest_trainer(*kernels, run);
    const DataLoader data(tokens, run.train.batch, run.train.seq, run.train.seed);
    const auto seconds = time_steps(*trainer, data, o.steps);
    if (o.only == "step") {
      fmt::print("{} {}, {} x {}: {:.2f} ms a step\n", o.preset, o.dtype, run.train.batch, run.train.seq,
                 1e3 * median_of(seconds));
      return;
    }
    const Ceilings c = measure_ceilings(*kernels, run.train.dtype);
    text = fmt::format(
        "## Machine\n\n{}\n\nCopying memory: {:.1f} GB/s. Large matrix products, {}: {:.2f} TFLOP/s.\n\n",
        kernels->device().description(), 1e-9 * c.bytes, o.dtype, 1e-12 * c.flops);
    text += step_section(o, run, seconds, c);
    text += decode_section(o, *kernels, run, c);
  }
  // The first model is gone: two of base do not fit everywhere.
  text += kernels_section(o, run, measure_ceilings(*kernels, run.train.dtype));
  if (o.device.name == "simt")
    text = "*A rehearsal on the CPU: these times say nothing about a GPU.*\n\n" + text;
  if (o.out == "-")
    std::cout << text;
  else
    write_file(o.out, text);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Measures a GPU and TopoLM's kernels on it.", "gpu_report");
  add_flags(app, options);
  return run_main(app, argc, argv, [&] { run(options); });
}
