// What ./bench has measured against its rivals, and the bars that issue 5 set.
#pragma once

#include <map>

#include "tools/bench/measure.h"

namespace topolm::bench {

/// Milliseconds of ours and theirs, turn by turn. A machine's speed drifts within minutes, so a ratio is
/// taken within a round.
struct Race {
  Samples ours, theirs, ratios;

  void add(double our, double their) { ours.add(our), theirs.add(their), ratios.add(their / our); }
  nlohmann::json to_json() const {
    return {{"ours_ms", ours.values}, {"theirs_ms", theirs.values}, {"ratios", ratios.values}};
  }
};

/// "2.51 (2.43 to 2.60)"
std::string spread(const Samples& s, int digits = 2);

/// Figures by the names that the bars know them by: "step tiny fp32".
using Figures = std::map<std::string, Samples>;

/// Every bar with what was measured of it; what was not says so. Returns the same as JSON.
nlohmann::json print_bars(const Options& o, const Figures& figures);

}  // namespace topolm::bench
