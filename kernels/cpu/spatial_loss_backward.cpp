// The gradient of the spatial loss: dx += (x - mean) G, where G is the sum of the neighborhoods' matrices,
// scattered to their units. A tile of the product is a few units by kRows rows of x, and its sum runs over
// the units that share a neighborhood with any of the tile's.
//
// Units are fetched transposed, rows side by side: a unit is then a pointer, and those of no neighborhood are
// passed over. Where most columns are units, squares are turned round in registers; else they are copied one
// by one, several rows to a look-up: on the AMD EPYC they were measured on that beats the gather instruction.
#include "engine/profile.h"
#include "kernels/cpu/spatial_units.h"

namespace topolm::TOPOLM_ISA {

namespace {

// A register tile: as many accumulators as there are registers, less a few for the operands.
constexpr int kVectors = 2;
constexpr int kUnits = kLanes == 16 ? 14 : 6;
constexpr int64_t kRows = kVectors * kLanes;

/// The columns of G of a tile of units: its rows are the units that share a neighborhood with any of them.
struct Columns {
  int64_t begin, size;  // the tile's slots
  int64_t depth;
  int32_t* units;  // [depth]: slots, ascending
  float* matrix;   // [depth, size]
};

/// Fills in the matrix and what its rows are. place and offset are scratch of units.count and n.
void collect(Columns& t, int32_t* place, int32_t* offset, const Units& units, const float* gradient,
             int64_t k, int64_t n) {
  const uint64_t others = units.neighborhoods(t.begin, t.begin + t.size);
  t.depth = 0;
  for (int32_t i = 0; i < units.count; ++i)
    if (units.share(i, others)) {
      t.units[t.depth] = i;
      place[i] = static_cast<int32_t>(t.depth++);
    }
  for (int64_t i = 0; i < t.depth * t.size; ++i) t.matrix[i] = 0;
  for (int64_t q = 0; q < k; ++q) {
    const int32_t* const slots = units.members + q * n;
    bool placed = false;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t column = slots[i] - t.begin;
      if (column < 0 || column >= t.size) continue;
      for (int64_t j = 0; j < (placed ? 0 : n); ++j)
        offset[j] = place[slots[j]] * static_cast<int32_t>(t.size);
      placed = true;
      const float* const row = gradient + (q * n + i) * n;  // and column: it is symmetric
      float* const to = t.matrix + column;
      for (int64_t j = 0; j < n; ++j) to[offset[j]] += row[j];
    }
  }
}

/// product[begin + m][row] = sum over the units i of matrix[i, m] * centred[i][row].
template <int M>
void product_tile(float* product, const float* centred, const Columns& t) {
  vfloat sums[M][kVectors]{};
  const float* a = t.matrix;
  for (int64_t i = 0; i < t.depth; ++i, a += M) {
    const float* const u = centred + t.units[i] * kRows;
    vfloat b[kVectors];
    TOPOLM_UNROLL for (int w = 0; w < kVectors; ++w) b[w] = load(u + w * kLanes);
    TOPOLM_UNROLL for (int m = 0; m < M; ++m) {
      TOPOLM_UNROLL for (int w = 0; w < kVectors; ++w) sums[m][w] += splat(a[m]) * b[w];
    }
  }
  TOPOLM_UNROLL for (int m = 0; m < M; ++m) {
    TOPOLM_UNROLL for (int w = 0; w < kVectors; ++w) {
      store(product + (t.begin + m) * kRows + w * kLanes, sums[m][w]);
    }
  }
}

template <class Sizes>
struct ProductTiles;
template <int... M>
struct ProductTiles<std::integer_sequence<int, M...>> {
  static constexpr void (*of_size[])(float*, const float*, const Columns&) = {product_tile<M + 1>...};
};

// ---- [rows, c] <-> [units, kRows]. The row past the last unit stands for columns of no neighborhood.

/// Asks for `count` elements that follow in memory: squares touch 16 rows a few bytes at a time, which no
/// processor foresees.
template <class T>
TOPOLM_INLINE void prefetch(const T* x, int64_t count) {
  for (int64_t i = 0; i < count; i += 64 / static_cast<int64_t>(sizeof(T))) __builtin_prefetch(x + i, 0, 2);
}

template <class T>
void transpose_in(float* centred, const T* x, const Units& units, const float* mean, int64_t rows,
                  int64_t c) {
  for (int64_t v = 0; v < kRows; v += kLanes)
    sweep(c, [&](int64_t j, auto lanes) {
      vfloat square[kLanes];
      TOPOLM_UNROLL for (int i = 0; i < kLanes; ++i) {
        square[i] = v + i < rows ? load(x + (v + i) * c + j, lanes) - load(mean + j, lanes) : vfloat{};
      }
      transpose(square);
      const int64_t columns = min(kLanes, c - j);
      for (int64_t i = 0; i < columns; ++i) store(centred + units.slot[j + i] * kRows + v, square[i]);
    });
}

void transpose_out(float* dx, const float* product, const Units& units, float scale, int64_t rows,
                   int64_t c) {
  for (int64_t v = 0; v < rows; v += kLanes)
    sweep(c, [&](int64_t j, auto lanes) {
      vfloat square[kLanes];
      TOPOLM_UNROLL for (int i = 0; i < kLanes; ++i) {
        square[i] = load(product + (j + i < c ? units.slot[j + i] : units.count) * kRows + v);
      }
      transpose(square);
      const int64_t height = min(kLanes, rows - v);
      for (int64_t i = 0; i < height; ++i) {
        float* const to = dx + (v + i) * c + j;
        store(to, load(to, lanes) + scale * square[i], lanes);
      }
    });
}

template <class T>
[[gnu::noinline]] void copy_in(float* centred, const T* x, const Units& units, const float* mean,
                               int64_t rows, int64_t c) {
  for (int64_t u = 0; u < units.count; ++u, centred += kRows) {
    const int64_t column = units.column[u];
    const T* const from = x + column;
    for (int64_t i = 0; i < rows; ++i) centred[i] = to_float(from[i * c]);
    for (int64_t i = rows; i < kRows; ++i) centred[i] = mean[column];
    for (int64_t i = 0; i < kRows; i += kLanes) store(centred + i, load(centred + i) - mean[column]);
  }
}

[[gnu::noinline]] void copy_out(float* dx, const float* product, const Units& units, float scale,
                                int64_t rows, int64_t c) {
  for (int64_t u = 0; u < units.count; ++u, product += kRows) {
    float* const to = dx + units.column[u];
    for (int64_t i = 0; i < rows; ++i) to[i * c] += scale * product[i];
  }
}

}  // namespace

