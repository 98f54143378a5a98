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
#include "kernels/cpu/tiles.h"

namespace topolm::TOPOLM_ISA {

namespace {

constexpr int64_t kUnits = kTileDepth / int64_t{Pairs::kNumbers};  // in a row of a tile
constexpr int64_t kRowBytes = kTokens * sizeof(float);             // of what has tokens in the lanes
static_assert(kUnits == kLanes && kTileSide == kLanes && kTileVectors == 2 && kBlock % kTileDepth == 0);

/// The left operand of a product: unit (i, k) is at data[i * ld + k % kUnits + k / kUnits * step].
struct Left {
  const float* data;
  int64_t ld, step;

  TOPOLM_INLINE Left from(int64_t tile, int64_t step_index) const {
    return {data + tile * kTileSide * ld + step_index * step, ld, step};
  }
};

/// R x V tiles of multiply_tiles(): a load a product when both are 2.
template <bool kKeep, int R, int V>
TOPOLM_INLINE void multiply_tiles_block(float* c, Left a, const float* b, int64_t steps) {
  constexpr int64_t kDown = int64_t{kTileSide} * kTokens;
  if constexpr (kKeep) {
    tile_load<0>(c, kRowBytes);
    if constexpr (V == 2) tile_load<1>(c + kLanes, kRowBytes);
    if constexpr (R == 2) tile_load<2>(c + kDown, kRowBytes);
    if constexpr (R == 2 && V == 2) tile_load<3>(c + kDown + kLanes, kRowBytes);
  } else {
    tile_zero<0>();
    if constexpr (V == 2) tile_zero<1>();
    if constexpr (R == 2) tile_zero<2>();
    if constexpr (R == 2 && V == 2) tile_zero<3>();
  }
  const int64_t stride = a.ld * int64_t{sizeof(float)};
  for (int64_t step = 0; step < steps; ++step, a.data += a.step, b += kUnits * kTokens) {
    tile_load<4>(a.data, stride);
    tile_load<6>(b, kRowBytes);
    tile_multiply_add<0, 4, 6>();
    if constexpr (V == 2) {
      tile_load<7>(b + kLanes, kRowBytes);
      tile_multiply_add<1, 4, 7>();
    }
    if constexpr (R == 2) {
      tile_load<5>(a.data + kTileSide * a.ld, stride);
      tile_multiply_add<2, 5, 6>();
    }
    if constexpr (R == 2 && V == 2) tile_multiply_add<3, 5, 7>();
  }
  tile_store<0>(c, kRowBytes);
  if constexpr (V == 2) tile_store<1>(c + kLanes, kRowBytes);
  if constexpr (R == 2) tile_store<2>(c + kDown, kRowBytes);
  if constexpr (R == 2 && V == 2) tile_store<3>(c + kDown + kLanes, kRowBytes);
}

/// c [tiles of rows][vectors] = a b, or += when kept. Rows of b, as many units of the depth, and of c are
/// kTokens apart.
template <bool kKeep>
__attribute__((noinline)) void multiply_tiles(float* c, Left a, const float* b, int64_t tiles,
                                              int64_t vectors, int64_t steps) {
  for (int64_t i = 0; i < tiles; i += 2, c += 2 * kTileSide * kTokens) {
    const Left rows = a.from(i, 0);
    if (tiles - i > 1)
      vectors == 2 ? multiply_tiles_block<kKeep, 2, 2>(c, rows, b, steps)
                   : multiply_tiles_block<kKeep, 2, 1>(c, rows, b, steps);
    else
      vectors == 2 ? multiply_tiles_block<kKeep, 1, 2>(c, rows, b, steps)
                   : multiply_tiles_block<kKeep, 1, 1>(c, rows, b, steps);
  }
}

TOPOLM_INLINE void clear(float* begin, const float* end) {
  for (; begin < end; begin += kLanes) store(begin, vfloat{});
}

/// A head's sizes in tiles.
struct Padded {
  int64_t units, columns, keys, key_steps;

  TOPOLM_INLINE Padded(int64_t n, int64_t size)
      : units(ceil_div(size, kTileDepth) * kUnits),
        columns(round_up(size, kTileSide)),
        keys(round_up(n, kTileSide)),
        key_steps(ceil_div(n, kTileDepth)) {}
};

}  // namespace

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
  for (int64_t k = 0; k < keys; k += kTileDepth) {
    const int64_t n = min(kTileDepth, keys - k);
    float* const tiles = value + k / kTileDepth * step;
    gather_steps<Pairs>(pairs, head.value.from(k, 0), n, size);
    pack_panel<kLanes>(tiles, pairs, size, 1, ceil_div(n, Pairs::kNumbers), size);
    clear(tiles + size * kUnits, tiles + step);
  }

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
      const Left values{value + k / kTileDepth * step, kUnits, step};
      if (both_steps > 0) multiply_tiles<true>(out, values, scores, column_tiles, vectors, both_steps);
      if (both_steps < steps)
        multiply_tiles<true>(out + kLanes, values.from(0, both_steps),
                             scores + both_steps * kUnits * kTokens + kLanes, column_tiles, 1,
                             steps - both_steps);
    }
    softmax.finish(head, q, queries, out);
  }
}

}  // namespace topolm::TOPOLM_ISA

#endif
