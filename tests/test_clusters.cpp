#include "tools/analysis/clusters.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/random.h"
#include "tests/errors.h"

using namespace topolm;

namespace {

using Values = std::vector<double>;
using Cells = std::vector<int32_t>;

/// The rule as the paper tells it, by looking at every cell at every step.
std::vector<Cells> naive(Values t, const Values& q, int rows, int cols, const ClusterOptions& options) {
  Cells owner(t.size(), -1);
  for (double& x : t) x *= options.sign;
  std::vector<Cells> clusters;
  const auto best = [&](auto allowed) {
    int32_t found = -1;
    for (int32_t c = 0; c < rows * cols; ++c)
      if (owner[c] < 0 && q[c] < options.alpha && t[c] > 0 && allowed(c) && (found < 0 || t[c] > t[found]))
        found = c;
    return found;
  };
  for (int32_t id = 0;; ++id) {
    Cells cells;
    const auto beside = [&](int32_t c) {
      return std::any_of(cells.begin(), cells.end(), [&](int32_t d) {
        const int down = std::abs(c / cols - d / cols), right = std::abs(c % cols - d % cols);
        return options.connectivity == 4 ? down + right == 1 : std::max(down, right) == 1;
      });
    };
    for (int32_t c = best([](int32_t) { return true; }); c >= 0; c = best(beside)) {
      owner[c] = id;
      cells.push_back(c);
    }
    if (cells.empty()) return clusters;
    if (std::ssize(cells) >= options.min_size) clusters.push_back(cells);
  }
}

}  // namespace

TEST_CASE("clusters: by hand") {
  // Two blobs that touch at a corner, a cell of high t that is not significant, one of negative t.
  const Values t = {1, 2, 0.5, 0,  //
                    3, 9, 0,   0,  //
                    0, 0, 5,   6,  //
                    0, 8, 5,   -7};
  Values q(16, 0.001);
  q[13] = 0.05;  // not below alpha
  ClusterOptions options;
  options.min_size = 2;
  auto clusters = grow_clusters(t, q, 4, 4, options);
  REQUIRE(clusters.size() == 2);
  CHECK(clusters[0].cells == Cells{5, 4, 1, 0, 2});  // 9 3 2 1 0.5: 3 and 2 before what they lead to
  CHECK(clusters[0].peak_t == 9);
  CHECK(clusters[0].mean_t == doctest::Approx(15.5 / 5));
  CHECK(clusters[1].cells == Cells{11, 10, 14});  // of the fives the one with the lower number
  CHECK(clusters[1].peak_t == 6);

  options.connectivity = 8;
  clusters = grow_clusters(t, q, 4, 4, options);
  REQUIRE(clusters.size() == 1);
  CHECK(clusters[0].cells == Cells{5, 10, 11, 14, 4, 1, 0, 2});

  options = {};
  options.min_size = 6;
  CHECK(grow_clusters(t, q, 4, 4, options).empty());

  options.min_size = 1;
  options.sign = -1;
  clusters = grow_clusters(t, q, 4, 4, options);
  REQUIRE(clusters.size() == 1);
  CHECK(clusters[0].cells == Cells{15});
  CHECK(clusters[0].peak_t == -7);
  CHECK(clusters[0].mean_t == -7);
}

TEST_CASE("clusters: nothing significant, everything, sheets of one row, NaN") {
  const Values t = {3, 1, 2, 5, 4, 6};
  ClusterOptions options;
  options.min_size = 1;
  CHECK(grow_clusters(t, Values(6, 1), 2, 3, options).empty());
  CHECK(grow_clusters(Values(6, 0), Values(6, 0), 2, 3, options).empty());  // t 0 is neither sign's
  auto clusters = grow_clusters(t, Values(6, 0), 2, 3, options);
  REQUIRE(clusters.size() == 1);
  CHECK(clusters[0].cells == Cells{5, 4, 3, 0, 2, 1});
  for (const auto& [rows, cols] : {std::pair{1, 6}, {6, 1}}) {
    clusters = grow_clusters(t, Values(6, 0), rows, cols, options);
    REQUIRE(clusters.size() == 1);
    CHECK(clusters[0].cells == Cells{5, 4, 3, 2, 1, 0});
    clusters = grow_clusters(t, Values{0, 0, 1, 0, 0, 0}, rows, cols, options);
    REQUIRE(clusters.size() == 2);
    CHECK(clusters[0].cells == Cells{5, 4, 3});
    CHECK(clusters[1].cells == Cells{0, 1});
  }
  // Equal cells: the lower one first.
  CHECK(grow_clusters(Values(6, 1), Values(6, 0), 2, 3, options)[0].cells == Cells{0, 1, 2, 3, 4, 5});
  const double nan = std::numeric_limits<double>::quiet_NaN();
  clusters = grow_clusters(Values{3, nan, 2, 1}, Values{0, 0, nan, 0}, 1, 4, options);
  REQUIRE(clusters.size() == 2);
  CHECK(clusters[0].cells == Cells{0});
  CHECK(clusters[1].cells == Cells{3});
}

TEST_CASE("clusters: as the paper's rule on any map; no cell twice; in order of their peaks") {
  Random random(31, Random::Purpose::tests);
  size_t found = 0;
  for (int trial = 0; trial < 200; ++trial) {
    const int rows = 1 + static_cast<int>(random.below(9)), cols = 1 + static_cast<int>(random.below(9));
    Values t, q;
    for (int i = 0; i < rows * cols; ++i) {
      t.push_back(std::round(3 * random.normal()));  // many ties
      q.push_back(random.uniform() / 6);
    }
    ClusterOptions options{trial % 2 ? 4 : 8, 1 + trial % 3, 0.02 + 0.05 * (trial % 4), trial % 5 ? 1 : -1};
    const auto clusters = grow_clusters(t, q, rows, cols, options);
    const auto expected = naive(t, q, rows, cols, options);
    REQUIRE(clusters.size() == expected.size());
    for (size_t i = 0; i < clusters.size(); ++i) CHECK(clusters[i].cells == expected[i]);
    found += clusters.size();

    std::vector<int> times(t.size());
    for (const Cluster& cluster : clusters)
      for (const int32_t cell : cluster.cells) CHECK(++times[static_cast<size_t>(cell)] == 1);
    CHECK(std::is_sorted(clusters.begin(), clusters.end(), [](const Cluster& a, const Cluster& b) {
      return std::abs(a.peak_t) > std::abs(b.peak_t);
    }));
  }
  CHECK(found > 200);
}

TEST_CASE("clusters: options that make no sense are refused in one sentence") {
  const Values map(6);
  const auto error = [&](const ClusterOptions& options) {
    return error_of([&] { grow_clusters(map, map, 2, 3, options); });
  };
  CHECK(contains(error({6, 10, 0.05, 1}), "a connectivity of 6"));
  CHECK(contains(error({4, 10, 0.05, 0}), "sign 0"));
  CHECK(contains(error_of([&] { grow_clusters(map, map, 2, 4); }), "are not 2x4"));
  CHECK(contains(error_of([&] { grow_clusters(map, Values(5), 2, 3); }), "5 p-values"));
}
