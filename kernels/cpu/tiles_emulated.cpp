// AMX's tiles as arrays, by the pseudo-code of Intel's manual (Software Developer's Manual, volume 2:
// LDTILECFG, TILELOADD, TILESTORED, TDPBF16PS and the exception classes AMX-E1 to E4).
#include "kernels/cpu/tiles.h"

#if defined(TOPOLM_AMX_EMULATED)

#include "kernels/cpu_device.h"

namespace topolm::TOPOLM_ISA {

namespace {

constexpr int kMaxRows = 16, kRowBytes = 64;
typedef uint32_t vword __attribute__((vector_size(kLanes * 4)));

struct alignas(64) Tile {
  unsigned char row[kMaxRows][kRowBytes];
  int rows, row_bytes;
};

struct Tiles {
  bool configured;
  Tile tile[kTiles];
};
constinit thread_local Tiles tiles{};

/// The tile, if it can be used.
Tile& valid_tile(int t) {
  if (!tiles.configured) tile_fault("a tile is used before tiles are configured, or after their release");
  if (t < 0 || t >= kTiles) tile_fault("a tile's number is not in [0, 8)");
  if (tiles.tile[t].rows == 0) tile_fault("a tile is used that the configuration leaves out");
  return tiles.tile[t];
}

bool all_zero(const void* bytes, size_t n) {
  const auto* const p = static_cast<const unsigned char*>(bytes);
  for (size_t i = 0; i < n; ++i)
    if (p[i] != 0) return false;
  return true;
}

/// Denormal numbers are read and written as zeros, and rounding is to the nearest even, whatever the thread's
/// own settings, which come back as they were.
class TileArithmetic {
 public:
  TileArithmetic() : saved_(_mm_getcsr()) {
    constexpr unsigned kFlushToZero = 1u << 15, kMaskExceptions = 0x3fu << 7, kDenormalsAreZeros = 1u << 6;
    _mm_setcsr(kFlushToZero | kMaskExceptions | kDenormalsAreZeros);
  }
  ~TileArithmetic() { _mm_setcsr(saved_); }
  TileArithmetic(const TileArithmetic&) = delete;
  TileArithmetic& operator=(const TileArithmetic&) = delete;

 private:
  unsigned saved_;
};

/// Out of line, from memory to memory: the compiler must not move it past a change of the settings.
__attribute__((noinline)) void multiply(Tile& sums, const Tile& a, const Tile& b) {
  // Row m of a, and its even and odd elements as fp32.
  alignas(64) float even[kMaxRows][kLanes], odd[kMaxRows][kLanes];
  for (int m = 0; m < kMaxRows; ++m) {
    const vword pairs = bit_cast<vword>(load(reinterpret_cast<const float*>(a.row[m])));
    store(even[m], bit_cast<vfloat>(pairs << 16));
    store(odd[m], bit_cast<vfloat>(pairs & 0xffff0000u));
  }
  constexpr int kRows = 8;  // at a time: 16 vectors of sums
  for (int m0 = 0; m0 < sums.rows; m0 += kRows) {
    vfloat partial[kRows][2] = {};
    for (int k = 0; k < a.row_bytes / 4; ++k) {
      const vword pairs = bit_cast<vword>(load(reinterpret_cast<const float*>(b.row[k])));
      const vfloat b_even = bit_cast<vfloat>(pairs << 16), b_odd = bit_cast<vfloat>(pairs & 0xffff0000u);
      TOPOLM_UNROLL
      for (int m = 0; m < kRows; ++m) {
        partial[m][0] = _mm512_fmadd_ps(splat(even[m0 + m][k]), b_even, partial[m][0]);
        partial[m][1] = _mm512_fmadd_ps(splat(odd[m0 + m][k]), b_odd, partial[m][1]);
      }
    }
    TOPOLM_UNROLL
    for (int m = 0; m < kRows; ++m) {  // rows past sums.rows stay zeros, or NaN: nothing can read them
      auto* const row = reinterpret_cast<float*>(sums.row[m0 + m]);
      store(row, load(row) + (partial[m][0] + partial[m][1]));
    }
  }
}

}  // namespace

namespace emulated {

void configure(const TileConfig& config) {
  if (config.palette > 1) tile_fault("the tile configuration's palette is neither 0 nor 1");
  release();
  if (config.palette == 0) return;
  if (config.start_row != 0) tile_fault("the emulated tiles do not restart at a row");
  if (!all_zero(config.reserved, sizeof config.reserved) ||
      !all_zero(config.row_bytes + kTiles, sizeof config.row_bytes / 2) ||
      !all_zero(config.rows + kTiles, sizeof config.rows / 2))
    tile_fault("the tile configuration's reserved bytes are not zeros");
  for (int t = 0; t < kTiles; ++t) {
    const int rows = config.rows[t], row_bytes = config.row_bytes[t];
    if (rows > kMaxRows || row_bytes > kRowBytes)
      tile_fault("a tile is configured with more than 16 x 64 bytes");
    if ((rows == 0) != (row_bytes == 0))
      tile_fault("a tile is configured with rows or columns, but not both");
    tiles.tile[t].rows = rows;
    tiles.tile[t].row_bytes = row_bytes;
  }
  tiles.configured = true;
}

void release() noexcept { tiles = {}; }

void zero(int tile) { __builtin_memset(valid_tile(tile).row, 0, kTileBytes); }

void load(int tile, const void* from, int64_t stride) {
  Tile& t = valid_tile(tile);
  zero(tile);
  for (int i = 0; i < t.rows; ++i)
    __builtin_memcpy(t.row[i], static_cast<const char*>(from) + i * stride, static_cast<size_t>(t.row_bytes));
}

void store(int tile, void* to, int64_t stride) {
  const Tile& t = valid_tile(tile);
  for (int i = 0; i < t.rows; ++i)
    __builtin_memcpy(static_cast<char*>(to) + i * stride, t.row[i], static_cast<size_t>(t.row_bytes));
}

void multiply_add(int sums, int a, int b) {
  Tile &c = valid_tile(sums), &x = valid_tile(a), &y = valid_tile(b);
  if (sums == a || sums == b || a == b) tile_fault("a product of tiles wants three different ones");
  if (c.row_bytes % 4 != 0 || x.row_bytes % 4 != 0 || y.row_bytes % 4 != 0)
    tile_fault("a product of tiles whose rows are not whole words");
  if (c.row_bytes != y.row_bytes || x.row_bytes / 4 != y.rows || c.rows != x.rows)
    tile_fault("a product of tiles of sizes that do not fit");
  const TileArithmetic settings;
  multiply(c, x, y);
}

}  // namespace emulated

}  // namespace topolm::TOPOLM_ISA

#endif
