// The spatial loss, forward: x [N,C] is read twice, once for the column means and once, for all neighborhoods
// together, for the products of the centred members.
//
//   column_sums   sums of each column over a chunk of rows, as deviations from the first row
//   column_means  adds the chunks up
//   gram          products of each pair of a neighborhood's members over a chunk of rows, on tensor cores
//   gram_sum      adds the chunks up, in double
//   loss          norms, correlations, the loss of a neighborhood and its backward matrix, in double
//   aggregate     mean or max over the neighborhoods
//
// At base 48x1024 (N = 49152, C = 784 fp32, K = 5, n = 81), derived from the shapes and from an A100's data
// sheet (2.04 TB/s, which is 13.4 bytes a cycle and multiprocessor; 312 TFLOP/s), not measured:
//   column_sums  reads x, 4NC = 154 MB; NC additions of deviations.
//   gram         reads x and writes 384 chunks x 5 x 3321 sums = 26 MB: 88 us. N K n (n+1) = 1.6 GFLOP in the
//                pairs; executed, a neighborhood is 6 squares of 32 x 32 with 42 tiles of 16 x 8 on or below
//                the diagonal, so N/16 x 5 x 42 x 4 mma of 4096 FLOP = 10.6 GFLOP: 34 us.
//   gram_sum     reads the 26 MB, which a 40 MB L2 may still hold, and writes 0.1 MB.
//   loss         5 blocks, each a few passes over 3240 pairs: latency, not throughput.
// Members are scattered: 81 of 784 columns touch 1 - (1 - 81/784)^8 = 58 % of a row's 32-byte sectors, so
// five neighborhoods gathered from global memory would read it 2.9 times. Rows are staged whole in shared
// memory instead. There, 16 rows take 392 cycles of 128 bytes to copy, 392 and 392 to split, and 30 squares x
// 8 loads x 4 x 1.5 = 1440 to fetch (of the two units that a quarter of a warp loads, half the time both lie
// in one half of the banks): 2600 cycles, within the 3700 that their 50 KB take from memory. The copy of the
// next rows is under way while these are multiplied, but not while they are split.
#include "kernels/cuda/gpu_kernels.h"
#include "kernels/cuda/spatial_rows.h"

namespace topolm::TOPOLM_GPU {

namespace {

constexpr double kConstant = 1e-12;  // a unit whose squared deviation is below does not vary
constexpr double kUniform = 1e-12;   // nor do correlations whose variance is below: what rounding leaves

constexpr int kThreads = 256, kRowsOfThreads = kThreads / kWarp;
constexpr int kWarps = 8;          // at most, of a block that multiplies
constexpr int kStagedSquares = 4;  // of products that a warp keeps in registers where rows are staged, else 1

/// The sum over chunks of partial [chunks, count] at i, in an order that depends on `chunks` alone. Lanes
/// have neighbouring i, warps every eighth chunk. All threads of a block of kThreads must call it.
DEVICE double sum_of_chunks(const float* partial, int64_t chunks, int64_t count, int64_t i,
                            double (&sums)[kRowsOfThreads][kWarp]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  double sum = 0;
  if (i < count)
    for (int64_t t = warp; t < chunks; t += kRowsOfThreads) sum += partial[t * count + i];
  sums[warp][lane] = sum;
  __syncthreads();
  double total = 0;
  UNROLL for (int w = 0; w < kRowsOfThreads; ++w) total += sums[w][lane];
  return total;
}

/// The sum of x over a block of kThreads; every thread gets it.
DEVICE double block_sum(double x, double (&sums)[kThreads]) {
  const int thread = static_cast<int>(threadIdx.x);
  __syncthreads();  // the last sum may still be being read
  sums[thread] = x;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (thread < half) sums[thread] += sums[thread + half];
  }
  __syncthreads();
  return sums[0];
}

/// Where row i of a lower triangle begins.
DEVICE int64_t triangle(int64_t i) { return i * (i + 1) / 2; }

}  // namespace

