// Clusters of selective units by region growing (TopoLM, section 4.3; reference/topolm.md E5 says what the
// published code does otherwise): begin at the most selective unit, add the most selective neighbor as long
// as it is significant, then begin again with what is left.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace topolm {

struct ClusterOptions {
  int connectivity = 4;  // neighbors of a cell: 4 or 8
  int min_size = 10;     // smaller clusters are dropped (the paper; its code: 25)
  double alpha = 0.05;   // a cell is significant when its adjusted p is below
  int sign = 1;          // 1: cells with t > 0, -1: t < 0
};

struct Cluster {
  std::vector<int32_t> cells;  // in the order they were added; cells[0] is the peak
  double peak_t = 0, mean_t = 0;
};

/// t, q [rows * cols]: the map and its adjusted p-values. Clusters do not overlap; in order of their peaks,
/// most selective first. Throws Error for a connectivity other than 4 and 8.
std::vector<Cluster> grow_clusters(std::span<const double> t, std::span<const double> q, int rows, int cols,
                                   const ClusterOptions& options = {});

}  // namespace topolm
