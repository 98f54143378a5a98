#include "tools/analysis/clusters.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <queue>

#include "engine/error.h"

namespace topolm {

std::vector<Cluster> grow_clusters(std::span<const double> t, std::span<const double> q, int rows, int cols,
                                   const ClusterOptions& options) {
  require(rows > 0 && cols > 0 && std::ssize(t) == int64_t{rows} * cols && q.size() == t.size(),
          "maps of {} t and {} p-values are not {}x{}", t.size(), q.size(), rows, cols);
  require(options.connectivity == 4 || options.connectivity == 8,
          "a cell has 4 or 8 neighbors; a connectivity of {} is neither", options.connectivity);
  require(options.sign == 1 || options.sign == -1,
          "clusters are of cells with t > 0 (sign 1) or t < 0 (sign -1), not of sign {}", options.sign);

  const auto selectivity = [&](int32_t cell) { return options.sign * t[static_cast<size_t>(cell)]; };
  // Cells below the threshold, and those that have a cluster, are walls. The published code lets clusters
  // leak through them.
  std::vector<char> free(t.size());
  std::vector<int32_t> peaks;
  for (int32_t cell = 0; cell < rows * cols; ++cell) {
    free[static_cast<size_t>(cell)] = selectivity(cell) > 0 && q[static_cast<size_t>(cell)] < options.alpha;
    if (free[static_cast<size_t>(cell)]) peaks.push_back(cell);
  }
  const auto weaker = [&](int32_t a, int32_t b) {
    return selectivity(a) != selectivity(b) ? selectivity(a) < selectivity(b) : a > b;
  };
  std::sort(peaks.begin(), peaks.end(), [&](int32_t a, int32_t b) { return weaker(b, a); });

  std::vector<Cluster> clusters;
  std::priority_queue frontier(weaker, std::vector<int32_t>());
  const auto visit = [&](int32_t cell) {
    if (!free[static_cast<size_t>(cell)]) return;
    free[static_cast<size_t>(cell)] = false;
    frontier.push(cell);
  };
  for (const int32_t peak : peaks) {
    Cluster cluster;
    for (visit(peak); !frontier.empty();) {
      const int32_t cell = frontier.top();
      frontier.pop();
      cluster.cells.push_back(cell);
      for (int row = std::max(cell / cols - 1, 0); row <= std::min(cell / cols + 1, rows - 1); ++row)
        for (int col = std::max(cell % cols - 1, 0); col <= std::min(cell % cols + 1, cols - 1); ++col)
          if (options.connectivity == 8 || row == cell / cols || col == cell % cols) visit(row * cols + col);
    }
    const auto size = std::ssize(cluster.cells);
    if (size == 0 || size < options.min_size) continue;
    cluster.peak_t = t[static_cast<size_t>(peak)];
    for (const int32_t cell : cluster.cells)
      cluster.mean_t += t[static_cast<size_t>(cell)] / static_cast<double>(size);
    clusters.push_back(std::move(cluster));
  }
  return clusters;
}

}  // namespace topolm