/// partial [chunks, c] = the sums over the rows i of chunk blockIdx.y of x[i,:] - x[0,:]. From the first row
/// a constant unit deviates by exactly 0, and one far from 0 loses nothing. c is a multiple of VECTOR.
template <class T, int VECTOR>
__global__ void __launch_bounds__(kThreads)
    spatial_column_sums_kernel(float* partial, const T* x, int64_t rows, int64_t c, int64_t chunk) {
  SHARED(float, sums, [kRowsOfThreads][VECTOR][kWarp]);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t column = (int64_t{blockIdx.x} * kWarp + lane) * VECTOR;
  const int64_t begin = blockIdx.y * chunk, end = min(rows, begin + chunk);
  float sum[VECTOR] = {};
  if (column < c) {
    const Vector<T, VECTOR> origin = load_vector<VECTOR>(x + column);
    for (int64_t i = begin + warp; i < end; i += kRowsOfThreads) {
      const Vector<T, VECTOR> v = load_vector<VECTOR>(x + i * c + column);
      UNROLL for (int e = 0; e < VECTOR; ++e) sum[e] += to_float(v.at[e]) - to_float(origin.at[e]);
    }
  }
  UNROLL for (int e = 0; e < VECTOR; ++e) sums[warp][e][lane] = sum[e];
  __syncthreads();
  if (column < c && warp < VECTOR) {
    float total = 0;
    UNROLL for (int w = 0; w < kRowsOfThreads; ++w) total += sums[w][warp][lane];
    partial[blockIdx.y * c + column + warp] = total;
  }
}

/// mean[j] = x[0,j] + the chunks' sums / rows, j < c.
template <class T>
__global__ void __launch_bounds__(kThreads)
    spatial_column_means_kernel(float* mean, const float* partial, const T* x, int64_t rows, int64_t c,
                                int64_t chunks) {
  SHARED(double, sums, [kRowsOfThreads][kWarp]);
  const int64_t j = int64_t{blockIdx.x} * kWarp + threadIdx.x % kWarp;
  const double sum = sum_of_chunks(partial, chunks, c, j, sums);
  if (threadIdx.x < kWarp && j < c)
    mean[j] = static_cast<float>(to_float(x[j]) + sum / static_cast<double>(rows));
}

