#include "tools/analysis/moran.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>

#include "engine/random.h"
#include "tests/analysis_golden.h"
#include "tests/errors.h"
#include "tools/analysis/null.h"

using namespace topolm;

namespace {

using Values = std::vector<double>;
using Stimuli = std::vector<std::vector<float>>;

constexpr MoranOptions kRow{Contiguity::queen, MoranWeights::row_standardised};
constexpr MoranOptions kBinary{Contiguity::queen, MoranWeights::binary};

MoranOptions options_of(const nlohmann::json& test) {
  const std::string contiguity = test.at("contiguity"), weights = test.at("weights");
  return {contiguity == "queen" ? Contiguity::queen : Contiguity::rook,
          weights == "binary" ? MoranWeights::binary : MoranWeights::row_standardised};
}

Stimuli noise(size_t stimuli, size_t units, uint32_t stream) {
  Random random(23, Random::Purpose::tests, stream);
  Stimuli x(stimuli, std::vector<float>(units));
  for (auto& response : x)
    for (float& v : response) v = static_cast<float>(random.normal());
  return x;
}

ContrastResponses contrast(const Stimuli& a, const Stimuli& b) {
  return {std::vector<std::span<const float>>(a.begin(), a.end()),
          std::vector<std::span<const float>>(b.begin(), b.end())};
}

Sheet scattered(int rows, int cols, int site = 0) {
  return {"a test", rows, cols, Sheet::permutation(rows, cols, 3, site)};
}

}  // namespace

TEST_CASE("Moran's I: the oracles of the reference document, row-standardised and binary") {
  const auto check = [](const std::function<double(int, int)>& value, const char* row, const char* binary) {
    Values map;
    for (int cell = 0; cell < 28 * 28; ++cell) map.push_back(value(cell / 28, cell % 28));
    CHECK(fmt::format("{:.6f}", morans_i(map, 28, 28, kRow)) == row);
    CHECK(fmt::format("{:.6f}", morans_i(map, 28, 28, kBinary)) == binary);
    for (double& x : map) x = 7 - 1000 * x;  // neither offset nor scale matters
    CHECK(fmt::format("{:.6f}", morans_i(map, 28, 28)) == row);
  };
  check([](int row, int) { return row; }, "0.991063", "0.944781");
  check([](int row, int col) { return (row + col) % 2; }, "-0.028231", "-0.018182");
  check([](int row, int col) { return (row / 7 + col / 7) % 2; }, "0.700000", "0.692929");
  check([](int row, int) { return row < 14; }, "0.946173", "0.944781");
  check([](int row, int col) { return row == 14 && col == 14; }, "-0.001277", "-0.001420");
  check([](int row, int col) { return row == 0 && col == 0; }, "-0.000670", "0.000266");
}

TEST_CASE("Moran's I and its permutation test: libpysal's weights, esda's formulas, our shuffles") {
  const auto cases = analysis_golden("moran");
  CHECK(cases.size() == 4);
  for (const auto& c : cases) {
    const auto map = c.at("map").get<Values>();
    CHECK(c.at("tests").size() == 4);
    for (const auto& expected : c.at("tests")) {
      const MoranOptions options = options_of(expected);
      const MoranTest test = moran_permutation_test(map, c.at("rows"), c.at("cols"), c.at("permutations"),
                                                    c.at("seed").get<uint64_t>(), options);
      CHECK(test.i == morans_i(map, c.at("rows"), c.at("cols"), options));
      check_same({test.i, test.p, test.null_mean, test.null_sd},
                 {expected.at("i"), expected.at("p"), expected.at("null_mean"), expected.at("null_sd")});
    }
  }
}

TEST_CASE("Moran's permutation test: smooth maps pass, a map that no shuffle changes does not") {
  Values ramp(100), same(100, 0.1);
  for (size_t i = 0; i < 100; ++i) ramp[i] = static_cast<double>(i / 10);
  const MoranTest test = moran_permutation_test(ramp, 10, 10, 99, 4);
  CHECK(test.p == 0.01);
  CHECK(test.null_mean == doctest::Approx(-1.0 / 99).epsilon(0.03));
  const MoranTest again = moran_permutation_test(ramp, 10, 10, 99, 4);
  CHECK(again.null_mean == test.null_mean);
  CHECK(moran_permutation_test(ramp, 10, 10, 99, 5).null_mean != test.null_mean);

  // Ties count as far out, on either side. All shuffles of these maps are ties.
  CHECK(morans_i(same, 10, 10) == 0);
  CHECK(moran_permutation_test(same, 10, 10, 99, 4).p == 1);
  CHECK(moran_permutation_test(Values{3, 8}, 1, 2, 99, 4).p == 1);
  // On 2x2 all are neighbors of all: I is -1/3, whatever the order of its sum.
  Random random(1, Random::Purpose::tests);
  for (int trial = 0; trial < 20; ++trial) {
    const Values map = {random.normal(), random.normal(), random.normal(), random.normal()};
    const MoranTest square = moran_permutation_test(map, 2, 2, 99, 4);
    CHECK(square.i == doctest::Approx(-1.0 / 3));
    CHECK(square.p == 1);
  }
}

