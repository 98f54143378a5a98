// The tile registers of Intel's AMX: eight of them, of up to 16 rows of 64 bytes, and one instruction that
// adds the product of two of them to a third. Under TOPOLM_AMX_EMULATED they are arrays in memory that follow
// the manual's pseudo-code (tiles_emulated.cpp), so that the kernels' own code runs, slower, on any AVX-512
// machine.
#pragma once

#include "kernels/cpu/simd.h"

#if defined(TOPOLM_AMX)

namespace topolm::TOPOLM_ISA {

constexpr int kTiles = 8;
constexpr int kTileBytes = 1024;  // 16 rows of 64
constexpr int kTileSide = 16;     // rows, and columns of sums, of pairs of bf16
constexpr int kTileDepth = 32;    // products of bf16 that a multiplication adds to each sum

/// What LDTILECFG reads.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  /// Every tile as large as it can be.
  static constexpr TileConfig whole() {
    TileConfig config;
    for (int t = 0; t < kTiles; ++t) {
      config.row_bytes[t] = 64;
      config.rows[t] = 16;
    }
    return config;
  }
};
static_assert(sizeof(TileConfig) == 64);

#if defined(TOPOLM_AMX_EMULATED)

/// Where the processor would fault these throw Error, which says why. A thread has its own tiles.
namespace emulated {
void configure(const TileConfig& config);
void release() noexcept;
void zero(int tile);
void load(int tile, const void* from, int64_t stride);
void store(int tile, void* to, int64_t stride);
void multiply_add(int sums, int a, int b);
}  // namespace emulated

#endif

/// Tiles, from here to the end of the scope; a kernel's task has its own, so that no thread sleeps, or serves
/// another part of the program, with 8 KB of registers to be saved at each switch. They start as zeros.
class TileScope {
 public:
  // The whole structure is the operand: g++ 12's _tile_loadconfig names 8 of its bytes, and the stores that
  // fill the others vanish.
  TOPOLM_INLINE explicit TileScope(const TileConfig& config = TileConfig::whole()) {
#if defined(TOPOLM_AMX_EMULATED)
    emulated::configure(config);
#else
    asm volatile("ldtilecfg %0" ::"m"(config));
#endif
  }
  TOPOLM_INLINE ~TileScope() {
#if defined(TOPOLM_AMX_EMULATED)
    emulated::release();
#else
    asm volatile("tilerelease");
#endif
  }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
};

// Tiles are numbered at compile time. In assembly, not by intrinsics: g++'s are macros that paste the
// number's text, which a template's argument is not, and its loads do not say that they read memory.

template <int kTile>
TOPOLM_INLINE void tile_zero() {
  static_assert(kTile >= 0 && kTile < kTiles);
#if defined(TOPOLM_AMX_EMULATED)
  emulated::zero(kTile);
#else
  asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
#endif
}

/// Rows of the tile from `from`, `stride` bytes apart.
template <int kTile>
TOPOLM_INLINE void tile_load(const void* from, int64_t stride) {
  static_assert(kTile >= 0 && kTile < kTiles);
#if defined(TOPOLM_AMX_EMULATED)
  emulated::load(kTile, from, stride);
#else
  asm volatile("tileloadd (%1,%2,1), %%tmm%c0" ::"i"(kTile), "r"(from), "r"(stride) : "memory");
#endif
}

template <int kTile>
TOPOLM_INLINE void tile_store(void* to, int64_t stride) {
  static_assert(kTile >= 0 && kTile < kTiles);
#if defined(TOPOLM_AMX_EMULATED)
  emulated::store(kTile, to, stride);
#else
  asm volatile("tilestored %%tmm%c0, (%1,%2,1)" ::"i"(kTile), "r"(to), "r"(stride) : "memory");
#endif
}

/// TDPBF16PS. sums[m][n] += over k of a[m][k] b[k/2][2n + k%2]: a row of b holds, for each column, a pair
/// along K. Even and odd k are summed apart, then added to each other and to sums[m][n]; denormals are zeros.
template <int kSums, int kA, int kB>
TOPOLM_INLINE void tile_multiply_add() {
  static_assert(kSums >= 0 && kSums < kTiles && kA >= 0 && kA < kTiles && kB >= 0 && kB < kTiles);
  static_assert(kSums != kA && kSums != kB && kA != kB, "the processor wants three different tiles");
#if defined(TOPOLM_AMX_EMULATED)
  emulated::multiply_add(kSums, kA, kB);
#else
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSums), "i"(kA), "i"(kB));
#endif
}

// ---- a block of R x V <= 2 x 2 tiles of sums, numbered along its rows; rows of C are `row_bytes` apart

template <int R, int V>
TOPOLM_INLINE void zero_sums() {
  tile_zero<0>();
  if constexpr (V == 2) tile_zero<1>();
  if constexpr (R == 2) tile_zero<2>();
  if constexpr (R == 2 && V == 2) tile_zero<3>();
}

template <int R, int V>
TOPOLM_INLINE void load_sums(const float* c, int64_t row_bytes) {
  const float* const below = c + kTileSide * row_bytes / int64_t{sizeof(float)};
  tile_load<0>(c, row_bytes);
  if constexpr (V == 2) tile_load<1>(c + kTileSide, row_bytes);
  if constexpr (R == 2) tile_load<2>(below, row_bytes);
  if constexpr (R == 2 && V == 2) tile_load<3>(below + kTileSide, row_bytes);
}

template <int R, int V>
TOPOLM_INLINE void store_sums(float* c, int64_t row_bytes) {
  float* const below = c + kTileSide * row_bytes / int64_t{sizeof(float)};
  tile_store<0>(c, row_bytes);
  if constexpr (V == 2) tile_store<1>(c + kTileSide, row_bytes);
  if constexpr (R == 2) tile_store<2>(below, row_bytes);
  if constexpr (R == 2 && V == 2) tile_store<3>(below + kTileSide, row_bytes);
}

/// sums += [a; below] [b, right]: a load a product when both are 2, the least that eight registers allow.
template <int R, int V, class T>
TOPOLM_INLINE void add_to_sums(const T* a, const T* below, int64_t a_stride, const T* b, const T* right,
                               int64_t b_stride) {
  tile_load<4>(a, a_stride);
  tile_load<6>(b, b_stride);
  tile_multiply_add<0, 4, 6>();
  if constexpr (V == 2) {
    tile_load<7>(right, b_stride);
    tile_multiply_add<1, 4, 7>();
  }
  if constexpr (R == 2) {
    tile_load<5>(below, a_stride);
    tile_multiply_add<2, 5, 6>();
  }
  if constexpr (R == 2 && V == 2) tile_multiply_add<3, 5, 7>();
}

}  // namespace topolm::TOPOLM_ISA

#endif
