// Sums over whole tensors: fp32 within short blocks, double across them, always in the same order.
#include <cmath>

#include "engine/profile.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/simd.h"

namespace topolm::TOPOLM_ISA {

namespace {

constexpr int64_t kBlock = 1 << 12;  // elements added up in fp32: at most 256 to a lane
constexpr int64_t kChunk = 1 << 16;  // elements a task

/// The sum of f(x) over all elements, where f(0) is 0.
template <class F>
TOPOLM_INLINE double sum_over(ThreadPool& pool, Workspace& workspace, const Tensor& x, F&& f) {
  const int64_t n = x.elements(), tasks = ceil_div(n, kChunk);
  auto* const partial = reinterpret_cast<double*>(workspace.shared(2 * tasks));
  with_type(x, [&](auto* type) {
    const auto* const in = static_cast<decltype(type)>(x.data);
    pool.parallel_for(tasks, [=](int64_t task, int) {
      const int64_t end = min(n, (task + 1) * kChunk);
      double sum = 0;
      for (int64_t i = task * kChunk; i < end; i += kBlock)
        sum +=
            sum_of(min(kBlock, end - i), [=](int64_t j, auto lanes) { return f(load(in + i + j, lanes)); });
      partial[task] = sum;
    });
  });
  double sum = 0;
  for (int64_t task = 0; task < tasks; ++task) sum += partial[task];
  return sum;
}

TOPOLM_INLINE double squares(ThreadPool& pool, Workspace& workspace, const Tensor& x) {
  return sum_over(pool, workspace, x, [](vfloat v) { return v * v; });
}

}  // namespace

void CpuKernels::sum(const Tensor& out, const Tensor& x) {
  const Range range("sum");
  check_shape("sum", "out", out, {1});
  *out.f32() = static_cast<float>(sum_over(pool_, workspace_, x, [](vfloat v) { return v; }));
}

void CpuKernels::sum_of_squares(const Tensor& out, const Tensor& x) {
  const Range range("sum_of_squares");
  check_shape("sum_of_squares", "out", out, {1});
  *out.f32() = static_cast<float>(squares(pool_, workspace_, x));
}

void CpuKernels::gradient_norm(const Tensor& norm_and_scale, const Tensor& gradient, float max_norm) {
  const Range range("gradient_norm");
  check_shape("gradient_norm", "norm_and_scale", norm_and_scale, {2});
  const double norm = std::sqrt(squares(pool_, workspace_, gradient));
  float* const out = norm_and_scale.f32();
  out[0] = static_cast<float>(norm);
  // A NaN norm makes the scale NaN too, whatever comparison it meets: it must not pass for "no clipping".
  out[1] = max_norm == 0 || norm <= max_norm ? 1.0f : static_cast<float>(max_norm / norm);
}

}  // namespace topolm::TOPOLM_ISA
