#include "kernels/cuda/gpu_device.h"

#include <chrono>

#include "engine/error.h"

namespace topolm {

void refuse(const std::string& sentence) { fail("{}", sentence); }

double GpuDevice::seconds(const std::function<void()>& issue) {
  using Clock = std::chrono::steady_clock;
  synchronize();
  const auto start = Clock::now();
  issue();
  synchronize();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace topolm
