// The spatial loss and its gradient. Forward: Gram matrices of the centred units of each neighborhood, then
// correlations and the loss in double. Backward: one product with an n x n matrix for each neighborhood.
//
// Both products are small; fetching the scattered columns of the members costs half as much again. The
// forward gathers rows of members (a Gram tile is a sum of outer products of rows). The backward gathers each
// unit of any neighborhood once, transposed: a member is then a pointer, overlapping neighborhoods share
// their units, and members need no padding. The gathers are scalar copies, several rows to a look-up: on the
// AMD EPYC they were measured on they beat the gather instruction.
#include <cmath>
#include <type_traits>

#include "engine/profile.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/simd.h"

#if defined(__clang__)
#define TOPOLM_UNROLL _Pragma("unroll")
#else
#define TOPOLM_UNROLL _Pragma("GCC unroll 32")
#endif

namespace topolm::TOPOLM_ISA {

namespace {

constexpr double kConstant = 1e-12;  // a unit whose squared deviation is below does not vary
constexpr double kUniform = 1e-12;   // nor do correlations whose variance is below: what rounding leaves

// Register tiles: as many accumulators as there are registers, less a few for the operands.
constexpr int kGramVectors = kLanes == 16 ? 1 : 2;  // wide; narrow strips waste less above the diagonal
constexpr int kGramRows = kLanes == 16 ? 28 : 6;
constexpr int kProductVectors = 2;
constexpr int kProductUnits = kLanes == 16 ? 14 : 6;

constexpr int64_t kStrip = kGramVectors * kLanes;
constexpr int64_t kTileRows = 64;  // rows gathered at a time: n=81 then stays in the L1
constexpr int64_t kProductRows = kProductVectors * kLanes;  // a task of the backward

/// Calls f(size) with size in 1 .. MAX as a compile-time constant.
template <int MAX, class F>
TOPOLM_INLINE void with_size(int64_t size, F&& f) {
  if constexpr (MAX > 0) {
    if (size == MAX)
      f(std::integral_constant<int, MAX>{});
    else
      with_size<MAX - 1>(size, f);
  }
}

/// Calls f(begin, size) for pieces of [begin, end) of at most MAX, size being a compile-time constant. The
/// pieces differ by at most 1: a small remainder would leave most of the multipliers idle.
template <int MAX, class F>
TOPOLM_INLINE void pieces(int64_t begin, int64_t end, F&& f) {
  const int64_t count = ceil_div(end - begin, MAX);
  for (int64_t p = 0; p < count; ++p) {
    const int64_t from = begin + (end - begin) * p / count, to = begin + (end - begin) * (p + 1) / count;
    with_size<MAX>(to - from, [&](auto size) { f(from, size); });
  }
}

// ---- forward

// Partial Gram matrices are kept as strips of kStrip columns, each from its diagonal down.

/// Where the strip that begins at column j lies; strip_offset(n, padded n) is the size of all.
int64_t strip_offset(int64_t n, int64_t j) { return j * n - j * (j - kStrip) / 2; }

/// gram[m, lane] += sum over rows of tile[row, i + m] * tile[row, j + lane], for M values of m.
template <int M>
void gram_tile(float* gram, const float* tile, int64_t stride, int64_t rows, int64_t i, int64_t j) {
  vfloat sums[M][kGramVectors]{};
  for (int64_t row = 0; row < rows; ++row) {
    const float* const a = tile + row * stride;
    vfloat b[kGramVectors];
    TOPOLM_UNROLL for (int w = 0; w < kGramVectors; ++w) b[w] = load(a + j + w * kLanes);
    TOPOLM_UNROLL for (int m = 0; m < M; ++m) {
      TOPOLM_UNROLL for (int w = 0; w < kGramVectors; ++w) sums[m][w] += splat(a[i + m]) * b[w];
    }
  }
  TOPOLM_UNROLL for (int m = 0; m < M; ++m) {
    TOPOLM_UNROLL for (int w = 0; w < kGramVectors; ++w) {
      float* const g = gram + m * kStrip + w * kLanes;
      store(g, load(g) + sums[m][w]);
    }
  }
}

/// M rows of the tile = the members' columns of M rows of x [., c], centred. Four rows share the look-up of a
/// column: up to twice as fast as one by one. Not inlined: among the tiles these loops would be left without
/// registers.
template <int M, class T>
[[gnu::noinline]] void gather_rows(float* tile, int64_t stride, const T* x, int64_t c, const int32_t* members,
                                   const float* means, int64_t n) {
  for (int64_t j = 0; j < n; ++j) {
    const T* const from = x + members[j];
    TOPOLM_UNROLL for (int m = 0; m < M; ++m) tile[m * stride + j] = to_float(from[m * c]) - means[j];
  }
}

/// gram [n,n] (lower triangle) = the sum of the chunks' partial Gram matrices, in order.
void add_partial_grams(double* gram, const float* partial, int64_t chunks, int64_t distance, int64_t n) {
  for (int64_t j = 0; j < n; j += kStrip)
    for (int64_t i = j; i < n; ++i) {
      const float* const p = partial + strip_offset(n, j) + (i - j) * kStrip;
      double sums[kStrip]{};
      for (int64_t t = 0; t < chunks; ++t)
        for (int64_t lane = 0; lane < kStrip; ++lane) sums[lane] += p[t * distance + lane];
      for (int64_t lane = 0; lane < min(kStrip, i - j + 1); ++lane) gram[i * n + j + lane] = sums[lane];
    }
}

/// From the Gram matrix (lower triangle of r; becomes the correlations) to the loss of a neighborhood.
/// gradient [n,n]: weight * d loss / dx = (x - mean) * gradient. inverse and diagonal are scratch of n.
double loss_and_gradient(float* gradient, double* r, double* inverse, double* diagonal, const float* distance,
                         int64_t n, double weight) {
  for (int64_t i = 0; i < n; ++i) {
    inverse[i] = r[i * n + i] < kConstant ? 0 : 1 / std::sqrt(r[i * n + i]);
    diagonal[i] = 0;
  }
  const auto pairs = static_cast<double>(n * (n - 1) / 2);
  double sum = 0, square = 0, product = 0;
  for (int64_t i = 1; i < n; ++i)
    for (int64_t j = 0; j < i; ++j) sum += r[i * n + j] *= inverse[i] * inverse[j];
  const double mean = n > 1 ? sum / pairs : 0;
  for (int64_t i = 1; i < n; ++i)
    for (int64_t j = 0; j < i; ++j) {
      const double d = r[i * n + j] - mean;
      square += d * d;
      product += d * distance[i * n + j];
    }
  if (square <= kUniform * pairs) {
    for (int64_t i = 0; i < n * n; ++i) gradient[i] = 0;
    return 0.5;
  }
  // With norm = |r - mean| and rho = <r - mean, D> / norm:
  //   a = d loss / dr = -(D - rho (r - mean) / norm) / (2 norm), and through r = x_i x_j / (|x_i| |x_j|)
  //   gradient = (a - diag(sum over j of a r)) / (|x_i| |x_j|)
  const double norm = std::sqrt(square), rho = product / norm;
  for (int64_t i = 1; i < n; ++i)
    for (int64_t j = 0; j < i; ++j) {
      const double rij = r[i * n + j];
      const double a = -0.5 * weight / norm * (distance[i * n + j] - rho / norm * (rij - mean));
      gradient[i * n + j] = gradient[j * n + i] = static_cast<float>(a * inverse[i] * inverse[j]);
      diagonal[i] -= a * rij;
      diagonal[j] -= a * rij;
    }
  for (int64_t i = 0; i < n; ++i)
    gradient[i * n + i] = static_cast<float>(diagonal[i] * inverse[i] * inverse[i]);
  return 0.5 * (1 - rho);
}

// ---- backward

/// centred [count, kProductRows] = the units' columns of x [rows, c], transposed; 0 past the last row.
template <class T>
[[gnu::noinline]] void gather_units(float* centred, const T* x, const int32_t* units, const float* mean,
                                    int64_t count, int64_t rows, int64_t c) {
  for (int64_t u = 0; u < count; ++u, centred += kProductRows) {
    const T* const from = x + units[u];
    for (int64_t i = 0; i < rows; ++i) centred[i] = to_float(from[i * c]);
    for (int64_t i = rows; i < kProductRows; ++i) centred[i] = mean[units[u]];
    for (int64_t i = 0; i < kProductRows; i += kLanes) store(centred + i, load(centred + i) - mean[units[u]]);
  }
}

/// The units' columns of dx [rows, c] += scale * product [count, kProductRows].
[[gnu::noinline]] void scatter_units(float* dx, const float* product, const int32_t* units, float scale,
                                     int64_t count, int64_t rows, int64_t c) {
  for (int64_t u = 0; u < count; ++u, product += kProductRows) {
    float* const to = dx + units[u];
    for (int64_t i = 0; i < rows; ++i) to[i * c] += scale * product[i];
  }
}

/// product[j + m][row] += sum over i of matrix[i, j + m] * units[i][row], for M values of m. matrix is
/// symmetric.
template <int M>
void product_tile(float* product, const float* units, const int32_t* slots, const float* matrix, int64_t n,
                  int64_t j) {
  vfloat sums[M][kProductVectors]{};
  for (int64_t i = 0; i < n; ++i) {
    const float* const u = units + slots[i] * kProductRows;
    const float* const a = matrix + i * n + j;
    vfloat b[kProductVectors];
    TOPOLM_UNROLL for (int w = 0; w < kProductVectors; ++w) b[w] = load(u + w * kLanes);
    TOPOLM_UNROLL for (int m = 0; m < M; ++m) {
      TOPOLM_UNROLL for (int w = 0; w < kProductVectors; ++w) sums[m][w] += splat(a[m]) * b[w];
    }
  }
  TOPOLM_UNROLL for (int m = 0; m < M; ++m) {
    TOPOLM_UNROLL for (int w = 0; w < kProductVectors; ++w) {
      float* const p = product + slots[j + m] * kProductRows + w * kLanes;
      store(p, load(p) + sums[m][w]);
    }
  }
}

void check_members(const char* operation, const char* what, const Tensor& x, const Tensor& mean,
                   const Tensor& gradient, const Tensor& members) {
  const int64_t k = members.rows(), n = members.cols();
  check_shape(operation, "members", members, {k, n});
  check_shape(operation, "mean", mean, {x.cols()});
  check_shape(operation, "gradient", gradient, {k, n, n});
  check_indices(what, members, 0, x.cols(), "the units");
}

}  // namespace

void CpuKernels::spatial_loss_forward(const Tensor& loss, const Tensor& mean, const Tensor& gradient,
                                      const Tensor& x, const Tensor& members, const Tensor& distance,
                                      Aggregation aggregation) {
  const Range range("spatial_loss");
  const int64_t rows = x.rows(), c = x.cols(), k = members.rows(), n = members.cols();
  check_members("spatial_loss_forward", "spatial_loss_forward: member", x, mean, gradient, members);
  check_shape("spatial_loss_forward", "loss", loss, {1});
  check_shape("spatial_loss_forward", "distance", distance, {n, n});

  // At most 16 chunks of rows, each with its own partial sums: enough to share out, few enough to add up.
  const int64_t chunk = max(2 * kTileRows, ceil_div(rows, 16)), chunks = ceil_div(rows, chunk);
  const int64_t stride = ceil_div(n, kStrip) * kStrip, matrix = strip_offset(n, stride);
  auto* const losses =
      reinterpret_cast<double*>(workspace_.shared(2 * k + k * n + chunks * c + chunks * k * matrix));
  float* const means = reinterpret_cast<float*>(losses + k);  // of the members
  float* const column_sums = means + k * n;
  float* const grams = column_sums + chunks * c;
  float *const m = mean.f32(), *const g = gradient.f32();
  const float* const d = distance.f32();
  const int32_t* const member = members.i32();

  with_type(x, [&](auto* type) {
    const auto* const in = static_cast<decltype(type)>(x.data);
    // Column means, of deviations from the first row: a constant unit has exactly its value as its mean, and
    // one far from 0 loses nothing.
    pool_.parallel_for(chunks, [=](int64_t task, int) {
      float* const sums = column_sums + task * c;
      sweep(c, [=](int64_t j, auto lanes) { store(sums + j, vfloat{}, lanes); });
      for (int64_t i = task * chunk; i < min(rows, (task + 1) * chunk); ++i)
        sweep(c, [=](int64_t j, auto lanes) {
          store(sums + j, load(sums + j, lanes) + (load(in + i * c + j, lanes) - load(in + j, lanes)), lanes);
        });
    });
    for (int64_t j = 0; j < c; ++j) {
      double sum = 0;
      for (int64_t t = 0; t < chunks; ++t) sum += column_sums[t * c + j];
      m[j] = static_cast<float>(to_float(in[j]) + sum / static_cast<double>(rows));
    }
    for (int64_t i = 0; i < k * n; ++i) means[i] = m[member[i]];

    pool_.parallel_for(chunks, [=, this](int64_t task, int thread) {
      float* const tile = workspace_.of_thread(thread, kTileRows * stride);
      float* const partial = grams + task * k * matrix;
      for (int64_t i = 0; i < kTileRows * stride; ++i) tile[i] = 0;  // and so the columns past n remain
      for (int64_t i = 0; i < k * matrix; ++i) partial[i] = 0;
      const int64_t end = min(rows, (task + 1) * chunk);
      for (int64_t begin = task * chunk; begin < end; begin += kTileRows) {
        const int64_t count = min(kTileRows, end - begin);
        for (int64_t q = 0; q < k; ++q) {
          const int32_t* const columns = member + q * n;
          const float* const centre = means + q * n;
          int64_t row = 0;
          for (; row + 4 <= count; row += 4)
            gather_rows<4>(tile + row * stride, stride, in + (begin + row) * c, c, columns, centre, n);
          for (; row < count; ++row)
            gather_rows<1>(tile + row * stride, stride, in + (begin + row) * c, c, columns, centre, n);
          for (int64_t j = 0; j < n; j += kStrip) {
            float* const strip = partial + q * matrix + strip_offset(n, j);
            pieces<kGramRows>(j, n, [&](int64_t i, auto size) {
              gram_tile<size>(strip + (i - j) * kStrip, tile, stride, count, i, j);
            });
          }
        }
      }
    });
  });

  const double weight = aggregation == Aggregation::mean ? 1 / static_cast<double>(k) : 1;
  pool_.parallel_for(k, [=, this](int64_t q, int thread) {
    auto* const gram = reinterpret_cast<double*>(workspace_.of_thread(thread, 2 * (n * n + 2 * n)));
    add_partial_grams(gram, grams + q * matrix, chunks, k * matrix, n);
    losses[q] = loss_and_gradient(g + q * n * n, gram, gram + n * n, gram + n * n + n, d, n, weight);
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

void CpuKernels::spatial_loss_backward(const Tensor& dx, const Tensor& x, const Tensor& mean,
                                       const Tensor& gradient, const Tensor& members, float scale) {
  const Range range("spatial_loss_backward");
  const int64_t rows = x.rows(), c = x.cols(), k = members.rows(), n = members.cols();
  check_members("spatial_loss_backward", "spatial_loss_backward: member", x, mean, gradient, members);
  check_shape("spatial_loss_backward", "dx", dx, x.shape);

  // The units of any neighborhood, and which of them each member is.
  auto* const units = reinterpret_cast<int32_t*>(workspace_.shared(2 * c + k * n));
  int32_t *const slot_of = units + c, *const slots = slot_of + c;
  const int32_t* const member = members.i32();
  for (int64_t j = 0; j < c; ++j) slot_of[j] = 0;
  for (int64_t i = 0; i < k * n; ++i) slot_of[member[i]] = 1;
  int32_t count = 0;
  for (int32_t j = 0; j < c; ++j)
    if (slot_of[j]) units[slot_of[j] = count++] = j;
  for (int64_t i = 0; i < k * n; ++i) slots[i] = slot_of[member[i]];

  const float *const m = mean.f32(), *const g = gradient.f32();
  float* const out = dx.f32();
  with_type(x, [&](auto* type) {
    const auto* const in = static_cast<decltype(type)>(x.data);
    pool_.parallel_for(ceil_div(rows, kProductRows), [=, this](int64_t task, int thread) {
      float* const centred = workspace_.of_thread(thread, 2 * count * kProductRows);  // [count, kProductRows]
      float* const product = centred + count * kProductRows;
      const int64_t begin = task * kProductRows, height = min(kProductRows, rows - begin);
      gather_units(centred, in + begin * c, units, m, count, height, c);
      for (int64_t i = 0; i < count * kProductRows; ++i) product[i] = 0;
      for (int64_t q = 0; q < k; ++q)
        pieces<kProductUnits>(0, n, [&](int64_t j, auto size) {
          product_tile<size>(product, centred, slots + q * n, g + q * n * n, n, j);
        });
      scatter_units(out + begin * c, product, units, scale, count, height, c);
    });
  });
}

}  // namespace topolm::TOPOLM_ISA
