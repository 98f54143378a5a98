// Attention of decoding: a few new rows against the cached keys and values of one sequence.
#include <cmath>

#include "engine/profile.h"
#include "kernels/attention_sizes.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/cpu_kernels.h"

namespace topolm::TOPOLM_ISA {

namespace {

constexpr int64_t kFewRows = 4;  // up to here every row reads the caches as they lie; beyond, blocks pay off

// Keys of a task, which takes all heads of them, so that cached rows are read as they lie and fetched before
// they are wanted: the weights have pushed them out of the L3. Head by head, in pieces of 196 bytes, 950 keys
// of `base` cost 3.0 ms a token in bf16; so 1.75, and with prefetching 0.77, 46 GB/s.
constexpr int64_t kKeys = 32;
constexpr int kStreams = 4;  // rows read side by side
static_assert(kKeys % kStreams == 0 && kKeys % kLanes == 0);

/// What becomes of one query and the keys of each task: a head's largest score, the sum of exp(score -
/// largest), and the values weighted by these exponentials.
struct Partials {
  float *largest, *sums;  // [n_head, tasks padded to vectors]
  float* values;          // [tasks, C]
  int64_t padded;

  static int64_t size(int64_t tasks, int64_t n_head, int64_t c) {
    return 2 * n_head * round_up(tasks, kLanes) + tasks * c;
  }
  Partials(float* memory, int64_t tasks, int64_t n_head)
      : largest(memory),
        sums(memory + n_head * round_up(tasks, kLanes)),
        values(sums + n_head * round_up(tasks, kLanes)),
        padded(round_up(tasks, kLanes)) {}
};

/// The sums over the lanes of four vectors, in the first four lanes.
TOPOLM_INLINE vfloat sums_of(const vfloat (&v)[4]) {
  vfloat even, odd, lo, hi;
  zip(lo, hi, v[0], v[2], LaneIndices{});
  even = lo + hi;
  zip(lo, hi, v[1], v[3], LaneIndices{});
  odd = lo + hi;
  zip(lo, hi, even, odd, LaneIndices{});
  vfloat sum = lo + hi;
  if constexpr (kLanes > 8) sum += swap_lanes<kLanes / 2>(sum, LaneIndices{});
  if constexpr (kLanes > 4) sum += swap_lanes<4>(sum, LaneIndices{});
  return sum;
}

/// Fetches n elements of the rows that come next.
template <class T>
TOPOLM_INLINE void prefetch(const T* p, int64_t n) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t i = 0; i < n; i += kLine) __builtin_prefetch(p + i);
}

/// One query, scaled, and `keys` <= kKeys cached rows. scores: [n_head, kKeys] of scratch.
template <class T>
TOPOLM_INLINE void attend_some(const Partials& out, int64_t task, const float* query, const T* key,
                               const T* value, int64_t keys, int64_t n_head, int64_t size, float* scores) {
  const int64_t c = n_head * size;
  // Behind the last row its neighbour is read again; its probability will be 0.
  const auto rows_from = [=](const T* first, int64_t k, const T*(&rows)[kStreams]) {
    for (int64_t s = 0; s < kStreams; ++s) rows[s] = first + min(k + s, keys - 1) * c;
  };
  for (int64_t k = 0; k < keys; k += kStreams) {
    const T* rows[kStreams];
    rows_from(key, k, rows);
    const T* const next = k + kStreams < keys ? key + (k + kStreams) * c : value;
    for (int64_t head = 0; head < n_head; ++head) {
      prefetch(next + head * kStreams * size, kStreams * size);
      vfloat products[kStreams] = {};
      sweep(
          size, [&](int64_t j, auto lanes) __attribute__((always_inline)) {
            const int64_t col = head * size + j;
            const vfloat q = load(query + col, lanes);
            TOPOLM_UNROLL
            for (int s = 0; s < kStreams; ++s) products[s] += q * load(rows[s] + col, lanes);
          });
      const vfloat sums = sums_of(products);
      __builtin_memcpy(scores + head * kKeys + k, &sums, kStreams * sizeof(float));
    }
  }
  for (int64_t head = 0; head < n_head; ++head) {
    float* const s = scores + head * kKeys;
    for (int64_t k = keys; k < kKeys; ++k) s[k] = -__builtin_inff();
    vfloat largest = load(s);
    for (int64_t k = kLanes; k < kKeys; k += kLanes) largest = max(largest, load(s + k));
    const float maximum = reduce_max(largest);
    vfloat sum{};
    for (int64_t k = 0; k < kKeys; k += kLanes) {
      const vfloat p = exp_of_negative(load(s + k) - maximum);
      store(s + k, p);
      sum += p;
    }
    out.largest[head * out.padded + task] = maximum;
    out.sums[head * out.padded + task] = reduce_add(sum);
  }
  float* const values = out.values + task * c;
  sweep(c, [&](int64_t j, auto lanes) { store(values + j, vfloat{}, lanes); });
  for (int64_t k = 0; k < keys; k += kStreams) {
    const T* rows[kStreams];
    rows_from(value, k, rows);
    for (int64_t head = 0; head < n_head; ++head) {
      prefetch(value + (k + kStreams) * c + head * kStreams * size, kStreams * size);
      vfloat p[kStreams];
      TOPOLM_UNROLL
      for (int s = 0; s < kStreams; ++s) p[s] = splat(scores[head * kKeys + k + s]);
      sweep(
          size, [&](int64_t j, auto lanes) __attribute__((always_inline)) {
            const int64_t col = head * size + j;
            vfloat sum = load(values + col, lanes);
            TOPOLM_UNROLL
            for (int s = 0; s < kStreams; ++s) sum += p[s] * load(rows[s] + col, lanes);
            store(values + col, sum, lanes);
          });
    }
  }
}

