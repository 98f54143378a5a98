#include "model/sheet_statistics.h"

#include <algorithm>
#include <cmath>

#include "engine/error.h"
#include "engine/tensor.h"

namespace topolm {

namespace {

constexpr double kConstant =
    1e-12;  // squared deviation of a unit that does not vary; kernels.h says the same

using Vectors = std::vector<std::vector<double>>;

double distance(const Position& a, const Position& b) { return std::hypot(a.row - b.row, a.col - b.col); }

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// Makes the vectors orthonormal, first to last (Gram-Schmidt). What lies in the span of those before it
/// becomes zero: a matrix of low rank has no more directions to give.
void orthonormalise(Vectors& vectors) {
  for (size_t k = 0; k < vectors.size(); ++k) {
    const double before = std::sqrt(dot(vectors[k], vectors[k]));
    for (int pass = 0; pass < 2; ++pass)  // the second removes what rounding left of the first
      for (size_t j = 0; j < k; ++j) {
        const double overlap = dot(vectors[j], vectors[k]);
        for (size_t i = 0; i < vectors[k].size(); ++i) vectors[k][i] -= overlap * vectors[j][i];
      }
    const double norm = std::sqrt(dot(vectors[k], vectors[k]));
    for (double& x : vectors[k]) x = norm > 1e-9 * before ? x / norm : 0;
  }
}

std::vector<double> multiply(const Correlations& r, const std::vector<double>& x) {
  std::vector<double> y(x.size());
  for (int64_t i = 0; i < r.units(); ++i)
    for (int64_t j = 0; j < r.units(); ++j) y[static_cast<size_t>(j)] += r(i, j) * x[static_cast<size_t>(i)];
  return y;
}

}  // namespace

Correlations::Correlations(std::span<const float> activations, int64_t units)
    : units_(units), values_(static_cast<size_t>(units * units)) {
  const int64_t rows = div_exact(std::ssize(activations), units);
  require(rows > 0, "there are no activations to correlate");
  const auto n = static_cast<size_t>(units);
  std::vector<double> mean(n), row(n), deviation(n);
  for (size_t e = 0; e < activations.size(); ++e) mean[e % n] += activations[e] / static_cast<double>(rows);
  // The lower triangle of the Gram matrix of the centred units, as a sum of outer products of rows.
  for (const float* x = activations.data(); x != activations.data() + activations.size(); x += units) {
    for (size_t i = 0; i < n; ++i) row[i] = static_cast<double>(x[i]) - mean[i];
    for (size_t i = 0; i < n; ++i)
      for (size_t j = 0; j <= i; ++j) values_[i * n + j] += row[i] * row[j];
  }
  for (size_t i = 0; i < n; ++i)
    deviation[i] = values_[i * n + i] < kConstant ? 0 : std::sqrt(values_[i * n + i]);
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j <= i; ++j) {
      const double norm = deviation[i] * deviation[j];
      values_[i * n + j] = values_[j * n + i] = norm > 0 ? values_[i * n + j] / norm : 0;
    }
}

PairMean mean_correlation(const Correlations& r, const Sheet& sheet, double nearest, double farthest) {
  PairMean mean;
  for (int64_t i = 0; i < r.units(); ++i)
    for (int64_t j = 0; j < i; ++j) {
      const double d =
          distance(sheet.positions()[static_cast<size_t>(i)], sheet.positions()[static_cast<size_t>(j)]);
      if (d < nearest || d > farthest) continue;
      mean.distance += d;
      mean.correlation += r(i, j);
      ++mean.pairs;
    }
  if (mean.pairs == 0) return {};
  mean.distance /= static_cast<double>(mean.pairs);
  mean.correlation /= static_cast<double>(mean.pairs);
  return mean;
}

std::vector<PairMean> correlation_by_distance(const Correlations& r, const Sheet& sheet) {
  const long last = std::lround(std::hypot(sheet.rows() - 1, sheet.cols() - 1));
  std::vector<PairMean> means;
  // No distance lies on a border: (d + 1/2)^2 is no whole number.
  for (long d = 1; d <= last; ++d)
    means.push_back(mean_correlation(r, sheet, static_cast<double>(d) - 0.5, static_cast<double>(d) + 0.5));
  return means;
}

double spatial_loss(const Correlations& r, const Sheet& sheet, const TopographyConfig& topography) {
  const Neighborhoods neighborhoods(sheet.rows(), sheet.cols(), topography.radius);
  const std::vector<float> closeness = neighborhoods.distances(topography.distance);
  const auto n = static_cast<size_t>(neighborhoods.units());
  const double pairs = static_cast<double>(n) * static_cast<double>(n - 1) / 2;
  std::vector<int32_t> unit(n);
  double sum = 0;
  for (int index = 0; index < neighborhoods.count(); ++index) {
    neighborhoods.members(sheet, index, unit);
    double mean = 0, squares = 0, product = 0;
    for (size_t i = 0; i < n; ++i)
      for (size_t j = 0; j < i; ++j) mean += r(unit[i], unit[j]) / pairs;
    for (size_t i = 0; i < n; ++i)
      for (size_t j = 0; j < i; ++j) {
        const double deviation = r(unit[i], unit[j]) - mean;
        squares += deviation * deviation;
        product += deviation * closeness[i * n + j];  // already centred and of norm 1
      }
    const bool uniform = squares <= kConstant * pairs;  // such as no unit that varies: Pearson counts as 0
    sum += uniform ? 0.5 : (1 - product / std::sqrt(squares)) / 2;
  }
  return sum / neighborhoods.count();
}

PrincipalComponents principal_components(const Correlations& r) {
  // Orthogonal iteration: multiply, orthonormalise, repeat. Three more vectors than are wanted keep the third
  // from waiting for the fourth; they start as cosines, which no permutation of units is likely to be
  // orthogonal to.
  constexpr size_t kVectors = 6, kIterations = 400;
  constexpr double kTolerance = 1e-10;
  const auto n = static_cast<size_t>(r.units());
  Vectors v(kVectors, std::vector<double>(n));
  for (size_t k = 0; k < kVectors; ++k)
    for (size_t i = 0; i < n; ++i)
      v[k][i] = std::cos(static_cast<double>((k + 1) * (i + 1) * (i + 1)) * 0.6180339887);
  orthonormalise(v);
  for (size_t iteration = 0; iteration < kIterations; ++iteration) {
    const Vectors before = v;
    for (auto& x : v) x = multiply(r, x);
    orthonormalise(v);
    double change = 0;
    for (size_t k = 0; k < 3; ++k)
      for (size_t i = 0; i < n; ++i) change = std::max(change, std::abs(v[k][i] - before[k][i]));
    if (change < kTolerance) break;
  }

  double variance = 0;  // the units that vary, each of variance 1
  for (int64_t i = 0; i < r.units(); ++i) variance += r(i, i);
  PrincipalComponents components;
  components.loadings.resize(n);
  for (size_t k = 0; k < 3; ++k) {
    const double eigenvalue = std::max(0.0, dot(v[k], multiply(r, v[k])));
    const double largest = *std::max_element(v[k].begin(), v[k].end(),
                                             [](double a, double b) { return std::abs(a) < std::abs(b); });
    const double scale = std::copysign(std::sqrt(eigenvalue), largest);
    for (size_t i = 0; i < n; ++i) components.loadings[i][k] = scale * v[k][i];
    components.explained[k] = variance > 0 ? eigenvalue / variance : 0;
  }
  return components;
}

}  // namespace topolm
