// What this machine can do, measured now: the yardsticks of ./bench and of the training line.
#pragma once

#include "kernels/kernels.h"

namespace topolm {

/// FLOP/s of a large matrix product of this device with operands of `dtype`: the best of several, over about
/// `seconds`.
double measure_matrix_speed(Kernels& kernels, DType dtype, double seconds = 0.15);

}  // namespace topolm
