#include "tools/bench/step.h"

#include "engine/progress.h"
#include "tools/random_tokens.h"

using nlohmann::json;

namespace topolm::bench {

TrainConfig bench_training(const Options& o, const std::string& preset, const std::string& dtype) {
  TrainConfig train = train_preset(preset);
  if (preset == "base") train.batch = 2, train.seq = 256, train.accumulate = 1;
  if (o.batch) train.batch = o.batch;
  if (o.seq) train.seq = o.seq;
  train.dtype = dtype_of(dtype);
  train.recompute = o.recompute;
  return train;
}

StepTimes time_steps(const Options& o, const std::string& preset, const std::string& dtype, int threads) {
  StepTimes t{preset, dtype, model_preset(preset), bench_training(o, preset, dtype), threads, {}, {}, 0,
              {},     {}};
  forget_peak_memory();
  const auto kernels = make_kernels(o.device(threads));
  const TokenFile tokens =
      random_tokens(t.model.vocab_size, int64_t{t.train.batch} * t.train.seq + (1 << 20));
  const DataLoader data(tokens, t.train.batch, t.train.seq, t.train.seed);
  Trainer trainer(*kernels, t.model, t.train, make_sheets(t.model, "random", t.train.seed));
  trainer.step(data);  // pages are touched, working space grows, threads wake
  profile_ranges(true);
  for (int i = 0; i < o.steps; ++i) {
    const double start = now(), cpu_start = cpu_time();
    t.losses = trainer.step(data).losses;
    t.cpu_seconds.add(cpu_time() - cpu_start);
    t.seconds.add(now() - start);
  }
  t.ranges = range_totals();
  profile_ranges(false);
  t.memory = peak_memory();
  return t;
}

std::vector<StepPart> StepTimes::parts() const {
  const auto steps = static_cast<double>(seconds.values.size());
  double rest = seconds.sum() / steps;
  const auto of = [&](std::initializer_list<const char*> names) {
    double sum = 0;
    for (const char* name : names)
      if (const auto found = ranges.find(name); found != ranges.end()) sum += found->second.seconds / steps;
    rest -= sum;
    return sum;
  };
  // A device that does GELU within a product has no other place to count it.
  const bool fused = ranges.contains("linear_gelu") || ranges.contains("linear_gelu_backward");
  std::vector<StepPart> table = {
      {fused ? "linear layers, gelu" : "linear layers", of({"linear", "linear_gelu"}),
       of({"linear_backward_input", "linear_backward_weight", "linear_gelu_backward"})},
      {"attention", of({"attention"}), of({"attention_backward"})},
      {"spatial loss", of({"spatial_loss"}), of({"spatial_loss_backward"})},
      {"cross entropy", 0, 0, of({"cross_entropy"})},
      {"layernorm, residual", of({"layernorm"}), of({"layernorm_backward"})},
      {fused ? "gelu alone" : "gelu", of({"gelu"}), of({"gelu_backward"})},
      {"embedding", of({"embedding"}), of({"embedding_backward"})},
      {"fill, cast, add", 0, 0, of({"fill", "cast", "add_scaled", "sum", "sum_of_squares"})},
      {"optimizer", 0, 0, of({"gradient_norm", "adamw"})}};
  std::erase_if(table, [](const StepPart& p) { return p.name == "gelu alone" && p.total() == 0; });
  table.push_back({"rest", 0, 0, rest});
  return table;
}

double StepTimes::share(const std::string& part) const {
  for (const StepPart& p : parts())
    if (p.name == part) return percent(p.total(), seconds.sum() / static_cast<double>(seconds.values.size()));
  return 0;
}

namespace {

/// What a part does in a second beside what the machine can, where the two are of one kind.
std::string speed(const StepTimes& t, const Ceilings& c, const StepPart& p) {
  const double layers = t.model.n_layer, n = t.model.n_embd;
  const auto of_peak = [&](double flops) {
    return fmt::format("{:.1f} GFLOP/s, {:.0f} % of the {} peak", flops / p.total() * 1e-9,
                       percent(flops / p.total(), c.multiply_add.at(t.dtype)), t.dtype);
  };
  if (p.name.starts_with("linear layers"))
    return of_peak(6 * t.tokens() * (12 * layers * n * n + t.model.vocab_size * n));
  if (p.name == "attention") return of_peak(7 * t.tokens() * layers * n * (t.train.seq + 1));
  if (p.name != "optimizer") return "";
  // Reads the gradient twice and weight, m, v; writes those three and the bf16 copy.
  const double bytes = static_cast<double>(t.model.parameters()) * (t.dtype == "bf16" ? 34 : 32);
  return fmt::format("{:.1f} GB/s, {:.0f} % of the update stream", bytes / p.total() * 1e-9,
                     percent(bytes / p.total(), c.memory.update));
}

}  // namespace

void print_step(const Options& o, const StepTimes& t, const Ceilings& c) {
  print_heading(o.markdown, fmt::format("{} {}, {}: {} sequences of {} tokens, spatial loss on {} sites",
                                        t.preset, t.dtype, counted(t.threads, "thread"), t.train.batch,
                                        t.train.seq, t.model.sites()));
  print_line(o.markdown,
             fmt::format("{:.1f} ms a step ({:.1f} to {:.1f} in {} steps), {} tokens/s, peak memory {}",
                         1e3 * t.seconds.median(), 1e3 * t.seconds.low(), 1e3 * t.seconds.high(),
                         t.seconds.values.size(), human_count(t.tokens() / t.seconds.median()),
                         human_bytes(t.memory)));
  print_line(o.markdown,
             fmt::format("{:.1f} GFLOP/s of the model: {:.0f} % of the {} peak, {:.0f} % of product {}\n",
                         t.flops() * 1e-9, percent(t.flops(), c.multiply_add.at(t.dtype)), t.dtype,
                         percent(t.flops(), c.product.at(t.dtype)), t.dtype));
  Table table({"operation", ">forward", ">backward", ">total", ">share", ""});
  const auto parts = t.parts();
  double all = 0;
  for (const StepPart& p : parts) all += p.total();
  for (const StepPart& p : parts)
    table.add({p.name, milliseconds(p.forward), milliseconds(p.backward), milliseconds(p.total()),
               bench::share(p.total(), all), speed(t, c, p)});
  table.print(o.markdown);
}

json to_json(const StepTimes& t, const Ceilings& c) {
  json j = {{"preset", t.preset},
            {"dtype", t.dtype},
            {"threads", t.threads},
            {"batch", t.train.batch},
            {"seq", t.train.seq},
            {"parameters", t.model.parameters()},
            {"seconds", t.seconds.values},
            {"median_ms", 1e3 * t.seconds.median()},
            {"cpu_seconds", t.cpu_seconds.values},
            {"tokens_per_second", t.tokens() / t.seconds.median()},
            {"flops_per_second", t.flops()},
            {"percent_of_multiply_add", percent(t.flops(), c.multiply_add.at(t.dtype))},
            {"percent_of_matrix_speed", percent(t.flops(), c.product.at(t.dtype))},
            {"peak_memory_bytes", t.memory},
            {"task_loss", t.losses.task},
            {"spatial_loss", t.losses.mean_spatial()}};
  const auto parts = t.parts();
  double all = 0;
  for (const StepPart& p : parts) all += p.total();
  for (const StepPart& p : parts)
    j["operations"].push_back({{"name", p.name},
                               {"forward_ms", 1e3 * p.forward},
                               {"backward_ms", 1e3 * p.backward},
                               {"ms", 1e3 * p.total()},
                               {"percent", percent(p.total(), all)}});
  for (const auto& [name, total] : t.ranges)
    j["ranges"][name] = {{"seconds", total.seconds}, {"calls", total.calls}};
  return j;
}

}  // namespace topolm::bench
