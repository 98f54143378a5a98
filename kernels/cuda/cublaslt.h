// Matrix products by cuBLASLt, which is loaded when a GPU is used and may be missing.
#pragma once

#include <memory>

#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/matrix_products.h"

namespace topolm {

/// Null where the library is not installed; `device` is told either way, for its description.
std::unique_ptr<MatrixProducts> make_cublaslt_products(CudaDevice& device);

}  // namespace topolm
