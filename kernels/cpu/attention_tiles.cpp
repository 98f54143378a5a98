// Causal self-attention of bf16 on AMX's tiles, as attention.cpp does it on vectors: queries stay in the
// lanes, so that the softmax is the same; a tile is 16 lanes, and heads are padded to whole tiles in scratch.
//
// No machine of ours has AMX: this code has run on emulated tiles only. What follows is counted, in cycles of
// a Sapphire Rapids (a product of tiles 16, a load 8, a store 16), for 32 queries, 64 keys and a head of 49,
// which is 64 in both products.
// - On vectors the two products are 2 * 64 * 49 * 2 multiplications, 2 a cycle: 6272. VDPBF16PS, where it is
//   one a cycle, is no faster.
// - On tiles each is 16 products, 256 cycles, and as many loads, 128; the first stores 8 tiles, the second
//   loads and stores 8: 1088 in all if nothing overlaps, 512 if everything does.
// - The softmax, some 900, and the sums' change of scale, 100, are vectors' work: it is 7300 cycles against
//   1500 to 2100. Turning the values round costs 80 a tile once a task, 5 to 8 % more.
#include "kernels/cpu/attention_tiles.h"

#if defined(TOPOLM_AMX)

#include "kernels/cpu/attention_softmax.h"

namespace topolm::TOPOLM_ISA {

int64_t attend_tiles_scratch(int64_t keys, int64_t size) {
  const Padded padded(keys, size);
  return (kBlock + padded.columns + 2 * padded.units) * kTokens + padded.keys * padded.units +
         (padded.key_steps * padded.columns + size + 1) * kUnits;
}

void attend_tiles(const AttentionHead& head, float* scratch) {
  const int64_t size = head.size, keys = head.first_position + head.queries;
  const Padded padded(keys, size);
  const int64_t units = padded.units, step = padded.columns * kUnits;
  const float scale = score_factor(size);
  float* const scores = scratch;                         // [kBlock][kTokens]
  float* const out = scores + kBlock * kTokens;          // [columns][kTokens]
  float* const query = out + padded.columns * kTokens;   // [units][kTokens]
  float* const lines = query + units * kTokens;          // [kTokens][units], of queries
  float* const key = lines + units * kTokens;            // [keys][units]
  float* const value = key + padded.keys * units;        // [key_steps][columns][kUnits]
  float* const pairs = value + padded.key_steps * step;  // [kUnits][size], of one step's keys
  gather_lines<Pairs>(key, head.key, keys, size, units);
  clear(key + keys * units, value);
  gather_tiles(value, pairs, head.value, keys, size);

  const TileScope tiles;
  for (int64_t q = 0; q < head.queries; q += kTokens) {
    const int64_t queries = min(kTokens, head.queries - q), position = head.first_position + q;
    const int64_t seen = position + queries, vectors = ceil_div(queries, kLanes);
    gather_lines<Pairs>(lines, head.query.from(q, 0), queries, size, units);
    pack_panel<kTokens>(query, lines, units, 1, queries, units);
    clear(out, query);
    Softmax softmax;
    for (int64_t k = 0; k < seen; k += kBlock) {
      // The first vector's queries see rows [0, first) of the block, the others' all.
      const int64_t rows = min(kBlock, seen - k);
      const int64_t first = vectors == 1 ? rows : max(0, min(rows, position + kLanes - k));
      const int64_t both = ceil_div(first, kTileSide), down = ceil_div(rows, kTileSide);
      const Left block{key + k * units, units, kUnits};
      multiply_tiles<false>(scores, block, query, both, vectors, units / kUnits);
      multiply_tiles<false>(scores + both * kTileSide * kTokens + kLanes, block.from(both, 0), query + kLanes,
                            down - both, 1, units / kUnits);

      const int64_t both_steps = ceil_div(first, kTileDepth), steps = ceil_div(rows, kTileDepth);
      for (int v = 0; v < vectors; ++v) {
        const int64_t here = v == 0 ? first : rows;
        softmax.add<Pairs>(scores, v, here, position + v * kLanes - k, scale);
        for (int64_t unit = ceil_div(here, Pairs::kNumbers); unit < ceil_div(here, kTileDepth) * kUnits;
             ++unit)
          store(scores + unit * kTokens + v * kLanes, vfloat{});
        if (k > 0)
          for (int64_t j = 0; j < size; ++j) {
            float* const sum = out + j * kTokens + v * kLanes;
            store(sum, load(sum) * softmax.factor[v]);
          }
      }

      const int64_t column_tiles = padded.columns / kTileSide;
      const Left values = turned(value, padded.columns).from(0, k / kTileDepth);
      if (both_steps > 0) multiply_tiles<true>(out, values, scores, column_tiles, vectors, both_steps);
      if (both_steps < steps)
        multiply_tiles<true>(out + kLanes, values.from(0, both_steps),
                             scores + both_steps * kUnits * kTokens + kLanes, column_tiles, 1,
                             steps - both_steps);
    }
    softmax.finish<Pairs>(head, q, queries, out);
  }
}

}  // namespace topolm::TOPOLM_ISA

#endif
