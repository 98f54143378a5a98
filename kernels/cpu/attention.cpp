// Causal self-attention of whole sequences, without a T x T matrix.
#include "engine/profile.h"
#include "kernels/attention_sizes.h"
#include "kernels/cpu/attention_softmax.h"
#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/cpu_kernels.h"

namespace topolm::TOPOLM_ISA {

namespace {

constexpr int64_t kTaskQueries = 256;  // of one head: long sequences are spread over the threads

template <class Product>
void attend_with(const AttentionHead& head, float* scratch) {
  const int64_t size = head.size, units = ceil_div(size, Product::kNumbers);
  const int64_t keys = head.first_position + head.queries;
  const float scale = score_factor(size);
  float* const out = scratch;                          // [size][kTokens], and what scatter_panel() reads more
  float* const scores = out + size * kTokens;          // [kBlock][kTokens]
  float* const query = scores + kBlock * kTokens;      // [units][kTokens]
  float* const lines = query + size * kTokens;         // [kTokens][units], of queries or values
  float* const key = lines + size * kTokens + kLanes;  // [keys][units]
  float* const value = key + keys * size + kLanes;     // [keys / kNumbers][size]

  // Keys and values are copied as they come into sight; those of the next queries are asked for meanwhile.
  Ahead ahead;
  const auto want = [&](int64_t position) {
    const int64_t end = min(position + kTokens, keys), first = head.first_position;
    ahead.want(head.key, position, end, size);
    ahead.want(head.value, position, end, size);
    ahead.want(head.query, max(position - first, 0), end - first, size);
  };
  const auto gather = [&](int64_t position) {
    const int64_t n = min(kTokens, keys - position);
    gather_lines<Product>(key + position * units, head.key.from(position, 0), n, size);
    if constexpr (Product::kNumbers == 1) {
      gather_lines<Product>(value + position * units, head.value.from(position, 0), n, size);
    } else {
      gather_lines<Product>(lines, head.value.from(position, 0), n, size);
      Product::gather_steps(value + position / Product::kNumbers * size, lines, n, size);
    }
  };

  want(0);
  int64_t gathered = 0;
  for (int64_t q = 0; q < head.queries; q += kTokens) {
    const int64_t queries = min(kTokens, head.queries - q), position = head.first_position + q;
    const int64_t seen = position + queries, vectors = ceil_div(queries, kLanes);
    for (; gathered < seen; gathered += kTokens) {
      ahead.ask_for_all();
      gather(gathered);
      want(gathered + kTokens);
    }
    ahead.want(head.out, q, q + queries, size);
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
                                              vectors, units, ahead);
      if (first < rows)
        multiply<Product, Before::clear, false>(scores + first * kTokens + kLanes, kTokens,
                                                key + (k + first) * units, units, query + kLanes, kTokens,
                                                rows - first, 1, units, ahead);
      for (int v = 0; v < vectors; ++v)
        softmax.add<Product>(scores, v, v == 0 ? first : rows, position + v * kLanes - k, scale);
      const float* const values = value + k / Product::kNumbers * size;
      const int64_t depth = ceil_div(first, Product::kNumbers),
                    rest = ceil_div(rows, Product::kNumbers) - depth;
      if (first > 0)
        multiply<Product, Before::scale, true>(out, kTokens, values, size, scores, kTokens, size, vectors,
                                               depth, ahead, softmax.factor);
      if (rest > 0) {
        const vfloat factor = first > 0 ? splat(1.0f) : softmax.factor[1];
        multiply<Product, Before::scale, true>(out + kLanes, kTokens, values + depth * size, size,
                                               scores + depth * kTokens + kLanes, kTokens, size, 1, rest,
                                               ahead, &factor);
      }
    }
    softmax.finish<Product>(head, q, queries, out);
  }
}

}  // namespace

int64_t attend_scratch(int64_t keys, int64_t size) {
  const int64_t floats = (kBlock + 3 * size) * kTokens + (2 * keys + 1) * size + 4 * kLanes;
#if defined(TOPOLM_AMX)
  return max(floats, attend_tiles_scratch(keys, size));
#else
  return floats;
#endif
}

void attend(const AttentionHead& head, float* scratch) {
#if defined(TOPOLM_AMX)
  if (all_bf16(head.out, head.query, head.key, head.value)) return attend_tiles(head, scratch);
#elif defined(TOPOLM_BF16_DOT)
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
    // Heads side by side share lines of memory: threads are at work on different sequences (5 % faster).
    const int64_t head = task % heads / sizes.batch, sequence = task % sizes.batch;
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
