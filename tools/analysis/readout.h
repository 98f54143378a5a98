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
  /// places.
  Readout(const Sheet& sheet, double fwhm);

  int cells() const { return sheet_.rows() * sheet_.cols(); }
  /// map[cell] = sum over units u of x_u exp(-|p_u - p_cell|^2 / (2 sigma^2)) / (2 pi sigma^2), sigma = fwhm
  /// / sqrt(8 ln 2); no truncation and no correction at the edges. map: cells() long; responses: one a unit.
  void sample(std::span<double> map, std::span<const float> responses) const;

 private:
  Sheet sheet_;
  std::vector<double> rows_, cols_;  // the kernel is a product of one over rows and one over columns
};

}  // namespace topolm
