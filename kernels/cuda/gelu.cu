// GELU, exact (x Phi(x)) and as GPT-2 approximates it: 16 bytes a thread of the larger type, the tail one by
// one.
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/gpu_kernels.h"
#include "kernels/cuda/math.h"

namespace topolm::TOPOLM_GPU {

constexpr int kThreads = 256;

/// gelu(x) = x * gate, gelu'(x) = gate + x * slope.
struct Gate {
  float gate, slope;
};

template <Gelu KIND>
DEVICE Gate gate_at(float x) {
  if constexpr (KIND == Gelu::erf) {
    const Normal n = normal(x);
    return {n.cumulative, n.density};
  } else {
    // (1 + tanh(u)) / 2 with u = sqrt(2/pi) (x + 0.044715 x^3) is the logistic function of 2u, which keeps
    // its relative precision where 1 + tanh(u) cancels. The exponent is never positive, so nothing overflows.
    constexpr float k1 = 2 * 0.7978845608f, k3 = k1 * 0.044715f;
    const float square = x * x, two_u = x * fmaf(square, k3, k1);
    const float e = exp_fast(-fabsf(two_u));
    const float upper = reciprocal_fast(1.0f + e), lower = e * upper;  // the gate at |x| and at -|x|
    return {two_u < 0.0f ? lower : upper, upper * lower * fmaf(square, 3 * k3, k1)};
  }
}

template <Gelu KIND>
DEVICE float gelu(float x) {
  return x * gate_at<KIND>(x).gate;
}

template <Gelu KIND>
DEVICE float gelu_derivative(float x) {
  const Gate g = gate_at<KIND>(x);
  return fmaf(x, g.slope, g.gate);
}

/// Calls f with the kind as a constant.
template <class F>
void with_kind(Gelu kind, F&& f) {
  if (kind == Gelu::erf)
    f(std::integral_constant<Gelu, Gelu::erf>{});
  else
    f(std::integral_constant<Gelu, Gelu::tanh>{});
}

/// out[i] = gelu(x[i]), i < n. out may be x.
template <Gelu KIND, class Out, class In>
__global__ void __launch_bounds__(kThreads)
    gelu_forward_kernel(Out* out, const In* x, int64_t n, int64_t in_vectors) {
  constexpr int N = kVectorOf<Out, In>;
  const int64_t begin = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (begin < in_vectors) {
    const Vector<In, N> in = load_vector<N>(x + begin);
    Vector<Out, N> y;
    UNROLL
    for (int i = 0; i < N; ++i) y.at[i] = from_float<Out>(gelu<KIND>(to_float(in.at[i])));
    store_vector(out + begin, y);
  } else {
    for (int64_t i = begin; i < min(n, begin + N); ++i) out[i] = from_float<Out>(gelu<KIND>(to_float(x[i])));
  }
}

void GpuKernels::gelu_forward(const Tensor& out, const Tensor& x, Gelu kind) {
  const Range range("gelu");
  check_shape("gelu_forward", "out", out, x.shape);
  const int64_t n = x.elements();
  with_type(out, [&](auto* out_type) {
    with_type(x, [&](auto* x_type) {
      with_kind(kind, [&](auto constant) {
        using Out = std::remove_pointer_t<decltype(out_type)>;
        using In = std::remove_pointer_t<decltype(x_type)>;
        constexpr Gelu KIND = decltype(constant)::value;
        constexpr int N = kVectorOf<Out, In>;
        launch(KERNEL(gelu_forward_kernel<KIND, Out, In>), {blocks_for(n, kThreads * N), {kThreads}},
               {.bytes = static_cast<double>(out.bytes() + x.bytes())}, out.data, x.data, n,
               in_vectors(N, {out, x}));
      });
    });
  });
}

/// dx[i] = dout[i] * gelu'(x[i]), i < n. dx may be dout.
template <Gelu KIND, class DX, class DOut, class In>
__global__ void __launch_bounds__(kThreads)
    gelu_backward_kernel(DX* dx, const DOut* dout, const In* x, int64_t n, int64_t in_vectors) {
  constexpr int N = kVectorOf<DX, DOut, In>;
  const int64_t begin = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (begin < in_vectors) {
    const Vector<In, N> in = load_vector<N>(x + begin);
    const Vector<DOut, N> d = load_vector<N>(dout + begin);
    Vector<DX, N> y;
    UNROLL
    for (int i = 0; i < N; ++i)
      y.at[i] = from_float<DX>(to_float(d.at[i]) * gelu_derivative<KIND>(to_float(in.at[i])));
    store_vector(dx + begin, y);
  } else {
    for (int64_t i = begin; i < min(n, begin + N); ++i)
      dx[i] = from_float<DX>(to_float(dout[i]) * gelu_derivative<KIND>(to_float(x[i])));
  }
}

void GpuKernels::gelu_backward(const Tensor& dx, const Tensor& dout, const Tensor& x, Gelu kind) {
  const Range range("gelu_backward");
  check_shape("gelu_backward", "dx", dx, x.shape);
  check_shape("gelu_backward", "dout", dout, x.shape);
  const int64_t n = x.elements();
  with_type(dx, [&](auto* dx_type) {
    with_type(dout, [&](auto* dout_type) {
      with_type(x, [&](auto* x_type) {
        with_kind(kind, [&](auto constant) {
          using DX = std::remove_pointer_t<decltype(dx_type)>;
          using DOut = std::remove_pointer_t<decltype(dout_type)>;
          using In = std::remove_pointer_t<decltype(x_type)>;
          constexpr Gelu KIND = decltype(constant)::value;
          constexpr int N = kVectorOf<DX, DOut, In>;
          launch(KERNEL(gelu_backward_kernel<KIND, DX, DOut, In>), {blocks_for(n, kThreads * N), {kThreads}},
                 {.bytes = static_cast<double>(dx.bytes() + dout.bytes() + x.bytes())}, dx.data, dout.data,
                 x.data, n, in_vectors(N, {dx, dout, x}));
        });
      });
    });
  });
}

}  // namespace topolm::TOPOLM_GPU
