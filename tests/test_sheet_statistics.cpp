#include "model/sheet_statistics.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "engine/random.h"
#include "tests/temporary.h"

using namespace topolm;

namespace {

constexpr int kRows = 8, kCols = 10, kUnits = kRows * kCols;

Sheet shuffled(int site = 0) { return {"a test", kRows, kCols, Sheet::permutation(kRows, kCols, 7, site)}; }

std::vector<float> noise(int64_t rows, int64_t units) {
  Random random(5, Random::Purpose::tests);
  std::vector<float> x(static_cast<size_t>(rows * units));
  for (float& v : x) v = static_cast<float>(random.normal());
  return x;
}

/// Noise on the sheet, blurred by a Gaussian: neighbours are alike by construction.
std::vector<float> smooth(int64_t rows, const Sheet& sheet) {
  const std::vector<float> source = noise(rows, kUnits);
  std::vector<float> x(source.size());
  for (int64_t row = 0; row < rows; ++row)
    for (int i = 0; i < kUnits; ++i)
      for (int j = 0; j < kUnits; ++j) {
        const Position a = sheet.positions()[static_cast<size_t>(i)], b{j / kCols, j % kCols};
        const double d = std::hypot(a.row - b.row, a.col - b.col);
        x[static_cast<size_t>(row * kUnits + i)] +=
            static_cast<float>(std::exp(-d * d / 2)) * source[static_cast<size_t>(row * kUnits + j)];
      }
  return x;
}

TopographyConfig topography(int radius) {
  TopographyConfig t;
  t.rows = kRows, t.cols = kCols, t.radius = radius;
  return t;
}

}  // namespace

TEST_CASE("correlations: by hand, at any offset and scale; a constant unit has none, not even with itself") {
  // Units: x, -3x + 1000, one that is orthogonal to x, a constant.
  const std::vector<float> activations = {-1, 1003, 1,  5,  //
                                          0,  1000, -2, 5,  //
                                          1,  997,  1,  5};
  const Correlations r(activations, 4);
  const double expected[4][4] = {{1, -1, 0, 0}, {-1, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 0}};
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) CHECK(r(i, j) == doctest::Approx(expected[i][j]));
  CHECK_THROWS_AS(Correlations(std::span<const float>(), 4), Error);
}

TEST_CASE("correlation by distance: every pair in one bin, by hand on a small sheet") {
  // A 1x3 sheet holding, from left to right, units 2, 0, 1.
  const Sheet sheet("a test", 1, 3, {{0, 1}, {0, 2}, {0, 0}});
  const std::vector<float> activations = {1, 1, -1, 0, 0, 0, -1, -1, 1};
  const Correlations r(activations, 3);
  const auto bins = correlation_by_distance(r, sheet);
  REQUIRE(bins.size() == 2);
  CHECK(bins[0].pairs == 2);  // 2-0 and 0-1: -1 and 1
  CHECK(bins[0].correlation == doctest::Approx(0));
  CHECK(bins[1].pairs == 1);
  CHECK(bins[1].distance == doctest::Approx(2));
  CHECK(bins[1].correlation == doctest::Approx(-1));  // 2-1

  const Sheet large = shuffled();
  const Correlations any(noise(20, kUnits), kUnits);
  int64_t pairs = 0;
  for (const PairMean& bin : correlation_by_distance(any, large)) {
    CHECK(bin.pairs > 0);
    pairs += bin.pairs;
  }
  CHECK(pairs == kUnits * (kUnits - 1) / 2);
  CHECK(mean_correlation(any, large, 1, 1).pairs == kRows * (kCols - 1) + (kRows - 1) * kCols);
  CHECK(mean_correlation(any, large, 100, 200).pairs == 0);
  CHECK(mean_correlation(any, large, 100, 200).correlation == 0);
}

TEST_CASE("sheet statistics: smooth activations are topographic, on their own sheet only; noise is not") {
  const Sheet sheet = shuffled(0), other = shuffled(1);
  const Correlations alike(smooth(2000, sheet), kUnits), unlike(noise(2000, kUnits), kUnits);
  const auto bins = correlation_by_distance(alike, sheet);
  CHECK(bins[0].correlation > 0.6);
  CHECK(bins[1].correlation < bins[0].correlation);
  CHECK(bins[2].correlation < bins[1].correlation);
  CHECK(std::abs(mean_correlation(alike, sheet, 6, 100).correlation) < 0.02);
  CHECK(spatial_loss(alike, sheet, topography(3)) < 0.05);

  // The same activations with the units in other places.
  CHECK(std::abs(correlation_by_distance(alike, other)[0].correlation) < 0.15);
  CHECK(spatial_loss(alike, other, topography(3)) == doctest::Approx(0.5).epsilon(0.1));

  for (const PairMean& bin : correlation_by_distance(unlike, sheet)) CHECK(std::abs(bin.correlation) < 0.05);
  CHECK(spatial_loss(unlike, sheet, topography(3)) == doctest::Approx(0.5).epsilon(0.1));
}

