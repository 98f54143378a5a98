#include "tools/bench/compare.h"

#include <set>

#include "engine/progress.h"
#include "tools/bench/decode.h"
#include "tools/bench/parts.h"

namespace topolm::bench {

namespace {

Samples milliseconds_of(const nlohmann::json& theirs, const char* field = "ms") { return {theirs.at(field)}; }

}  // namespace

PeerRun Comparison::peer_run(const std::string& preset, const std::string& dtype, int threads,
                             int steps) const {
  const TrainConfig train = bench_training(options_, preset, dtype);
  return {preset, dtype, threads, train.batch, train.seq, steps};
}

std::string Comparison::best_setting(const PeerRun& run) {
  const std::string what = fmt::format("{} {} {} {}", run.preset, run.dtype, run.threads, run.flags);
  const auto [found, first] = settings_.try_emplace(what);
  if (first) found->second = peer_.best_setting(run);
  return found->second;
}

Race Comparison::race(const PeerRun& run, const std::function<Samples()>& ours) {
  const std::string setting = best_setting(run);
  Race race;
  for (int round = 0; round < options_.rounds; ++round) {
    const double our = 1e3 * ours().median();
    const nlohmann::json theirs = peer_.run(run, setting);
    framework_ = theirs.at("framework"), blas_ = theirs.at("blas");
    race.add(our, milliseconds_of(theirs).median());
  }
  return race;
}

void Comparison::race_step(const std::string& preset, const std::string& dtype, const Ceilings& c) {
  const PeerRun run = peer_run(preset, dtype, c.threads, options_.steps);
  const std::string setting = best_setting(run);
  const bool llmc = !options_.llmc.empty();
  StepRow row{};
  nlohmann::json theirs;
  Samples share, memory;
  for (int round = 0; round < options_.rounds; ++round) {
    const StepTimes ours = time_steps(options_, preset, dtype, c.threads);
    theirs = peer_.run(run, setting);
    row.wall.add(1e3 * ours.seconds.median(), milliseconds_of(theirs).median());
    row.cpu.add(1e3 * ours.cpu_seconds.median(), milliseconds_of(theirs, "cpu_ms").median());
    if (llmc)
      row.llmc.add(row.wall.ours.values.back(),
                   milliseconds_of(run_llmc(options_.llmc, ours.model, run)).median());
    share.add(ours.share("spatial loss"));
    // Of the first alone: what a round leaves behind is not the next one's.
    if (round == 0) row.ours = ours, row.their_memory = theirs.at("peak_rss_bytes");
  }
  memory.add(row.ours.memory / row.their_memory);
  framework_ = theirs.at("framework"), blas_ = theirs.at("blas");
  const std::string name = preset + " " + dtype;
  figures_["step " + name] = row.wall.ratios;
  figures_["share " + name] = share;
  figures_["memory " + name] = memory;
  if (llmc) figures_["llm.c " + name] = row.llmc.ratios;
  json_.push_back({{"what", "step"},
                   {"preset", preset},
                   {"dtype", dtype},
                   {"threads", c.threads},
                   {"setting", setting},
                   {"wall", row.wall.to_json()},
                   {"cpu", row.cpu.to_json()},
                   {"our_memory_bytes", row.ours.memory},
                   {"theirs", theirs}});
  if (llmc) json_.back()["llmc"] = row.llmc.to_json();
  steps_.push_back(std::move(row));
}

void Comparison::race_spatial(const std::string& preset, const Ceilings& c) {
  PeerRun run = peer_run(preset, "fp32", c.threads, options_.steps);
  run.flags = "--only spatial";
  const Race r = race(run, [&] { return time_spatial(options_, preset, c.threads); });
  figures_["spatial " + preset] = r.ratios;
  json_.push_back({{"what", "spatial"}, {"preset", preset}, {"threads", c.threads}, {"wall", r.to_json()}});
  parts_.push_back({fmt::format("spatial loss `{}`, forward and backward", preset), c.threads, r, ""});
}

void Comparison::race_optimizer(const std::string& preset, const Ceilings& c) {
  PeerRun run = peer_run(preset, "fp32", c.threads, options_.steps);
  run.flags = "--only optimizer";
  const Race r = race(run, [&] { return time_optimizer(options_, preset, c.threads); });
  const double update =
      measure_memory_speed(options_.device(c.threads), options_.seconds / 4).update;  // just now
  const double bytes = 32 * static_cast<double>(model_preset(preset).parameters());   // the gradient twice
  Samples stream;
  for (const double ms : r.ours.values) stream.add(percent(1e3 * bytes / ms, update));
  figures_["optimizer " + preset] = r.ratios;
  figures_["optimizer stream " + preset] = stream;
  json_.push_back({{"what", "optimizer"}, {"preset", preset}, {"threads", c.threads}, {"wall", r.to_json()}});
  parts_.push_back({fmt::format("optimizer `{}`, clipping and AdamW", preset), c.threads, r,
                    fmt::format("{:.0f} % of AdamW's stream", stream.median())});
}

void Comparison::race_decoding(const std::string& preset, const Ceilings& c) {
  for (const std::string& weights : decoding_weights(options_)) {
    // Who has no int8 of its own is raced with what it has: bf16.
    PeerRun run = peer_run(preset, weights == "fp32" ? "fp32" : "bf16", c.threads, 1);
    const std::string setting = best_setting(run);
    run.flags = fmt::format("--generate {}", options_.tokens / 2);
    Race cached, uncached;
    Samples share;
    for (int round = 0; round < options_.rounds; ++round) {
      const DecodeTimes ours = time_decoding(options_, preset, weights, c.threads);
      const nlohmann::json theirs = peer_.run(run, setting);
      const double our = 1e3 / ours.speed.tokens_per_second;
      cached.add(our, 1e3 / theirs.at("tokens_per_second").get<double>());
      uncached.add(our, 1e3 / theirs.at("tokens_per_second_without_cache").get<double>());
      share.add(percent(ours.read(), ours.read_bandwidth));
    }
    const std::string name = preset + " " + weights;
    figures_["decode " + name] = cached.ratios;
    figures_["uncached " + name] = uncached.ratios;
    figures_["read " + name] = share;
    json_.push_back({{"what", "decode"},
                     {"preset", preset},
                     {"weights", weights},
                     {"threads", c.threads},
                     {"wall", cached.to_json()},
                     {"without_cache", uncached.to_json()}});
    const std::string what = fmt::format("a token of `{}` {}, against {}", preset, weights, run.dtype);
    parts_.push_back(
        {what, c.threads, cached, fmt::format("{:.0f} % of the read bandwidth", share.median())});
    parts_.push_back({what + " without a cache", c.threads, uncached, "as the official generate()"});
  }
}

void Comparison::print() const {
  const bool markdown = options_.markdown;
  print_heading(markdown, fmt::format("Against {}, {}", framework_, blas_));
  std::set<std::string> settings;
  for (const auto& [what, setting] : settings_)
    if (!setting.empty()) settings.insert(setting);
  if (!settings.empty())
    print_line(markdown,
               fmt::format("in the environment it is fastest in: {}\n", fmt::join(settings, ", or ")));
  if (!steps_.empty()) {
    Table table({"step", ">threads", ">ours, ms", ">PyTorch, ms", ">ratio", ">spatial loss, of our step",
                 ">peak memory, ours / PyTorch"});
    for (const StepRow& s : steps_)
      table.add(
          {fmt::format("`{}` {}, {} x {}", s.ours.preset, s.ours.dtype, s.ours.train.batch, s.ours.train.seq),
           fmt::format("{}", s.ours.threads), fmt::format("{:.1f}", s.wall.ours.median()),
           fmt::format("{:.0f}", s.wall.theirs.median()), spread(s.wall.ratios),
           bench::share(s.ours.share("spatial loss"), 100),
           fmt::format("{} / {}", human_bytes(s.ours.memory), human_bytes(s.their_memory))});
    table.print(markdown);
  }
  fmt::print("\n");
  Table parts({"", ">threads", ">ours", ">theirs", ">ratio", ""});
  for (const StepRow& s : steps_)
    if (!s.llmc.ratios.values.empty())
      parts.add({fmt::format("step `{}` {}, against llm.c", s.ours.preset, s.ours.dtype),
                 fmt::format("{}", s.ours.threads), milliseconds(1e-3 * s.llmc.ours.median()),
                 milliseconds(1e-3 * s.llmc.theirs.median()), spread(s.llmc.ratios),
                 "fp32, without the spatial loss there"});
  for (const PartRow& p : parts_)
    parts.add({p.what, fmt::format("{}", p.threads), milliseconds(1e-3 * p.race.ours.median()),
               milliseconds(1e-3 * p.race.theirs.median()), spread(p.race.ratios), p.note});
  if (!parts.empty()) parts.print(markdown);
  for (const StepRow& s : steps_)
    if (s.ours.threads == 1)  // threads that wait may spin, and count as if they worked
      print_line(markdown,
                 fmt::format("`{}` {}, 1 thread, CPU time: {:.1f} ms against {:.1f} ms, {}", s.ours.preset,
                             s.ours.dtype, s.cpu.ours.median(), s.cpu.theirs.median(), spread(s.cpu.ratios)));
  if (blas_.starts_with("reference"))
    print_line(
        markdown,
        "NOTE: the reference BLAS is no rival: install libopenblas0-pthread, or put it in LD_LIBRARY_PATH");
}

}  // namespace topolm::bench
