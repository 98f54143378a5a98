// The atlas as the page wants it (page.h).
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "tools/atlas/atlas.h"
#include "tools/atlas/page.h"

namespace topolm {

namespace {

using nlohmann::json;

constexpr std::array<double, 3> kLevels = {0.05, 0.01, 0.001};
constexpr double kMost = std::numeric_limits<int16_t>::max();

/// Values as 16-bit integers and their scale: an error of at most a 65,000th of the largest.
json scaled(const std::vector<double>& values) {
  double most = 0;
  for (const double x : values) most = std::max(most, std::abs(x));
  const double scale = most > 0 ? most / kMost : 1;
  std::vector<int16_t> integers;
  for (const double x : values) integers.push_back(static_cast<int16_t>(std::lround(x / scale)));
  return {{"scale", scale}, {"data", blob(integers)}};
}

void mark(std::span<int8_t> cells, const std::vector<Cluster>& clusters, int sign) {
  for (size_t i = 0; i < clusters.size(); ++i)
    for (const int32_t cell : clusters[i].cells)
      cells[static_cast<size_t>(cell)] =
          static_cast<int8_t>(sign * static_cast<int>(std::min<size_t>(i + 1, 127)));
}

json checkpoint_data(const CheckpointAtlas& checkpoint) {
  std::vector<double> t;
  std::vector<uint8_t> level;
  std::vector<int8_t> cluster;
  json moran = json::array();
  for (const auto& contrast : checkpoint.maps) {
    json readouts = json::array();
    for (const auto& sites : contrast) {
      json of_sites = json::array();
      for (const SiteMap& map : sites) {
        t.insert(t.end(), map.t.begin(), map.t.end());
        for (const double q : map.q)
          level.push_back(static_cast<uint8_t>(
              std::count_if(kLevels.begin(), kLevels.end(), [q](double bound) { return q < bound; })));
        const size_t begin = cluster.size();
        cluster.resize(begin + map.t.size());
        mark(std::span(cluster).subspan(begin), map.positive, 1);
        mark(std::span(cluster).subspan(begin), map.negative, -1);
        of_sites.push_back(map.moran);
      }
      readouts.push_back(of_sites);
    }
    moran.push_back(readouts);
  }
  return {{"step", checkpoint.step},
          {"t", scaled(t)},
          {"level", blob(level)},
          {"cluster", blob(cluster)},
          {"moran", moran}};
}

struct Condition {
  size_t set;
  std::string name;
};

/// [conditions][sites][cells], the mean over a condition's items.
std::vector<double> mean_responses(const Atlas& atlas, const ModelAtlas& model,
                                   const std::vector<Condition>& conditions) {
  std::vector<double> values;
  for (const Condition& condition : conditions)
    for (size_t s = 0; s < model.sheets.size(); ++s) {
      std::vector<double> mean(static_cast<size_t>(model.config.n_embd));
      double count = 0;
      const auto& items = atlas.plan.sets[condition.set].items;
      for (size_t i = 0; i < items.size(); ++i) {
        if (items[i].condition != condition.name) continue;
        const auto x = model.responses[condition.set].of(static_cast<int64_t>(i), static_cast<int64_t>(s));
        for (size_t u = 0; u < mean.size(); ++u) mean[u] += static_cast<double>(x[u]);
        ++count;
      }
      for (int r = 0; r < atlas.rows(); ++r)
        for (int c = 0; c < atlas.cols(); ++c)
          values.push_back(mean[static_cast<size_t>(model.sheets[s].unit_at(r, c))] / count);
    }
  return values;
}

json model_data(const Atlas& atlas, const ModelAtlas& model, const std::vector<Condition>& conditions) {
  std::vector<int16_t> unit;
  std::vector<uint16_t> strongest;
  std::vector<double> strongest_value;
  const auto k = static_cast<size_t>(model.strongest.k), units = static_cast<size_t>(model.config.n_embd);
  for (size_t s = 0; s < model.sheets.size(); ++s)
    for (int r = 0; r < atlas.rows(); ++r)
      for (int c = 0; c < atlas.cols(); ++c) {
        const int32_t u = model.sheets[s].unit_at(r, c);
        unit.push_back(static_cast<int16_t>(u));
        for (size_t i = 0; i < k; ++i) {
          const size_t at = (s * units + static_cast<size_t>(u)) * k + i;
          strongest.push_back(model.strongest.positions[at]);
          strongest_value.push_back(static_cast<double>(model.strongest.values[at]));
        }
      }
  json checkpoints = json::array();
  for (const CheckpointAtlas& checkpoint : model.checkpoints)
    checkpoints.push_back(checkpoint_data(checkpoint));
  std::string note =
      fmt::format("{} steps, alpha {}", model.last().step, fmt::join(model.config.topography.alpha, " "));
  if (model.task_loss) note += fmt::format(", task loss {:.3f}", *model.task_loss);
  return {{"name", model.name},
          {"path", model.last().path.string()},
          {"note", note},
          {"unit", blob(unit)},
          {"checkpoints", checkpoints},
          {"response", scaled(mean_responses(atlas, model, conditions))},
          {"tokens", model.token_texts},
          {"strongest", blob(strongest)},
          {"strongest_value", scaled(strongest_value)}};
}

}  // namespace

json page_data(const Atlas& atlas) {
  const AtlasPlan& plan = atlas.plan;
  std::vector<Condition> conditions;
  json sites = json::array(), condition_list = json::array(), contrasts = json::array(),
       models = json::array();
  for (size_t s = 0; s < atlas.sites(); ++s) sites.push_back(site_name(static_cast<int>(s)));
  for (size_t set = 0; set < plan.sets.size(); ++set)
    for (const auto& [name, count] : plan.sets[set].conditions()) {
      const auto example = std::find_if(plan.sets[set].items.begin(), plan.sets[set].items.end(),
                                        [&, &name = name](const Stimulus& s) { return s.condition == name; });
      conditions.push_back({set, name});
      condition_list.push_back(
          {{"name", name}, {"set", plan.sets[set].name}, {"items", count}, {"example", example->text}});
    }
  for (const PlannedContrast& c : plan.contrasts)
    contrasts.push_back({{"name", c.contrast.name},
                         {"set", plan.sets[c.set].name},
                         {"positive", c.contrast.positive},
                         {"negative", c.contrast.negative}});
  for (const ModelAtlas& model : atlas.models) models.push_back(model_data(atlas, model, conditions));
  std::string title = "Atlas of";
  for (const ModelAtlas& model : atlas.models)
    title += (&model == &atlas.models[0] ? " " : ", ") + model.name;
  return {{"format", 1},
          {"title", title},
          {"command", plan.command},
          {"rows", atlas.rows()},
          {"cols", atlas.cols()},
          {"sites", sites},
          {"fwhm", plan.fwhm},
          {"levels", kLevels},
          {"conditions", condition_list},
          {"contrasts", contrasts},
          {"models", models}};
}

}  // namespace topolm
