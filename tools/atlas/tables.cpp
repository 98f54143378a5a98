// atlas.json and the CSV tables.
#include <fmt/format.h>

#include <iterator>
#include <map>
#include <string_view>

#include "tools/atlas/atlas.h"

namespace topolm {

namespace {

using nlohmann::json;

json to_json(const MeanInterval& m) { return {{"mean", m.mean}, {"low", m.low}, {"high", m.high}}; }

json to_json(const Cluster& cluster, int number, int sign, const Sheet& sheet) {
  json units = json::array();
  for (const int32_t cell : cluster.cells)
    units.push_back(sheet.unit_at(cell / sheet.cols(), cell % sheet.cols()));
  return {{"number", number},
          {"sign", sign},
          {"size", cluster.cells.size()},
          {"peak", {cluster.cells[0] / sheet.cols(), cluster.cells[0] % sheet.cols()}},
          {"peak_t", cluster.peak_t},
          {"mean_t", cluster.mean_t},
          {"units", units}};
}

/// How many cells of a map are significant with this sign.
int64_t significant(const SiteMap& map, int sign, double alpha) {
  int64_t count = 0;
  for (size_t i = 0; i < map.t.size(); ++i) count += map.q[i] < alpha && sign * map.t[i] > 0;
  return count;
}

json readout_json(const Atlas& atlas, const ModelAtlas& model, size_t contrast, size_t fwhm) {
  json j = {{"fwhm", atlas.plan.fwhm[fwhm]}, {"moran", model.last().mean_moran(contrast, fwhm)}};
  if (!model.nulls.empty()) {
    const MoranNull& null = model.nulls[contrast][fwhm];
    j["null"] = {{"mean", null.mean},
                 {"sd", null.sd},
                 {"low", null.low},
                 {"high", null.high},
                 {"draws", null.draws.size()}};
  }
  const auto& maps = model.last().maps[contrast][fwhm];
  for (size_t s = 0; s < maps.size(); ++s) {
    json clusters = json::array();
    for (size_t i = 0; i < maps[s].positive.size(); ++i)
      clusters.push_back(to_json(maps[s].positive[i], static_cast<int>(i) + 1, 1, model.sheets[s]));
    for (size_t i = 0; i < maps[s].negative.size(); ++i)
      clusters.push_back(to_json(maps[s].negative[i], static_cast<int>(i) + 1, -1, model.sheets[s]));
    json site = {{"site", site_name(static_cast<int>(s))},
                 {"moran", maps[s].moran},
                 {"positive", significant(maps[s], 1, atlas.plan.clusters.alpha)},
                 {"negative", significant(maps[s], -1, atlas.plan.clusters.alpha)},
                 {"clusters", clusters}};
    if (!model.shuffled.empty()) site["moran_p"] = model.shuffled[contrast][fwhm][s].p;
    j["sites"].push_back(site);
  }
  return j;
}

json localizer_json(const Atlas& atlas, const ModelAtlas& model) {
  const LocalizerMap map = localizer_of(atlas.plan, model);
  json sites = json::array();
  for (size_t s = 0; s < map.t.size(); ++s)
    sites.push_back({{"site", site_name(static_cast<int>(s))},
                     {"t", map.t[s]},
                     {"q", map.q[s]},
                     {"clusters", map.clusters[s]}});
  return {{"contrast", atlas.plan.contrasts[0].contrast.name},
          {"fwhm", atlas.plan.fwhm[localizer_readout(atlas.plan)]},
          {"significance", map.significance},
          {"sites", sites}};
}

json model_json(const Atlas& atlas, const ModelAtlas& model) {
  const AtlasPlan& plan = atlas.plan;
  json contrasts = json::array(), history = json::array(), profiles = json::array(),
       distances = json::array();
  for (size_t c = 0; c < plan.contrasts.size(); ++c) {
    json readouts = json::array();
    for (size_t f = 0; f < plan.fwhm.size(); ++f) readouts.push_back(readout_json(atlas, model, c, f));
    contrasts.push_back({{"name", plan.contrasts[c].contrast.name}, {"readouts", readouts}});
  }
  for (const CheckpointAtlas& checkpoint : model.checkpoints) {
    json moran = json::array();
    for (size_t c = 0; c < plan.contrasts.size(); ++c) {
      json readouts = json::array();
      for (size_t f = 0; f < plan.fwhm.size(); ++f) readouts.push_back(checkpoint.mean_moran(c, f));
      moran.push_back(readouts);
    }
    history.push_back({{"step", checkpoint.step}, {"moran", moran}});
  }
  for (size_t set = 0; set < model.profiles.size(); ++set)
    for (const Profile& profile : model.profiles[set])
      profiles.push_back({{"set", plan.sets[set].name},
                          {"condition", profile.condition},
                          {"response", to_json(profile.response)},
                          {"values", profile.values}});
  json cluster_profiles = json::array();
  for (const ClusterResponse& cluster : model.cluster_responses)
    for (const Profile& profile : cluster.conditions)
      cluster_profiles.push_back({{"site", site_name(static_cast<int>(cluster.site))},
                                  {"number", cluster.number},
                                  {"set", plan.sets[cluster.set].name},
                                  {"condition", profile.condition},
                                  {"response", to_json(profile.response)},
                                  {"values", profile.values}});
  for (const PairMean& at : model.by_distance[0]) {
    double mean = 0;
    const auto d = static_cast<size_t>(&at - model.by_distance[0].data());
    for (const auto& site : model.by_distance)
      mean += site[d].correlation / static_cast<double>(atlas.sites());
    distances.push_back({{"distance", at.distance}, {"pairs", at.pairs}, {"correlation", mean}});
  }
  json j = {{"name", model.name},
            {"checkpoint", model.last().path.string()},
            {"step", model.last().step},
            {"localizer", localizer_json(atlas, model)},
            {"contrasts", contrasts},
            {"history", history},
            {"profiles", profiles},
            {"cluster_profiles", cluster_profiles},
            {"effective_dimensionality", model.dimensionality},
            {"correlation_by_distance", distances}};
  if (model.task_loss) j["task_loss"] = *model.task_loss;
  return j;
}

/// A field of a CSV, quoted when it must be.
std::string field(std::string_view text) {
  if (text.find_first_of(",\"\n") == text.npos) return std::string(text);
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + '"';
}

/// Calls `visit` for each map of the last checkpoints.
template <class F>
void for_each_map(const Atlas& atlas, F&& visit) {
  for (const ModelAtlas& model : atlas.models)
    for (size_t c = 0; c < atlas.plan.contrasts.size(); ++c)
      for (size_t f = 0; f < atlas.plan.fwhm.size(); ++f)
        for (size_t s = 0; s < atlas.sites(); ++s) visit(model, c, f, s, model.last().maps[c][f][s]);
}

}  // namespace

json atlas_json(const Atlas& atlas) {
  const AtlasPlan& plan = atlas.plan;
  json sets = json::array(), contrasts = json::array(), models = json::array();
  for (const StimulusSet& set : plan.sets)
    sets.push_back({{"name", set.name}, {"conditions", set.conditions()}});
  for (const PlannedContrast& c : plan.contrasts)
    contrasts.push_back({{"name", c.contrast.name},
                         {"set", plan.sets[c.set].name},
                         {"positive", c.contrast.positive},
                         {"negative", c.contrast.negative}});
  for (const ModelAtlas& model : atlas.models) models.push_back(model_json(atlas, model));
  return {{"format", "topolm-atlas 1"}, {"command", plan.command},
          {"rows", atlas.rows()},       {"cols", atlas.cols()},
          {"seed", plan.seed},          {"significance", plan.clusters.alpha},
          {"fwhm", plan.fwhm},          {"sets", sets},
          {"contrasts", contrasts},     {"models", models}};
}

void write_tables(const fs::path& directory, const Atlas& atlas) {
  const AtlasPlan& plan = atlas.plan;
  const auto place = [&](const ModelAtlas& model, size_t c, size_t f, size_t s) {
    return fmt::format("{},{},{},{}", field(model.name), field(plan.contrasts[c].contrast.name), plan.fwhm[f],
                       site_name(static_cast<int>(s)));
  };

  std::string moran = "model,step,contrast,fwhm,site,moran\n";
  for (const ModelAtlas& model : atlas.models)
    for (const CheckpointAtlas& checkpoint : model.checkpoints)
      for (size_t c = 0; c < plan.contrasts.size(); ++c)
        for (size_t f = 0; f < plan.fwhm.size(); ++f)
          for (size_t s = 0; s < atlas.sites(); ++s)
            moran += fmt::format("{},{},{},{},{},{}\n", field(model.name), checkpoint.step,
                                 field(plan.contrasts[c].contrast.name), plan.fwhm[f],
                                 site_name(static_cast<int>(s)), checkpoint.maps[c][f][s].moran);
  write_file(directory / "moran.csv", moran);

  std::string clusters = "model,contrast,fwhm,site,sign,number,size,peak_row,peak_col,peak_t,mean_t\n";
  std::string maps = "model,contrast,fwhm,site,row,col,unit,t,q\n";
  for_each_map(atlas, [&](const ModelAtlas& model, size_t c, size_t f, size_t s, const SiteMap& map) {
    const Sheet& sheet = model.sheets[s];
    const auto list = [&](const std::vector<Cluster>& grown, char sign) {
      for (size_t i = 0; i < grown.size(); ++i)
        fmt::format_to(std::back_inserter(clusters), "{},{},{},{},{},{},{},{}\n", place(model, c, f, s), sign,
                       i + 1, grown[i].cells.size(), grown[i].cells[0] / sheet.cols(),
                       grown[i].cells[0] % sheet.cols(), grown[i].peak_t, grown[i].mean_t);
    };
    list(map.positive, '+');
    list(map.negative, '-');
    for (int cell = 0; cell < std::ssize(map.t); ++cell)
      fmt::format_to(std::back_inserter(maps), "{},{},{},{},{:.6g},{:.6g}\n", place(model, c, f, s),
                     cell / sheet.cols(), cell % sheet.cols(),
                     sheet.unit_at(cell / sheet.cols(), cell % sheet.cols()),
                     map.t[static_cast<size_t>(cell)], map.q[static_cast<size_t>(cell)]);
  });
  write_file(directory / "clusters.csv", clusters);
  write_file(directory / "maps.csv", maps);

  std::string profiles = "model,set,condition,mean,low,high,values\n";
  for (const ModelAtlas& model : atlas.models)
    for (size_t set = 0; set < model.profiles.size(); ++set)
      for (const Profile& p : model.profiles[set])
        profiles +=
            fmt::format("{},{},{},{},{},{},{}\n", field(model.name), field(plan.sets[set].name),
                        field(p.condition), p.response.mean, p.response.low, p.response.high, p.values);
  write_file(directory / "profiles.csv", profiles);

  std::string responses = "model,site,number,set,condition,mean,low,high,values\n";
  for (const ModelAtlas& model : atlas.models)
    for (const ClusterResponse& cluster : model.cluster_responses)
      for (const Profile& p : cluster.conditions)
        responses += fmt::format("{},{},{},{},{},{},{},{},{}\n", field(model.name),
                                 site_name(static_cast<int>(cluster.site)), cluster.number,
                                 field(plan.sets[cluster.set].name), field(p.condition), p.response.mean,
                                 p.response.low, p.response.high, p.values);
  write_file(directory / "cluster_profiles.csv", responses);
}

}  // namespace topolm
