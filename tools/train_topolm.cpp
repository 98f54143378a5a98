// train_topolm: a token file -> a trained topographic language model.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>

#include "engine/interrupt.h"
#include "engine/metrics.h"
#include "engine/progress.h"
#include "kernels/ceiling.h"
#include "model/trainer.h"
#include "tokenizer/tokenizer_files.h"
#include "tools/main.h"
#include "tools/memory_table.h"
#include "tools/random_tokens.h"

using namespace topolm;

namespace {

/// The command line. What is optional was not given, and comes from the checkpoint, a file or the preset.
struct Options {
  std::string data, val, preset = "auto", config, out = "models/topolm", positions = "random", tokenizer;
  DeviceOptions device;
  bool resume = false, overwrite = false, memory = false;
  int64_t eval_every = 50, eval_batches = 20, save_every = 100;
  int keep = 1;
  std::optional<bool> recompute;
  std::optional<std::string> dtype, site, distance, aggregation, schedule, gelu;
  std::optional<int64_t> steps, warmup, decay_steps;
  std::optional<int> batch, seq, accumulate, n_layer, n_head, n_embd, block_size, vocab_size, radius,
      neighborhoods;
  std::optional<double> lr, min_lr, beta1, beta2, eps, weight_decay, clip, activation_decay;
  std::optional<uint64_t> seed;
  std::vector<double> alpha;
  std::vector<int> sheet;
  std::vector<int64_t> save_at;
};

void add_flags(CLI::App& app, Options& o) {
  CLI::Option* const data =
      app.add_option("DATA", o.data, "tokens: raw uint16, or an llm.c shard")->required();
  app.add_option("--val", o.val, "validation tokens (default: val.bin beside DATA, else DATA's last tenth)");
  app.add_option("--tokenizer", o.tokenizer,
                 "tokenizer.json to keep with the model (default: the one beside DATA)");
  app.add_option("--out", o.out, "directory for checkpoints and metrics")->capture_default_str();
  app.add_flag("--resume", o.resume, "continue from the newest checkpoint in --out");
  app.add_flag("--overwrite", o.overwrite, "replace the checkpoints in --out");
  app.add_flag_function(
      "--memory",
      [&o, data](int64_t) {
        o.memory = true;
        data->required(false);
      },
      "print what a step needs memory for, and stop; DATA may be left out");
  app.add_option("--device", o.device.name, "auto, cpu, cuda, or simt: CUDA kernels run by the CPU")
      ->capture_default_str();
  app.add_option("--threads", o.device.threads, "threads; 0 is one a CPU")->check(CLI::Range(0, 4096));
  app.add_option("--seed", o.seed, "of weights, positions, batches and neighborhoods (1337)");

  app.add_option("--preset", o.preset, "nano (6x6 units), tiny (14x14), base (28x28, the paper), or auto")
      ->capture_default_str();
  app.add_option("--config", o.config, "JSON file with the model's fields, as in a checkpoint's config.json");
  app.add_option("--n-layer", o.n_layer, "transformer blocks")->group("Model");
  app.add_option("--n-head", o.n_head, "attention heads")->group("Model");
  app.add_option("--n-embd", o.n_embd, "width of the residual stream: units of a sheet")->group("Model");
  app.add_option("--block-size", o.block_size, "longest context in tokens")->group("Model");
  app.add_option("--vocab-size", o.vocab_size, "default: the tokenizer's, rounded up to 64")->group("Model");
  app.add_option("--gelu", o.gelu, "erf or tanh")->group("Model");

  app.add_option("--alpha", o.alpha,
                 "weight of the spatial loss: one for all sites or one a site; 0 is the control")
      ->delimiter(',')
      ->group("Topography");
  app.add_option("--sheet", o.sheet, "rows,columns of the unit grid")->delimiter(',')->group("Topography");
  app.add_option("--radius", o.radius, "a neighborhood is the units nearer than this (Linf)")
      ->group("Topography");
  app.add_option("--neighborhoods", o.neighborhoods, "drawn a site and micro-batch")->group("Topography");
  app.add_option("--site", o.site, "pre or post: tap before or after the residual addition")
      ->group("Topography");
  app.add_option("--distance", o.distance, "l2, l1 or linf")->group("Topography");
  app.add_option("--aggregation", o.aggregation, "mean or max over neighborhoods")->group("Topography");
  app.add_option("--activation-decay", o.activation_decay, "weight of the mean squared activation")
      ->group("Topography");
  app.add_option("--positions", o.positions, "random, identity, or a safetensors file such as a checkpoint's")
      ->capture_default_str()
      ->group("Topography");

  app.add_option("--steps", o.steps, "optimizer steps")->group("Training");
  app.add_option("--batch", o.batch, "sequences a micro-batch")->group("Training");
  app.add_option("--seq", o.seq, "tokens a sequence")->group("Training");
  app.add_option("--accumulate", o.accumulate, "micro-batches a step")->group("Training");
  app.add_option("--dtype", o.dtype, "fp32, or bf16 matrix operands")->group("Training");
  app.add_flag("--recompute,!--no-recompute", o.recompute,
               "compute activations twice rather than keep them: less memory, the same bits")
      ->group("Training");
  app.add_option("--lr", o.lr, "highest learning rate")->group("Training");
  app.add_option("--min-lr", o.min_lr, "last learning rate (default: a tenth of --lr)")->group("Training");
  app.add_option("--warmup", o.warmup, "steps of linear warm-up")->group("Training");
  app.add_option("--schedule", o.schedule, "cosine, linear or constant")->group("Training");
  app.add_option("--decay-steps", o.decay_steps, "step at which --min-lr is reached; 0 is --steps")
      ->group("Training");
  app.add_option("--beta1", o.beta1, "AdamW")->group("Training");
  app.add_option("--beta2", o.beta2, "AdamW")->group("Training");
  app.add_option("--eps", o.eps, "AdamW")->group("Training");
  app.add_option("--weight-decay", o.weight_decay, "AdamW, on matrices and embeddings")->group("Training");
  app.add_option("--clip", o.clip, "largest gradient norm; 0 does not clip")->group("Training");

  app.add_option("--eval-every", o.eval_every, "steps between validations; 0 only at the end")
      ->capture_default_str();
  app.add_option("--eval-batches", o.eval_batches, "batches a validation; 0 is all")->capture_default_str();
  app.add_option("--save-every", o.save_every, "steps between checkpoints; 0 only at the end")
      ->capture_default_str();
  app.add_option("--save-at", o.save_at, "steps after which to save besides")->delimiter(',');
  app.add_option("--keep", o.keep, "checkpoints to keep; 0 is all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
}

template <class T>
void apply(const std::optional<T>& given, T& field) {
  if (given) field = *given;
}
template <class T>
void apply_word(const std::optional<std::string>& given, T& field) {
  if (given) parse_word(*given, field);
}

void apply_flags(const Options& o, ModelConfig& m, TrainConfig& t) {
  apply(o.n_layer, m.n_layer), apply(o.n_head, m.n_head), apply(o.block_size, m.block_size);
  if (o.n_embd) {
    m.n_embd = *o.n_embd;
    m.topography.rows = m.topography.cols = static_cast<int>(std::lround(std::sqrt(m.n_embd)));
  }
  if (!o.sheet.empty()) {
    require(o.sheet.size() == 2, "--sheet needs two numbers, as in --sheet 14,14");
    m.topography.rows = o.sheet[0], m.topography.cols = o.sheet[1];
  }
  if (!o.alpha.empty()) m.topography.alpha = o.alpha;
  apply(o.radius, m.topography.radius), apply(o.neighborhoods, m.topography.neighborhoods);
  apply(o.activation_decay, m.topography.activation_decay);
  apply_word(o.gelu, m.gelu), apply_word(o.site, m.topography.tap),
      apply_word(o.distance, m.topography.distance);
  apply_word(o.aggregation, m.topography.aggregation);

  apply(o.steps, t.steps), apply(o.batch, t.batch), apply(o.seq, t.seq), apply(o.accumulate, t.accumulate);
  if (o.lr) t.lr = *o.lr, t.min_lr = *o.lr / 10;
  apply(o.min_lr, t.min_lr), apply(o.warmup, t.warmup), apply(o.decay_steps, t.decay_steps);
  apply(o.beta1, t.beta1), apply(o.beta2, t.beta2), apply(o.eps, t.eps),
      apply(o.weight_decay, t.weight_decay);
  apply(o.clip, t.clip), apply(o.seed, t.seed), apply_word(o.schedule, t.schedule),
      apply_word(o.dtype, t.dtype);
  apply(o.recompute, t.recompute);
}

/// The token streams and the tokenizer they were made with.
struct Data {
  TokenFile train;
  std::optional<TokenFile> val;
  std::string val_source, tokenizer;  // the text of tokenizer.json, or empty
  int vocab_size;                     // that the data needs
};

Data open_data(const Options& o) {
  Data d{TokenFile(o.data), {}, "", "", 0};
  const fs::path beside = fs::path(o.data).parent_path();
  const int64_t tenth = std::min<int64_t>(d.train.size() / 10, 1 << 20);
  const bool is_val = fs::path(o.data).filename() == "val.bin";
  if (!o.val.empty() || (fs::exists(beside / "val.bin") && !is_val)) {
    d.val = TokenFile(o.val.empty() ? beside / "val.bin" : fs::path(o.val));
    d.val_source = d.val->path().string();
  } else if (tenth >= 2) {
    d.val = d.train.slice(d.train.size() - tenth, tenth);
    d.train = d.train.slice(0, d.train.size() - tenth);
    d.val_source = "the last tenth of " + o.data;
  }
  int largest = std::max(d.train.max_token(), d.val ? d.val->max_token() : -1);
  const fs::path tokenizer = o.tokenizer.empty() ? beside / "tokenizer.json" : fs::path(o.tokenizer);
  if (!o.tokenizer.empty() || fs::exists(tokenizer)) {
    const int known = load_tokenizer(tokenizer).vocab_size();
    require(largest < known,
            "'{}' holds the token id {}, but '{}' has only {} tokens; they do not belong together", o.data,
            largest, tokenizer.string(), known);
    d.tokenizer = read_file(tokenizer);
    largest = known - 1;
  }
  d.vocab_size = static_cast<int>(ceil_div(largest + 1, 64) * 64);
  return d;
}

/// Defaults, then the checkpoint or the preset and --config, then what the command line gives.
void configure(const Options& o, const std::optional<Data>& data, const std::optional<fs::path>& checkpoint,
               ModelConfig& model, TrainConfig& train, std::string& preset) {
  if (checkpoint) {
    model = load_config(*checkpoint);
    train = load_trainer_state(*checkpoint).train;
    preset = "checkpoint";
    apply_flags(o, model, train);
    return;
  }
  preset = o.preset != "auto" ? o.preset : data && data->train.size() < 20000 ? "nano" : "tiny";
  model = model_preset(preset);
  train = train_preset(preset);
  if (data) model.vocab_size = data->vocab_size;
  if (!o.config.empty()) {
    try {
      from_json(nlohmann::json::parse(read_file(o.config)), model);
    } catch (const nlohmann::json::exception& e) {
      fail("'{}' is not valid JSON: {}", o.config, e.what());
    }
    preset = o.config;
  }
  apply_flags(o, model, train);
  apply(o.vocab_size, model.vocab_size);
  train.seq = o.seq.value_or(std::min(train.seq, model.block_size));
}

void print_plan(const Options& o, const Data& d, const ModelConfig& m, const TrainConfig& t, Kernels& kernels,
                const std::string& preset, double speed) {
  const TopographyConfig& g = m.topography;
  fmt::print("device      {}\n", kernels.device().description());
  fmt::print("            {} FLOP/s in matrix products, measured just now\n", human_count(speed));
  fmt::print("data        {}: {} tokens, {}\n", o.data, human_count(static_cast<double>(d.train.size())),
             d.train.format());
  if (d.val)
    fmt::print("validation  {}: {} tokens\n", d.val_source, human_count(static_cast<double>(d.val->size())));
  fmt::print(
      "model       {}: {} layers, {} units = {}x{}, {} heads of {}, context {}, vocabulary {}: {} "
      "parameters\n",
      preset, m.n_layer, m.n_embd, g.rows, g.cols, m.n_head, m.head_size(), m.block_size, m.vocab_size,
      human_count(static_cast<double>(m.parameters())));
  fmt::print(
      "topography  {} sites tapped {} the residual addition, alpha {}, {} neighborhoods of {}x{}, {} "
      "distance\n",
      m.sites(), g.tap == Tap::pre ? "before" : "after", fmt::join(g.alpha, " "), g.neighborhoods,
      2 * g.radius - 1, 2 * g.radius - 1, to_word(g.distance));
  fmt::print("training    {} steps of {} x {} x {} tokens, {}, lr {} to {} ({}, {} warm-up), seed {}\n",
             t.steps, t.accumulate, t.batch, t.seq, to_word(t.dtype), t.lr, t.min_lr, to_word(t.schedule),
             t.warmup, t.seed);
  fmt::print("output      {}\n", o.out);
  std::fflush(stdout);
}

std::vector<std::string> metric_columns(int sites) {
  std::vector<std::string> columns = {
      "step", "task_loss",         "spatial_loss",  "total_loss",      "grad_norm",
      "lr",   "tokens_per_second", "val_task_loss", "val_spatial_loss"};
  for (int site = 0; site < sites; ++site) columns.push_back("spatial_loss." + site_name(site));
  return columns;
}

void train_loop(const Options& o, const Data& d, const TrainConfig& t, Trainer& trainer, double speed,
                std::optional<int64_t> resumed_at) {
  const ModelConfig& m = trainer.model().config();
  const DataLoader batches(d.train, t.batch, t.seq, t.seed);
  std::optional<EvalLoader> validation;
  if (d.val) validation.emplace(*d.val, t.batch, t.seq);
  MetricsLog metrics(o.out, metric_columns(m.sites()), resumed_at);
  const nlohmann::json origin = {{"path", o.data}, {"tokens", d.train.size()}};
  const InterruptGuard guard;
  ProgressLine progress;
  using Clock = std::chrono::steady_clock;
  const double tokens = static_cast<double>(t.accumulate) * t.batch * t.seq;
  double average = 0;  // seconds a step, exponentially forgetting
  const auto save = [&] {
    if (const std::string plans = trainer.model().kernels().matrix_plans(); !plans.empty())
      write_file(fs::path(o.out) / "matmul.json", plans);
    return trainer.save(o.out, origin, d.tokenizer, o.keep).string();
  };

  while (trainer.steps_done() < t.steps) {
    const auto start = Clock::now();
    const StepReport r = trainer.step(batches);
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    average = average == 0 ? seconds : 0.9 * average + 0.1 * seconds;
    progress.update(
        fmt::format("step {}/{}  loss {:.4f}  spatial {:.4f}  norm {:.2f}  lr {:.2e}  {} tok/s  {:.0f} % of "
                    "matrix speed  ETA {}",
                    r.step, t.steps, r.losses.task, r.losses.mean_spatial(), r.norm, r.lr,
                    human_count(tokens / average), 100 * m.flops_per_token(t.seq) * tokens / average / speed,
                    human_duration(average * static_cast<double>(t.steps - r.step))));

    std::optional<double> val_task, val_spatial;
    const bool last = r.step == t.steps, stop = interrupted();
    if (validation && !stop && (last || (o.eval_every > 0 && r.step % o.eval_every == 0))) {
      const Losses v = trainer.evaluate(*validation, o.eval_batches);
      // A machine that was busy at the start would be outdone by its own training.
      speed = std::max(speed, measure_matrix_speed(trainer.model().kernels(), t.dtype, 0.05));
      val_task = v.task, val_spatial = v.mean_spatial();
      progress.print(fmt::format("step {:>6}  validation loss {:.4f}  spatial {:.4f}", r.step, v.task,
                                 v.mean_spatial()));
    }
    std::vector<std::optional<double>> row = {static_cast<double>(r.step),
                                              r.losses.task,
                                              r.losses.mean_spatial(),
                                              r.losses.total(m.topography),
                                              r.norm,
                                              r.lr,
                                              tokens / seconds,
                                              val_task,
                                              val_spatial};
    row.insert(row.end(), r.losses.spatial.begin(), r.losses.spatial.end());
    metrics.row(row);
    if (stop) {
      const std::string where = save();
      progress.finish();
      throw Interrupted(fmt::format("saved '{}' after step {}; continue with --resume", where, r.step));
    }
    const bool wanted = (o.save_every > 0 && r.step % o.save_every == 0) ||
                        std::find(o.save_at.begin(), o.save_at.end(), r.step) != o.save_at.end();
    if (!last && wanted) save();
  }
  const std::string where = save();
  progress.finish();
  fmt::print("saved       {}\n", where);
  if (!d.tokenizer.empty()) fmt::print("hear it     ./infer \"Once upon a time\" --model {}\n", o.out);
}

/// A step on random tokens, and what it needed memory for.
void show_memory(const Options& o) {
  std::optional<Data> data;
  if (!o.data.empty()) data = open_data(o);
  const auto kernels = make_kernels(o.device);
  ModelConfig model;
  TrainConfig train;
  std::string preset;
  configure(o, data, o.resume ? find_checkpoint(o.out) : std::nullopt, model, train, preset);
  model.check();
  train.check(model);
  train.accumulate = 1;
  fmt::print("{}\n{}, {} x {} tokens, {}{}\n\n", kernels->device().description(), preset, train.batch,
             train.seq, to_word(train.dtype), train.recompute ? ", recomputed" : "");
  std::fflush(stdout);
  const TokenFile tokens = random_tokens(model.vocab_size, int64_t{train.batch} * train.seq + 1);
  Trainer trainer(*kernels, model, train, make_sheets(model, "random", train.seed));
  trainer.step(DataLoader(tokens, train.batch, train.seq, train.seed));
  print_memory(trainer);
}

void run(const Options& o) {
  if (o.memory) return show_memory(o);
  const Data data = open_data(o);
  const auto kernels = make_kernels(o.device);
  const auto existing = find_checkpoint(o.out);
  require(!o.resume || existing, "there is no checkpoint in '{}' to resume; leave --resume out to start",
          o.out);
  require(
      o.resume || o.overwrite || !existing,
      "'{}' holds a model already ({}); continue it with --resume, choose another --out, or replace it with "
      "--overwrite",
      o.out, existing ? existing->filename().string() : "");

  ModelConfig model;
  TrainConfig train;
  std::string preset;
  configure(o, data, o.resume ? existing : std::nullopt, model, train, preset);
  model.check();
  train.check(model);
  require(data.train.max_token() < model.vocab_size,
          "'{}' holds the token id {}, but the model's vocabulary has {} entries; use the data it was made "
          "for or "
          "a larger --vocab-size",
          o.data, data.train.max_token(), model.vocab_size);
  const DataLoader long_enough(data.train, train.batch, train.seq, train.seed);

  std::optional<int64_t> resumed_at;
  if (o.resume) {
    const TrainerState state = load_trainer_state(*existing);
    const auto tokens =
        state.data.is_object() ? state.data.value("tokens", data.train.size()) : data.train.size();
    require(tokens == data.train.size(),
            "'{}' was trained on {} tokens, but '{}' gives {}; resume needs the same data",
            existing->string(), tokens, o.data, data.train.size());
    resumed_at = state.step;
  }
  const double speed = measure_matrix_speed(*kernels, train.dtype);
  print_plan(o, data, model, train, *kernels, preset, speed);
  Trainer trainer(*kernels, model, train,
                  o.resume ? load_sheets(*existing, model) : make_sheets(model, o.positions, train.seed));
  if (o.resume) {
    trainer.resume(*existing);
    fmt::print("resumed     {}\n", existing->string());
    std::fflush(stdout);
  }
  make_directories(o.out);
  if (!o.resume && existing) remove_checkpoints(o.out);
  train_loop(o, data, train, trainer, speed, resumed_at);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Trains a topographic language model (TopoLM) from a file of tokens.", "train_topolm");
  add_flags(app, options);
  return run_main(app, argc, argv, [&] { run(options); });
}
