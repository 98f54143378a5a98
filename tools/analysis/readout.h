// What a scanner would see of a sheet: each voxel adds up the units around it with Gaussian weights (TopoLM,
// section 4.2). Maps here and everywhere in tools/analysis are row-major over the sheet: cell = row * cols +
// col.
#pragma once

#include <span>
#include <vector>

#include "model/topography.h"

namespace topolm {

class Readout {
 public:
  /// fwhm: full width at half maximum in unit spacings; 0 does not smooth, it only puts units in their
  /// places. Throws Error unless it is 0 or in [0.01, 1000].
  Readout(const Sheet& sheet, double fwhm);

  int cells() const { return sheet_.rows() * sheet_.cols(); }
  /// map[cell] = sum over units u of x_u exp(-|p_u - p_cell|^2 / (2 sigma^2)) / (2 pi sigma^2), sigma = fwhm
  /// / sqrt(8 ln 2); no truncation that a double could show, no correction at the edges. map: cells() long;
  /// responses: one a unit.
  void sample(std::span<double> map, std::span<const float> responses) const;
  void sample(std::span<double> map, std::span<const double> responses) const;

  /// Eight responses side by side make eight maps at once: a vector's work. [units][8] to [cells][8].
  static constexpr size_t kLanes = 8;
  void sample_lanes(std::span<double> maps, std::span<const double> responses) const;

 private:
  template <size_t lanes, class T>
  void sample_as(std::span<double> maps, std::span<const T> responses) const;

  Sheet sheet_;
  // The kernel is a product of one over rows and one over columns: [rows, rows] and [cols, cols], or neither.
  std::vector<double> rows_, cols_;
  size_t reach_ = 0;  // weights farther off are below 1e-30 of the largest: left out
};

}  // namespace topolm
