// Matrix products for simt: the CPU's.
#pragma once

#include <memory>

#include "kernels/cuda/matrix_products.h"
#include "kernels/kernels.h"

namespace topolm {

std::unique_ptr<MatrixProducts> make_simt_products(const DeviceOptions& options);

}  // namespace topolm
