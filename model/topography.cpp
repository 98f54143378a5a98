#include "model/topography.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "engine/error.h"
#include "engine/random.h"
#include "engine/safetensors.h"

namespace topolm {

Sheet::Sheet(std::string name, int rows, int cols, std::vector<Position> positions)
    : rows_(rows),
      cols_(cols),
      positions_(std::move(positions)),
      unit_at_(static_cast<size_t>(rows * cols), -1) {
  require(positions_.size() == unit_at_.size(),
          "{} places {} units on a sheet of {}x{}; each place needs one unit", name, positions_.size(), rows,
          cols);
  for (size_t unit = 0; unit < positions_.size(); ++unit) {
    const auto [row, col] = positions_[unit];
    require(row >= 0 && row < rows && col >= 0 && col < cols,
            "{} puts unit {} at ({}, {}), outside the {}x{} sheet", name, unit, row, col, rows, cols);
    int32_t& place = unit_at_[static_cast<size_t>(row * cols + col)];
    require(place < 0,
            "{} puts units {} and {} both at ({}, {}); positions must be a bijection onto the sheet", name,
            place, unit, row, col);
    place = static_cast<int32_t>(unit);
  }
}

std::vector<Position> Sheet::identity(int rows, int cols) {
  std::vector<Position> positions;
  for (int row = 0; row < rows; ++row)
    for (int col = 0; col < cols; ++col) positions.push_back({row, col});
  return positions;
}

std::vector<Position> Sheet::permutation(int rows, int cols, uint64_t seed, int site) {
  Random random(seed, Random::Purpose::positions, static_cast<uint32_t>(site));
  std::vector<Position> positions;
  for (const int32_t place : random.permutation(rows * cols))
    positions.push_back({place / cols, place % cols});
  return positions;
}

Neighborhoods::Neighborhoods(int rows, int cols, int radius)
    : side_(2 * radius - 1), centre_rows_(rows - side_ + 1), centre_cols_(cols - side_ + 1) {
  require(radius >= 1 && centre_rows_ >= 1 && centre_cols_ >= 1,
          "no neighborhood of radius {} fits on a {}x{} sheet", radius, rows, cols);
}

void Neighborhoods::members(const Sheet& sheet, int index, std::span<int32_t> out) const {
  require(index >= 0 && index < count(), "neighborhood {} is not one of the {} on the sheet", index, count());
  const int top = index / centre_cols_, left = index % centre_cols_;
  for (int i = 0; i < units(); ++i)
    out[static_cast<size_t>(i)] = sheet.unit_at(top + i / side_, left + i % side_);
}

std::vector<float> Neighborhoods::distances(Distance norm) const {
  const int n = units();
  std::vector<double> d(static_cast<size_t>(n) * n);
  double sum = 0;
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j) {
      const double dr = std::abs(i / side_ - j / side_), dc = std::abs(i % side_ - j % side_);
      const double distance = norm == Distance::l2   ? std::hypot(dr, dc)
                              : norm == Distance::l1 ? dr + dc
                                                     : std::max(dr, dc);
      d[static_cast<size_t>(i) * n + j] = 1 / (1 + distance);
      if (i < j) sum += 1 / (1 + distance);
    }
  const double pairs = n * (n - 1) / 2.0, mean = sum / pairs;
  double squares = 0;
  for (int i = 0; i < n; ++i)
    for (int j = i + 1; j < n; ++j) squares += std::pow(d[static_cast<size_t>(i) * n + j] - mean, 2);
  std::vector<float> table(d.size());
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j)
      if (i != j && squares > 0)
        table[static_cast<size_t>(i) * n + j] =
            static_cast<float>((d[static_cast<size_t>(i) * n + j] - mean) / std::sqrt(squares));
  return table;
}

std::string positions_name(int site) { return "topography." + site_name(site); }

std::vector<Sheet> make_sheets(const ModelConfig& config, const std::string& positions, uint64_t seed) {
  const int rows = config.topography.rows, cols = config.topography.cols;
  std::vector<Sheet> sheets;
  if (positions == "identity" || positions == "random") {
    for (int site = 0; site < config.sites(); ++site)
      sheets.emplace_back(
          positions_name(site), rows, cols,
          positions == "identity" ? Sheet::identity(rows, cols) : Sheet::permutation(rows, cols, seed, site));
    return sheets;
  }
  const SafetensorsFile file(positions);
  for (int site = 0; site < config.sites(); ++site) {
    const std::string name = positions_name(site);
    const HostTensor& t = file.get(name);
    require(t.dtype == DType::i32 && t.shape == Shape({config.n_embd, 2}),
            "'{}': {} is {} {}, not int32 [{}, 2] (row, column of each unit)", positions, name,
            name_of(t.dtype), t.shape.str(), config.n_embd);
    std::vector<Position> places(static_cast<size_t>(config.n_embd));
    std::memcpy(places.data(), t.data,
                static_cast<size_t>(t.bytes()));  // a file's tensors need not be aligned
    sheets.emplace_back(fmt::format("'{}': {}", positions, name), rows, cols, std::move(places));
  }
  return sheets;
}

}  // namespace topolm
