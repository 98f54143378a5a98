// Attention of decoding: a few new rows against the cached keys and values of one sequence.
#include <cmath>

#include "engine/profile.h"
#include "kernels/attention_sizes.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/cpu_kernels.h"

namespace topolm::TOPOLM_ISA {

namespace {

constexpr int64_t kFewRows = 4;  // up to here every row reads the caches as they lie; beyond, blocks pay off

int64_t row_scratch(int64_t keys, int64_t size) { return round_up(size, kLanes) + round_up(keys, kLanes); }

/// One query and all keys up to its own. Reads every cached key and value once.
template <class K>
TOPOLM_INLINE void attend_row(const Matrix& out, const float* query, const K* key, const K* value,
                              int64_t stride, int64_t keys, int64_t size, float* scores) {
  vfloat largest = splat(-__builtin_inff());
  sweep(keys, [&](int64_t k, auto lanes) {
    vfloat s[1];
    dot_rows(s, key + k * stride, stride, min(kLanes, keys - k), query, 0, size);
    store(scores + k, splat(-__builtin_inff()));  // lanes past the last key: probability 0
    store(scores + k, s[0], lanes);
    largest = max(largest, load(scores + k));
  });
  const float maximum = reduce_max(largest);
  vfloat total{};
  for (int64_t k = 0; k < keys; k += kLanes) {
    const vfloat p = exp(load(scores + k) - maximum);
    store(scores + k, p);
    total += p;
  }
  const float inverse = 1 / reduce_add(total);
  with_elements(out, [&](auto* o) {
    sweep(size, [&](int64_t j, auto lanes) {
      constexpr int kStreams = 4;  // sums side by side, to hide the latency of an FMA
      vfloat sum[kStreams] = {};
      int64_t k = 0;
      for (; k + kStreams <= keys; k += kStreams)
        for (int s = 0; s < kStreams; ++s)
          sum[s] += scores[k + s] * load(value + (k + s) * stride + j, lanes);
      for (; k < keys; ++k) sum[0] += scores[k] * load(value + k * stride + j, lanes);
      store(o + j, ((sum[0] + sum[1]) + (sum[2] + sum[3])) * inverse, lanes);
    });
  });
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
  const float scale = 1 / std::sqrt(static_cast<float>(size));
  pool_.parallel_for(n_head * m, [=, this](int64_t task, int thread) {
    const int64_t row = task / n_head, col = task % n_head * size;
    float* const query = workspace_.of_thread(thread, row_scratch(keys, size));
    float* const scores = query + round_up(size, kLanes);
    gather_rows(query, round_up(size, kLanes), qkv_rows.from(row, col), 1, size, scale);
    with_elements(key_rows.from(0, col), [&](const auto* key) {
      const auto* const value = static_cast<decltype(key)>(value_rows.from(0, col).data);
      attend_row(out_rows.from(row, col), query, key, value, c, position + row + 1, size, scores);
    });
  });
}

}  // namespace topolm::TOPOLM_ISA
