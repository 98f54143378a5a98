#include "tools/analysis/moran.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/error.h"
#include "engine/random.h"
#include "tools/analysis/statistics.h"

namespace topolm {

namespace {

constexpr double kTie = 1e-12;  // two sums of the same numbers in another order differ by less

/// The deviations of a map from its mean, and their squares' sum: what no shuffle changes.
struct Deviations {
  std::vector<double> z;
  double squares = 0;
};

Deviations deviations(std::span<const double> map, int rows, int cols) {
  require(rows > 0 && cols > 0 && std::ssize(map) == int64_t{rows} * cols, "a map of {} cells is not {}x{}",
          map.size(), rows, cols);
  require(map.size() >= 2, "Moran's I needs a map of at least two cells");
  const double mean = describe(map).mean;
  Deviations d;
  for (const double x : map) {
    d.z.push_back(x - mean);
    d.squares += d.z.back() * d.z.back();
  }
  return d;
}

/// Who is whose neighbor on a sheet, and by what weight.
class Neighbors {
 public:
  Neighbors(int rows, int cols, const MoranOptions& options) {
    const bool queen = options.contiguity == Contiguity::queen;
    const auto count = [&](int row, int col) {
      const int high = std::min(row + 1, rows - 1) - std::max(row - 1, 0) + 1,
                wide = std::min(col + 1, cols - 1) - std::max(col - 1, 0) + 1;
      return queen ? high * wide - 1 : high - 1 + wide - 1;
    };
    const auto weight = [&](int row, int col) {
      return options.weights == MoranWeights::row_standardised ? 1.0 / count(row, col) : 1.0;
    };
    const auto join = [&](int row, int col, int other_row, int other_col) {
      if (other_row >= rows || other_col < 0 || other_col >= cols) return;
      pairs_.push_back(
          {row * cols + col, other_row * cols + other_col, weight(row, col) + weight(other_row, other_col)});
      total_ += pairs_.back().weight;
    };
    for (int row = 0; row < rows; ++row)
      for (int col = 0; col < cols; ++col) {  // each pair once: from its upper or left cell
        join(row, col, row, col + 1);
        join(row, col, row + 1, col);
        if (queen) join(row, col, row + 1, col - 1);
        if (queen) join(row, col, row + 1, col + 1);
      }
  }

  double morans_i(const Deviations& d) const {
    if (!(d.squares > 0)) return 0;
    double sum = 0;
    for (const Pair& pair : pairs_)
      sum += pair.weight * d.z[static_cast<size_t>(pair.a)] * d.z[static_cast<size_t>(pair.b)];
    return static_cast<double>(d.z.size()) / total_ * sum / d.squares;
  }

 private:
  struct Pair {
    int32_t a, b;
    double weight;  // of a for b and of b for a
  };
  std::vector<Pair> pairs_;
  double total_ = 0;
};

}  // namespace

double morans_i(std::span<const double> map, int rows, int cols, const MoranOptions& options) {
  const Deviations d = deviations(map, rows, cols);
  return Neighbors(rows, cols, options).morans_i(d);
}

MoranTest moran_permutation_test(std::span<const double> map, int rows, int cols, int permutations,
                                 uint64_t seed, const MoranOptions& options) {
  require(permutations >= 1, "a permutation test needs at least one permutation, not {}", permutations);
  const Deviations d = deviations(map, rows, cols);
  const Neighbors neighbors(rows, cols, options);
  MoranTest test;
  test.i = neighbors.morans_i(d);
  Deviations shuffled = d;
  std::vector<double> null;
  int above = 0, below = 0;
  for (int k = 0; k < permutations; ++k) {
    const std::vector<int32_t> order = Random(seed, Random::Purpose::shuffles, static_cast<uint32_t>(k))
                                           .permutation(static_cast<int32_t>(map.size()));
    for (size_t i = 0; i < order.size(); ++i) shuffled.z[i] = d.z[static_cast<size_t>(order[i])];
    null.push_back(neighbors.morans_i(shuffled));
    above += null.back() >= test.i - kTie;
    below += null.back() <= test.i + kTie;
  }
  test.p = (1.0 + std::min(above, below)) / (1.0 + permutations);
  const Sample sample = describe(null);
  test.null_mean = sample.mean;
  test.null_sd =
      std::sqrt(sample.variance * static_cast<double>(sample.n - 1) / static_cast<double>(sample.n));
  return test;
}

}  // namespace topolm
