// Every operation of TopoLM, declared once. A device implements all of them; the model knows only this class.
//
// Conventions
//   Outputs come first, then inputs, then sizes. The dtype travels with the tensor: where a comment says
//   "any", fp32 or bf16 may be passed and arithmetic is fp32 either way. Everything else is fp32 (token ids:
//   int32). Activations and their gradients are written (=); parameter gradients, and what is marked so, are
//   added to (+=). Operations run in the order issued and may return before they have finished:
//   Device::synchronize() waits. Outputs may not overlap inputs unless the comment says that they may. No
//   operation depends on the number of threads or on launch geometry: the same inputs give the same bits.
//   Shapes and dtypes that do not fit throw Error naming the operation and the tensor; an index out of range
//   (token, target, member, position) does so at the latest from the next synchronize() or download().
//
// Sizes: B sequences of T tokens, N = B*T rows, C = n_embd, V = vocabulary, NH heads of HS = C/NH.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/device.h"
#include "engine/tensor.h"

namespace topolm {

enum class Gelu { erf, tanh };         // exact, or GPT-2's approximation
enum class Aggregation { mean, max };  // over the K neighborhoods of a site

/// One parameter tensor of an AdamW step. `copy` may be empty; otherwise it receives the new weights as bf16.
struct AdamWTensor {
  Tensor weight, gradient, m, v, copy;
  float weight_decay = 0;
};

struct AdamWStep {
  float lr, beta1, beta2, eps;
  int64_t step;  // 1 for the first: bias correction divides by 1 - beta^step
};

/// How a token is drawn: what is left after top_k, then top_p, then min_p, in proportion.
struct Sampling {
  double temperature = 0.8;  // 0: always the most likely token, the lowest id among equals
  int top_k = 0;             // keep the k most likely, lower ids first among equals (0: all)
  double top_p = 1;          // then the fewest whose probabilities reach p
  double min_p = 0;          // then those at least min_p times as likely as the most likely
  void check() const;        // throws Error naming the flag
};

class Kernels {
 public:
  virtual ~Kernels() = default;
  virtual Device& device() = 0;

  // ---- elementwise

  /// out = value. out: fp32.
  virtual void fill(const Tensor& out, float value) = 0;
  /// out = in, converted to out's dtype (round to nearest even). any -> any.
  virtual void cast(const Tensor& out, const Tensor& in) = 0;
  /// out += scale * in. out fp32, in any.
  virtual void add_scaled(const Tensor& out, const Tensor& in, float scale) = 0;

  // ---- embedding

  /// out[n,:] = wte[tokens[n],:] + wpe[position + n mod T,:]; out [B,T,C], tokens [B,T], wte [V,C], wpe
  /// [>=T,C]; position int32 [1]: it changes from call to call, so it lies where a recorded call can read it.
  virtual void embedding_forward(const Tensor& out, const Tensor& tokens, const Tensor& wte,
                                 const Tensor& wpe, const Tensor& position) = 0;
  /// dwte[tokens[n],:] += dout[n,:], dwpe[n mod T,:] += dout[n,:]. order int32 [N] is token_order(tokens).
  virtual void embedding_backward(const Tensor& dwte, const Tensor& dwpe, const Tensor& dout,
                                  const Tensor& tokens, const Tensor& order) = 0;

  // ---- layer normalisation (weight only, eps 1e-5)

  /// out = (x - mean) * rstd * weight, row by row. out any [N,C]; mean, rstd [N] are saved for the backward.
  virtual void layernorm_forward(const Tensor& out, const Tensor& mean, const Tensor& rstd, const Tensor& x,
                                 const Tensor& weight) = 0;
  /// sum = residual + branch, then layernorm_forward of sum. sum may be residual. branch any.
  virtual void residual_layernorm_forward(const Tensor& sum, const Tensor& out, const Tensor& mean,
                                          const Tensor& rstd, const Tensor& residual, const Tensor& branch,
                                          const Tensor& weight) = 0;
  /// dx += gradient of the input (the residual stream adds up here); dweight += sum over rows. dout any.
  virtual void layernorm_backward(const Tensor& dx, const Tensor& dweight, const Tensor& dout,
                                  const Tensor& x, const Tensor& weight, const Tensor& mean,
                                  const Tensor& rstd) = 0;

