// The GPU's implementation of every operation: one file an operation, each kernel followed by its launcher.
// Compiled twice, see gpu.h. A launcher checks shapes, names its range, says what the launch must move and
// compute, and launches; nothing waits.
#pragma once

#include <array>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>

#include "engine/profile.h"
#include "kernels/cuda/gpu_device.h"
#include "kernels/cuda/matrix_products.h"
#include "kernels/kernels.h"

namespace topolm::TOPOLM_GPU {

/// A __global__ function and its name: KERNEL(cast_kernel<float, bf16>).
template <class... P>
struct Kernel {
  const char* name;
  void (*function)(P...);
};
template <class... P>
Kernel(const char*, void (*)(P...)) -> Kernel<P...>;
#define KERNEL(...) (::topolm::TOPOLM_GPU::Kernel{#__VA_ARGS__, __VA_ARGS__})

/// How the operand of a matrix product lies in memory: row after row, or column after column.
enum class Layout { rows, columns };

class GpuKernels final : public Kernels {
 public:
  /// `products` does the matrix products; where it is null or cannot, the kernels of linear.cu do.
  GpuKernels(std::unique_ptr<GpuDevice> device, std::unique_ptr<MatrixProducts> products);
  Device& device() override { return *device_; }

  void fill(const Tensor& out, float value) override;
  void cast(const Tensor& out, const Tensor& in) override;
  void add_scaled(const Tensor& out, const Tensor& in, float scale) override;
  void embedding_forward(const Tensor& out, const Tensor& tokens, const Tensor& wte, const Tensor& wpe,
                         const Tensor& position) override;
  void embedding_backward(const Tensor& dwte, const Tensor& dwpe, const Tensor& dout, const Tensor& tokens,
                          const Tensor& order) override;
  void layernorm_forward(const Tensor& out, const Tensor& mean, const Tensor& rstd, const Tensor& x,
                         const Tensor& weight) override;
  void residual_layernorm_forward(const Tensor& sum, const Tensor& out, const Tensor& mean,
                                  const Tensor& rstd, const Tensor& residual, const Tensor& branch,
                                  const Tensor& weight) override;
  void layernorm_backward(const Tensor& dx, const Tensor& dweight, const Tensor& dout, const Tensor& x,
                          const Tensor& weight, const Tensor& mean, const Tensor& rstd) override;
  void linear_forward(const Tensor& y, const Tensor& x, const Tensor& weight) override;
  void linear_backward_input(const Tensor& dx, const Tensor& dy, const Tensor& weight) override;
  void linear_backward_weight(const Tensor& dweight, const Tensor& dy, const Tensor& x) override;
  void gelu_forward(const Tensor& out, const Tensor& x, Gelu kind) override;
  void gelu_backward(const Tensor& dx, const Tensor& dout, const Tensor& x, Gelu kind) override;
  void attention_forward(const Tensor& out, const Tensor& logsumexp, const Tensor& qkv, int n_head) override;
  void attention_backward(const Tensor& dqkv, const Tensor& dout, const Tensor& qkv, const Tensor& out,
                          const Tensor& logsumexp, int n_head) override;
  void attention_cached(const Tensor& out, const Tensor& key_cache, const Tensor& value_cache,
                        const Tensor& qkv, const Tensor& position, int n_head) override;
  void cross_entropy_forward(const Tensor& losses, const Tensor& logits, const Tensor& targets) override;
  void cross_entropy_backward(const Tensor& losses, const Tensor& logits, const Tensor& targets,
                              float scale) override;
  void spatial_loss_forward(const Tensor& loss, const Tensor& mean, const Tensor& gradient, const Tensor& x,
                            const Tensor& members, const Tensor& distance, Aggregation aggregation) override;
  void spatial_loss_backward(const Tensor& dx, const Tensor& x, const Tensor& mean, const Tensor& gradient,
                             const Tensor& members, float scale) override;
  void sum(const Tensor& out, const Tensor& x) override;
  void sum_of_squares(const Tensor& out, const Tensor& x) override;
  void gradient_norm(const Tensor& norm_and_scale, const Tensor& gradient, float max_norm) override;
  void adamw(std::span<const AdamWTensor> tensors, const Tensor& norm_and_scale,
             const AdamWStep& step) override;
  void sample(const Tensor& token, const Tensor& logits, const Tensor& uniform,
              const Sampling& sampling) override;
  int64_t working_memory() const override {
    return static_cast<int64_t>(device_->scratch_bytes()) + (products_ ? products_->working_memory() : 0);
  }
  std::string matrix_plans() const override { return products_ ? products_->plans() : std::string(); }

