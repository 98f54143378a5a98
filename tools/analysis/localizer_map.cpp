// atlas.json -> LocalizerMap. What it reads:
//
//   {"format": "topolm-atlas 1", "models": [{"name": "...", "localizer": {"sites": [
//     {"site": "h.0.attn", "t": [one a unit], "q": [one a unit], "clusters": [[units], ...]}, ...]}}, ...]}
#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "engine/error.h"
#include "engine/file.h"
#include "tools/analysis/regions.h"

namespace topolm {

namespace {

using nlohmann::json;

const json& choose_model(const std::string& path, const json& models, const std::string& name) {
  std::string names;
  for (const json& model : models) {
    if (name.empty() || model.at("name") == name) return model;
    names += (names.empty() ? "" : ", ") + model.at("name").get<std::string>();
  }
  fail("'{}' has no model '{}'; it has {}", path, name, names.empty() ? "none" : names);
}

std::vector<double> values(const std::string& path, const json& site, const char* key, size_t units) {
  auto v = site.at(key).get<std::vector<double>>();
  require(v.size() == units, "'{}' is of another model: its {} has {} values of {}, this model {} units",
          path, site.at("site").get<std::string>(), v.size(), key, units);
  return v;
}

std::vector<std::vector<int32_t>> clusters(const std::string& path, const json& site, size_t units) {
  std::vector<std::vector<int32_t>> all;
  for (const json& cluster : site.at("clusters")) {
    std::vector<int32_t>& members = all.emplace_back();
    for (const json& member : cluster) {
      // Wider than a unit's number: what is too large shall be seen, not cut off.
      const auto unit = member.get<int64_t>();
      require(member.is_number_integer() && unit >= 0 && unit < static_cast<int64_t>(units),
              "'{}' is damaged: cluster {} of {} has a unit {}, but units are 0 to {}", path, all.size(),
              site.at("site").get<std::string>(), member.dump(), units - 1);
      members.push_back(static_cast<int32_t>(unit));
    }
  }
  return all;
}

LocalizerMap read(const std::string& path, const json& atlas, const std::string& name,
                  const std::vector<Sheet>& sheets) {
  require(atlas.is_object() && atlas.contains("format") && atlas.at("format") == "topolm-atlas 1",
          "'{}' is not an atlas; give the atlas.json that ./atlas writes", path);
  const json& model = choose_model(path, atlas.at("models"), name);
  require(model.contains("localizer"), "'{}' has no localizer of its model '{}'", path,
          model.at("name").get<std::string>());
  const json& sites = model.at("localizer").at("sites");
  require(sites.size() == sheets.size(), "'{}' is of another model: it has {} sites, this model {}", path,
          sites.size(), sheets.size());
  LocalizerMap map;
  map.significance = model.at("localizer").value("significance", map.significance);
  for (size_t i = 0; i < sheets.size(); ++i) {
    const std::string expected = site_name(static_cast<int>(i));
    const json& site = sites.at(i);
    require(site.at("site") == expected, "'{}' is damaged: its site {} is {}, not {}", path, i,
            site.at("site").dump(), expected);
    const size_t units = sheets[i].positions().size();
    map.t.push_back(values(path, site, "t", units));
    map.q.push_back(values(path, site, "q", units));
    map.clusters.push_back(clusters(path, site, units));
  }
  return map;
}

}  // namespace

std::vector<std::vector<int32_t>> LocalizerMap::selective_units() const {
  std::vector<std::vector<int32_t>> all(t.size());
  for (size_t site = 0; site < t.size(); ++site)
    for (int32_t unit = 0; unit < std::ssize(t[site]); ++unit)
      if (selective(site, unit)) all[site].push_back(unit);
  return all;
}

LocalizerMap LocalizerMap::load(const std::string& atlas_json, const std::string& model,
                                const std::vector<Sheet>& sheets) {
  const std::string text = read_file(atlas_json);
  try {
    return read(atlas_json, json::parse(text), model, sheets);
  } catch (const json::exception& e) {
    fail("'{}' is damaged or not an atlas ({}); make it again with ./atlas", atlas_json, e.what());
  }
}

}  // namespace topolm
