// How topographic a site has become: the correlations of its units, and how they fall with distance on the
// sheet. Everything in double on the host; for reports, not for training.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "model/config.h"
#include "model/topography.h"

namespace topolm {

/// Pearson correlation of each pair of a site's units: symmetric, 1 on the diagonal. A unit whose squared
/// deviation is below 1e-12 is constant, as in the spatial loss: its correlations are 0, with itself too.
class Correlations {
 public:
  /// activations: [rows, units], rows at least 1.
  Correlations(std::span<const float> activations, int64_t units);

  int64_t units() const { return units_; }
  double operator()(int64_t i, int64_t j) const { return values_[static_cast<size_t>(i * units_ + j)]; }

 private:
  int64_t units_;
  std::vector<double> values_;
};

/// The mean over some pairs of distinct units; zeros when there is no pair.
struct PairMean {
  double distance = 0;  // Euclidean, in unit spacings
  double correlation = 0;
  int64_t pairs = 0;
};

/// Over the pairs whose Euclidean distance on the sheet lies in [nearest, farthest].
PairMean mean_correlation(const Correlations& r, const Sheet& sheet, double nearest, double farthest);

/// Over the pairs at each distance, rounded to whole unit spacings: [0] holds distances 1 and sqrt(2), [1]
/// those that round to 2, ..., the last the sheet's diagonal.
std::vector<PairMean> correlation_by_distance(const Correlations& r, const Sheet& sheet);

/// The mean spatial loss, (1 - Pearson(r, 1/(1+distance))) / 2, over all neighborhoods whose whole block lies
/// on the sheet. In training a few of these are drawn.
double spatial_loss(const Correlations& r, const Sheet& sheet, const TopographyConfig& topography);

/// The three leading principal components of the standardised units.
struct PrincipalComponents {
  std::vector<std::array<double, 3>> loadings;  // [units]: correlation of the unit with each component
  std::array<double, 3> explained{};            // share of the units' variance
};

/// Deterministic; of each component the loading that is largest in magnitude is positive. Components whose
/// variances differ by less than a few per cent may come mixed: they span the same space.
PrincipalComponents principal_components(const Correlations& r);

}  // namespace topolm
