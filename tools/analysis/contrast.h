// Maps of a contrast: at each cell of a sheet, how much more one group of stimuli drives it than another.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tools/analysis/readout.h"
#include "tools/analysis/statistics.h"

namespace topolm {

struct ContrastMap {
  std::vector<double> t, p;  // [cells]: Welch's t and its two-sided p, not adjusted
};

/// One site's responses to a group of stimuli: for each stimulus a value a unit.
using StimulusResponses = std::span<const std::span<const float>>;

/// A site's responses to two groups of stimuli, made ready for maps by any number of readouts. Keeps nothing
/// of what it is made from.
class ContrastResponses {
 public:
  /// Throws Error when a group has fewer than two stimuli, numbers of units differ, or a value is not finite.
  ContrastResponses(StimulusResponses positive, StimulusResponses negative);

  /// Welch's t test of positive minus negative at each cell of their readouts: each stimulus's responses are
  /// sampled before any statistic.
  ContrastMap map(const Readout& readout) const;
  /// Its t alone: p takes longer.
  std::vector<double> t_map(const Readout& readout) const;

 private:
  struct Group {
    Group(StimulusResponses responses, size_t units);
    /// Of the group's readouts, at each cell. Sampling is linear: their means are the sampled means, their
    /// deviations the sampled deviations.
    std::vector<Sample> sample(const Readout& readout) const;

    int64_t n;
    std::vector<double> mean;        // [units]
    std::vector<double> deviations;  // [(n + 7) / 8][units][8 stimuli], 0 where there are no more
  };
  Group positive_, negative_;
};

/// The map of one readout.
ContrastMap contrast_map(const Readout& readout, StimulusResponses positive, StimulusResponses negative);

}  // namespace topolm
