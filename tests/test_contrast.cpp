// Readouts of sheets, and the maps of contrasts that are made of them.
#include "tools/analysis/contrast.h"

#include <fmt/format.h>

#include <limits>

#include "engine/random.h"
#include "tests/analysis_golden.h"
#include "tests/errors.h"

using namespace topolm;

namespace {

using Stimuli = std::vector<std::vector<float>>;

Sheet scattered(int rows, int cols) { return {"a test", rows, cols, Sheet::permutation(rows, cols, 3, 0)}; }

Stimuli noise(size_t stimuli, size_t units, uint32_t stream, double mean = 0, double sd = 1) {
  Random random(11, Random::Purpose::tests, stream);
  Stimuli x(stimuli, std::vector<float>(units));
  for (auto& response : x)
    for (float& v : response) v = static_cast<float>(mean + sd * random.normal());
  return x;
}

std::vector<std::span<const float>> spans(const Stimuli& stimuli) { return {stimuli.begin(), stimuli.end()}; }

ContrastMap map_of(const Readout& readout, const Stimuli& positive, const Stimuli& negative) {
  return contrast_map(readout, spans(positive), spans(negative));
}

std::vector<double> sampled(const Readout& readout, const std::vector<float>& responses) {
  std::vector<double> map(static_cast<size_t>(readout.cells()));
  readout.sample(map, responses);
  return map;
}

}  // namespace

TEST_CASE("readout: the kernel's values in the reference document; no correction at the edges") {
  const Sheet sheet = scattered(9, 11);
  const auto at = [&](double fwhm, int row, int col, int down, int right) {
    std::vector<float> responses(99);
    responses[static_cast<size_t>(sheet.unit_at(row, col))] = 1;
    const auto map = sampled(Readout(sheet, fwhm), responses);
    return fmt::format("{:.6f}", map[static_cast<size_t>((row + down) * 11 + col + right)]);
  };
  for (const Position p : {Position{4, 5}, {0, 0}, {2, 8}}) {
    CHECK(at(2, p.row, p.col, 0, 0) == "0.220636");
    CHECK(at(2, p.row, p.col, 0, 1) == "0.110318");
    CHECK(at(2, p.row, p.col, 1, 0) == "0.110318");
    CHECK(at(2, p.row, p.col, 1, 1) == "0.055159");
    CHECK(at(2, p.row, p.col, 2, 0) == "0.013790");
    CHECK(at(2, p.row, p.col, 2, 1) == "0.006895");
    CHECK(at(1, p.row, p.col, 0, 0) == "0.882542");
    CHECK(at(1, p.row, p.col, 1, 0) == "0.055159");
    CHECK(at(1, p.row, p.col, 1, 1) == "0.003447");
  }
}

TEST_CASE("readout: the sum over all units, on any sheet, at any width; 0 only puts units in their places") {
  for (const auto& [rows, cols] : {std::pair{5, 7}, {1, 9}, {8, 1}, {28, 28}}) {
    const Sheet sheet = scattered(rows, cols);
    const auto units = static_cast<size_t>(rows * cols);
    const auto x = noise(1, units, 0)[0];
    for (const double fwhm : {0.0, 0.01, 0.5, 1.0, 2.0, 7.0, 1000.0}) {
      const Readout readout(sheet, fwhm);
      const auto map = sampled(readout, x);
      const double s = fwhm / std::sqrt(8 * std::log(2.0));
      double worst = 0;
      for (int cell = 0; cell < rows * cols; ++cell) {
        const Position place{cell / cols, cell % cols};
        double expected = 0;
        for (size_t u = 0; u < units; ++u) {
          const Position p = sheet.positions()[u];
          const double d2 = std::pow(p.row - place.row, 2) + std::pow(p.col - place.col, 2);
          if (fwhm == 0)
            expected += d2 == 0 ? x[u] : 0.0f;
          else
            expected += x[u] * std::exp(-d2 / (2 * s * s)) / (2 * std::acos(-1.0) * s * s);
        }
        const double scale = fwhm == 0 ? 1 : 1 / (s * s);
        worst = std::max(worst, std::abs(map[static_cast<size_t>(cell)] - expected) / scale);
      }
      CHECK(worst < 1e-13);
    }
  }
}

TEST_CASE("readout: eight at once are the same bits as one by one") {
  const Readout readout(scattered(5, 7), 2);
  const Stimuli x = noise(Readout::kLanes, 35, 0);
  std::vector<double> responses, maps(35 * Readout::kLanes);
  for (size_t unit = 0; unit < 35; ++unit)
    for (const auto& response : x) responses.push_back(response[unit]);
  readout.sample_lanes(maps, responses);
  for (size_t lane = 0; lane < Readout::kLanes; ++lane) {
    const auto map = sampled(readout, x[lane]);
    for (size_t cell = 0; cell < 35; ++cell) CHECK(maps[cell * Readout::kLanes + lane] == map[cell]);
  }
}

