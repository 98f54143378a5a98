// What attention of bf16 on tiles is made of.
#pragma once

#include "kernels/cpu/attention.h"
#include "kernels/cpu/tiles.h"

#if defined(TOPOLM_AMX)

namespace topolm::TOPOLM_ISA {

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

/// R x V tiles of multiply_tiles().
template <bool kKeep, int R, int V>
TOPOLM_INLINE void multiply_tiles_block(float* c, Left a, const float* b, int64_t steps) {
  if constexpr (kKeep)
    load_sums<R, V>(c, kRowBytes);
  else
    zero_sums<R, V>();
  const int64_t stride = a.ld * int64_t{sizeof(float)};
  for (int64_t step = 0; step < steps; ++step, a.data += a.step, b += kUnits * kTokens)
    add_to_sums<R, V>(a.data, a.data + kTileSide * a.ld, stride, b, b + kLanes, kRowBytes);
  store_sums<R, V>(c, kRowBytes);
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

/// Turns rows round, as a left operand: for each kTileDepth of them [size, in whole tiles][kUnits], a line of
/// pairs of their numbers for each column; zeros behind them. pairs: room for kUnits * (size + 1).
TOPOLM_INLINE void gather_tiles(float* out, float* pairs, const Matrix& rows, int64_t n, int64_t size) {
  const int64_t step = round_up(size, kTileSide) * kUnits;
  for (int64_t i = 0; i < n; i += kTileDepth, out += step) {
    const int64_t here = min(kTileDepth, n - i);
    Pairs::gather_steps(pairs, static_cast<const bf16*>(rows.from(i, 0).data), rows.row_stride, here, size);
    pack_panel<kLanes>(out, pairs, size, 1, ceil_div(here, Pairs::kNumbers), size);
    clear(out + size * kUnits, out + step);
  }
}

/// What gather_tiles() wrote.
TOPOLM_INLINE Left turned(const float* tiles, int64_t columns) { return {tiles, kUnits, columns * kUnits}; }

/// Floats of scratch that attend_tiles() needs for so many keys.
int64_t attend_tiles_scratch(int64_t keys, int64_t size);

/// What attend() does, for a head whose tensors are all bf16.
void attend_tiles(const AttentionHead& head, float* scratch);

}  // namespace topolm::TOPOLM_ISA

#endif
