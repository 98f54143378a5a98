// The CPU's implementation of every operation, compiled once for each instruction set into a namespace of
// that set's name. Work is cut into tasks by the problem's size only; one task computes each output element.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/parallel.h"
#include "kernels/cpu_device.h"
#include "kernels/fault.h"
#include "kernels/kernels.h"

namespace topolm::TOPOLM_ISA {

class CpuKernels final : public Kernels {
 public:
  explicit CpuKernels(int threads);
  Device& device() override;

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
  void quantize_rows(const Tensor& values, const Tensor& scale, const Tensor& weight) override;
  void linear_int8_forward(const Tensor& y, const Tensor& x, const Tensor& values,
                           const Tensor& scale) override;
  void linear_gelu_forward(const Tensor& out, const Tensor& hidden, const Tensor& x, const Tensor& weight,
                           Gelu kind) override;
  void linear_gelu_backward(const Tensor& dhidden, const Tensor& dy, const Tensor& weight,
                            const Tensor& hidden, Gelu kind) override;
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
  int64_t working_memory() const override { return workspace_.bytes(); }

 private:
  ThreadPool pool_;
  CpuDevice device_;
  Workspace workspace_;
};

/// Floats from one row of n to the next where tasks add to rows of their own: no two share a line of the
/// cache.
inline __attribute__((always_inline)) int64_t apart(int64_t n) { return n + 16; }

/// Calls f with a null pointer of the tensor's element type: with_type(t, [&](auto* type) { ... }).
template <class F>
inline __attribute__((always_inline)) void with_type(const Tensor& t, F&& f) {
  if (t.dtype == DType::bf16) {
    f(static_cast<bf16*>(nullptr));
  } else {
    (void)t.f32();  // throws for anything else
    f(static_cast<float*>(nullptr));
  }
}

}  // namespace topolm::TOPOLM_ISA
