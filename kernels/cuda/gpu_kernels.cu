#include "kernels/cuda/gpu_kernels.h"

#include <utility>

namespace topolm::TOPOLM_GPU {

GpuKernels::GpuKernels(std::unique_ptr<GpuDevice> device, std::unique_ptr<MatrixProducts> products)
    : device_(std::move(device)), products_(std::move(products)) {}

std::unique_ptr<Kernels> make_gpu_kernels(std::unique_ptr<GpuDevice> device,
                                          std::unique_ptr<MatrixProducts> products) {
  return std::make_unique<GpuKernels>(std::move(device), std::move(products));
}

}  // namespace topolm::TOPOLM_GPU