 private:
  /// In reductions.cu.
  template <class F>
  const float* chunk_sums(const Tensor& x);

  /// Launches a kernel; arguments are converted to its parameters' types.
  template <class... P, class... A>
  void launch(const Kernel<P...>& kernel, const Grid& grid, const Work& work, const A&... arguments) {
    static_assert(sizeof...(P) == sizeof...(A), "the kernel takes another number of arguments");
    launch_converted<P...>(kernel, grid, work, static_cast<P>(arguments)...);
  }

  template <class... P>
  void launch_converted(const Kernel<P...>& kernel, const Grid& grid, const Work& work,
                        const P&... arguments) {
    const std::array<Argument, sizeof...(P)> list{Argument{&arguments, sizeof(P), alignof(P)}...};
    Launch launch{kernel.name, reinterpret_cast<const void*>(kernel.function), nullptr, grid, work, list};
#if !defined(__CUDACC__)
    launch.call = &GpuKernels::call<P...>;
#endif
    device_->launch(launch);
  }

#if !defined(__CUDACC__)
  /// Launch::call of a kernel whose parameters are P.
  template <class... P>
  static void call(const void* function, std::span<const Argument> arguments) {
    [&]<size_t... I>(std::index_sequence<I...>) {
      reinterpret_cast<void (*)(P...)>(const_cast<void*>(function))(
          *static_cast<const P*>(arguments[I].value)...);
    }
    (std::index_sequence_for<P...>{});
  }
#endif

  /// out [m,n] = a b^T, or += where `add`; a [m,k] in layout A, b [n,k] in layout B. In linear.cu.
  template <Layout A, Layout B, class Out, class In>
  void multiply(Out* out, const In* a, const In* b, int64_t m, int64_t n, int64_t k, bool add);

  std::unique_ptr<GpuDevice> device_;
  std::unique_ptr<MatrixProducts> products_;
};

/// Made by each compilation of the kernels.
std::unique_ptr<Kernels> make_gpu_kernels(std::unique_ptr<GpuDevice> device,
                                          std::unique_ptr<MatrixProducts> products);

/// Calls f with a null pointer of the tensor's element type: with_type(t, [&](auto* type) { ... }).
template <class F>
void with_type(const Tensor& t, F&& f) {
  if (t.dtype == DType::bf16) {
    f(static_cast<bf16*>(nullptr));
  } else {
    (void)t.f32();  // throws for anything else
    f(static_cast<float*>(nullptr));
  }
}

/// How many of the elements that each tensor has may be moved N at a time: all whole vectors, or none where a
/// tensor does not begin at a multiple of its vectors' size. Tensors that are not there (null) do not matter.
inline int64_t in_vectors(int N, std::initializer_list<Tensor> tensors) {
  for (const Tensor& t : tensors)
    if (reinterpret_cast<uintptr_t>(t.data) % static_cast<uintptr_t>(N * size_of(t.dtype)) != 0) return 0;
  return tensors.begin()->elements() / N * N;
}

/// Blocks that cover n elements.
inline Extent blocks_for(int64_t n, int64_t per_block) {
  return {static_cast<uint32_t>(ceil_div(n, per_block))};
}

}  // namespace topolm::TOPOLM_GPU
