// What a kernel may use, whichever compiler reads it. nvcc compiles kernels/cuda/*.cu for GPUs into the
// namespace cuda_kernels; the C++ compiler compiles the same files into simt_kernels, where every CUDA thread
// is a fiber (kernels/simt). TOPOLM_GPU is the namespace's name.
//
//   SHARED(float, tile, [32][33]);   shared memory of a fixed size: at the top of the kernel, not in branches
//   DYNAMIC_SHARED(float, tile);     float* to the shared memory asked for at launch
//   float f(float x WITH_CALLER)     a function in which the lanes of a warp meet: simt then names its
//   caller's
//                                    line in messages; hand it on by g(x FROM_CALLER)
//
// House rules, so that both readings mean the same: no early return in a kernel with barriers or warp
// operations; no warp-synchronous code without __syncwarp: a shuffle exchanges values but orders no memory;
// no waiting for other blocks; masks name all lanes that come; inline PTX only in gpu.h, math.h and
// tensor_core.h, beside its twin for the CPU.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "engine/tensor.h"
#include "kernels/cuda/gpu_device.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#define SHARED(type, name, dimensions) __shared__ type name dimensions
#define DYNAMIC_SHARED(type, name)                                  \
  extern __shared__ __align__(128) unsigned char dynamic_shared_[]; \
  type* const name = reinterpret_cast<type*>(dynamic_shared_)
#define UNROLL _Pragma("unroll")
#define ROLLED _Pragma("unroll 1")
#define DEVICE __device__ __forceinline__
#define WITH_CALLER
#define FROM_CALLER
#else
#include "kernels/simt/simt.h"
#define UNROLL _Pragma("GCC unroll 16")
#define ROLLED
#define DEVICE [[gnu::always_inline]] inline
#define WITH_CALLER , ::topolm::simt::Place caller = ::topolm::simt::Place::here()
#define FROM_CALLER , caller
#endif

namespace topolm::TOPOLM_GPU {

constexpr int kWarp = 32;
constexpr uint32_t kAllLanes = 0xffffffffu;

DEVICE float to_float(float x) { return x; }
DEVICE float to_float(bf16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }

/// Round to nearest even; a NaN stays one.
DEVICE bf16 to_bf16(float x) {
#if defined(__CUDA_ARCH__)
  return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
#else
  const uint32_t bits = __float_as_uint(x);
  if (x != x) return {0x7fff};
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
#endif
}

template <class T>
DEVICE T from_float(float x) {
  if constexpr (sizeof(T) == 2)
    return to_bf16(x);
  else
    return x;
}

/// N elements that are loaded and stored as one; p must be aligned to all of them.
template <class T, int N>
struct alignas(sizeof(T) * N) Vector {
  T at[N];
};

template <int N, class T>
DEVICE Vector<T, N> load_vector(const T* p) {
  return *reinterpret_cast<const Vector<T, N>*>(p);
}
template <int N, class T>
DEVICE void store_vector(T* p, const Vector<T, N>& v) {
  *reinterpret_cast<Vector<T, N>*>(p) = v;
}

/// Elements a thread moves at a time where types are mixed: 16 bytes of the largest.
template <class... T>
constexpr int kVectorOf = static_cast<int>(16 / std::max({sizeof(T)...}));

/// Tells the host of an index out of range.
DEVICE void report(FaultRecord* record, Fault::Kind kind, int32_t value, int64_t index, int64_t limit) {
  atomicMax(&record->limit[kind], static_cast<unsigned long long>(limit));
  const unsigned long long last = FaultRecord::kLastIndex, kind_first = 255 - kind,
                           index_first = last - min(static_cast<unsigned long long>(index), last);
  atomicMax(&record->earliest, kind_first << 56 | index_first << 32 | static_cast<unsigned>(value));
}

}  // namespace topolm::TOPOLM_GPU