void CpuKernels::spatial_loss_backward(const Tensor& dx, const Tensor& x, const Tensor& mean,
                                       const Tensor& gradient, const Tensor& members, float scale) {
  const Range range("spatial_loss_backward");
  const int64_t rows = x.rows(), c = x.cols(), k = members.rows(), n = members.cols();
  check_spatial_loss("spatial_loss_backward", "spatial_loss_backward: member", x, mean, gradient, members);
  check_shape("spatial_loss_backward", "dx", dx, x.shape);

  const Units units = find_units(workspace_.of_caller(units_size(members, c)), members, c);
  const int64_t count = units.count, tiles = ceil_div(count, kUnits);
  constexpr int64_t kWords = sizeof(Columns) / sizeof(float);
  auto* const columns =
      reinterpret_cast<Columns*>(workspace_.shared(tiles * (kWords + count) + count * count));
  auto* const lists = reinterpret_cast<int32_t*>(columns + tiles);
  auto* const matrices = reinterpret_cast<float*>(lists + tiles * count);
  const float *const m = mean.f32(), *const g = gradient.f32();
  pool_.parallel_for(tiles, [=, this](int64_t task, int thread) {
    auto* const place = reinterpret_cast<int32_t*>(workspace_.of_thread(thread, count + n));
    const int64_t begin = count * task / tiles, end = count * (task + 1) / tiles;
    columns[task] = {begin, end - begin, 0, lists + task * count, matrices + begin * count};
    collect(columns[task], place, place + count, units, g, k, n);
  });

  const bool transposed = 3 * count >= c;  // at 306 of 784 squares take 4.6 ms where copies take 5.4
  float* const out = dx.f32();
  with_type(x, [&](auto* type) {
    const auto* const in = static_cast<decltype(type)>(x.data);
    pool_.parallel_for(ceil_div(rows, kRows), [=, this](int64_t task, int thread) {
      float* const centred = workspace_.of_thread(thread, 2 * (count + 1) * kRows);  // [count + 1, kRows]
      float* const product = centred + (count + 1) * kRows;
      const int64_t begin = task * kRows, height = min(kRows, rows - begin);
      if (transposed)
        transpose_in(centred, in + begin * c, units, m, height, c);
      else
        copy_in(centred, in + begin * c, units, m, height, c);
      // Between the tiles, what a thread likely needs next is fetched: tiny 380 -> 310 us.
      const int64_t next = min(rows, begin + pool_.threads() * kRows);
      const int64_t elements = transposed ? min(kRows, rows - next) * c : 0;
      for (int64_t t = 0; t < tiles; ++t) {
        const int64_t from = elements * t / tiles, to = elements * (t + 1) / tiles;
        prefetch(in + next * c + from, to - from);
        prefetch(out + next * c + from, to - from);
        ProductTiles<std::make_integer_sequence<int, kUnits>>::of_size[columns[t].size - 1](product, centred,
                                                                                            columns[t]);
      }
      for (int64_t i = 0; i < kRows; ++i) product[count * kRows + i] = 0;
      if (transposed)
        transpose_out(out + begin * c, product, units, scale, height, c);
      else
        copy_out(out + begin * c, product, units, scale, height, c);
    });
  });
}

}  // namespace topolm::TOPOLM_ISA