/// The output of one query from its partial results, in the order of tasks.
void combine(const Matrix& out, const Partials& from, int64_t tasks, int64_t n_head, int64_t size) {
  const int64_t c = n_head * size;
  for (int64_t head = 0; head < n_head; ++head) {
    float *const largest = from.largest + head * from.padded, *const sums = from.sums + head * from.padded;
    for (int64_t t = tasks; t < from.padded; ++t) largest[t] = -__builtin_inff(), sums[t] = 0;
    vfloat maxima = load(largest);
    for (int64_t t = kLanes; t < tasks; t += kLanes) maxima = max(maxima, load(largest + t));
    const float maximum = reduce_max(maxima);
    vfloat total{};
    for (int64_t t = 0; t < tasks; t += kLanes) {
      const vfloat factor = exp_of_negative(load(largest + t) - maximum);
      store(largest + t, factor);
      total += factor * load(sums + t);
    }
    const float inverse = 1 / reduce_add(total);
    with_elements(out, [&](auto* o) {
      sweep(size, [&](int64_t j, auto lanes) {
        const int64_t col = head * size + j;
        vfloat sum{};
        for (int64_t t = 0; t < tasks; ++t) sum += largest[t] * load(from.values + t * c + col, lanes);
        store(o + col, sum * inverse, lanes);
      });
    });
  }
}

/// Rows of `in`, converted to the type of `out`.
void copy_rows(const Matrix& out, const Matrix& in, int64_t rows, int64_t cols) {
  with_elements(out, [&](auto* to) {
    with_elements(in, [&](const auto* from) {
      for (int64_t i = 0; i < rows; ++i)
        sweep(cols, [&](int64_t j, auto lanes) {
          store(to + i * out.row_stride + j, load(from + i * in.row_stride + j, lanes), lanes);
        });
    });
  });
}

}  // namespace

void CpuKernels::attention_cached(const Tensor& out, const Tensor& key_cache, const Tensor& value_cache,
                                  const Tensor& qkv, const Tensor& position_, int n_head) {
  const Range range("attention_cached");
  const AttentionSizes sizes = check_attention_cached(out, key_cache, value_cache, qkv, position_, n_head);
  const int64_t m = sizes.length, c = sizes.width, size = sizes.head_size, longest = key_cache.rows();
  const int64_t position = *position_.i32(), keys = position + m;
  if (position < 0 || keys > longest)
    throw_if({Fault::attention_cached_position, static_cast<int32_t>(position < 0 ? position : keys - 1), 0,
              longest});
  const Matrix out_rows = matrix(out), qkv_rows = matrix(qkv);
  const Matrix key_rows = matrix(key_cache), value_rows = matrix(value_cache);
  copy_rows(key_rows.from(position, 0), qkv_rows.from(0, c), m, c);
  copy_rows(value_rows.from(position, 0), qkv_rows.from(0, 2 * c), m, c);

  if (m > kFewRows) {
    const int64_t floats = attend_scratch(keys, size);
    pool_.parallel_for(n_head, [=, this](int64_t head, int thread) {
      attend({.out = out_rows.from(0, head * size),
              .query = qkv_rows.from(0, head * size),
              .key = key_rows.from(0, head * size),
              .value = value_rows.from(0, head * size),
              .logsumexp = nullptr,
              .first_position = position,
              .queries = m,
              .size = size},
             workspace_.of_thread(thread, floats));
    });
    return;
  }

  const int64_t tasks = ceil_div(keys, kKeys), partials = Partials::size(tasks, n_head, c);
  const int64_t query_floats = round_up(c, kLanes);  // gather_rows fills whole vectors
  float* const queries = workspace_.shared(m * (query_floats + partials));
  float* const results = queries + m * query_floats;
  gather_rows(queries, query_floats, qkv_rows, m, c, 1 / std::sqrt(static_cast<float>(size)));
  pool_.parallel_for(tasks, [=, this](int64_t task, int thread) {
    float* const scores = workspace_.of_thread(thread, n_head * kKeys);
    const int64_t first = task * kKeys;
    with_elements(key_rows.from(first, 0), [&](const auto* key) {
      const auto* const value = static_cast<decltype(key)>(value_rows.from(first, 0).data);
      for (int64_t i = 0; i < m; ++i)
        if (const int64_t seen = min(kKeys, position + i + 1 - first); seen > 0)
          attend_some(Partials(results + i * partials, tasks, n_head), task, queries + i * query_floats, key,
                      value, seen, n_head, size, scores);
    });
  });
  pool_.parallel_for(m, [=](int64_t i, int) {
    combine(out_rows.from(i, 0), Partials(results + i * partials, tasks, n_head),
            ceil_div(position + i + 1, kKeys), n_head, size);
  });
}

}  // namespace topolm::TOPOLM_ISA
