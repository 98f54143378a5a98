// What CUDA kernels see where they are compiled by the C++ compiler: every CUDA thread is a fiber of
// machine.h. Only kernels/cuda/gpu.h includes this; it defines CUDA's names as macros and global functions.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/cuda/gpu_device.h"
#include "kernels/simt/sanitizers.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__

namespace topolm::simt {

/// A place in a kernel where threads meet.
struct Site {
  const char* file;
  int line;
  const char* operation;
  const Site* wrapper = nullptr;  // of a function such as warp_sum: its own site; file and line: its caller's
};

/// The caller of the function that has this as a default argument.
struct Place {
  const char* file;
  int line;
  static constexpr Place here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

/// What a kernel can know of the thread that runs.
struct ThreadState {
  Extent index;  // threadIdx
  int linear, lane, warp;
};

/// The same of its block.
struct BlockState {
  Extent index, threads, blocks;  // blockIdx, blockDim, gridDim
  unsigned char* dynamic_shared;
  uint64_t epoch;  // another one for every block that runs on this host thread
};

// constinit: else every use would first ask whether they are initialised.
extern constinit thread_local ThreadState* this_thread;
extern constinit thread_local BlockState this_block;

/// Called once all lanes of `mask` have come, with what each brought.
using Resolver = void (*)(void** lanes, uint32_t mask);

/// Waits for all threads of the block.
void sync_block(const Site& site);
/// Waits for all lanes of `mask`; the last to come calls `resolve`. As in CUDA, an exchange of values orders
/// no memory; only __syncwarp does, which has none (null).
void warp_operation(uint32_t mask, const Site& site, void* lane, Resolver resolve);
/// Throws what run() will throw, with the names of kernel, block and thread.
[[noreturn]] void kernel_failed(const char* what);
[[noreturn]] void operation_failed(const Site& site, const char* what);

/// A shared array's place in the current block's shared memory.
struct SharedSlot {
  size_t bytes, alignment;
  Site site;
  uint64_t epoch = 0;
  void* address = nullptr;
  void* get() {
    if (epoch != this_block.epoch) allocate();
    return address;
  }
  void allocate();
};

// One distinct object for each expansion: two barriers on one source line stay distinct.
#define SIMT_SITE(operation)                                                   \
  ([]() -> const ::topolm::simt::Site& {                                       \
    static constexpr ::topolm::simt::Site site{__FILE__, __LINE__, operation}; \
    return site;                                                               \
  }())
#define SIMT_SITE_OF(operation, place) \
  (::topolm::simt::Site{(place).file, (place).line, operation, &SIMT_SITE(operation)})

template <class T>
struct Shuffle {
  T in, out;
  int argument;
};

/// What a lane reads that the hardware leaves undefined: NaN, or the most conspicuous integer.
template <class T>
T undefined() {
  T t;
  std::memset(static_cast<void*>(&t), 0xff, sizeof t);
  return t;
}

enum class ShuffleKind { index, exclusive_or, down, up };

template <class T, ShuffleKind KIND, int WIDTH>
void resolve_shuffle(void** lanes, uint32_t mask) {
  for (int lane = 0; lane < 32; ++lane) {
    if (!(mask >> lane & 1)) continue;
    auto* const mine = static_cast<Shuffle<T>*>(lanes[lane]);
    const int group = lane & ~(WIDTH - 1), place = lane & (WIDTH - 1), n = mine->argument;
    int from = lane;
    if constexpr (KIND == ShuffleKind::index) {
      from = group + (n & (WIDTH - 1));
    } else if constexpr (KIND == ShuffleKind::exclusive_or) {
      if ((lane ^ n) < group + WIDTH) from = lane ^ n;
    } else if constexpr (KIND == ShuffleKind::down) {
      if (place + n < WIDTH) from = lane + n;
    } else {
      if (place - n >= 0) from = lane - n;
    }
    mine->out = from >= 0 && from < 32 && (mask >> from & 1) ? static_cast<Shuffle<T>*>(lanes[from])->in
                                                             : undefined<T>();
  }
}

template <ShuffleKind KIND, class T>
T shuffle(const Site& site, uint32_t mask, T value, int argument, int width = 32) {
  Shuffle<T> lane{value, value, argument};
  Resolver resolve = nullptr;
  switch (width) {
    case 32:
      resolve = resolve_shuffle<T, KIND, 32>;
      break;
    case 16:
      resolve = resolve_shuffle<T, KIND, 16>;
      break;
    case 8:
      resolve = resolve_shuffle<T, KIND, 8>;
      break;
    case 4:
      resolve = resolve_shuffle<T, KIND, 4>;
      break;
    case 2:
      resolve = resolve_shuffle<T, KIND, 2>;
      break;
    default:
      operation_failed(site, "has a width that is none of 2, 4, 8, 16 and 32");
  }
  warp_operation(mask, site, &lane, resolve);
  return lane.out;
}

struct Vote {
  bool predicate;
  uint32_t out;
};

inline void resolve_ballot(void** lanes, uint32_t mask) {
  uint32_t ballot = 0;
  for (int lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1) ballot |= static_cast<uint32_t>(static_cast<Vote*>(lanes[lane])->predicate) << lane;
  for (int lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1) static_cast<Vote*>(lanes[lane])->out = ballot;
}

inline uint32_t ballot(const Site& site, uint32_t mask, bool predicate) {
  Vote lane{predicate, 0};
  warp_operation(mask, site, &lane, resolve_ballot);
  return lane.out;
}

inline void sync_warp(const Site& site, uint32_t mask = 0xffffffffu) {
  warp_operation(mask, site, nullptr, nullptr);
}

/// Atomic for real: blocks are spread over host threads.
template <class T, class F>
T read_modify_write(T* p, F&& f) {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  std::atomic_ref<Bits> atom(*reinterpret_cast<Bits*>(p));
  Bits old = atom.load(std::memory_order_relaxed);
  while (!atom.compare_exchange_weak(old, std::bit_cast<Bits>(f(std::bit_cast<T>(old))),
                                     std::memory_order_relaxed)) {
  }
  return std::bit_cast<T>(old);
}

}  // namespace topolm::simt

#define threadIdx (::topolm::simt::this_thread->index)
#define blockIdx (::topolm::simt::this_block.index)
#define blockDim (::topolm::simt::this_block.threads)
#define gridDim (::topolm::simt::this_block.blocks)

#define SHARED(type, name, dimensions)                                                         \
  using simt_type_of_##name = type dimensions;                                                 \
  static thread_local ::topolm::simt::SharedSlot simt_slot_of_##name{                          \
      sizeof(simt_type_of_##name), alignof(simt_type_of_##name), {__FILE__, __LINE__, #name}}; \
  auto& name = *static_cast<simt_type_of_##name*>(simt_slot_of_##name.get())
#define DYNAMIC_SHARED(type, name) \
  type* const name = reinterpret_cast<type*>(::topolm::simt::this_block.dynamic_shared)

#define __syncthreads() ::topolm::simt::sync_block(SIMT_SITE("__syncthreads"))
#define __syncwarp(...) ::topolm::simt::sync_warp(SIMT_SITE("__syncwarp") __VA_OPT__(, ) __VA_ARGS__)
#define SIMT_SHUFFLE(kind, ...) \
  ::topolm::simt::shuffle<::topolm::simt::ShuffleKind::kind>(SIMT_SITE("__shfl_sync"), __VA_ARGS__)
#define __shfl_sync(...) SIMT_SHUFFLE(index, __VA_ARGS__)
#define __shfl_xor_sync(...) SIMT_SHUFFLE(exclusive_or, __VA_ARGS__)
#define __shfl_up_sync(...) SIMT_SHUFFLE(up, __VA_ARGS__)
#define __ballot_sync(mask, predicate) ::topolm::simt::ballot(SIMT_SITE("__ballot_sync"), mask, predicate)

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }

#define SIMT_MIN_MAX(type)                                  \
  inline type min(type a, type b) { return b < a ? b : a; } \
  inline type max(type a, type b) { return a < b ? b : a; }
SIMT_MIN_MAX(int)
SIMT_MIN_MAX(unsigned)
SIMT_MIN_MAX(long)
SIMT_MIN_MAX(unsigned long)
SIMT_MIN_MAX(long long)
SIMT_MIN_MAX(unsigned long long)
#undef SIMT_MIN_MAX

inline int atomicAdd(int* p, int v) {
  return ::topolm::simt::read_modify_write(p, [v](int old) { return old + v; });
}
inline unsigned atomicAdd(unsigned* p, unsigned v) {
  return ::topolm::simt::read_modify_write(p, [v](unsigned old) { return old + v; });
}
inline unsigned long long atomicAdd(unsigned long long* p, unsigned long long v) {
  return ::topolm::simt::read_modify_write(p, [v](unsigned long long old) { return old + v; });
}
inline unsigned long long atomicMax(unsigned long long* p, unsigned long long v) {
  return ::topolm::simt::read_modify_write(p, [v](unsigned long long old) { return max(old, v); });
}
