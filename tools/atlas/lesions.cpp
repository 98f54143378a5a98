#include "tools/atlas/lesions.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/error.h"

namespace topolm {

namespace {

Score score(Subject& subject, std::span<const int32_t> text, const LesionPlan& plan) {
  Score score{text_loss(subject, text), {}};
  if (!plan.pairs.empty()) score.blimp = score_blimp(subject, plan.pairs, plan.compat);
  return score;
}

/// The weights as saved, then the interventions.
Score score_with(Subject& subject, const std::vector<Intervention>& interventions,
                 std::span<const int32_t> text, const LesionPlan& plan) {
  TopoLM& network = subject.network();
  Device& device = network.kernels().device();
  load_weights(subject.checkpoint(), network.config(), device, network.weights());
  intervene(interventions, network.config(), device, network.weights());
  return score(subject, text, plan);
}

/// "mean (lowest to highest)" of what `value` takes from each control.
template <class F>
std::string spread(const std::vector<Score>& controls, F&& value) {
  if (controls.empty()) return "-";
  double sum = 0, low = value(controls[0]), high = low;
  for (const Score& control : controls) {
    sum += value(control);
    low = std::min(low, value(control)), high = std::max(high, value(control));
  }
  return fmt::format("{:+.4f} ({:+.4f} to {:+.4f})", sum / static_cast<double>(controls.size()), low, high);
}

nlohmann::json to_json(const Score& score) {
  nlohmann::json j = {{"loss", score.loss}};
  if (score.blimp) j["blimp"] = to_json(*score.blimp);
  return j;
}

}  // namespace

LesionReport measure_lesions(Kernels& kernels, const AtlasPlan& plan, const LesionPlan& lesions,
                             const ModelAtlas& model,
                             const std::function<void(const std::string&)>& progress) {
  Subject subject(kernels, model.last().path);
  const std::vector<int32_t> text = text_of(plan, subject, lesions.tokens);
  require(
      text.size() > 1,
      "there is no text to measure the loss of '{}' on: the data it was trained on is gone; name tokens with "
      "--text FILE.bin",
      model.last().path.string());
  LesionReport report{model.name, std::ssize(text), {}, {}};
  progress(model.name + ": intact");
  report.intact = score(subject, text, lesions);
  const LocalizerMap localizer = localizer_of(plan, model);
  for (const std::string& region : lesions.regions) {
    LesionResult result{region, parse_region(region, model.sheets, localizer, 0), {}, {}};
    progress(model.name + ": " + region);
    result.lesioned = score_with(subject, result.interventions, text, lesions);
    // A lesion of more than half of a site leaves too few others to draw as many from.
    bool room = true;
    for (const Intervention& i : result.interventions)
      room = room && 2 * std::ssize(i.units) <= model.config.n_embd;
    for (int k = 0; room && k < lesions.controls; ++k)
      result.controls.push_back(score_with(
          subject, random_control(result.interventions, model.sheets, plan.seed + static_cast<uint64_t>(k)),
          text, lesions));
    report.lesions.push_back(std::move(result));
  }
  return report;
}

void print_lesions(const std::vector<LesionReport>& reports) {
  for (const LesionReport& report : reports) {
    fmt::print("\n{}: loss of {} tokens {:.4f}", report.model, report.tokens, report.intact.loss);
    if (report.intact.blimp)
      fmt::print(", BLiMP {:.4f} of {} pairs", report.intact.blimp->all.accuracy(),
                 report.intact.blimp->all.pairs);
    fmt::print("\n{:<28}{:>7}  {:>9}  {:<32}{}\n", "units touched", "units", "loss", "as many at random",
               report.intact.blimp ? "    BLiMP  as many at random" : "");
    for (const LesionResult& lesion : report.lesions) {
      size_t units = 0;
      for (const Intervention& i : lesion.interventions) units += i.units.size();
      const auto loss = [&](const Score& s) { return s.loss - report.intact.loss; };
      fmt::print("{:<28}{:>7}  {:>+9.4f}  {:<32}", lesion.region, units, loss(lesion.lesioned),
                 spread(lesion.controls, loss));
      if (report.intact.blimp) {
        const auto accuracy = [&](const Score& s) {
          return s.blimp->all.accuracy() - report.intact.blimp->all.accuracy();
        };
        fmt::print("{:>+9.4f}  {}", accuracy(lesion.lesioned), spread(lesion.controls, accuracy));
      }
      fmt::print("\n");
    }
  }
}

nlohmann::json to_json(const LesionReport& report) {
  nlohmann::json lesions = nlohmann::json::array();
  for (const LesionResult& lesion : report.lesions) {
    nlohmann::json controls = nlohmann::json::array(), interventions = nlohmann::json::array();
    for (const Score& control : lesion.controls) controls.push_back(to_json(control));
    for (const Intervention& i : lesion.interventions)
      interventions.push_back({{"site", site_name(i.site)}, {"units", i.units}, {"gain", i.gain}});
    lesions.push_back({{"region", lesion.region},
                       {"interventions", interventions},
                       {"lesioned", to_json(lesion.lesioned)},
                       {"controls", controls}});
  }
  return {{"model", report.model},
          {"tokens", report.tokens},
          {"intact", to_json(report.intact)},
          {"lesions", lesions}};
}

void print_blimp(const std::vector<std::string>& models, const std::vector<BlimpResult>& results) {
  fmt::print("\n{:<34}", "BLiMP accuracy");
  for (const std::string& model : models) fmt::print("{:>20}", model);
  fmt::print("\n");
  for (const auto& [phenomenon, of_first] : results[0].by_phenomenon) {
    fmt::print("{:<34}", phenomenon);
    for (const BlimpResult& result : results)
      fmt::print("{:>18.4f}", result.by_phenomenon.at(phenomenon).accuracy());
    fmt::print("   {} pairs\n", of_first.pairs);
  }
  fmt::print("{:<34}", "all");
  for (const BlimpResult& result : results) fmt::print("{:>18.4f}", result.all.accuracy());
  fmt::print("   {} pairs\n", results[0].all.pairs);
}

nlohmann::json to_json(const BlimpResult& result) {
  nlohmann::json phenomena, uids;
  for (const auto& [name, score] : result.by_phenomenon) phenomena[name] = score.accuracy();
  for (const auto& [name, score] : result.by_uid) uids[name] = score.accuracy();
  return {{"pairs", result.all.pairs},
          {"accuracy", result.all.accuracy()},
          {"by_phenomenon", phenomena},
          {"by_uid", uids}};
}

}  // namespace topolm