TEST_CASE("Moran's I: sheets of one row, and what is refused") {
  // Neighbors of 0 1 2: 1 0.5 1 on average after centring -1 0 1: (-1)(0) + 0 + (1)(0).
  CHECK(morans_i(Values{0, 1, 2}, 1, 3) == 0);
  CHECK(morans_i(Values{0, 1, 2}, 3, 1) == 0);
  CHECK(morans_i(Values{1, 2}, 1, 2) == -1);
  for (const Contiguity contiguity : {Contiguity::queen, Contiguity::rook})
    CHECK(morans_i(Values{0, 1, 1, 0, 5}, 1, 5, {contiguity, MoranWeights::binary}) ==
          doctest::Approx(5.0 / 8 * 2 * (1.4 * 0.4 + 0.4 * 0.4 + 0.4 * 1.4 - 1.4 * 3.6) / 17.2));
  CHECK(contains(error_of([] { morans_i(Values{1}, 1, 1); }), "at least two cells"));
  CHECK(contains(error_of([] { morans_i(Values{1, 2, 3}, 2, 2); }), "a map of 3 cells is not 2x2"));
  CHECK(contains(error_of([] { morans_i(Values{1, std::nan("")}, 1, 2); }), "not a finite number"));
  CHECK(contains(error_of([] {
                   moran_permutation_test(Values{1, 2}, 1, 2, 0, 1);
                 }),
                 "at least one permutation"));
}

TEST_CASE("null: white noise on the published sheet has the reference document's Moran's I") {
  struct Oracle {
    double fwhm, mean, simulated_mean, simulated_sd;
  };
  // The document's means, and those of 40,000 maps of normalised white noise made with NumPy (errors 0.0001).
  // The document's own SDs, 0.016, 0.023, 0.029 and 0.022, are of so few maps that only ours can be held to
  // three digits.
  constexpr Oracle oracles[] = {{0, -1.0 / 783, -0.0013, 0.0185},
                                {1, 0.070, 0.0694, 0.0228},
                                {2, 0.602, 0.6027, 0.0283},
                                {2.5, 0.722, 0.7236, 0.0252}};
  constexpr int kDraws = 300;
  const std::vector<Sheet> sheets = {scattered(28, 28)};
  const std::vector<ContrastResponses> sites = {contrast(noise(40, 784, 0), noise(40, 784, 1))};
  for (const Oracle& oracle : oracles) {
    CAPTURE(oracle.fwhm);
    const MoranNull null = kernel_matched_null(sheets, sites, oracle.fwhm, kDraws, 1);
    const double error = oracle.simulated_sd / std::sqrt(kDraws);
    CHECK(std::abs(null.mean - oracle.mean) < 3 * error);
    CHECK(std::abs(null.mean - oracle.simulated_mean) < 3 * error);
    CHECK(std::abs(null.sd - oracle.simulated_sd) < 3 * error / std::sqrt(2));
    CHECK(null.low == doctest::Approx(null.mean - 1.96 * null.sd).epsilon(0.01));
    CHECK(null.high == doctest::Approx(null.mean + 1.96 * null.sd).epsilon(0.01));
  }
}

