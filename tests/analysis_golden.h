// What SciPy and libpysal say of small inputs: tests/golden/analysis, made by
// tools/peer/statistics_golden.py.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace topolm {

inline nlohmann::json analysis_golden(const std::string& part) {
  return nlohmann::json::parse(std::ifstream("tests/golden/analysis/statistics.json")).at(part);
}

/// Equal to nine digits, relative to the value expected: also of a p-value of 1e-64.
inline bool same(double computed, double expected) {
  return std::abs(computed - expected) <= 1e-9 * std::abs(expected);
}

inline void check_same(const std::vector<double>& computed, const std::vector<double>& expected) {
  REQUIRE(computed.size() == expected.size());
  for (size_t i = 0; i < computed.size(); ++i) {
    CAPTURE(i);
    CAPTURE(computed[i]);
    CAPTURE(expected[i]);
    CHECK(same(computed[i], expected[i]));
  }
}

}  // namespace topolm