TEST_CASE("readout: widths and sizes that make no sense are refused in one sentence") {
  const Sheet sheet = scattered(2, 3);
  for (const double bad : {-1.0, 0.001, 1e9, std::nan("")})
    CHECK(contains(error_of([&] { Readout(sheet, bad); }), "full width at half maximum is 0"));
  CHECK(contains(error_of([&] { sampled(Readout(sheet, 1), std::vector<float>(5)); }), "5 responses"));
}

TEST_CASE("contrast map: t and p of the sampled responses are SciPy's at every width") {
  const auto cases = analysis_golden("contrasts");
  CHECK(cases.size() == 2);
  for (const auto& c : cases) {
    std::vector<Position> places;
    for (const auto& place : c.at("places")) places.push_back({place.at(0), place.at(1)});
    const Sheet sheet("a test", c.at("rows"), c.at("cols"), places);
    const auto positive = c.at("positive").get<Stimuli>(), negative = c.at("negative").get<Stimuli>();
    CHECK(c.at("maps").size() == 4);
    for (const auto& expected : c.at("maps")) {
      const ContrastMap map = map_of(Readout(sheet, expected.at("fwhm")), positive, negative);
      check_same(map.t, expected.at("t"));
      check_same(map.p, expected.at("p"));
    }
  }
}

TEST_CASE("contrast map: the same as sampling each stimulus and testing each cell") {
  const Sheet sheet = scattered(6, 9);
  // 13 and 8 stimuli: blocks of eight with and without a rest. Far from zero, as layers' outlier units are.
  const Stimuli a = noise(13, 54, 0, 1000, 0.1), b = noise(8, 54, 1, 1000.01, 0.2);
  for (const double fwhm : {0.0, 1.0, 2.0}) {
    const Readout readout(sheet, fwhm);
    const ContrastMap map = map_of(readout, a, b);
    const ContrastResponses responses(spans(a), spans(b));
    CHECK(responses.t_map(readout) == map.t);
    CHECK(responses.map(readout).p == map.p);
    std::vector<std::vector<double>> columns_a(54), columns_b(54);
    for (const auto& response : a)
      for (size_t cell = 0; cell < 54; ++cell) columns_a[cell].push_back(sampled(readout, response)[cell]);
    for (const auto& response : b)
      for (size_t cell = 0; cell < 54; ++cell) columns_b[cell].push_back(sampled(readout, response)[cell]);
    for (size_t cell = 0; cell < 54; ++cell) {
      const WelchTest test = welch_test(columns_a[cell], columns_b[cell]);
      CHECK(same(map.t[cell], test.t));
      CHECK(same(map.p[cell], test.p));
    }
  }
}

TEST_CASE("contrast map: units that do not vary make no map, and no NaN") {
  const Sheet sheet = scattered(4, 4);
  Stimuli a(3, std::vector<float>(16, 0.1f)), b(2, std::vector<float>(16, 0.3f));
  for (const double fwhm : {0.0, 2.0}) {
    const ContrastMap map = map_of(Readout(sheet, fwhm), a, b);
    CHECK(map.t == std::vector<double>(16, 0));
    CHECK(map.p == std::vector<double>(16, 1));
  }
  // One that does, among them: seen where it is, and around it when sampled.
  a[1][7] = 5;
  const Position place = sheet.positions()[7];
  const ContrastMap map = map_of(Readout(sheet, 0), a, b);
  for (size_t cell = 0; cell < 16; ++cell)
    CHECK((map.t[cell] != 0) == (cell == static_cast<size_t>(place.row * 4 + place.col)));
  for (const double t : map_of(Readout(sheet, 2), a, b).t) CHECK(std::isfinite(t));
}

TEST_CASE("contrast map: too few stimuli, other sites, numbers that are none") {
  const Readout readout(scattered(2, 3), 1);
  const Stimuli two = noise(2, 6, 0);
  CHECK(contains(error_of([&] { map_of(readout, noise(1, 6, 0), two); }), "at least two stimuli a group"));
  CHECK(contains(error_of([&] { map_of(readout, two, {}); }), "at least two stimuli a group"));
  CHECK(contains(error_of([&] { map_of(readout, two, noise(2, 7, 0)); }), "of different sites"));
  CHECK(contains(error_of([&] { map_of(readout, noise(2, 7, 0), noise(2, 7, 1)); }), "a sheet of 2x3"));
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Stimuli diverged = two;
    diverged[1][4] = bad;
    CHECK(contains(error_of([&] { map_of(readout, two, diverged); }), "unit 4"));
  }
}
