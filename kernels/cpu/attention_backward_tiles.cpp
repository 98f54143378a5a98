// The gradient of attention of bf16 on AMX's tiles, as attention_backward.cpp does it on vectors: keys in the
// lanes, then, for dQ, queries.
//
// Counted as in attention_tiles.cpp, for 64 queries, 32 keys and a head of 49: five products take 15700
// cycles on vectors; on tiles 80 multiplications, 1280, and, if nothing overlaps, 2900 with 112 loads and 48
// stores. What stays on vectors is some 1300. Turning three operands round is some 10 % more at T = 256.
#include "kernels/cpu/attention_backward.h"

#if defined(TOPOLM_AMX)

#include "kernels/cpu/attention_tiles.h"

namespace topolm::TOPOLM_ISA {

int64_t attend_backward_tiles_scratch(int64_t length, int64_t size) {
  const Padded padded(length, size);
  const int64_t n = round_up(length, kTokens);
  return 2 * n * padded.units + 3 * padded.key_steps * padded.columns * kUnits + 2 * n * padded.units +
         (n + 2 * kTokens) * padded.columns + (padded.units + 2 * kBlock + kUnits) * kTokens +
         kBlock * kUnits + (size + 1) * kUnits + 2 * length + 1;  // + 1: rows are read in pairs
}

void attend_backward_tiles(const BackwardHead& head, float* scratch) {
  static_assert(kTokens == kTileDepth);  // the keys of a panel are one step of dQ's depth
  const int64_t n = head.length, size = head.size, rows_padded = round_up(n, kTokens);
  const Padded padded(n, size);
  const int64_t units = padded.units, columns = padded.columns, column_tiles = columns / kTileSide;
  float* next = scratch;
  const auto take = [&](int64_t floats) { return std::exchange(next, next + floats); };
  float* const query_lines = take(rows_padded * units);
  float* const dout_lines = take(rows_padded * units);
  float* const query_tiles = take(padded.key_steps * columns * kUnits);
  float* const dout_tiles = take(padded.key_steps * columns * kUnits);
  float* const key_tiles = take(padded.key_steps * columns * kUnits);
  float* const key_panels = take(rows_padded * units);  // [n / kTokens][units][kTokens]
  float* const value_panels = take(rows_padded * units);
  float* const dquery = take(rows_padded * columns);  // [n / kTokens][columns][kTokens]
  float* const dkey = take(columns * kTokens);        // of one panel of keys
  float* const dvalue = take(columns * kTokens);
  float* const lines = take(kTokens * units);
  float* const scores = take(kBlock * kTokens);
  float* const gradient = take(kBlock * kTokens);
  float* const gradient_lines = take(kBlock * kUnits);
  float* const gradient_panel = take(kUnits * kTokens);
  float* const pairs = take((size + 1) * kUnits);
  float* const dot = take(n);
  float* const level = take(n);

  gather_lines<Pairs>(query_lines, head.query, n, size, units);
  clear(query_lines + n * units, query_lines + rows_padded * units);
  gather_lines<Pairs>(dout_lines, head.dout, n, size, units);
  clear(dout_lines + n * units, dout_lines + rows_padded * units);
  gather_tiles(query_tiles, pairs, head.query, n, size);
  gather_tiles(dout_tiles, pairs, head.dout, n, size);
  gather_tiles(key_tiles, pairs, head.key, n, size);
  for (int64_t k = 0; k < n; k += kTokens) {
    const int64_t keys = min(kTokens, n - k);
    gather_lines<Pairs>(lines, head.key.from(k, 0), keys, size, units);
    gather_panel(key_panels + k * units, lines, keys, units);
    gather_lines<Pairs>(lines, head.value.from(k, 0), keys, size, units);
    gather_panel(value_panels + k * units, lines, keys, units);
  }
  row_levels(head, 0, n, dot, level);
  clear(dquery, dquery + rows_padded * columns);

  const float factor = score_factor(size), scale = 1 / std::sqrt(static_cast<float>(size));
  const TileScope tiles;
  for (int64_t k = 0; k < n; k += kTokens) {
    const int64_t keys = min(kTokens, n - k), vectors = ceil_div(keys, kLanes);
    clear(dkey, dkey + columns * kTokens);
    clear(dvalue, dvalue + columns * kTokens);
    for (int64_t q = k; q < n; q += kBlock) {
      const int64_t rows = min(kBlock, n - q), row_tiles = ceil_div(rows, kTileSide);
      const int64_t steps = ceil_div(rows, kTileDepth);
      multiply_tiles<false>(scores, {query_lines + q * units, units, kUnits}, key_panels + k * units,
                            row_tiles, vectors, units / kUnits);
      multiply_tiles<false>(gradient, {dout_lines + q * units, units, kUnits}, value_panels + k * units,
                            row_tiles, vectors, units / kUnits);
      for (int v = 0; v < vectors; ++v) {
        // No query before the first of these keys sees any of them.
        const int64_t begin = q == k ? v * kLanes : 0;
        softmax_backward<Pairs>(scores + v * kLanes, gradient + v * kLanes,
                                gradient_lines + v * kLanes / Pairs::kNumbers, level + q, dot + q, begin,
                                rows, q == k ? begin : -kLanes, factor);
        const auto clear_pairs = [&](int64_t from, int64_t to) {
          for (int64_t i = from; i < to; ++i) {
            store(scores + i * kTokens + v * kLanes, vfloat{});
            store(gradient + i * kTokens + v * kLanes, vfloat{});
          }
        };
        clear_pairs(0, begin / Pairs::kNumbers);
        clear_pairs(ceil_div(rows, Pairs::kNumbers), steps * kUnits);
      }
      multiply_tiles<true>(dvalue, turned(dout_tiles, columns).from(0, q / kTileDepth), scores, column_tiles,
                           vectors, steps);
      multiply_tiles<true>(dkey, turned(query_tiles, columns).from(0, q / kTileDepth), gradient, column_tiles,
                           vectors, steps);
      if (vectors == 1)  // the lines' other half is not written, meets zeros, and must not hold a NaN
        for (int64_t i = 0; i < rows; ++i)
          for (int64_t u = kUnits / 2; u < kUnits; ++u) gradient_lines[i * kUnits + u] = 0;
      for (int64_t i = 0; i < rows; i += kTokens) {
        const int64_t count = min(kTokens, rows - i);
        gather_panel(gradient_panel, gradient_lines + i * kUnits, count, kUnits);
        multiply_tiles<true>(dquery + (q + i) * columns, turned(key_tiles, columns).from(0, k / kTileDepth),
                             gradient_panel, column_tiles, ceil_div(count, kLanes), 1);
      }
    }
    scatter_panel<Pairs>(head.dkey.from(k, 0), dkey, keys, size, {splat(scale), splat(scale)});
    scatter_panel<Pairs>(head.dvalue.from(k, 0), dvalue, keys, size, {splat(1.0f), splat(1.0f)});
  }
  for (int64_t q = 0; q < n; q += kTokens)
    scatter_panel<Pairs>(head.dquery.from(q, 0), dquery + q * columns, min(kTokens, n - q), size,
                         {splat(scale), splat(scale)});
}

}  // namespace topolm::TOPOLM_ISA

#endif
