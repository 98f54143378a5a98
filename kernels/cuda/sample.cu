#include "kernels/cuda/gpu_kernels.h"

namespace topolm::TOPOLM_GPU {

void GpuKernels::sample(const Tensor&, const Tensor&, const Tensor&, const Sampling&) {
  refuse("sample: there is no CUDA kernel yet");
}

}  // namespace topolm::TOPOLM_GPU
