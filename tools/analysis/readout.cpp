#include "tools/analysis/readout.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "engine/error.h"

namespace topolm {

namespace {

/// [n, n]: the weight at each place of each other place along one side of the sheet.
std::vector<double> gaussian(int n, double sigma) {
  std::vector<double> weights;
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j)
      weights.push_back(std::exp(-(i - j) * (i - j) / (2 * sigma * sigma)) /
                        (std::sqrt(2 * std::numbers::pi) * sigma));
  return weights;
}

}  // namespace

Readout::Readout(const Sheet& sheet, double fwhm) : sheet_(sheet) {
  require(fwhm == 0 || (fwhm >= 0.01 && fwhm <= 1000),
          "a readout's full width at half maximum is 0 (none) or from 0.01 to 1000 unit spacings, not {}",
          fwhm);
  if (fwhm == 0) return;
  const double sigma = fwhm / std::sqrt(8 * std::numbers::ln2);
  reach_ = static_cast<size_t>(sigma * std::sqrt(2 * 30 * std::numbers::ln10));
  rows_ = gaussian(sheet.rows(), sigma);
  cols_ = gaussian(sheet.cols(), sigma);
}

template <size_t lanes, class T>
void Readout::sample_as(std::span<double> maps, std::span<const T> responses) const {
  const auto rows = static_cast<size_t>(sheet_.rows()), cols = static_cast<size_t>(sheet_.cols());
  require(maps.size() == rows * cols * lanes && responses.size() == maps.size(),
          "{} responses and a map of {} cells do not belong to a sheet of {}x{}", responses.size() / lanes,
          maps.size() / lanes, rows, cols);
  std::vector<double> placed(maps.size()), along(rows_.empty() ? 0 : maps.size());
  for (size_t cell = 0; cell < rows * cols; ++cell) {
    const auto unit =
        static_cast<size_t>(sheet_.unit_at(static_cast<int>(cell / cols), static_cast<int>(cell % cols)));
    for (size_t lane = 0; lane < lanes; ++lane) placed[cell * lanes + lane] = responses[unit * lanes + lane];
  }
  if (rows_.empty()) {
    std::copy(placed.begin(), placed.end(), maps.begin());
    return;
  }
  // out = sum_k weights[k] in[k * stride] over the places k within reach of `place`, lane by lane: the sums
  // stay in registers.
  const auto weigh = [&](double* out, const double* weights, const double* in, size_t place, size_t n,
                         size_t stride) {
    double sums[lanes] = {};
    const size_t end = std::min(n, place + reach_ + 1);
    for (size_t k = place - std::min(place, reach_); k < end; ++k)
      for (size_t lane = 0; lane < lanes; ++lane) sums[lane] += weights[k] * in[k * stride * lanes + lane];
    std::copy(sums, sums + lanes, out);
  };
  for (size_t row = 0; row < rows; ++row)
    for (size_t col = 0; col < cols; ++col)
      weigh(&along[(row * cols + col) * lanes], &cols_[col * cols], &placed[row * cols * lanes], col, cols,
            1);
  for (size_t row = 0; row < rows; ++row)
    for (size_t col = 0; col < cols; ++col)
      weigh(&maps[(row * cols + col) * lanes], &rows_[row * rows], &along[col * lanes], row, rows, cols);
}

void Readout::sample(std::span<double> map, std::span<const float> responses) const {
  sample_as<1>(map, responses);
}

void Readout::sample(std::span<double> map, std::span<const double> responses) const {
  sample_as<1>(map, responses);
}

void Readout::sample_lanes(std::span<double> maps, std::span<const double> responses) const {
  sample_as<kLanes>(maps, responses);
}

}  // namespace topolm