/// partial [chunks, k, n(n+1)/2] = for each pair i >= j of the members of each neighborhood, the sum over the
/// rows of chunk blockIdx.x of (x - mean)[:, i] * (x - mean)[:, j]. The lower triangles are covered by
/// squares of kPanel x kPanel, and each warp keeps kSquares of them in registers until its rows are done.
/// STAGED: see CentredRows; dynamic shared memory holds a tile and, `stride` words a row, a copy of the next
/// rows.
template <class T, bool STAGED>
__global__ void __launch_bounds__(kWarps* kWarp)
    spatial_gram_kernel(float* partial, const T* x, const float* mean, const int32_t* members, int64_t rows,
                        int c, int k, int n, int64_t chunk, int stride, FaultRecord* fault) {
  constexpr int kSquares = STAGED ? kStagedSquares : 1;
  DYNAMIC_SHARED(uint32_t, words);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int warps = static_cast<int>(blockDim.x) / kWarp, g = lane / 4, t = lane % 4;
  const int panels = (n + kPanel - 1) / kPanel, squares = panels * (panels + 1) / 2;

  // Of each square: its neighborhood, its first row and column, and the places of the units this lane
  // fetches.
  int q[kSquares], i0[kSquares], j0[kSquares], row_unit[kSquares][4] = {}, column_unit[kSquares][4] = {};
  float sums[kSquares][2][4][4] = {};
  UNROLL for (int s = 0; s < kSquares; ++s) {
    const int square = (static_cast<int>(blockIdx.y) * kSquares + s) * warps + warp;
    q[s] = square / squares;
    int i = 0, j = square % squares;
    while (j > i) j -= ++i;
    i0[s] = i * kPanel, j0[s] = j * kPanel;
    const auto place = [&](int member) {
      return CentredRows<T, STAGED>::place(column_of(members, int64_t{q[s]} * n + min(n - 1, member + g), c,
                                                     fault, Fault::spatial_loss_forward_member));
    };
    UNROLL for (int m = 0; m < 4; ++m) {
      if (q[s] >= k) continue;
      row_unit[s][m] = place(i0[s] + 8 * m), column_unit[s][m] = place(j0[s] + 8 * m);
    }
  }

  const int64_t begin = blockIdx.x * chunk, end = min(rows, begin + chunk);
  const auto height = [&](int64_t row) { return static_cast<int>(min(int64_t{kTileRows}, end - row)); };
  uint32_t* const copy = words + kTileRows * c;
  if constexpr (STAGED) start_copy(copy, stride, x + begin * c, height(begin), c);
  for (int64_t row = begin; row < end; row += kTileRows) {
    const CentredRows<T, STAGED> tile{words, x + row * c, mean, c, height(row)};
    if constexpr (STAGED) {
      copy_async_wait<0>();
      __syncthreads();  // the copy is there, and nobody reads the words of the rows before
      tile.fill(copy, stride);
      __syncthreads();
      const int64_t next = row + kTileRows;
      if (next < end) start_copy(copy, stride, x + next * c, height(next), c);
    }
    // A fragment of 8 members: member g, and the 4 rows 4t .. 4t+3 as the depths 2t 2t+1 2t+8 2t+9. Any order
    // will do that is the same for both sides.
    const auto fetch = [&](uint32_t(&high)[2], uint32_t(&low)[2], int unit) {
      const Vector<uint32_t, 4> of_unit = tile.template fetch<4>(unit, 4 * t);
      UNROLL for (int h = 0; h < 2; ++h) {
        const HighLow two = pair(of_unit.at[2 * h], of_unit.at[2 * h + 1]);
        high[h] = two.high, low[h] = two.low;
      }
    };
    UNROLL for (int s = 0; s < kSquares; ++s) {
      if (q[s] >= k) continue;
      uint32_t a_high[4][2], a_low[4][2];
      UNROLL for (int m = 0; m < 4; ++m) fetch(a_high[m], a_low[m], row_unit[s][m]);
      UNROLL for (int m = 0; m < 4; ++m) {
        uint32_t b_high[2], b_low[2];
        fetch(b_high, b_low, column_unit[s][m]);
        UNROLL for (int u = 0; u < 2; ++u) {
          if (i0[s] + 16 * u + 15 < j0[s] + 8 * m) continue;  // above the diagonal
          const uint32_t high[4] = {a_high[2 * u][0], a_high[2 * u + 1][0], a_high[2 * u][1],
                                    a_high[2 * u + 1][1]};
          const uint32_t low[4] = {a_low[2 * u][0], a_low[2 * u + 1][0], a_low[2 * u][1],
                                   a_low[2 * u + 1][1]};
          mma_split(sums[s][u][m], high, low, b_high, b_low);
        }
      }
    }
  }

  UNROLL for (int s = 0; s < kSquares; ++s) {
    if (q[s] >= k) continue;
    float* const out = partial + (int64_t{blockIdx.x} * k + q[s]) * triangle(n);
    UNROLL for (int u = 0; u < 2; ++u) UNROLL for (int m = 0; m < 4; ++m) UNROLL for (int e = 0; e < 4; ++e) {
      const int i = i0[s] + 16 * u + g + e / 2 * 8, j = j0[s] + 8 * m + 2 * t + e % 2;
      if (i < n && j <= i) out[triangle(i) + j] = sums[s][u][m][e];
    }
  }
}

/// gram[i] = the sum of partial [chunks, count] over the chunks, i < count.
__global__ void __launch_bounds__(kThreads)
    spatial_gram_sum_kernel(double* gram, const float* partial, int64_t chunks, int64_t count) {
  SHARED(double, sums, [kRowsOfThreads][kWarp]);
  const int64_t i = int64_t{blockIdx.x} * kWarp + threadIdx.x % kWarp;
  const double sum = sum_of_chunks(partial, chunks, count, i, sums);
  if (threadIdx.x < kWarp && i < count) gram[i] = sum;
}

