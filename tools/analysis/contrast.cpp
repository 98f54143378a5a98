#include "tools/analysis/contrast.h"

#include <cmath>

#include "engine/error.h"

namespace topolm {

namespace {

constexpr size_t kLanes = Readout::kLanes;

}  // namespace

ContrastResponses::Group::Group(StimulusResponses responses, size_t units)
    : n(std::ssize(responses)), mean(units) {
  require(n >= 2, "a contrast needs at least two stimuli a group; this one has {}", n);
  for (const auto response : responses)
    require(response.size() == units && units > 0,
            "responses of {} and of {} units do not make a contrast: they are of different sites", units,
            response.size());
  deviations.resize((responses.size() + kLanes - 1) / kLanes * units * kLanes);
  for (size_t unit = 0; unit < units; ++unit) {
    // From the first stimulus on: a unit that does not vary then has no deviation out of rounding.
    const double first = responses[0][unit];
    double shift = 0, squares = 0;
    for (const auto response : responses) shift += (response[unit] - first) / static_cast<double>(n);
    mean[unit] = first + shift;
    for (size_t i = 0; i < responses.size(); ++i) {
      double& deviation = deviations[(i / kLanes * units + unit) * kLanes + i % kLanes];
      deviation = responses[i][unit] - mean[unit];
      squares += deviation * deviation;
    }
    require(std::isfinite(squares), "the response of unit {} to some stimulus is not a finite number", unit);
  }
}

std::vector<Sample> ContrastResponses::Group::sample(const Readout& readout) const {
  const auto cells = static_cast<size_t>(readout.cells());
  std::vector<double> means(cells), squares(cells), maps(cells * kLanes);
  readout.sample(means, mean);
  const size_t block = mean.size() * kLanes;
  for (size_t i = 0; i < deviations.size(); i += block) {
    readout.sample_lanes(maps, std::span(deviations).subspan(i, block));
    for (size_t cell = 0; cell < cells; ++cell)
      for (size_t lane = 0; lane < kLanes; ++lane)
        squares[cell] += maps[cell * kLanes + lane] * maps[cell * kLanes + lane];
  }
  std::vector<Sample> samples;
  for (size_t cell = 0; cell < cells; ++cell)
    samples.push_back({n, means[cell], squares[cell] / static_cast<double>(n - 1)});
  return samples;
}

ContrastResponses::ContrastResponses(StimulusResponses positive, StimulusResponses negative)
    : positive_(positive, positive.empty() ? 0 : positive[0].size()),
      negative_(negative, positive_.mean.size()) {}

ContrastMap ContrastResponses::map(const Readout& readout) const {
  const auto a = positive_.sample(readout), b = negative_.sample(readout);
  ContrastMap map;
  for (size_t cell = 0; cell < a.size(); ++cell) {
    const WelchTest test = welch_test(a[cell], b[cell]);
    map.t.push_back(test.t);
    map.p.push_back(test.p);
  }
  return map;
}

std::vector<double> ContrastResponses::t_map(const Readout& readout) const {
  const auto a = positive_.sample(readout), b = negative_.sample(readout);
  std::vector<double> t;
  for (size_t cell = 0; cell < a.size(); ++cell) t.push_back(welch_t(a[cell], b[cell]));
  return t;
}

ContrastMap contrast_map(const Readout& readout, StimulusResponses positive, StimulusResponses negative) {
  return ContrastResponses(positive, negative).map(readout);
}

}  // namespace topolm
