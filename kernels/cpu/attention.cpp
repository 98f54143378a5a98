// Causal self-attention of whole sequences, without a T x T matrix.
#include "kernels/cpu/attention.h"

#include "engine/profile.h"
#include "kernels/attention_sizes.h"
#include "kernels/cpu/cpu_kernels.h"

namespace topolm::TOPOLM_ISA {

namespace {

constexpr int64_t kTaskQueries = 256;  // of one head: long sequences are spread over the threads

/// The running softmax of kTokens queries, in the lanes; base 2.
struct Softmax {
  vfloat maximum[kTileVectors], sum[kTileVectors] = {};
  vfloat factor[kTileVectors];  // to the maximum before the last block

  Softmax() {
    for (vfloat& m : maximum) m = splat(-__builtin_inff());
  }

  /// The first `rows` keys of a block, for the queries of one vector: scores become probabilities relative to
  /// the maximum, as operands of Product. A query sees its keys up to row `diagonal` + its lane.
  template <class Product>
  TOPOLM_INLINE void add(float* scores, int v, int64_t rows, int64_t diagonal, float scale) {
    const int64_t seen_by_all = max(0, min(rows, diagonal + 1));
    const auto visible = [&](int64_t r) { return lane_indices() >= static_cast<int32_t>(r - diagonal); };
    scores += v * kLanes;
    vfloat largest[2] = {splat(-__builtin_inff()), splat(-__builtin_inff())};
    int64_t r = 0;
    for (; r + 2 <= seen_by_all; r += 2) {
      largest[0] = max(load(scores + r * kTokens), largest[0]);
      largest[1] = max(load(scores + (r + 1) * kTokens), largest[1]);
    }
    for (; r < rows; ++r) largest[0] = max(visible(r) ? load(scores + r * kTokens) : largest[0], largest[0]);
    const vfloat before = maximum[v], now = max(max(largest[0], largest[1]) * scale, before);
    vfloat total{};
    // Several rows side by side, for the latency of an exponential: 3.7 cycles each instead of 4.7.
    const auto keep = [&]<int N>(std::integral_constant<int, N>, int64_t row, auto shown)
        __attribute__((always_inline)) {
      vfloat p[N];
      TOPOLM_UNROLL
      for (int i = 0; i < N; ++i) {
        p[i] = exp2_of_negative(load(scores + (row + i) * kTokens) * scale - now);
        p[i] = shown(row + i, p[i]);
      }
      TOPOLM_UNROLL
      for (int i = 0; i < N; i += Product::kNumbers) {
        store(scores + (row + i) / Product::kNumbers * kTokens, Product::across(p + i));
        for (int n = 0; n < Product::kNumbers; ++n) total += p[i + n];
      }
    };
    constexpr std::integral_constant<int, 4> kFour;
    constexpr std::integral_constant<int, Product::kNumbers> kOne;
    for (r = 0; r + 4 <= seen_by_all; r += 4) keep(kFour, r, [](int64_t, vfloat p) { return p; });
    for (; r < rows; r += kOne)
      keep(kOne, r,
           [&](int64_t row, vfloat p) { return row < rows ? (visible(row) ? p : vfloat{}) : vfloat{}; });
    factor[v] = exp2_of_negative(before - now);
    sum[v] = sum[v] * factor[v] + total;
    maximum[v] = now;
  }
};

template <class Product>
void attend_with(const AttentionHead& head, float* scratch) {
  const int64_t size = head.size, units = ceil_div(size, Product::kNumbers);
  const int64_t keys = head.first_position + head.queries;
  const float scale = score_factor(size);
  float* const scores = scratch;                       // [kBlock][kTokens]
  float* const out = scores + kBlock * kTokens;        // [size][kTokens]
  float* const query = out + size * kTokens;           // [units][kTokens]
  float* const lines = query + size * kTokens;         // [kTokens][units], of queries
  float* const key = lines + size * kTokens + kLanes;  // [keys][units]
  float* const value = key + keys * size + kLanes;     // [keys / kNumbers][size]
  gather_lines<Product>(key, head.key, keys, size);
  gather_steps<Product>(value, head.value, keys, size);

  for (int64_t q = 0; q < head.queries; q += kTokens) {
    const int64_t queries = min(kTokens, head.queries - q), position = head.first_position + q;
    const int64_t seen = position + queries, vectors = ceil_div(queries, kLanes);
    gather_lines<Product>(lines, head.query.from(q, 0), queries, size);
    gather_panel(query, lines, queries, units);
    for (int64_t i = 0; i < size * kTokens; i += kLanes) store(out + i, vfloat{});
    Softmax softmax;
    for (int64_t k = 0; k < seen; k += kBlock) {
      // The first vector's queries see rows [0, first) of the block, the others' all.
      const int64_t rows = min(kBlock, seen - k);
      const int64_t first =
          vectors == 1 ? rows : max(0, min(rows, round_up(position + kLanes - k, Product::kNumbers)));
      multiply<Product, Before::clear, false>(scores, kTokens, key + k * units, units, query, kTokens, first,
                                              vectors, units);
      if (first < rows)
        multiply<Product, Before::clear, false>(scores + first * kTokens + kLanes, kTokens,
                                                key + (k + first) * units, units, query + kLanes, kTokens,
                                                rows - first, 1, units);
      for (int v = 0; v < vectors; ++v)
        softmax.add<Product>(scores, v, v == 0 ? first : rows, position + v * kLanes - k, scale);
      const float* const values = value + k / Product::kNumbers * size;
      const int64_t depth = ceil_div(first, Product::kNumbers),
                    rest = ceil_div(rows, Product::kNumbers) - depth;
      if (first > 0)
        multiply<Product, Before::scale, true>(out, kTokens, values, size, scores, kTokens, size, vectors,
                                               depth, softmax.factor);
      if (rest > 0) {
        const vfloat factor = first > 0 ? splat(1.0f) : softmax.factor[1];
        multiply<Product, Before::scale, true>(out + kLanes, kTokens, values + depth * size, size,
                                               scores + depth * kTokens + kLanes, kTokens, size, 1, rest,
                                               &factor);
      }
    }
    vfloat inverse[kTileVectors] = {};
    for (int v = 0; v < vectors; ++v) {
      inverse[v] = 1.0f / softmax.sum[v];
      if (!head.logsumexp) continue;
      const vfloat lse = kLn2 * (softmax.maximum[v] + log2(softmax.sum[v]));
      store(head.logsumexp + q + v * kLanes, lse,
            Partial{static_cast<int>(min(kLanes, queries - v * kLanes))});
    }
    scatter_panel(head.out.from(q, 0), out, queries, size, inverse);
  }
}

}  // namespace

int64_t attend_scratch(int64_t keys, int64_t size) {
  return (kBlock + 3 * size) * kTokens + (2 * keys + 1) * size + 4 * kLanes;
}

void attend(const AttentionHead& head, float* scratch) {
#if defined(TOPOLM_BF16_DOT)
  if (all_bf16(head.out, head.query, head.key, head.value)) return attend_with<Pairs>(head, scratch);
#endif
  attend_with<Singles>(head, scratch);
}

void CpuKernels::attention_forward(const Tensor& out, const Tensor& logsumexp, const Tensor& qkv,
                                   int n_head) {
  const Range range("attention");
  const AttentionSizes sizes = check_attention("attention_forward", out, qkv, logsumexp, n_head);
  const int64_t t = sizes.length, c = sizes.width, size = sizes.head_size;
  float* const saved = logsumexp.f32();
  const Matrix out_rows = matrix(out), qkv_rows = matrix(qkv);
  const int64_t parts = ceil_div(t, kTaskQueries), part = ceil_div(t, parts);
  const int64_t floats = attend_scratch(t, size), heads = sizes.batch * n_head;
  pool_.parallel_for(heads * parts, [=, this](int64_t task, int thread) {
    const int64_t head = task % heads % n_head, sequence = task % heads / n_head;
    const int64_t begin = (parts - 1 - task / heads) * part;  // the longest first
    if (begin >= t) return;
    const int64_t row = sequence * t, col = head * size;
    attend({.out = out_rows.from(row + begin, col),
            .query = qkv_rows.from(row + begin, col),
            .key = qkv_rows.from(row, c + col),
            .value = qkv_rows.from(row, 2 * c + col),
            .logsumexp = saved + (sequence * n_head + head) * t + begin,
            .first_position = begin,
            .queries = min(part, t - begin),
            .size = size},
           workspace_.of_thread(thread, floats));
  });
}

}  // namespace topolm::TOPOLM_ISA
