// What this machine can do, measured now: the yardsticks of ./bench and of the training line.
#pragma once

#include <vector>

#include "kernels/kernels.h"

namespace topolm {

/// FLOP/s of a large matrix product with operands of `dtype`: the best of several, over about `seconds`.
double measure_matrix_speed(Kernels& kernels, DType dtype, double seconds = 0.15);

/// FLOP/s of multiply-adds on registers with the instruction set and threads of `options`: what no product of
/// matrices of `dtype` can exceed. bf16 without instructions of its own is multiplied as fp32. The best of
/// several, over about `seconds`.
double measure_multiply_add_speed(const DeviceOptions& options, DType dtype, double seconds = 0.15);

/// Bytes/s of streams through memory, each array counted as often as it is read or written: a = b moves 8
/// bytes an element. Writing costs the memory more than that, since the processor reads a line before it
/// writes to it.
struct MemorySpeed {
  double read, copy, triad;  // sum of all four arrays; a = b; a = b + s c
  double update;             // a, b, c += s d: 28 bytes an element, as AdamW moves them
  double best() const;       // of the four: no operation moves bytes of memory faster
};

/// The best of several, over about `seconds` for each, on arrays of 100 MB: more than caches hold.
MemorySpeed measure_memory_speed(const DeviceOptions& options, double seconds = 0.15);

/// Bytes/s that all threads together read from one level of the caches.
struct CacheSpeed {
  int level;
  int64_t footprint;  // bytes that each thread reads again and again: half of its share
  double read;
};

/// Levels 1 to 3, those that the machine tells the size of; the best of several, over about `seconds` each.
std::vector<CacheSpeed> measure_cache_speed(const DeviceOptions& options, double seconds = 0.15);

/// Bytes of the cache of a level that CPU 0 uses; 0 where the machine does not tell.
int64_t cache_size(int level);

}  // namespace topolm
