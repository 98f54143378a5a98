// Fill, cast, add: one thread an element or a vector of them.
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/gpu_kernels.h"

namespace topolm::TOPOLM_GPU {

constexpr int kThreads = 256;

/// out[i] = value, i < n.
__global__ void __launch_bounds__(kThreads) fill_kernel(float* out, float value, int64_t n) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < n) out[i] = value;
}

void GpuKernels::fill(const Tensor& out, float value) {
  const Range range("fill");
  const int64_t n = out.elements();
  launch(KERNEL(fill_kernel), {blocks_for(n, kThreads), {kThreads}}, {.bytes = 4.0 * n}, out.f32(), value, n);
}

/// out[i] = in[i], rounded to nearest even, i < n.
template <class Out, class In>
__global__ void __launch_bounds__(kThreads) cast_kernel(Out* out, const In* in, int64_t n) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < n) out[i] = from_float<Out>(to_float(in[i]));
}

void GpuKernels::cast(const Tensor& out, const Tensor& in) {
  const Range range("cast");
  check_shape("cast", "in", in, out.shape);
  const int64_t n = in.elements();
  with_type(out, [&](auto* out_type) {
    with_type(in, [&](auto* in_type) {
      using Out = std::remove_pointer_t<decltype(out_type)>;
      using In = std::remove_pointer_t<decltype(in_type)>;
      launch(KERNEL(cast_kernel<Out, In>), {blocks_for(n, kThreads), {kThreads}},
             {.bytes = static_cast<double>(out.bytes() + in.bytes())}, out.data, in.data, n);
    });
  });
}

/// out[i] += scale * in[i], i < n.
__global__ void __launch_bounds__(kThreads)
    add_scaled_kernel(float* out, const float* in, float scale, int64_t n) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < n) out[i] += scale * in[i];
}

void GpuKernels::add_scaled(const Tensor& out, const Tensor& in, float scale) {
  const Range range("add_scaled");
  check_shape("add_scaled", "in", in, out.shape);
  const int64_t n = in.elements();
  launch(KERNEL(add_scaled_kernel), {blocks_for(n, kThreads), {kThreads}},
         {.bytes = 12.0 * n, .flops = 2.0 * n}, out.f32(), in.f32(), scale, n);
}

}  // namespace topolm::TOPOLM_GPU
