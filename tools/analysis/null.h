// The null that a map's smoothness is measured against. Readouts smooth: even where units lie in no order,
// maps of sampled responses have a Moran's I above 0 (at FWHM 2 above 0.5).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/parallel.h"
#include "tools/analysis/contrast.h"
#include "tools/analysis/moran.h"

namespace topolm {

/// Moran's I of a contrast, mean over the sites, as it would be if the units lay at random.
struct MoranNull {
  std::vector<double> draws;
  double mean = 0, sd = 0;   // of the draws; sd as of a sample
  double low = 0, high = 0;  // their 2.5 % and 97.5 % quantiles, interpolated linearly as NumPy does
};

/// Each draw gives the units of every site new places, the same for both groups, samples them by `fwhm`, and
/// maps the contrast again. sites: one for each sheet. The places of draw k at a site are a function of
/// (seed, k, site). Throws Error when there are no draws or no sites.
MoranNull kernel_matched_null(std::span<const Sheet> sheets, std::span<const ContrastResponses> sites,
                              double fwhm, int draws, uint64_t seed, const MoranOptions& options = {},
                              ThreadPool* pool = nullptr);

}  // namespace topolm