TEST_CASE("spatial loss: Pearson with 1/(1+d) by hand; constant units leave 0.5, not NaN") {
  // A 3x3 sheet has one neighborhood of radius 2: all of it. Eight units vary, one does not.
  const Sheet sheet("a test", 3, 3, Sheet::identity(3, 3));
  std::vector<float> activations = noise(11, 9);
  for (size_t row = 0; row < 11; ++row) activations[row * 9 + 4] = 2;
  const Correlations r(activations, 9);
  double sums[5] = {};  // of r, D, r^2, D^2, rD
  for (int i = 0; i < 9; ++i)
    for (int j = 0; j < i; ++j) {
      const double x = r(i, j), d = 1 / (1 + std::hypot(i / 3 - j / 3, i % 3 - j % 3));
      const double terms[] = {x, d, x * x, d * d, x * d};
      for (int k = 0; k < 5; ++k) sums[k] += terms[k] / 36;
    }
  const double pearson = (sums[4] - sums[0] * sums[1]) / std::sqrt(sums[2] - sums[0] * sums[0]) /
                         std::sqrt(sums[3] - sums[1] * sums[1]);
  CHECK(spatial_loss(r, sheet, topography(2)) == doctest::Approx((1 - pearson) / 2).epsilon(1e-6));
  CHECK(spatial_loss(Correlations(std::vector<float>(18, 1.0f), 9), sheet, topography(2)) == 0.5);
}

TEST_CASE("spatial loss: the oracle of the reference document on a 9x9 sheet") {
  std::vector<float> x;
  for (int s = 0; s < 64; ++s)
    for (int i = 0; i < 81; ++i)
      x.push_back(static_cast<float>(std::cos(0.7 * (s + 1) * (i / 9) / 9.0) +
                                     std::sin(0.3 * (s + 1) * (i % 9) / 9.0 + s)));
  const Correlations r(x, 81);
  const Sheet sheet("a test", 9, 9, Sheet::identity(9, 9));
  TopographyConfig t = topography(5);
  t.distance = Distance::l2;
  CHECK(spatial_loss(r, sheet, t) == doctest::Approx(0.31564538).epsilon(1e-7));
  t.distance = Distance::linf;
  CHECK(spatial_loss(r, sheet, t) == doctest::Approx(0.36531479).epsilon(1e-7));
  CHECK(mean_correlation(r, sheet, 0.5, 100).correlation == doctest::Approx(0.12149859).epsilon(1e-7));
}

TEST_CASE("principal components: two known groups of units, a constant unit, and nothing at all") {
  // Units 0..5 are copies of one signal, 6..8 of another that is orthogonal to it (8 negated), 9 is constant.
  std::vector<float> activations;
  for (int row = 0; row < 16; ++row) {
    const double phase = 2 * std::numbers::pi * row / 16;
    for (int unit = 0; unit < 10; ++unit)
      activations.push_back(static_cast<float>(unit < 6   ? std::cos(phase)
                                               : unit < 8 ? std::sin(phase)
                                               : unit < 9 ? -std::sin(phase)
                                                          : 3));
  }
  const PrincipalComponents c = principal_components(Correlations(activations, 10));
  CHECK(c.explained[0] == doctest::Approx(6.0 / 9));
  CHECK(c.explained[1] == doctest::Approx(3.0 / 9));
  CHECK(c.explained[2] == doctest::Approx(0).epsilon(1e-9));
  for (int unit = 0; unit < 6; ++unit) {
    CHECK(c.loadings[static_cast<size_t>(unit)][0] == doctest::Approx(1));
    CHECK(c.loadings[static_cast<size_t>(unit)][1] == doctest::Approx(0).epsilon(1e-6));
  }
  CHECK(std::abs(c.loadings[6][1]) == doctest::Approx(1));
  CHECK(c.loadings[7][1] == doctest::Approx(c.loadings[6][1]));
  CHECK(c.loadings[8][1] == doctest::Approx(-c.loadings[6][1]));
  CHECK(c.loadings[9] == std::array<double, 3>{});

  const PrincipalComponents none = principal_components(Correlations(std::vector<float>(20, 1.0f), 10));
  for (const auto& loading : none.loadings) CHECK(loading == std::array<double, 3>{});
  CHECK(none.explained == std::array<double, 3>{});
}

TEST_CASE("principal components: the eigenvectors of noise, however slowly they part") {
  const Correlations r(noise(300, kUnits), kUnits);
  const PrincipalComponents c = principal_components(r);
  CHECK(c.explained[0] >= c.explained[1]);
  CHECK(c.explained[1] >= c.explained[2]);
  for (size_t k = 0; k < 3; ++k) {
    double squares = 0, error = 0;
    for (int i = 0; i < kUnits; ++i) {
      double product = 0;
      for (int j = 0; j < kUnits; ++j) product += r(i, j) * c.loadings[static_cast<size_t>(j)][k];
      const double eigenvalue = c.explained[k] * kUnits, loading = c.loadings[static_cast<size_t>(i)][k];
      squares += loading * loading;
      error += std::pow(product - eigenvalue * loading, 2);
    }
    CHECK(squares == doctest::Approx(c.explained[k] * kUnits));
    CHECK(error < 1e-3 * squares);
  }
}
