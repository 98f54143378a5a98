// Reductions over a warp and over a block. The order of additions is fixed: the same bits every time.
#pragma once

#include "kernels/cuda/gpu.h"

namespace topolm::TOPOLM_GPU {

struct Add {
  DEVICE float operator()(float a, float b) const {
#if defined(__CUDA_ARCH__)
    // Never contracted: if a is a product, one lane would add to it unrounded what another adds rounded, and
    // the lanes would disagree about their sum.
    return __fadd_rn(a, b);
#else
    return a + b;
#endif
  }
};
/// A NaN wins, unlike in fmaxf: it must not be lost on the way to the loss.
struct Max {
  DEVICE float operator()(float a, float b) const { return a != a || a > b ? a : b; }
};

#if defined(__CUDACC__)
/// op over the lanes in groups of `width` (a power of two up to 32); every lane gets its group's result.
template <class Op>
DEVICE float warp_reduce(float x, Op op, int width = kWarp) {
  for (int offset = width / 2; offset > 0; offset /= 2) x = op(x, __shfl_xor_sync(kAllLanes, x, offset));
  return x;
}
#else
// One meeting of the lanes instead of five: the same butterfly, so the same bits, three times as fast.
template <class Op>
inline float warp_reduce(float x, Op op, int width = kWarp WITH_CALLER) {
  struct Lane {
    float x;
    int width;
  } lane{x, width};
  (void)op;
  simt::warp_operation(kAllLanes, SIMT_SITE_OF("warp_reduce", caller), &lane, [](void** lanes, uint32_t) {
    float a[kWarp], b[kWarp];
    for (int i = 0; i < kWarp; ++i) a[i] = static_cast<Lane*>(lanes[i])->x;
    for (int offset = static_cast<Lane*>(lanes[0])->width / 2; offset > 0; offset /= 2) {
      for (int i = 0; i < kWarp; ++i) b[i] = Op{}(a[i], a[i ^ offset]);
      for (int i = 0; i < kWarp; ++i) a[i] = b[i];
    }
    for (int i = 0; i < kWarp; ++i) static_cast<Lane*>(lanes[i])->x = a[i];
  });
  return lane.x;
}
#endif

DEVICE float warp_sum(float x, int width = kWarp WITH_CALLER) {
  return warp_reduce(x, Add{}, width FROM_CALLER);
}
DEVICE float warp_max(float x, int width = kWarp WITH_CALLER) {
  return warp_reduce(x, Max{}, width FROM_CALLER);
}

/// op over a block of THREADS threads (a multiple of 32), x of each; every thread gets the result. `shared`
/// holds THREADS/32 floats and may be used again after the next barrier. All threads must call it.
template <int THREADS, class Op>
DEVICE float block_reduce(float x, Op op, float identity, float* shared WITH_CALLER) {
  constexpr int kWarps = THREADS / kWarp;
  x = warp_reduce(x, op, kWarp FROM_CALLER);
  if constexpr (kWarps == 1) return x;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (lane == 0) shared[threadIdx.x / kWarp] = x;
  __syncthreads();
  return warp_reduce(lane < kWarps ? shared[lane] : identity, op, kWarp FROM_CALLER);
}

}  // namespace topolm::TOPOLM_GPU
