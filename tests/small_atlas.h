// An atlas.json of a model of four sites with 6x6 units, as ./atlas would write its localizer.
#pragma once

#include <nlohmann/json.hpp>

#include "model/config.h"

namespace topolm::test {

using nlohmann::json;

constexpr int kRows = 6, kCols = 6, kUnits = kRows * kCols, kSites = 4;

/// t falls with the unit's number and rises with the site; the first half of the units is significant. Site 1
/// has two clusters, site 2 one.
inline json localizer_json() {
  json sites = json::array();
  for (int site = 0; site < kSites; ++site) {
    json t, q;
    for (int unit = 0; unit < kUnits; ++unit) {
      t.push_back(10 + 0.25 * site - unit);
      q.push_back(unit < kUnits / 2 ? 0.01 : 0.5);
    }
    json clusters = json::array();
    if (site == 1) clusters = {{3, 1, 2}, {9, 8}};
    if (site == 2) clusters = {{5, 4}};
    sites.push_back({{"site", site_name(site)}, {"t", t}, {"q", q}, {"clusters", clusters}});
  }
  return {{"contrast", "sentence-nonword"}, {"fwhm", 2.0}, {"sites", sites}};
}
inline json atlas_json() {
  json other = localizer_json();
  other["sites"][0]["t"][35] = 99;
  return {{"format", "topolm-atlas 1"},
          {"models",
           {{{"name", "topographic"}, {"localizer", localizer_json()}},
            {{"name", "control"}, {"localizer", other}}}}};
}

}  // namespace topolm::test