  // ---- linear layers, no bias: weight [OUT, IN] as in torch.nn.Linear

  /// y = x weight^T. y any [N,OUT]; x, weight any [N,IN], [OUT,IN], both of one dtype; fp32 accumulation.
  virtual void linear_forward(const Tensor& y, const Tensor& x, const Tensor& weight) = 0;
  /// dx = dy weight. dx any [N,IN].
  virtual void linear_backward_input(const Tensor& dx, const Tensor& dy, const Tensor& weight) = 0;
  /// dweight += dy^T x. dweight fp32 [OUT,IN].
  virtual void linear_backward_weight(const Tensor& dweight, const Tensor& dy, const Tensor& x) = 0;

  /// hidden = x weight^T and out = gelu(hidden), which a device may do in one pass. hidden and out of one
  /// dtype.
  virtual void linear_gelu_forward(const Tensor& out, const Tensor& hidden, const Tensor& x,
                                   const Tensor& weight, Gelu kind);
  /// dhidden = (dy weight) * gelu'(hidden). dhidden and hidden of one dtype.
  virtual void linear_gelu_backward(const Tensor& dhidden, const Tensor& dy, const Tensor& weight,
                                    const Tensor& hidden, Gelu kind);

  /// The weight in 8 bits, for decoding: values int8 [OUT,IN] and scale fp32 [OUT] with weight ~ scale *
  /// values; a row's largest magnitude is 127. weight fp32 [OUT,IN]. Devices other than the CPU refuse.
  virtual void quantize_rows(const Tensor& values, const Tensor& scale, const Tensor& weight);
  /// y = scale * (x values^T). y any [N,OUT], x any [N,IN]; fp32 accumulation.
  virtual void linear_int8_forward(const Tensor& y, const Tensor& x, const Tensor& values,
                                   const Tensor& scale);

  // ---- GELU

  /// out = gelu(x). any; out may be x.
  virtual void gelu_forward(const Tensor& out, const Tensor& x, Gelu kind) = 0;
  /// dx = dout * gelu'(x). any; dx may be dout.
  virtual void gelu_backward(const Tensor& dx, const Tensor& dout, const Tensor& x, Gelu kind) = 0;

  // ---- causal self-attention, softmax scale 1/sqrt(HS)

  /// out [B,T,C] any from qkv [B,T,3C] any, rows [q;k;v], heads side by side within each. logsumexp [B,NH,T]
  /// of the scaled scores is saved for the backward. Never forms T x T.
  virtual void attention_forward(const Tensor& out, const Tensor& logsumexp, const Tensor& qkv,
                                 int n_head) = 0;
  /// dqkv [B,T,3C] any from dout and out [B,T,C] any.
  virtual void attention_backward(const Tensor& dqkv, const Tensor& dout, const Tensor& qkv,
                                  const Tensor& out, const Tensor& logsumexp, int n_head) = 0;
  /// Decoding: M new rows at positions position .. position+M-1 of one sequence; position int32 [1]. Writes
  /// their keys and values into the caches [T_max, C] any, then out [M,C] attends over positions 0 .. its
  /// own. qkv [M,3C].
  virtual void attention_cached(const Tensor& out, const Tensor& key_cache, const Tensor& value_cache,
                                const Tensor& qkv, const Tensor& position, int n_head) = 0;

  // ---- softmax cross entropy

  /// losses[n] = logsumexp(logits[n,:]) - logits[n, targets[n]]; 0 where targets[n] is -1. logits any [N,V].
  virtual void cross_entropy_forward(const Tensor& losses, const Tensor& logits, const Tensor& targets) = 0;
  /// The same losses, and logits are replaced by scale * (softmax - onehot); 0 where targets[n] is -1.
  virtual void cross_entropy_backward(const Tensor& losses, const Tensor& logits, const Tensor& targets,
                                      float scale) = 0;

