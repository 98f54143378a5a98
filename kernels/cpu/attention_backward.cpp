// The gradient of causal self-attention, from the saved logsumexp and again without a T x T matrix.
#include "kernels/cpu/attention_backward.h"

#include "engine/profile.h"
#include "kernels/attention_sizes.h"
#include "kernels/cpu/cpu_kernels.h"

namespace topolm::TOPOLM_ISA {

// With P = softmax(S), S = scale Q K^T:  dV = P^T dO,  dP = dO V^T,  dS = P * (dP - rowsum(dO * O)),
// dQ = scale dS K,  dK = scale dS^T Q. Keys lie in the lanes; for dQ queries do: dS is turned round, which
// takes less than the 15 of 64 lanes that columns of a head of 49 would leave idle.
namespace {

int64_t backward_scratch(int64_t length, int64_t size) {
  const int64_t floats =
      round_up(length, kTokens) * (4 * size + 4) + 5 * size * kTokens + 4 * kBlock * kTokens + 8 * kLanes;
#if defined(TOPOLM_AMX)
  return max(floats, attend_backward_tiles_scratch(length, size));
#else
  return floats;
#endif
}

/// Rows of a block, as queries that see the first `vectors` of a tile's keys.
struct Part {
  int64_t begin, rows, vectors;
};

template <class Product>
void attend_backward_with(const BackwardHead& head, float* scratch) {
  constexpr int64_t kNumbers = Product::kNumbers, kLine = kTokens / kNumbers;
  const int64_t n = head.length, size = head.size, units = ceil_div(size, kNumbers);
  const int64_t padded = round_up(n, kTokens);
  Ahead ahead;
  float* next = scratch;
  const auto take = [&](int64_t floats) { return std::exchange(next, next + floats); };
  float* const query_lines = take(n * units + kLanes);
  float* const dout_lines = take(n * units + kLanes);
  float* const query_steps = kNumbers == 1 ? query_lines : take(ceil_div(n, kNumbers) * size + kLanes);
  float* const dout_steps = kNumbers == 1 ? dout_lines : take(ceil_div(n, kNumbers) * size + kLanes);
  float* const key_steps = take(padded / kNumbers * size + kLanes);
  float* const key_panel = take(units * kTokens);  // of one tile of keys
  float* const value_panel = take(units * kTokens);
  float* const dquery = take(padded * size);  // [n / kTokens][size][kTokens]
  float* const dkey = take(size * kTokens);   // of one tile of keys
  float* const dvalue = take(size * kTokens);
  float* const lines = take(kTokens * units + kLanes);
  float* const scores = take(kBlock * kTokens);
  float* const gradient = take(kBlock * kTokens);
  float* const gradient_lines = kNumbers == 1 ? gradient : take(kBlock * kLine);
  float* const turned = take(kLine * kTokens);
  float* const dot = take(n);
  float* const level = take(n);

  // Rows are copied when the first tile of keys, or their own, comes to them, and asked for before.
  const auto want_queries = [&](int64_t q) {
    for (const Matrix* rows : {&head.query, &head.dout, &head.out})
      ahead.want(*rows, q, min(q + kBlock, n), size);
  };
  const auto want_keys = [&](int64_t k) {
    for (const Matrix* rows : {&head.key, &head.value}) ahead.want(*rows, k, min(k + kTokens, n), size);
  };
  const auto gather_queries = [&](int64_t q, int64_t rows) {
    ahead.ask_for_all();
    gather_lines<Product>(query_lines + q * units, head.query.from(q, 0), rows, size);
    gather_lines<Product>(dout_lines + q * units, head.dout.from(q, 0), rows, size);
    if constexpr (kNumbers > 1) {
      Product::gather_steps(query_steps + q / kNumbers * size, query_lines + q * units, rows, size);
      Product::gather_steps(dout_steps + q / kNumbers * size, dout_lines + q * units, rows, size);
    }
    row_levels(head, q, q + rows, dot, level);
  };
  const auto gather_keys = [&](int64_t k, int64_t keys) {
    ahead.ask_for_all();
    float* const key_lines = kNumbers == 1 ? key_steps + k * units : lines;
    gather_lines<Product>(key_lines, head.key.from(k, 0), keys, size);
    gather_panel(key_panel, key_lines, keys, units);
    if constexpr (kNumbers > 1) Product::gather_steps(key_steps + k / kNumbers * size, key_lines, keys, size);
    gather_lines<Product>(lines, head.value.from(k, 0), keys, size);
    gather_panel(value_panel, lines, keys, units);
  };

  want_keys(0);
  want_queries(0);
  for (int64_t i = 0; i < padded * size; i += kLanes) store(dquery + i, vfloat{});

  const float factor = score_factor(size), scale = 1 / std::sqrt(static_cast<float>(size));
  for (int64_t k = 0; k < n; k += kTokens) {
    const int64_t keys = min(kTokens, n - k), vectors = ceil_div(keys, kLanes);
    gather_keys(k, keys);
    for (int64_t i = 0; i < size * kTokens; i += kLanes) {
      store(dkey + i, vfloat{});
      store(dvalue + i, vfloat{});
    }
    for (int64_t q = k; q < n; q += kBlock) {
      const int64_t rows = min(kBlock, n - q), alone = q == k ? min(rows, kLanes) : 0;
      if (k == 0) {
        gather_queries(q, rows);
        want_queries(q + kBlock);
      }
      if (q == k) {
        want_keys(k + kTokens);
        for (const Matrix* rows : {&head.dkey, &head.dvalue, &head.dquery})
          ahead.want(*rows, k, k + keys, size);
      }
      const Part parts[] = {{0, alone, 1}, {alone, rows - alone, vectors}};
      for (const Part& p : parts) {
        if (p.rows == 0) continue;
        multiply<Product, Before::clear, false>(scores + p.begin * kTokens, kTokens,
                                                query_lines + (q + p.begin) * units, units, key_panel,
                                                kTokens, p.rows, p.vectors, units, ahead);
        multiply<Product, Before::clear, false>(gradient + p.begin * kTokens, kTokens,
                                                dout_lines + (q + p.begin) * units, units, value_panel,
                                                kTokens, p.rows, p.vectors, units, ahead);
      }
      for (int v = 0; v < vectors; ++v) {
        const int64_t begin = q == k ? v * kLanes : 0;
        softmax_backward<Product>(scores + v * kLanes, gradient + v * kLanes,
                                  gradient_lines + v * kLanes / kNumbers, level + q, dot + q, begin, rows,
                                  q == k ? begin : -kLanes, factor);
      }
      for (const Part& p : parts) {
        if (p.rows == 0) continue;
        const int64_t depth = ceil_div(p.rows, kNumbers), first = p.begin / kNumbers,
                      step = (q + p.begin) / kNumbers;
        multiply<Product, Before::keep, true>(dvalue, kTokens, dout_steps + step * size, size,
                                              scores + first * kTokens, kTokens, size, p.vectors, depth,
                                              ahead);
        multiply<Product, Before::keep, true>(dkey, kTokens, query_steps + step * size, size,
                                              gradient + first * kTokens, kTokens, size, p.vectors, depth,
                                              ahead);
      }
      for (int64_t i = 0; i < rows; i += kTokens) {
        const int64_t count = min(kTokens, rows - i);
        gather_panel(turned, gradient_lines + i * kLine, count, kLine);
        multiply<Product, Before::keep, true>(dquery + (q + i) * size, kTokens,
                                              key_steps + k / kNumbers * size, size, turned, kTokens, size,
                                              ceil_div(count, kLanes), ceil_div(keys, kNumbers), ahead);
      }
    }
    scatter_panel<Product>(head.dkey.from(k, 0), dkey, keys, size, {splat(scale), splat(scale)});
    scatter_panel<Product>(head.dvalue.from(k, 0), dvalue, keys, size, {splat(1.0f), splat(1.0f)});
  }
  for (int64_t q = 0; q < n; q += kTokens)
    scatter_panel<Product>(head.dquery.from(q, 0), dquery + q * size, min(kTokens, n - q), size,
                           {splat(scale), splat(scale)});
}

void attend_backward(const BackwardHead& head, float* scratch) {
#if defined(TOPOLM_AMX)
  if (all_bf16(head.dquery, head.dout, head.query, head.out)) return attend_backward_tiles(head, scratch);
#elif defined(TOPOLM_BF16_DOT)
  if (all_bf16(head.dquery, head.dout, head.query, head.out))
    return attend_backward_with<Pairs>(head, scratch);
#endif
  attend_backward_with<Singles>(head, scratch);
}

}  // namespace

void CpuKernels::attention_backward(const Tensor& dqkv, const Tensor& dout, const Tensor& qkv,
                                    const Tensor& out, const Tensor& logsumexp, int n_head) {
  const Range range("attention_backward");
  const AttentionSizes sizes = check_attention("attention_backward", out, qkv, logsumexp, n_head);
  const int64_t t = sizes.length, c = sizes.width, size = sizes.head_size;
  check_shape("attention_backward", "dqkv", dqkv, qkv.shape);
  check_shape("attention_backward", "dout", dout, out.shape);
  const float* const saved = logsumexp.f32();
  const Matrix dqkv_rows = matrix(dqkv), dout_rows = matrix(dout), qkv_rows = matrix(qkv),
               out_rows = matrix(out);
  const int64_t floats = backward_scratch(t, size);
  pool_.parallel_for(sizes.batch * n_head, [=, this](int64_t task, int thread) {
    const int64_t row = task % sizes.batch * t, head = task / sizes.batch, col = head * size;
    attend_backward({.dquery = dqkv_rows.from(row, col),
                     .dkey = dqkv_rows.from(row, c + col),
                     .dvalue = dqkv_rows.from(row, 2 * c + col),
                     .dout = dout_rows.from(row, col),
                     .query = qkv_rows.from(row, col),
                     .key = qkv_rows.from(row, c + col),
                     .value = qkv_rows.from(row, 2 * c + col),
                     .out = out_rows.from(row, col),
                     .logsumexp = saved + (task % sizes.batch * n_head + head) * t,
                     .length = t,
                     .size = size},
                    workspace_.of_thread(thread, floats));
  });
}

}  // namespace topolm::TOPOLM_ISA
