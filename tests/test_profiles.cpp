// Response profiles, by hand: of the network and of a cluster, as units respond and as a readout sees them.
#include "tools/analysis/profiles.h"

#include <doctest/doctest.h>

#include <cmath>
#include <numbers>

#include "engine/random.h"
#include "tests/errors.h"

using namespace topolm;

namespace {

StimulusSet stimuli(const std::vector<std::string>& conditions) {
  StimulusSet set{"a test", {}};
  for (const std::string& c : conditions) set.items.push_back({"text", c});
  return set;
}

Responses noise(int64_t texts, int64_t sites, int64_t units) {
  Responses r{texts, sites, units, {}};
  Random random(11, Random::Purpose::tests);
  for (int64_t i = 0; i < texts * sites * units; ++i) r.values.push_back(static_cast<float>(random.normal()));
  return r;
}

/// Student's t of 3 degrees of freedom at 0.975, times the standard error of {1, 2, 3, 4}.
constexpr double kHalf = 3.182446305284263 * 0.6454972243679028;

}  // namespace

TEST_CASE("profiles: the network's is over stimuli and sites, of the magnitudes of selected units") {
  // Two sites of three units. Of site 0 units 0 and 2 count, of site 1 only unit 1. 100: what must not.
  const Responses r{4, 2, 3, {-1, 100,  1, 100, -3, 100,    // N: 1 and 3
                              1,  100,  3, 100, 8,  100,    // S: 2 and 8
                              2,  -100, 2, 100, 4,  100,    // N: 2 and 4
                              -4, 100,  8, 100, 0,  100}};  // S: 6 and 0
  const auto profiles = network_profile(r, stimuli({"N", "S", "N", "S"}), {{0, 2}, {1}});
  REQUIRE(profiles.size() == 2);
  CHECK(profiles[0].condition == "N");
  CHECK(profiles[0].values == 4);
  CHECK(profiles[0].response.mean == doctest::Approx(2.5).epsilon(1e-12));
  CHECK(profiles[0].response.low == doctest::Approx(2.5 - kHalf).epsilon(1e-12));
  CHECK(profiles[0].response.high == doctest::Approx(2.5 + kHalf).epsilon(1e-12));
  CHECK(profiles[1].condition == "S");
  CHECK(profiles[1].values == 4);
  CHECK(profiles[1].response.mean == doctest::Approx(4).epsilon(1e-12));

  // A site without selected units has no value; no unit at all, no profile.
  const auto one = network_profile(r, stimuli({"N", "S", "N", "S"}), {{}, {1}});
  CHECK(one[0].values == 2);
  CHECK(one[0].response.mean == doctest::Approx(3.5).epsilon(1e-12));
  CHECK(network_profile(r, stimuli({"N", "S", "N", "S"}), {{}, {}}).empty());
  // One value is its own interval.
  const auto alone = network_profile(r, stimuli({"N", "A", "N", "N"}), {{0, 2}, {}});
  CHECK(alone[0].condition == "A");
  CHECK(alone[0].response.low == 2);
  CHECK(alone[0].response.high == 2);
}

TEST_CASE("profiles: a cluster's is over stimuli; sampled, it is of the magnitudes of the readout") {
  constexpr int kRows = 4, kCols = 5, kUnits = kRows * kCols, kTexts = 6;
  const Sheet sheet("a test", kRows, kCols, Sheet::permutation(kRows, kCols, 3, 0));
  const Responses r = noise(kTexts, 2, kUnits);
  const StimulusSet set = stimuli({"S", "N", "S", "N", "S", "N"});
  const std::vector<int32_t> cluster = {7, 2, 19};
  for (const double fwhm : {0.0, 1.0, 2.0}) {
    CAPTURE(fwhm);
    const double sigma = fwhm / std::sqrt(8 * std::numbers::ln2);
    std::vector<double> values[2];
    for (int64_t text = 0; text < kTexts; ++text) {
      double mean = 0;
      for (const int32_t member : cluster) {
        const Position p = sheet.positions()[static_cast<size_t>(member)];
        double voxel = 0;
        for (size_t u = 0; u < kUnits; ++u) {
          const Position at = sheet.positions()[u];
          const double squared = std::pow(at.row - p.row, 2) + std::pow(at.col - p.col, 2);
          const double weight =
              fwhm == 0 ? (squared == 0 ? 1 : 0)
                        : std::exp(-squared / (2 * sigma * sigma)) / (2 * std::numbers::pi * sigma * sigma);
          voxel += weight * r.of(text, 1)[u];
        }
        mean += std::abs(voxel) / 3;
      }
      values[text % 2].push_back(mean);
    }
    const auto profiles = cluster_profile(r, set, 1, sheet, cluster, fwhm);
    REQUIRE(profiles.size() == 2);
    for (const size_t i : {0u, 1u}) {
      const MeanInterval expected = mean_interval(values[1 - i]);  // N comes before S
      CHECK(profiles[i].condition == (i == 0 ? "N" : "S"));
      CHECK(profiles[i].values == 3);
      CHECK(profiles[i].response.mean == doctest::Approx(expected.mean).epsilon(1e-12));
      CHECK(profiles[i].response.low == doctest::Approx(expected.low).epsilon(1e-12));
      CHECK(profiles[i].response.high == doctest::Approx(expected.high).epsilon(1e-12));
    }
  }
  // Not smoothed, a cluster is a network of its own units alone.
  const auto alone = network_profile(r, set, {{}, cluster}),
             same = cluster_profile(r, set, 1, sheet, cluster);
  for (const size_t i : {0u, 1u}) CHECK(alone[i].response.mean == same[i].response.mean);
}

TEST_CASE("profiles: what does not belong together is refused") {
  const Sheet sheet("a test", 2, 3, Sheet::identity(2, 3)), small("a test", 1, 2, Sheet::identity(1, 2));
  const Responses r = noise(2, 2, 6);
  const StimulusSet set = stimuli({"S", "N"}), other = stimuli({"S", "N", "N"});
  const std::vector<int32_t> units = {1, 2}, wrong = {6}, none;
  CHECK(error_of([&] {
          network_profile(r, other, {units, units});
        }) == "there are responses to 2 texts, but the stimuli 'a test' are 3; record these stimuli");
  CHECK(error_of([&] { network_profile(r, set, {units}); }) ==
        "there are responses of 2 sites, but units of 1");
  CHECK(error_of([&] {
          network_profile(r, set, {units, wrong});
        }) == "there is no unit 6 in h.0.mlp; responses are of 6");
  CHECK(contains(error_of([&] { cluster_profile(r, other, 0, sheet, units); }), "are 3"));
  CHECK(error_of([&] { cluster_profile(r, set, 2, sheet, units); }) ==
        "there is no site 2; responses are of 2, numbered from 0");
  CHECK(error_of([&] { cluster_profile(r, set, 0, small, units); }) ==
        "responses of 6 units are not of a 1x2 sheet");
  CHECK(error_of([&] { cluster_profile(r, set, 0, sheet, wrong); }) ==
        "there is no unit 6 in h.0.attn; responses are of 6");
  CHECK(error_of([&] { cluster_profile(r, set, 0, sheet, none); }) ==
        "a cluster without units has no profile");
}
