// Matrix products for simt: the CPU's. $TOPOLM_MATRIX_PRODUCTS=own runs the kernels of linear.cu instead.
#pragma once

#include <memory>

#include "kernels/cuda/matrix_products.h"
#include "kernels/kernels.h"

namespace topolm {

/// Null where the kernels of linear.cu shall do the products.
std::unique_ptr<MatrixProducts> make_simt_products(const DeviceOptions& options);

}  // namespace topolm
