// Regions of sheets, as words on the command line: what --lesion and --drive act on.
//
//   h.3.mlp:disk(12,9,4)      units of the site within 4 spacings (Euclidean) of row 12, column 9
//   h.3.mlp:cluster(2)        cluster 2 of that site, numbered from 1 as an atlas.json prints them
//   h.3.mlp:top(50)           its 50 units of largest t in the atlas's localizer
//   all:top(1000)             the same over all sites together
//   all:random(1000,7)        as many units at random, from seed 7, outside of what the localizer found
//                             positive
//   h.3.mlp:units(3,17,20)    by number
//   h.3.mlp:all               every unit
//   all:all                   every unit of every site
//
// "all" before a disk, a cluster or units means the same ones of each site (of those that have the cluster).
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/intervention.h"
#include "model/topography.h"

namespace topolm {

/// What an atlas knows of a model's localizer; regions by cluster or selectivity need it.
struct LocalizerMap {
  std::vector<std::vector<double>> t, q;                    // [sites][units], in order of units
  std::vector<std::vector<std::vector<int32_t>>> clusters;  // [sites][clusters][units]
  double significance = 0.05;                               // bound of q

  /// Whether the localizer found the unit: q < significance and t > 0.
  bool selective(size_t site, int32_t unit) const {
    const auto u = static_cast<size_t>(unit);
    return q[site][u] < significance && t[site][u] > 0;
  }
  /// The units it found, a list a site.
  std::vector<std::vector<int32_t>> selective_units() const;

  /// From an atlas.json; `model` names one of its models (empty: the first). Throws Error when it is damaged,
  /// another kind of file, or of other sheets.
  static LocalizerMap load(const std::string& atlas_json, const std::string& model,
                           const std::vector<Sheet>& sheets);
};

/// Each Intervention has gain `gain`, or what "*GAIN" at the end of the text says; one a site that has units
/// in the region. Throws Error with one sentence that quotes the text.
std::vector<Intervention> parse_region(const std::string& text, const std::vector<Sheet>& sheets,
                                       const std::optional<LocalizerMap>& localizer, float gain);

/// As many units in each site, drawn at random from those outside the interventions: the control of a lesion.
/// Each unit's gains go to the one drawn for it. A function of the interventions, the seed and the site.
/// Throws Error when a site has too few units left.
std::vector<Intervention> random_control(const std::vector<Intervention>& interventions,
                                         const std::vector<Sheet>& sheets, uint64_t seed);

/// "49 of 1568 units: h.3.mlp 49": how many distinct units the interventions act on, of all and a site.
std::string describe(std::span<const Intervention> interventions, const std::vector<Sheet>& sheets);

}  // namespace topolm
