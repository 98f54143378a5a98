// Twins of the tensor-core instructions in kernels/cuda/tensor_core.h, which documents the layouts.
#pragma once

#include "kernels/simt/simt.h"

namespace topolm::simt {

struct MmaLane {
  uint32_t a[4], b[2];
  float c[4];
};

inline float half_of(uint32_t pair, int which) {
  return std::bit_cast<float>(which ? pair & 0xffff0000u : pair << 16);
}

template <int K>
void resolve_mma(void** lanes, uint32_t) {
  float a[16][16] = {}, b[16][8] = {};
  for (int lane = 0; lane < 32; ++lane) {
    const auto* const in = static_cast<const MmaLane*>(lanes[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < K / 2; ++i)
      a[g + i / 2 % 2 * 8][2 * t + i % 2 + i / 4 * 8] = half_of(in->a[i / 2], i % 2);
    for (int i = 0; i < K / 4; ++i) b[2 * t + i % 2 + i / 2 * 8][g] = half_of(in->b[i / 2], i % 2);
  }
  for (int lane = 0; lane < 32; ++lane) {
    auto* const out = static_cast<MmaLane*>(lanes[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) {
      float sum = out->c[i];
      for (int k = 0; k < K; ++k) sum += a[g + i / 2 * 8][k] * b[k][2 * t + i % 2];
      out->c[i] = sum;
    }
  }
}

template <int K>
void mma(const Site& site, float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  MmaLane lane{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}, {c[0], c[1], c[2], c[3]}};
  warp_operation(0xffffffffu, site, &lane, resolve_mma<K>);
  for (int i = 0; i < 4; ++i) c[i] = lane.c[i];
}

struct LdmatrixLane {
  uint16_t row[8];
  uint32_t out[4];
};

template <int N, bool TRANSPOSE>
void resolve_ldmatrix(void** lanes, uint32_t) {
  for (int matrix = 0; matrix < N; ++matrix)
    for (int lane = 0; lane < 32; ++lane) {
      uint32_t pair = 0;
      for (int i = 0; i < 2; ++i) {
        const int row = TRANSPOSE ? lane % 4 * 2 + i : lane / 4,
                  col = TRANSPOSE ? lane / 4 : lane % 4 * 2 + i;
        pair |= static_cast<uint32_t>(static_cast<const LdmatrixLane*>(lanes[matrix * 8 + row])->row[col])
                << 16 * i;
      }
      static_cast<LdmatrixLane*>(lanes[lane])->out[matrix] = pair;
    }
}

/// Each lane reads the row that it names, so that a sanitizer blames the right one.
template <int N, bool TRANSPOSE>
void ldmatrix(const Site& site, uint32_t (&r)[N], const void* row) {
  LdmatrixLane lane{};
  if (this_thread->lane < 8 * N) {
    if (reinterpret_cast<uintptr_t>(row) % 16)
      operation_failed(site, "has a row that is not 16-byte aligned");
    for (int i = 0; i < 8; ++i) lane.row[i] = static_cast<const uint16_t*>(row)[i];
  }
  warp_operation(0xffffffffu, site, &lane, resolve_ldmatrix<N, TRANSPOSE>);
  for (int i = 0; i < N; ++i) r[i] = lane.out[i];
}

/// A copy of `size` bytes of which the first `bytes` are read, the rest becomes 0. It may land at once or as
/// late as the wait.
void copy_async(const Site& site, void* shared, const void* global, int size, int bytes);
void copy_async_commit();
void copy_async_wait(int newest);

}  // namespace topolm::simt