/// From gram [k, n(n+1)/2], which becomes the correlations, to the loss of neighborhood blockIdx.x and its
/// gradient [n,n], times weight. distance [n,n]. n doubles of dynamic shared memory. In double because
/// correlations that are nearly alike are subtracted from their mean. In rows a warp has a row i and its
/// lanes have j; r is stored before it is summed, so that no compiler may fuse the product into the sum.
__global__ void __launch_bounds__(kThreads) spatial_loss_kernel(double* losses, float* gradient, double* gram,
                                                                const float* distance, int n, double weight) {
  DYNAMIC_SHARED(double, inverse);
  SHARED(double, sums, [kThreads]);
  SHARED(double, constants, [3]);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const double pairs = static_cast<double>(triangle(n - 1));
  double* const r = gram + blockIdx.x * triangle(n);
  float* const out = gradient + int64_t{blockIdx.x} * n * n;

  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) {
    const double square = r[triangle(i) + i];
    inverse[i] = square < kConstant ? 0 : 1 / sqrt(square);
  }
  __syncthreads();
  for (int i = warp; i < n; i += kRowsOfThreads) {
    double* const row = r + triangle(i);
    for (int j = lane; j < i; j += kWarp) row[j] *= inverse[i] * inverse[j];
  }
  __syncthreads();

  double sum = 0, square = 0, product = 0;
  for (int i = warp; i < n; i += kRowsOfThreads) {
    const double* const row = r + triangle(i);
    for (int j = lane; j < i; j += kWarp) sum += row[j];
  }
  sum = block_sum(sum, sums);
  if (threadIdx.x == 0) constants[0] = n > 1 ? sum / pairs : 0;
  __syncthreads();
  const double mean = constants[0];
  for (int i = warp; i < n; i += kRowsOfThreads) {
    const double* const row = r + triangle(i);
    const float* const close = distance + int64_t{i} * n;
    for (int j = lane; j < i; j += kWarp) {
      const double d = row[j] - mean;
      square = fma(d, d, square);
      product = fma(d, double{close[j]}, product);
    }
  }
  square = block_sum(square, sums);
  product = block_sum(product, sums);

  // With norm = |r - mean| and rho = <r - mean, D> / norm:
  //   a = d loss / dr = -(D - rho (r - mean) / norm) / (2 norm), and through r = x_i x_j / (|x_i| |x_j|)
  //   gradient = (a - diag(sum over j of a r)) / (|x_i| |x_j|)
  const bool uniform = square <= kUniform * pairs;  // false for a NaN
  if (threadIdx.x == 0) {
    const double norm = sqrt(square), rho = product / norm;
    constants[1] = rho / norm, constants[2] = -0.5 * weight / norm;
    losses[blockIdx.x] = uniform ? 0.5 : 0.5 * (1 - rho);
  }
  __syncthreads();
  const double slope = constants[1], factor = constants[2];
  for (int i = warp; i < n; i += kRowsOfThreads) {
    const float* const close = distance + int64_t{i} * n;
    float* const row = out + int64_t{i} * n;
    double diagonal = 0;
    for (int j = lane; j < n; j += kWarp)
      if (i != j) {
        const double rij = r[i > j ? triangle(i) + j : triangle(j) + i];
        const double a = factor * fma(-slope, rij - mean, double{close[j]});
        diagonal = fma(-a, rij, diagonal);
        row[j] = uniform ? 0 : static_cast<float>(a * inverse[i] * inverse[j]);
      }
    for (int offset = kWarp / 2; offset > 0; offset /= 2)
      diagonal += __shfl_xor_sync(kAllLanes, diagonal, offset);
    if (lane == 0) row[i] = uniform ? 0 : static_cast<float>(diagonal * inverse[i] * inverse[i]);
  }
}

/// loss [1] = the mean of losses [k], or the largest of them, a NaN above all; then the gradients [k, matrix]
/// of the others become 0.
__global__ void __launch_bounds__(kThreads)
    spatial_aggregate_kernel(float* loss, float* gradient, const double* losses, int k, int64_t matrix,
                             Aggregation aggregation) {
  double total = losses[0];
  int largest = 0;
  for (int q = 1; q < k; ++q) {
    total += losses[q];
    if (!(losses[q] <= losses[largest]) && losses[largest] == losses[largest]) largest = q;
  }
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i == 0) *loss = static_cast<float>(aggregation == Aggregation::mean ? total / k : losses[largest]);
  if (aggregation == Aggregation::max && i < k * matrix && i / matrix != largest) gradient[i] = 0;
}

