// Attention of decoding: M new rows of one sequence against its cached keys and values. Three launches: the
// new keys and values go into the caches, blocks attend to 128 keys each, and what they found is put
// together.
//
// The position is read on the device, and the grid covers the whole caches: a recorded launch serves every
// position. Blocks whose keys lie in the future have nothing to do.
//
// A cached row holds the heads side by side, and a head of 49 in bf16 starts at any even address. So a group
// of lanes reads the aligned 16-byte vectors that cover the head's slice of a row, and ignores what of them
// belongs to the neighbours. Where rows themselves are not aligned, lanes read single elements.
#include <cfloat>
#include <numeric>

#include "kernels/attention_sizes.h"
#include "kernels/cuda/gpu_kernels.h"
#include "kernels/cuda/math.h"
#include "kernels/cuda/warp.h"

namespace topolm::TOPOLM_GPU {

constexpr int kThreads = 128;
constexpr int kKeys = 128;     // a block
constexpr int kAhead = 4;      // keys that a group of lanes has under way, to hide the latency of memory
constexpr int kMaxSize = 128;  // of a head: a thread for each column

/// Where the new rows lie.
struct Place {
  int64_t first, rows, longest;  // first is read on the device
  DEVICE Place(const int32_t* position, int64_t rows, int64_t longest)
      : first(*position), rows(rows), longest(longest) {}
  DEVICE bool valid() const { return first >= 0 && first + rows <= longest; }
};

/// Columns [0, width) of qkv [rows, 3*width], times scale, to query [rows, width] in fp32; the others to rows
/// first .. of the caches [longest, width]. One thread an element: a decoded token has a few thousand.
template <class K, class In>
__global__ void __launch_bounds__(kThreads)
    attention_cached_store_kernel(float* query, K* key_cache, K* value_cache, const In* qkv,
                                  const int32_t* position, int64_t rows, int64_t width, int64_t longest,
                                  float scale, FaultRecord* fault) {
  const Place place(position, rows, longest);
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (!place.valid()) {
    if (i == 0)
      report(fault, Fault::attention_cached_position,
             static_cast<int32_t>(place.first < 0 ? place.first : place.first + rows - 1), 0, longest);
    return;
  }
  if (i >= rows * 3 * width) return;
  const int64_t row = i / (3 * width), part = i / width % 3, col = i % width;
  const float x = to_float(qkv[i]);
  if (part == 0)
    query[row * width + col] = x * scale;
  else
    (part == 1 ? key_cache : value_cache)[(place.first + row) * width + col] = from_float<K>(x);
}

/// partials [rows, heads, splits, 2 + size]: for new row blockIdx.x, head blockIdx.y and keys
/// [blockIdx.z, blockIdx.z + 1) * kKeys up to the row's own: the largest score, the sum of 2^(score -
/// largest) and the values weighted so. query [rows, width] is scaled: its product with a key is a score to
/// base 2.
///
/// Groups of LANES lanes take a key each, kAhead keys at a time; a lane holds R vectors of N elements of it.
template <int N, int LANES, int R, class K>
__global__ void __launch_bounds__(kThreads)
    attention_cached_attend_kernel(float* partials, const float* query, const K* key_cache,
                                   const K* value_cache, const int32_t* position, int64_t width,
                                   int64_t longest, int size) {
  constexpr int kGroups = kThreads / LANES, kWidth = LANES * N * R;
  SHARED(float, all_largest, [kGroups]);
  SHARED(float, all_sums, [kGroups]);
  SHARED(float, all_values, [kGroups][kWidth]);
  const int lane = static_cast<int>(threadIdx.x) % LANES, group = static_cast<int>(threadIdx.x) / LANES;
  const int64_t row = blockIdx.x, head = blockIdx.y, split = blockIdx.z;
  const Place place(position, gridDim.x, longest);
  const int64_t begin = split * kKeys;
  const int64_t end = place.valid() ? min(place.first + row + 1, begin + kKeys) : 0;

  // Vectors start at multiples of N: `before` elements of the first one belong to the head before.
  const int64_t slice = head * size;
  const int before = static_cast<int>(slice % N);
  float q[R][N], values[R][N] = {};
  unsigned inside[R] = {};  // bit n: element n belongs to the head
  UNROLL for (int r = 0; r < R; ++r) {
    UNROLL for (int n = 0; n < N; ++n) {
      const int d = (r * LANES + lane) * N + n - before;
      const bool in = d >= 0 && d < size;
      inside[r] |= static_cast<unsigned>(in) << n;
      q[r][n] = in && begin < end ? query[row * width + slice + d] : 0.0f;
    }
  }

  // Not -infinity: the difference of two would be NaN. A NaN score shows in the sum.
  float largest = -FLT_MAX, sum = 0;
  for (int64_t k = begin + group; k - group < end; k += kGroups * kAhead) {
    Vector<K, N> key[kAhead][R], value[kAhead][R];
    UNROLL for (int a = 0; a < kAhead; ++a) {
      UNROLL for (int r = 0; r < R; ++r) {
        // What is not read is 0: cached rows after the last one hold anything.
        key[a][r] = value[a][r] = {};
        if (k + a * kGroups < end && inside[r]) {
          const int64_t at = (k + a * kGroups) * width + slice - before + (r * LANES + lane) * N;
          key[a][r] = load_vector<N>(key_cache + at);
          value[a][r] = load_vector<N>(value_cache + at);
        }
      }
    }
    float score[kAhead], top = largest, fresh = 0;
    UNROLL for (int a = 0; a < kAhead; ++a) {
      float product = 0;
      UNROLL for (int r = 0; r < R; ++r) {
        UNROLL for (int n = 0; n < N; ++n) product =
            fmaf(q[r][n], inside[r] >> n & 1 ? to_float(key[a][r].at[n]) : 0.0f, product);
      }
      product = warp_sum(product, LANES);
      score[a] = k + a * kGroups < end ? product : -INFINITY;
      top = fmaxf(top, score[a]);
    }
    const float rescale = exp2_fast(largest - top);
    largest = top;
    UNROLL for (int r = 0; r < R; ++r) UNROLL for (int n = 0; n < N; ++n) values[r][n] *= rescale;
    UNROLL for (int a = 0; a < kAhead; ++a) {
      const float p = exp2_fast(score[a] - top);
      fresh += p;
      UNROLL for (int r = 0; r < R; ++r) {
        UNROLL for (int n = 0; n < N; ++n) values[r][n] = fmaf(p, to_float(value[a][r].at[n]), values[r][n]);
      }
    }
    sum = fmaf(sum, rescale, fresh);
  }
  if (lane == 0) all_largest[group] = largest, all_sums[group] = sum;
  UNROLL for (int r = 0; r < R; ++r) UNROLL for (int n = 0; n < N; ++n)
      all_values[group][(r * LANES + lane) * N + n] = values[r][n];
  __syncthreads();

  const int d = static_cast<int>(threadIdx.x);
  if (begin >= end || d >= size) return;
  float top = all_largest[0], total = 0, value = 0;
  for (int g = 1; g < kGroups; ++g) top = fmaxf(top, all_largest[g]);
  for (int g = 0; g < kGroups; ++g) {
    const float weight = exp2_fast(all_largest[g] - top);
    total = fmaf(all_sums[g], weight, total);
    value = fmaf(all_values[g][before + d], weight, value);
  }
  float* const out = partials + ((row * gridDim.y + head) * gridDim.z + split) * (2 + size);
  if (d == 0) out[0] = top, out[1] = total;
  out[2 + d] = value;
}

/// out [rows, width] of partials [rows, heads, splits, 2 + size]; the splits that a row did not reach are not
/// read. One thread an element.
template <class Out>
__global__ void __launch_bounds__(kThreads)
    attention_cached_combine_kernel(Out* out, const float* partials, const int32_t* position, int64_t rows,
                                    int64_t width, int64_t longest, int64_t splits, int size) {
  const Place place(position, rows, longest);
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (!place.valid() || i >= rows * width) return;
  const int64_t row = i / width, stride = 2 + size;
  const float* const first = partials + i / size * splits * stride;  // i / size: row * heads + head
  const int64_t d = i % size, used = (place.first + row) / kKeys + 1;
  float top = first[0], total = 0, value = 0;
  for (int64_t s = 1; s < used; ++s) top = fmaxf(top, first[s * stride]);
  for (int64_t s = 0; s < used; ++s) {
    const float* const partial = first + s * stride;
    const float weight = exp2_fast(partial[0] - top);
    total = fmaf(partial[1], weight, total);
    value = fmaf(partial[2 + d], weight, value);
  }
  out[i] = from_float<Out>(value / total);
}

void GpuKernels::attention_cached(const Tensor& out, const Tensor& key_cache, const Tensor& value_cache,
                                  const Tensor& qkv, const Tensor& position, int n_head) {
  const Range range("attention_cached");
  const AttentionSizes sizes = check_attention_cached(out, key_cache, value_cache, qkv, position, n_head);
  const int64_t rows = sizes.length, width = sizes.width, size = sizes.head_size, longest = key_cache.rows();
  if (size > kMaxSize)
    refuse("attention_cached: heads of %d columns; the GPU's kernels hold up to %d", static_cast<int>(size),
           static_cast<int>(kMaxSize));
  const int64_t splits = ceil_div(longest, kKeys), stride = 2 + size;
  auto* const query = static_cast<float*>(
      device_->scratch(sizeof(float) * static_cast<size_t>(rows * (width + n_head * splits * stride))));
  float* const partials = query + rows * width;
  const float scale = kLog2E / std::sqrt(static_cast<float>(size));  // scores to base 2

  with_type(key_cache, [&](auto* cache_type) {
    using K = std::remove_pointer_t<decltype(cache_type)>;
    with_type(qkv, [&](auto* type) {
      using In = std::remove_pointer_t<decltype(type)>;
      const Work work{.bytes = qkv.bytes() + rows * width * (4.0 + 2 * sizeof(K)),
                      .flops = 1.0 * rows * width};
      launch(KERNEL(attention_cached_store_kernel<K, In>),
             {blocks_for(3 * rows * width, kThreads), {kThreads}}, work, query, key_cache.data,
             value_cache.data, qkv.data, position.i32(), rows, width, longest, scale, device_->fault());
    });

    const auto attend = [&](const auto& kernel) {
      // As much as full caches ask for: only the device knows how many of their rows are in use.
      const Work work{.bytes = static_cast<double>(key_cache.bytes() + value_cache.bytes()),
                      .flops = 4.0 * rows * longest * width};
      launch(kernel,
             {{static_cast<uint32_t>(rows), static_cast<uint32_t>(n_head), static_cast<uint32_t>(splits)},
              {kThreads}},
             work, partials, query, key_cache.data, value_cache.data, position.i32(), width, longest, size);
    };
    constexpr int N = 16 / sizeof(K);
    const auto aligned = [](const Tensor& t) { return reinterpret_cast<uintptr_t>(t.data) % 16 == 0; };
    // The slice that starts furthest into a vector has the most vectors; slices start at multiples of the
    // gcd.
    const int64_t vectors = ceil_div(N - std::gcd(size, int64_t{N}) + size, N);
    if (width % N != 0 || !aligned(key_cache) || !aligned(value_cache) || vectors > kWarp)
      attend(KERNEL(attention_cached_attend_kernel<1, kWarp, kMaxSize / kWarp, K>));
    else if (vectors <= 8)
      attend(KERNEL(attention_cached_attend_kernel<N, 8, 1, K>));
    else if (vectors <= 16)
      attend(KERNEL(attention_cached_attend_kernel<N, 16, 1, K>));
    else
      attend(KERNEL(attention_cached_attend_kernel<N, 32, 1, K>));
  });

  with_type(out, [&](auto* type) {
    using Out = std::remove_pointer_t<decltype(type)>;
    const Work work{.bytes = out.bytes() + 4.0 * rows * n_head * splits * stride,
                    .flops = 4.0 * rows * width * splits};
    launch(KERNEL(attention_cached_combine_kernel<Out>), {blocks_for(rows * width, kThreads), {kThreads}},
           work, out.data, partials, position.i32(), rows, width, longest, splits, size);
  });
}

}  // namespace topolm::TOPOLM_GPU
