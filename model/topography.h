// The sheets: where each unit of each site lies, which units make a neighborhood, how far they are apart.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/tensor.h"
#include "model/config.h"

namespace topolm {

/// Row and column of a unit on its sheet; the unit spacing is 1.
struct Position {
  int32_t row, col;
  bool operator==(const Position&) const = default;
};

/// The units of one site on a rows x cols sheet: a bijection, checked.
class Sheet {
 public:
  /// positions[unit]; `name` is for the error: outside the sheet, or two units in one place.
  Sheet(std::string name, int rows, int cols, std::vector<Position> positions);

  static std::vector<Position> identity(int rows, int cols);  // unit u at (u / cols, u % cols)
  /// A random permutation of the lattice, a function of (seed, site).
  static std::vector<Position> permutation(int rows, int cols, uint64_t seed, int site);

  int rows() const { return rows_; }
  int cols() const { return cols_; }
  const std::vector<Position>& positions() const { return positions_; }
  int32_t unit_at(int row, int col) const { return unit_at_[static_cast<size_t>(row * cols_ + col)]; }

 private:
  int rows_, cols_;
  std::vector<Position> positions_;
  std::vector<int32_t> unit_at_;
};

/// The square neighborhoods of one radius on a sheet of one size: the same offsets around every centre, so
/// one table of distances serves them all.
class Neighborhoods {
 public:
  Neighborhoods(int rows, int cols, int radius);

  /// Units in a neighborhood, (2 radius - 1)^2.
  int units() const { return side_ * side_; }
  /// Centres whose whole neighborhood lies on the sheet, in row-major order.
  int count() const { return centre_rows_ * centre_cols_; }
  /// The units of neighborhood `index` on `sheet`, in row-major order of their places. out: units() long.
  void members(const Sheet& sheet, int index, std::span<int32_t> out) const;
  /// D = 1/(1+distance) of each pair of places, [units, units], minus its mean over the pairs of distinct
  /// places and divided by its norm over unordered pairs; the diagonal is 0.
  std::vector<float> distances(Distance norm) const;

 private:
  int side_, centre_rows_, centre_cols_;
};

/// The places of the sites of a model: "identity", "random" (seeded, one permutation a site) or the path of a
/// safetensors file with topography.h.L.attn|mlp, such as another checkpoint.
std::vector<Sheet> make_sheets(const ModelConfig& config, const std::string& positions, uint64_t seed);

/// Name of a site's positions in a checkpoint: "topography.h.0.attn", int32 [n_embd, 2].
std::string positions_name(int site);

}  // namespace topolm