void GpuKernels::spatial_loss_forward(const Tensor& loss, const Tensor& mean, const Tensor& gradient,
                                      const Tensor& x, const Tensor& members, const Tensor& distance,
                                      Aggregation aggregation) {
  const Range range("spatial_loss");
  const int64_t rows = x.rows(), c = x.cols(), k = members.rows(), n = members.cols();
  check_shape("spatial_loss_forward", "members", members, {k, n});
  check_shape("spatial_loss_forward", "mean", mean, {c});
  check_shape("spatial_loss_forward", "gradient", gradient, {k, n, n});
  check_shape("spatial_loss_forward", "loss", loss, {1});
  check_shape("spatial_loss_forward", "distance", distance, {n, n});

  // Chunks of at least 128 rows: at base 384, several for each multiprocessor. Fewer where their sums would
  // pass 64 MB.
  const int64_t pairs = n * (n + 1) / 2,
                most = std::min<int64_t>(512, std::max<int64_t>(32, (16 << 20) / (k * pairs)));
  const int64_t chunk = std::max<int64_t>(128, ceil_div(rows, most)), chunks = ceil_div(rows, chunk);
  auto* const losses = static_cast<double*>(
      device_->scratch(static_cast<size_t>(8 * (k + k * pairs) + 4 * chunks * std::max(c, k * pairs))));
  double* const gram = losses + k;
  auto* const partial = reinterpret_cast<float*>(gram + k * pairs);

  const double x_bytes = static_cast<double>(x.bytes()), elements = static_cast<double>(x.elements());
  const double column_bytes = 4.0 * chunks * c, gram_bytes = 4.0 * chunks * k * pairs;
  with_type(x, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const auto* const in = static_cast<const T*>(x.data);
    const size_t shared = staging_bytes<T, T>(in, nullptr, c);

    constexpr int kVector = 16 / sizeof(T);
    const bool vectors = c % kVector == 0 && reinterpret_cast<uintptr_t>(in) % 16 == 0;
    launch(
        vectors ? KERNEL(spatial_column_sums_kernel<T, kVector>) : KERNEL(spatial_column_sums_kernel<T, 1>),
        {{blocks_for(c, kWarp * (vectors ? kVector : 1)).x, static_cast<uint32_t>(chunks)}, {kThreads}},
        {.bytes = x_bytes + column_bytes, .flops = 2 * elements}, partial, in, rows, c, chunk);
    launch(KERNEL(spatial_column_means_kernel<T>), {blocks_for(c, kWarp), {kThreads}},
           {.bytes = column_bytes + 8.0 * c, .flops = 1.0 * chunks * c}, mean.f32(), partial, in, rows, c,
           chunks);

    const int64_t panels = ceil_div(n, kPanel), squares = k * panels * (panels + 1) / 2;
    const int64_t warps = std::min<int64_t>(kWarps, squares);
    launch(shared ? KERNEL(spatial_gram_kernel<T, true>) : KERNEL(spatial_gram_kernel<T, false>),
           {{static_cast<uint32_t>(chunks), blocks_for(squares, (shared ? kStagedSquares : 1) * warps).x},
            {static_cast<uint32_t>(warps * kWarp)},
            shared},
           {.bytes = x_bytes + 4.0 * c + 4.0 * k * n + gram_bytes, .flops = 2.0 * rows * k * pairs}, partial,
           in, mean.f32(), members.i32(), rows, c, k, n, chunk, row_stride<T>(c), device_->fault());
  });
  launch(KERNEL(spatial_gram_sum_kernel), {blocks_for(k * pairs, kWarp), {kThreads}},
         {.bytes = gram_bytes + 8.0 * k * pairs, .flops = 1.0 * chunks * k * pairs}, gram, partial, chunks,
         k * pairs);
  const double weight = aggregation == Aggregation::mean ? 1 / static_cast<double>(k) : 1;
  launch(KERNEL(spatial_loss_kernel), {{static_cast<uint32_t>(k)}, {kThreads}, 8 * static_cast<size_t>(n)},
         {.bytes = 16.0 * k * pairs + 4.0 * (k + 1) * n * n, .flops = 20.0 * k * pairs}, losses,
         gradient.f32(), gram, distance.f32(), n, weight);
  const bool zeroes = aggregation == Aggregation::max;
  launch(KERNEL(spatial_aggregate_kernel), {blocks_for(zeroes ? k * n * n : 1, kThreads), {kThreads}},
         {.bytes = 8.0 * k + 4 + (zeroes ? 4.0 * (k - 1) * n * n : 0), .flops = 1.0 * k}, loss.f32(),
         gradient.f32(), losses, k, n * n, aggregation);
}

}  // namespace topolm::TOPOLM_GPU
