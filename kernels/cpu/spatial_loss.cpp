// The forward pass of the spatial loss: Gram matrices of the centred units, then correlations and the loss in
// double.
//
// One sparse Gram matrix serves all neighborhoods: a tile is kTileRows units by kLanes, wherever any two of
// them share a neighborhood. A tile is a sum of outer products of rows of x, so rows are fetched first, their
// units in the order of spatial_units.h: scalar copies, several rows to a look-up, which on the AMD EPYC they
// were measured on beat the gather instruction.
#include <cmath>

#include "engine/profile.h"
#include "kernels/cpu/spatial_units.h"

namespace topolm::TOPOLM_ISA {

namespace {

constexpr double kConstant = 1e-12;  // a unit whose squared deviation is below does not vary
constexpr double kUniform = 1e-12;   // nor do correlations whose variance is below: what rounding leaves

// A register tile: as many accumulators as there are registers, less a few for the operands.
constexpr int kVectors = kLanes == 16 ? 1 : 2;  // wide; narrow strips waste less above the diagonal
constexpr int kUnits = kLanes == 16 ? 28 : 6;   // high

constexpr int64_t kStrip = kVectors * kLanes;
constexpr int64_t kTileRows = 64;  // rows of x fetched at a time
constexpr int64_t kGap = 4;        // units that a tile rather computes for nothing than end before them

/// Element (m, lane) is the product of units row + m and column + lane.
struct GramTile {
  int32_t row, column, rows;
  int32_t offset;  // among all tiles' elements, in tiles of one row
};

/// The tiles of the lower triangle: strips of kStrip units from the diagonal down, without the units that
/// share a neighborhood with none of the strip's. Returns how many tiles there are.
int64_t find_tiles(GramTile* tiles, const Units& units) {
  int64_t count = 0;
  int32_t offset = 0;
  for (int64_t column = 0; column < units.count; column += kStrip) {
    const uint64_t others = units.neighborhoods(column, min(units.count, column + kStrip));
    for (int64_t begin = column; begin < units.count;) {
      if (!units.share(begin, others)) {
        ++begin;
        continue;
      }
      int64_t end = begin + 1;
      for (int64_t i = end; i < units.count && i <= end + kGap; ++i)
        if (units.share(i, others)) end = i + 1;
      pieces(begin, end, kUnits, [&](int64_t row, int64_t rows) {
        tiles[count++] = {static_cast<int32_t>(row), static_cast<int32_t>(column), static_cast<int32_t>(rows),
                          offset};
        offset += static_cast<int32_t>(rows);
      });
      begin = end;
    }
  }
  return count;
}

/// At most so many: of a strip's runs all but the last are followed by more than kGap units.
int64_t most_tiles(int64_t units) {
  return ceil_div(units, kStrip) * (units / (kGap + 2) + ceil_div(units, kUnits) + 1);
}

/// gram[m, lane] += sum over rows of x[row, m] * y[row, lane], for M values of m.
template <int M>
void gram_tile(float* gram, const float* x, const float* y, int64_t stride, int64_t rows) {
  vfloat sums[M][kVectors]{};
  for (int64_t row = 0; row < rows; ++row, x += stride, y += stride) {
    vfloat b[kVectors];
    TOPOLM_UNROLL for (int w = 0; w < kVectors; ++w) b[w] = load(y + w * kLanes);
    TOPOLM_UNROLL for (int m = 0; m < M; ++m) {
      TOPOLM_UNROLL for (int w = 0; w < kVectors; ++w) sums[m][w] += splat(x[m]) * b[w];
    }
  }
  TOPOLM_UNROLL for (int m = 0; m < M; ++m) {
    TOPOLM_UNROLL for (int w = 0; w < kVectors; ++w) {
      float* const g = gram + m * kStrip + w * kLanes;
      store(g, load(g) + sums[m][w]);
    }
  }
}

template <class Sizes>
struct GramTiles;
template <int... M>
struct GramTiles<std::integer_sequence<int, M...>> {
  static constexpr void (*of_size[])(float*, const float*, const float*, int64_t,
                                     int64_t) = {gram_tile<M + 1>...};
};
constexpr auto& gram_tiles = GramTiles<std::make_integer_sequence<int, kUnits>>::of_size;

/// M rows of the units' columns of x [., c], centred. Four rows share the look-up of a column: up to twice as
/// fast as one by one. Not inlined: among the tiles these loops would be left without registers.
template <int M, class T>
[[gnu::noinline]] void gather_rows(float* centred, int64_t stride, const T* x, int64_t c, const Units& units,
                                   const float* means) {
  for (int64_t j = 0; j < units.count; ++j) {
    const T* const from = x + units.column[j];
    TOPOLM_UNROLL for (int m = 0; m < M; ++m) centred[m * stride + j] = to_float(from[m * c]) - means[j];
  }
}

/// sum [count, stride] = the tile's part of the chunks' Gram matrices, added up in their order.
void add_up_tile(double* sum, int64_t stride, const GramTile& tile, const float* grams, int64_t chunks,
                 int64_t distance) {
  double sums[kUnits * kStrip]{};
  const int64_t n = tile.rows * kStrip;
  const float* part = grams + tile.offset * kStrip;
  for (int64_t t = 0; t < chunks; ++t, part += distance)
    for (int64_t i = 0; i < n; ++i) sums[i] += part[i];
  for (int64_t m = 0; m < tile.rows; ++m)
    for (int64_t lane = 0; lane < kStrip; ++lane)
      sum[(tile.row + m) * stride + tile.column + lane] = sums[m * kStrip + lane];
}

/// r [n,n] (lower triangle) = the correlations of a neighborhood's units, from the Gram matrix of all units
/// (lower triangle, rows `stride` apart); 0 with a constant unit. inverse [n] = 1 / |x - mean|, or 0.
void correlations(double* r, double* inverse, const double* gram, int64_t stride, const int32_t* slots,
                  int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const double square = gram[slots[i] * (stride + 1)];
    inverse[i] = square < kConstant ? 0 : 1 / std::sqrt(square);
  }
  for (int64_t i = 1; i < n; ++i)
    for (int64_t j = 0; j < i; ++j)
      r[i * n + j] =
          gram[max(slots[i], slots[j]) * stride + min(slots[i], slots[j])] * (inverse[i] * inverse[j]);
}

/// Calls f(j, j % 8) for j < n, eight at a time: eight sums side by side, which a vector can hold.
template <class F>
TOPOLM_INLINE void in_eights(int64_t n, F&& f) {
  int64_t j = 0;
  for (; j + 8 <= n; j += 8)
    for (int lane = 0; lane < 8; ++lane) f(j + lane, lane);
  for (; j < n; ++j) f(j, static_cast<int>(j % 8));
}

TOPOLM_INLINE double add_up(const double (&sums)[8]) {
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

/// From the correlations of a neighborhood (r [n,n], lower triangle) to its loss and gradient [n,n]: weight *
/// d loss / dx = (x - mean) * gradient. inverse [n] is 1 / |x - mean|, 0 for a constant unit; diagonal is
/// scratch of n.
double loss_and_gradient(float* gradient, const double* r, const double* inverse, double* diagonal,
                         const float* distance, int64_t n, double weight) {
  const auto pairs = static_cast<double>(n * (n - 1) / 2);
  double sums[8]{}, squares[8]{}, products[8]{};
  for (int64_t i = 1; i < n; ++i) in_eights(i, [&](int64_t j, int lane) { sums[lane] += r[i * n + j]; });
  const double mean = n > 1 ? add_up(sums) / pairs : 0;
  for (int64_t i = 1; i < n; ++i)
    in_eights(i, [&](int64_t j, int lane) {
      const double d = r[i * n + j] - mean;
      squares[lane] += d * d;
      products[lane] += d * distance[i * n + j];
    });
  const double square = add_up(squares), product = add_up(products);
  if (square <= kUniform * pairs) {
    for (int64_t i = 0; i < n * n; ++i) gradient[i] = 0;
    return 0.5;
  }
  // With norm = |r - mean| and rho = <r - mean, D> / norm:
  //   a = d loss / dr = -(D - rho (r - mean) / norm) / (2 norm), and through r = x_i x_j / (|x_i| |x_j|)
  //   gradient = (a - diag(sum over j of a r)) / (|x_i| |x_j|)
  const double norm = std::sqrt(square), rho = product / norm;
  const double factor = -0.5 * weight / norm, slope = rho / norm;
  for (int64_t i = 0; i < n; ++i) diagonal[i] = 0;
  for (int64_t i = 1; i < n; ++i) {
    double row[8]{};
    in_eights(i, [&](int64_t j, int lane) {
      const double rij = r[i * n + j];
      const double a = factor * (distance[i * n + j] - slope * (rij - mean));
      gradient[i * n + j] = static_cast<float>(a * inverse[i] * inverse[j]);
      row[lane] += a * rij;
      diagonal[j] -= a * rij;
    });
    diagonal[i] -= add_up(row);
  }
  for (int64_t i = 0; i < n; ++i) {
    gradient[i * n + i] = static_cast<float>(diagonal[i] * inverse[i] * inverse[i]);
    for (int64_t j = 0; j < i; ++j) gradient[j * n + i] = gradient[i * n + j];
  }
  return 0.5 * (1 - rho);
}

}  // namespace

void CpuKernels::spatial_loss_forward(const Tensor& loss, const Tensor& mean, const Tensor& gradient,
                                      const Tensor& x, const Tensor& members, const Tensor& distance,
                                      Aggregation aggregation) {
  const Range range("spatial_loss");
  const int64_t rows = x.rows(), c = x.cols(), k = members.rows(), n = members.cols();
  check_spatial_loss("spatial_loss_forward", "spatial_loss_forward: member", x, mean, gradient, members);
  check_shape("spatial_loss_forward", "loss", loss, {1});
  check_shape("spatial_loss_forward", "distance", distance, {n, n});

  const int64_t most_units = min(c, k * n);
  constexpr int64_t kWords = sizeof(GramTile) / sizeof(float);
  auto* const tiles = reinterpret_cast<GramTile*>(
      workspace_.of_caller(kWords * most_tiles(most_units) + units_size(members, c)));
  const Units units = find_units(reinterpret_cast<float*>(tiles + most_tiles(most_units)), members, c);
  const int64_t n_tiles = find_tiles(tiles, units), stride = ceil_div(units.count, kStrip) * kStrip;
  const int64_t partial = (tiles[n_tiles - 1].offset + tiles[n_tiles - 1].rows) * kStrip;

  // At most 16 chunks of rows, each with its own partial sums: enough to share out, few enough to add up.
  const int64_t chunk = max(2 * kTileRows, ceil_div(rows, 16)), chunks = ceil_div(rows, chunk);
  const int64_t sums_stride = apart(c);
  auto* const gram = reinterpret_cast<double*>(
      workspace_.shared(2 * units.count * stride + 2 * k + stride + chunks * (sums_stride + partial)));
  double* const losses = gram + units.count * stride;
  float* const means = reinterpret_cast<float*>(losses + k);  // [stride], of the units
  float* const column_sums = means + stride;
  float* const grams = column_sums + chunks * sums_stride;
  float *const m = mean.f32(), *const g = gradient.f32();
  const float* const d = distance.f32();

  with_type(x, [&](auto* type) {
    const auto* const in = static_cast<decltype(type)>(x.data);
    // Column means, of deviations from the first row: a constant unit has exactly its value as its mean, and
    // one far from 0 loses nothing.
    pool_.parallel_for(chunks, [=](int64_t task, int) {
      float* const sums = column_sums + task * sums_stride;
      sweep(c, [=](int64_t j, auto lanes) { store(sums + j, vfloat{}, lanes); });
      for (int64_t i = task * chunk; i < min(rows, (task + 1) * chunk); ++i)
        sweep(c, [=](int64_t j, auto lanes) {
          store(sums + j, load(sums + j, lanes) + (load(in + i * c + j, lanes) - load(in + j, lanes)), lanes);
        });
    });
    for (int64_t j = 0; j < c; ++j) {
      double sum = 0;
      for (int64_t t = 0; t < chunks; ++t) sum += column_sums[t * sums_stride + j];
      m[j] = static_cast<float>(to_float(in[j]) + sum / static_cast<double>(rows));
    }
    for (int64_t i = 0; i < units.count; ++i) means[i] = m[units.column[i]];

    pool_.parallel_for(chunks, [=, this](int64_t task, int thread) {
      float* const centred = workspace_.of_thread(thread, kTileRows * stride);
      float* const own = grams + task * partial;
      for (int64_t i = 0; i < kTileRows * stride; ++i)
        centred[i] = 0;  // and so the columns past the units stay
      for (int64_t i = 0; i < partial; ++i) own[i] = 0;
      const int64_t end = min(rows, (task + 1) * chunk);
      for (int64_t begin = task * chunk; begin < end; begin += kTileRows) {
        const int64_t height = min(kTileRows, end - begin);
        int64_t row = 0;
        for (; row + 4 <= height; row += 4)
          gather_rows<4>(centred + row * stride, stride, in + (begin + row) * c, c, units, means);
        for (; row < height; ++row)
          gather_rows<1>(centred + row * stride, stride, in + (begin + row) * c, c, units, means);
        for (int64_t t = 0; t < n_tiles; ++t)
          gram_tiles[tiles[t].rows - 1](own + tiles[t].offset * kStrip, centred + tiles[t].row,
                                        centred + tiles[t].column, stride, height);
      }
    });
  });

  constexpr int64_t kTogether = 8;
  pool_.parallel_for(ceil_div(n_tiles, kTogether), [=](int64_t task, int) {
    for (int64_t t = task * kTogether; t < min(n_tiles, (task + 1) * kTogether); ++t)
      add_up_tile(gram, stride, tiles[t], grams, chunks, partial);
  });
  const double weight = aggregation == Aggregation::mean ? 1 / static_cast<double>(k) : 1;
  pool_.parallel_for(k, [=, this](int64_t q, int thread) {
    auto* const r = reinterpret_cast<double*>(workspace_.of_thread(thread, 2 * (n * n + 2 * n)));
    double *const inverse = r + n * n, *const diagonal = inverse + n;
    correlations(r, inverse, gram, stride, units.members + q * n, n);
    losses[q] = loss_and_gradient(g + q * n * n, r, inverse, diagonal, d, n, weight);
  });
  double total = losses[0];
  int64_t largest = 0;
  for (int64_t q = 1; q < k; ++q) {
    total += losses[q];
    if (!(losses[q] <= losses[largest]) && losses[largest] == losses[largest]) largest = q;  // a NaN wins
  }
  *loss.f32() = static_cast<float>(aggregation == Aggregation::mean ? total * weight : losses[largest]);
  if (aggregation == Aggregation::max)
    for (int64_t i = 0; i < k * n * n; ++i)
      if (i / (n * n) != largest) g[i] = 0;
}

}  // namespace topolm::TOPOLM_ISA
