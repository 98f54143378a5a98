// Fill, cast, add: 16 bytes a thread of the larger type. `in_vectors` elements are moved as vectors; the
// tail, or everything where an address does not allow vectors, one by one.
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/gpu_kernels.h"

namespace topolm::TOPOLM_GPU {

constexpr int kThreads = 256;
constexpr int kFloats = 4;  // in 16 bytes

/// out[i] = value, i < n.
__global__ void __launch_bounds__(kThreads)
    fill_kernel(float* out, float value, int64_t n, int64_t in_vectors) {
  const int64_t begin = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kFloats;
  if (begin < in_vectors)
    store_vector(out + begin, Vector<float, kFloats>{value, value, value, value});
  else
    for (int64_t i = begin; i < min(n, begin + kFloats); ++i) out[i] = value;
}

void GpuKernels::fill(const Tensor& out, float value) {
  const Range range("fill");
  const int64_t n = out.elements();
  launch(KERNEL(fill_kernel), {blocks_for(n, kThreads * kFloats), {kThreads}}, {.bytes = 4.0 * n}, out.f32(),
         value, n, in_vectors(kFloats, {out}));
}

/// out[i] = in[i], rounded to nearest even, i < n.
template <class Out, class In>
__global__ void __launch_bounds__(kThreads)
    cast_kernel(Out* out, const In* in, int64_t n, int64_t in_vectors) {
  constexpr int N = kVectorOf<Out, In>;
  const int64_t begin = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (begin < in_vectors) {
    const Vector<In, N> x = load_vector<N>(in + begin);
    Vector<Out, N> y;
    UNROLL
    for (int i = 0; i < N; ++i) y.at[i] = from_float<Out>(to_float(x.at[i]));
    store_vector(out + begin, y);
  } else {
    for (int64_t i = begin; i < min(n, begin + N); ++i) out[i] = from_float<Out>(to_float(in[i]));
  }
}

void GpuKernels::cast(const Tensor& out, const Tensor& in) {
  const Range range("cast");
  check_shape("cast", "in", in, out.shape);
  const int64_t n = in.elements();
  with_type(out, [&](auto* out_type) {
    with_type(in, [&](auto* in_type) {
      using Out = std::remove_pointer_t<decltype(out_type)>;
      using In = std::remove_pointer_t<decltype(in_type)>;
      constexpr int N = kVectorOf<Out, In>;
      launch(KERNEL(cast_kernel<Out, In>), {blocks_for(n, kThreads * N), {kThreads}},
             {.bytes = static_cast<double>(out.bytes() + in.bytes())}, out.data, in.data, n,
             in_vectors(N, {out, in}));
    });
  });
}

/// out[i] += scale * in[i], i < n.
template <class In>
__global__ void __launch_bounds__(kThreads)
    add_scaled_kernel(float* out, const In* in, float scale, int64_t n, int64_t in_vectors) {
  constexpr int N = kVectorOf<float, In>;
  const int64_t begin = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (begin < in_vectors) {
    Vector<float, N> y = load_vector<N>(out + begin);
    const Vector<In, N> x = load_vector<N>(in + begin);
    UNROLL
    for (int i = 0; i < N; ++i) y.at[i] = fmaf(scale, to_float(x.at[i]), y.at[i]);
    store_vector(out + begin, y);
  } else {
    for (int64_t i = begin; i < min(n, begin + N); ++i) out[i] = fmaf(scale, to_float(in[i]), out[i]);
  }
}

void GpuKernels::add_scaled(const Tensor& out, const Tensor& in, float scale) {
  const Range range("add_scaled");
  check_shape("add_scaled", "in", in, out.shape);
  const int64_t n = in.elements();
  float* const to = out.f32();
  with_type(in, [&](auto* type) {
    using In = std::remove_pointer_t<decltype(type)>;
    constexpr int N = kVectorOf<float, In>;
    launch(KERNEL(add_scaled_kernel<In>), {blocks_for(n, kThreads * N), {kThreads}},
           {.bytes = 8.0 * n + in.bytes(), .flops = 2.0 * n}, to, in.data, scale, n,
           in_vectors(N, {out, in}));
  });
}

}  // namespace topolm::TOPOLM_GPU
