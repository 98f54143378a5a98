// What this machine can do, measured now: the yardsticks of ./bench and of the training line.
#pragma once

#include "kernels/kernels.h"

namespace topolm {

/// FLOP/s of a large matrix product with operands of `dtype`: the best of several, over about `seconds`.
double measure_matrix_speed(Kernels& kernels, DType dtype, double seconds = 0.15);

/// FLOP/s of fp32 multiply-adds on registers with the instruction set and threads of `options`: what no
/// product of fp32 matrices can exceed. The best of several, over about `seconds`.
double measure_multiply_add_speed(const DeviceOptions& options, double seconds = 0.15);

/// Bytes/s of streams through memory, each array counted once: a = b moves 8 bytes an element. Writing costs
/// the memory more than that, since the processor reads a line before it writes to it.
struct MemorySpeed {
  double read, copy, triad;  // sum of a; a = b; a = b + s c
};

/// The best of several, over about `seconds` for each, on 300 MB: more than caches hold.
MemorySpeed measure_memory_speed(const DeviceOptions& options, double seconds = 0.15);

}  // namespace topolm
