// Response profiles: how strongly the units that a localizer found respond to each condition (TopoLM, section
// 4.3; reference/topolm.md E6 and E7 say what the published code does otherwise).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "model/topography.h"
#include "tools/analysis/responses.h"
#include "tools/analysis/statistics.h"
#include "tools/analysis/stimuli.h"

namespace topolm {

/// One condition's bar: the mean magnitude of responses and its 95 % interval by Student's t.
struct Profile {
  std::string condition;
  MeanInterval response;
  int64_t values;  // that the mean is over
};

/// Of the whole network: a value a stimulus and site, the mean of |response| over the site's units in
/// `selected` (a list a site, such as LocalizerMap::selective_units()). Sites without any have no value.
/// responses: to the items of `set`, in their order. In order of the conditions' names; empty when no unit is
/// selected. Throws Error when responses, stimuli and units do not belong together.
std::vector<Profile> network_profile(const Responses& responses, const StimulusSet& set,
                                     const std::vector<std::vector<int32_t>>& selected);

/// Of one cluster of a site, `units`: a value a stimulus, the mean over the cluster of |response|, responses
/// being sampled by a readout of this fwhm first (the paper: 1; 0: as they are). The published code divides
/// by all cells of the sheet instead: its value is this one times cluster size / cells.
std::vector<Profile> cluster_profile(const Responses& responses, const StimulusSet& set, int site,
                                     const Sheet& sheet, std::span<const int32_t> units, double fwhm = 0);

}  // namespace topolm