TEST_CASE("null: a function of its seed; the mean over sites; its interval by hand") {
  const std::vector<Sheet> sheets = {scattered(5, 6, 0), scattered(5, 6, 1)};
  const std::vector<ContrastResponses> sites = {contrast(noise(5, 30, 0), noise(4, 30, 1)),
                                                contrast(noise(5, 30, 2), noise(4, 30, 3))};
  const MoranNull null = kernel_matched_null(sheets, sites, 1, 41, 9);
  CHECK(kernel_matched_null(sheets, sites, 1, 41, 9).draws == null.draws);
  CHECK(kernel_matched_null(sheets, sites, 1, 41, 10).draws != null.draws);
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads);
    CHECK(kernel_matched_null(sheets, sites, 1, 41, 9, {}, &pool).draws == null.draws);
  }
  // More draws do not change the first.
  const MoranNull more = kernel_matched_null(sheets, sites, 1, 60, 9);
  CHECK(std::equal(null.draws.begin(), null.draws.end(), more.draws.begin()));

  Values sorted = null.draws;
  std::sort(sorted.begin(), sorted.end());
  CHECK(null.low == sorted[1]);  // 2.5 % of 40 steps
  CHECK(null.high == sorted[39]);
  CHECK(null.mean == doctest::Approx(std::accumulate(sorted.begin(), sorted.end(), 0.0) / 41));

  // The first site's part, and the mean of both. A second site that does not vary has I 0.
  const MoranNull first =
      kernel_matched_null(std::span(sheets).first(1), std::span(sites).first(1), 1, 41, 9);
  const std::vector<ContrastResponses> still = {
      sites[0], contrast(Stimuli(2, std::vector<float>(30)), Stimuli(2, std::vector<float>(30)))};
  const MoranNull half = kernel_matched_null(sheets, still, 1, 41, 9);
  for (size_t k = 0; k < 41; ++k) CHECK(half.draws[k] == doctest::Approx(first.draws[k] / 2));
  // Sites are shuffled each in its own way.
  const std::vector<Sheet> twice = {sheets[0], sheets[0]};
  const std::vector<ContrastResponses> both = {sites[0], sites[0]};
  CHECK(kernel_matched_null(twice, both, 1, 41, 9).draws[0] != doctest::Approx(first.draws[0]));

  const MoranNull one = kernel_matched_null(sheets, sites, 1, 1, 9);
  CHECK(one.low == one.draws[0]);
  CHECK(one.high == one.draws[0]);
  CHECK(one.sd == 0);
  CHECK(contains(error_of([&] { kernel_matched_null(sheets, sites, 1, 0, 9); }), "at least one draw"));
  CHECK(contains(error_of([&] { kernel_matched_null(std::span(sheets).first(1), sites, 1, 9, 9); }),
                 "2 for 1 sheets"));
  CHECK(
      contains(error_of([&] { kernel_matched_null({}, {}, 1, 9, 9); }), "needs the responses of each site"));
}

TEST_CASE("null: both groups are shuffled alike, and each map's cells stay what they were") {
  // What units add to all stimuli is not in t, unless the groups' shuffles differ.
  Stimuli a = noise(6, 48, 0), b = noise(7, 48, 1);
  const std::vector<Sheet> sheets = {scattered(6, 8)};
  const MoranNull plain = kernel_matched_null(sheets, std::vector{contrast(a, b)}, 0, 20, 2);
  const Values t = contrast(a, b).t_map(Readout(sheets[0], 0));
  for (Stimuli* group : {&a, &b})
    for (auto& response : *group)
      for (size_t unit = 0; unit < 48; ++unit) response[unit] += static_cast<float>(unit);
  const MoranNull shifted = kernel_matched_null(sheets, std::vector{contrast(a, b)}, 0, 20, 2);
  for (size_t k = 0; k < 20; ++k) CHECK(shifted.draws[k] == doctest::Approx(plain.draws[k]).epsilon(1e-3));

  // Without smoothing it is the permutation test's null: -1/(n-1) on average, for any map.
  const MoranNull many = kernel_matched_null(sheets, std::vector{contrast(a, b)}, 0, 2000, 2);
  const MoranTest test = moran_permutation_test(t, 6, 8, 2000, 2);
  CHECK(std::abs(many.mean + 1.0 / 47) < 3 * many.sd / std::sqrt(2000));
  CHECK(many.sd == doctest::Approx(test.null_sd).epsilon(0.05));
}

TEST_CASE("null: tells a topographic map from one that only the readout made smooth") {
  // Units of which the contrast drives those in the left half of the sheet more: in order, and scattered.
  const Sheet ordered("a test", 10, 10, Sheet::identity(10, 10)), random = scattered(10, 10);
  Stimuli a = noise(20, 100, 0);
  for (auto& response : a)
    for (size_t unit = 0; unit < 100; ++unit) response[unit] += unit % 10 < 5 ? 1.0f : 0.0f;
  const std::vector<ContrastResponses> sites = {contrast(a, noise(20, 100, 1))};
  for (const double fwhm : {0.0, 1.0, 2.0}) {
    const auto i = [&](const Sheet& sheet) { return morans_i(sites[0].t_map(Readout(sheet, fwhm)), 10, 10); };
    const MoranNull null = kernel_matched_null(std::vector{ordered}, sites, fwhm, 200, 6);
    CHECK(i(ordered) > null.high + 2 * null.sd);
    CHECK(i(random) > null.low);
    CHECK(i(random) < null.high);
  }
}
