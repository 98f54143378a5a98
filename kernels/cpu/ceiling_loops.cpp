// What the best code could do: multiply-adds that never leave the registers, and plain streams over memory.
#include "kernels/cpu/simd.h"
#include "kernels/cpu/tiles.h"
#include "kernels/cpu_device.h"

namespace topolm::TOPOLM_ISA {

namespace {

float multiply_add(int64_t n) {
  constexpr int kChains = 12;  // to cover the latency of two units, and to fit in 16 registers
  vfloat sums[kChains];
  volatile float opaque = 0.5f;  // what the compiler must not compute with
  const vfloat factor = splat(opaque), term = splat(opaque);
  // Different starts: g++ computes equal chains once.
  for (int chain = 0; chain < kChains; ++chain) sums[chain] = splat(opaque * static_cast<float>(chain));
  for (int64_t i = 0; i < n; i += kChains * kLanes) {
    TOPOLM_UNROLL
    for (int chain = 0; chain < kChains; ++chain) sums[chain] = sums[chain] * factor + term;  // tends to 1
  }
  for (int chain = 1; chain < kChains; ++chain) sums[0] += sums[chain];
  return reduce_add(sums[0]);
}

#if defined(TOPOLM_BF16_DOT)
float bf16_multiply_add(int64_t n) {
  constexpr int kChains = 24;  // two units, and more cycles of latency than an fp32 multiply-add has
  __m512 sums[kChains] = {};
  volatile int opaque = 0x3f003f00;  // two halves
  const auto pair = bit_cast<__m512bh>(_mm512_set1_epi32(opaque));
  for (int64_t i = 0; i < n; i += kChains * 2 * kLanes) {
    TOPOLM_UNROLL
    for (int chain = 0; chain < kChains; ++chain) {
      sums[chain] = _mm512_dpbf16_ps(sums[chain], pair, pair);
      asm volatile("" : "+v"(sums[chain]));  // or equal chains are computed once
    }
  }
  TOPOLM_UNROLL
  for (int chain = 1; chain < kChains; ++chain) sums[0] += sums[chain];
  return reduce_add(sums[0]);
}
#elif defined(TOPOLM_AMX)
float bf16_multiply_add(int64_t n) {
  constexpr int64_t kProducts = int64_t{kTileSide} * kTileSide * kTileDepth;
  alignas(64) uint16_t halves[kTileSide][kTileDepth];
  for (auto& row : halves)
    for (uint16_t& half : row) half = 0x3f00;
  alignas(64) float sums[kTileSide][kTileSide];
  const TileScope tiles;
  tile_load<4>(halves, 64);
  tile_load<5>(halves, 64);
  tile_load<6>(halves, 64);
  tile_load<7>(halves, 64);
  for (int64_t i = 0; i < n; i += 4 * kProducts) {  // as the kernel does, without its loads
    tile_multiply_add<0, 4, 6>();
    tile_multiply_add<1, 4, 7>();
    tile_multiply_add<2, 5, 6>();
    tile_multiply_add<3, 5, 7>();
  }
  tile_store<0>(sums, 64);
  return sums[0][0];
}
#else
constexpr float (*bf16_multiply_add)(int64_t) = nullptr;
#endif

float read(const float* x, int64_t n) {
  constexpr int kChains = 8;  // two loads a cycle, each added within four
  vfloat sums[kChains] = {};
  for (int64_t i = 0; i + kChains * kLanes <= n; i += kChains * kLanes) {
    TOPOLM_UNROLL
    for (int k = 0; k < kChains; ++k) sums[k] += load(x + i + k * kLanes);
  }
  TOPOLM_UNROLL
  for (int k = 1; k < kChains; ++k) sums[0] += sums[k];
  return reduce_add(sums[0]);
}

void copy(float* out, const float* x, int64_t n) {
  sweep(n, [=](int64_t i, auto lanes) { store(out + i, load(x + i, lanes), lanes); });
}

void triad(float* out, const float* x, const float* y, int64_t n) {
  sweep(n, [=](int64_t i, auto lanes) {
    store(out + i, load(x + i, lanes) + 0.5f * load(y + i, lanes), lanes);
  });
}

void update(float* w, float* m, float* v, const float* g, int64_t n) {
  sweep(n, [=](int64_t i, auto lanes) {
    const vfloat step = load(g + i, lanes) * 0.5f;
    for (float* const p : {w, m, v}) store(p + i, load(p + i, lanes) + step, lanes);
  });
}

}  // namespace

CeilingLoops ceiling_loops() { return {multiply_add, bf16_multiply_add, read, copy, triad, update}; }

}  // namespace topolm::TOPOLM_ISA
