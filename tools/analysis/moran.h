// Moran's I (Moran, 1950): the correlation of a map with its own neighborhood averages. 1: smooth, 0: no
// order.
#pragma once

#include <cstdint>
#include <span>

namespace topolm {

enum class Contiguity { queen, rook };                 // 8 neighbors or 4; no wrap-around
enum class MoranWeights { row_standardised, binary };  // each cell's neighbors weigh 1 together, or 1 each

struct MoranOptions {
  Contiguity contiguity = Contiguity::queen;
  MoranWeights weights = MoranWeights::row_standardised;
};

/// I = (n / W) sum_ij w_ij z_i z_j / sum_i z_i^2, z the map minus its mean. map [rows * cols], row-major, at
/// least two cells, all finite (Error). 0 when the map is constant.
double morans_i(std::span<const double> map, int rows, int cols, const MoranOptions& options = {});

/// Moran's I among maps whose cells are shuffled.
struct MoranTest {
  double i = 0;
  // (1 + shuffles at least as far out on the same side) / (1 + shuffles): esda's p_sim. It counts ties as
  // above; we count them on both sides, so that a map which no shuffle changes is not significant.
  double p = 1;
  double null_mean = 0, null_sd = 0;  // of the shuffles; sd of them as a population, as esda's seI_sim
};
/// Shuffle k is a function of (seed, k): cell i of it is cell permutation[i] of the map. At least one
/// (Error).
MoranTest moran_permutation_test(std::span<const double> map, int rows, int cols, int permutations,
                                 uint64_t seed, const MoranOptions& options = {});

}  // namespace topolm