  // ---- spatial loss
  //
  // For a neighborhood of n units, over the N rows of x: r = Pearson correlation of each pair of units,
  // D = 1/(1+distance) of each pair; SL = (1 - Pearson(r, D)) / 2 over the n(n-1)/2 pairs (TopoLM, eq. 1-2).
  // A unit whose squared deviation is below 1e-12 is constant: correlations 0, no gradient.

  /// loss [1]: the mean or max of SL over the K neighborhoods. mean [C] and gradient [K,n,n] are saved: the
  /// aggregated loss has the gradient (x - mean)[:, members_k] gradient_k with respect to x[:, members_k].
  /// x any [N,C]; members int32 [K,n]: distinct units; distance [n,n]: D minus its mean over pairs, divided
  /// by its norm over the n(n-1)/2 pairs; symmetric, diagonal 0.
  virtual void spatial_loss_forward(const Tensor& loss, const Tensor& mean, const Tensor& gradient,
                                    const Tensor& x, const Tensor& members, const Tensor& distance,
                                    Aggregation aggregation) = 0;
  /// dx[:, members_k] += scale * (x - mean)[:, members_k] * gradient_k, in ascending k. dx fp32, x any [N,C].
  virtual void spatial_loss_backward(const Tensor& dx, const Tensor& x, const Tensor& mean,
                                     const Tensor& gradient, const Tensor& members, float scale) = 0;

  // ---- reductions and optimizer

  /// out [1] = the sum of all elements of x. any.
  virtual void sum(const Tensor& out, const Tensor& x) = 0;
  /// out [1] = the sum of all squared elements of x. any.
  virtual void sum_of_squares(const Tensor& out, const Tensor& x) = 0;
  /// norm_and_scale [2] = { |gradient|, min(1, max_norm / |gradient|) }; max_norm 0 does not clip.
  virtual void gradient_norm(const Tensor& norm_and_scale, const Tensor& gradient, float max_norm) = 0;
  /// AdamW (Loshchilov & Hutter 2019) on every tensor, gradients scaled by norm_and_scale[1] as read.
  virtual void adamw(std::span<const AdamWTensor> tensors, const Tensor& norm_and_scale,
                     const AdamWStep& step) = 0;

  // ---- generation

  /// token int32 [1] drawn from logits fp32 [V] as `sampling` says; uniform fp32 [1] in [0, 1) decides. -1
  /// when the largest logit is not finite.
  virtual void sample(const Tensor& token, const Tensor& logits, const Tensor& uniform,
                      const Sampling& sampling) = 0;

  /// Bytes that operations have taken for themselves so far: packed operands, partial sums. The first step of
  /// a kind takes them, and they stay.
  virtual int64_t working_memory() const = 0;

  /// The algorithms chosen so far for matrix products, as JSON; empty on a device that does not choose.
  virtual std::string matrix_plans() const;
};

/// The rows of a batch sorted by token, rows of one token ascending: what embedding_backward adds up.
std::vector<int32_t> token_order(std::span<const int32_t> tokens);

/// What a device is made from.
struct DeviceOptions {
  std::string name = "auto";  // auto (cuda, else cpu), cpu, cuda, simt
  int threads = 0;            // 0: all CPUs
  std::string isa;            // CPU instruction set; empty: the best this CPU has, or $TOPOLM_CPU_ISA
  /// A GPU's matrix products: own (linear.cu) or library; empty: $TOPOLM_MATRIX_PRODUCTS, or library.
  std::string products = {};
};

/// Throws Error when the device is not there or not known.
std::unique_ptr<Kernels> make_kernels(const DeviceOptions& options = {});

/// The devices beside the CPU that this program was built with and this machine has: simt, cuda.
std::vector<std::string> gpu_devices();

/// The CPU instruction sets that this program has kernels for and this machine can run, best first; last,
/// where it can run, amx_emulated: the kernels of amx on tiles made of AVX-512, for tests.
std::vector<std::string> cpu_instruction_sets();

}  // namespace topolm
