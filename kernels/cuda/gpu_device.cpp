#include "kernels/cuda/gpu_device.h"

#include <array>
#include <chrono>
#include <cstdarg>
#include <cstdio>

#include "engine/error.h"
#include "kernels/cuda/matrix_products.h"

namespace topolm {

void refuse(const char* format, ...) {
  std::array<char, 512> sentence;
  std::va_list values;
  va_start(values, format);
  std::vsnprintf(sentence.data(), sentence.size(), format, values);
  va_end(values);
  fail("{}", sentence.data());
}

std::string MatrixProducts::plans() const { return ""; }

double GpuDevice::seconds(const std::function<void()>& issue) {
  using Clock = std::chrono::steady_clock;
  synchronize();
  const auto start = Clock::now();
  issue();
  synchronize();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace topolm
