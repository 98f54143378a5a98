// TopoLM: the network and its loss, forward and backward, as one line an operation.
//
//   loss = cross entropy + sum over sites of alpha_k SL_k + activation_decay * sum over sites of mean |A_k|^2
//
// Rathi et al., "TopoLM: brain-like spatio-functional organization in a topographic language model", 2025.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/arena.h"
#include "model/activations.h"
#include "model/config.h"
#include "model/parameters.h"
#include "model/topography.h"

namespace topolm {

/// The losses of one or several micro-batches, averaged: what they have added to the gradient is
/// task + sum alpha_k spatial[k] + decay.
struct Losses {
  double task = 0;              // nats a token
  std::vector<double> spatial;  // unweighted, one a site
  double decay = 0;             // activation_decay * sum of mean |A|^2

  double total(const TopographyConfig& topography) const;
  double mean_spatial() const;
};

/// A micro-batch as the device wants it, still on the host.
struct Batch {
  int64_t batch = 0, time = 0;
  std::vector<int32_t> tokens, targets;  // [batch, time]
  std::vector<int32_t> order;            // token_order(tokens)
  std::vector<int32_t> members;          // [sites, K, units of a neighborhood]; empty: no spatial loss
};

class TopoLM {
 public:
  /// Plans all memory for batches of up to `batch` x `time` tokens. With `training` false no gradients are
  /// kept and backward() may not be called. Matrix operands and branches are of `dtype`; everything else is
  /// fp32. `recompute` trades memory for time, to the same bits: backward() runs each block's forward again.
  TopoLM(Kernels& kernels, const ModelConfig& config, std::vector<Sheet> sheets, int64_t batch, int64_t time,
         DType dtype, bool training, bool recompute = false);

  const ModelConfig& config() const { return config_; }
  const std::vector<Sheet>& sheets() const { return sheets_; }
  Kernels& kernels() const { return kernels_; }

  /// All memory that this model has on its device, the activations last.
  std::vector<const Arena*> arenas() const;

  Weights& weights() { return weights_; }
  Parameters& gradients() { return gradients_->tensors; }
  /// All gradients as one vector.
  Tensor gradient_vector() const { return gradients_->arena.all(); }

  /// The host's part of a micro-batch, which needs nothing of the device. tokens and targets: batch * time
  /// ids each, batch and time at most what was planned; a target of -1 is ignored. neighborhoods[site]:
  /// indices for Neighborhoods::members; none at all for a batch that only run_network() sees.
  Batch make_batch(int64_t batch, int64_t time, std::span<const int32_t> tokens,
                   std::span<const int32_t> targets,
                   const std::vector<std::vector<int32_t>>& neighborhoods) const;
  /// Puts a micro-batch on the device.
  void set_batch(const Batch& batch);
  void set_batch(int64_t batch, int64_t time, std::span<const int32_t> tokens,
                 std::span<const int32_t> targets,
                 const std::vector<std::vector<int32_t>>& neighborhoods = {}) {
    set_batch(make_batch(batch, time, tokens, targets, neighborhoods));
  }
  /// Draws the neighborhoods of every site for a micro-batch: a function of (seed, step, micro_step, site).
  std::vector<std::vector<int32_t>> draw_neighborhoods(uint64_t seed, int64_t step, int64_t micro_step) const;

  /// Sets the running losses, or all gradients, to zero. Call before the first micro-batch of a step.
  void zero_losses();
  void zero_gradients();
  /// The network alone, up to its head: all that site(), logits() and evaluate() need.
  void run_network();
  /// Network and spatial losses of the batch; adds scale * losses to the running losses. The task loss comes
  /// with backward(), or with evaluate() where no gradient is wanted.
  void forward(float scale = 1);
  void backward(float scale = 1);
  void evaluate(float scale = 1);
  /// forward(), then backward(), as one piece that a device may record.
  void forward_backward(float scale = 1);
  /// The running losses. Waits for the device.
  Losses losses();

  /// The tapped activations of a site after run_network(), until backward() or the next batch: [rows,
  /// n_embd]; fp32, or of the model's dtype where branches are tapped. Not of a model that recomputes them.
  Tensor site(int site) const;
  /// logits [batch * time, vocab_size] after run_network(), into host memory (for tests and small models).
  std::vector<float> logits();
  /// -ln p(target) of every row [batch * time] after evaluate() or backward(), into host memory; 0 where the
  /// target is ignored.
  std::vector<float> token_losses();

 private:
  void plan(int64_t rows);
  void run_blocks(std::optional<float> spatial_scale);
  void attention_branch(int block);
  void mlp_hidden(int block);
  void mlp_branch(int block);
  void add_branch(int site);
  void restore_block(int block);
  void backward_block(int block, float scale);
  void head(bool backward, float scale);
  void spatial_forward(int site, float scale);
  bool shapes_branch(int site) const;
  Tensor branch_gradient(int site, float scale);
  const Tensor& tapped(int site) const;
  Tensor members_of(int site) const;
  void add_loss(int index, float scale);

  Kernels& kernels_;
  ModelConfig config_;
  std::vector<Sheet> sheets_;
  Neighborhoods neighborhoods_;
  Purpose purpose_;
  Weights weights_;
  std::unique_ptr<ParameterArena> gradients_;
  Arena arena_;
  Activations a_, b_;    // planned for the largest batch, and what the current one uses of it
  Tensor distance_;      // [units, units] of a neighborhood
  Tensor running_;       // [1 + 2 sites] task loss, then SL a site, then the sum of squares a site
  Tensor loss_;          // [1] the one just computed
  Tensor first_;         // [1] the position of a sequence's first token: 0
  int64_t rows_ = 0;     // of the current batch
  int64_t targets_ = 0;  // of the current batch that are not ignored
  std::unique_ptr<Recording> recording_;
};

}  // namespace topolm
