// Everything that one micro-batch computes on its way through the network and back, and when each of it is
// needed: what is not needed at one moment shares memory.
#pragma once

#include <vector>

#include "engine/arena.h"
#include "model/config.h"

namespace topolm {

/// What a model is planned for.
struct Purpose {
  DType dtype;             // of matrix operands and branches
  bool training = false;   // gradients; else only the sites are kept
  bool recompute = false;  // training: of each block its input alone is kept, and its forward runs twice
};

struct Activations {
  Tensor tokens, targets;                         // [B, T]
  Tensor order;                                   // [B * T] token_order(tokens)
  Tensor members;                                 // [sites * K, units of a neighborhood]
  std::vector<Tensor> residual;                   // [2L + 1] the embedding, then after each branch
  std::vector<Tensor> norm, mean, rstd;           // [2L + 1] LayerNorm before each branch and the head
  std::vector<Tensor> branch;                     // [2L] outputs of attention and MLP, before the addition
  std::vector<Tensor> qkv, logsumexp, attention;  // [L]
  std::vector<Tensor> hidden, hidden_gelu;        // [L]
  std::vector<Tensor> spatial_mean, spatial_gradient;  // [2L]
  Tensor token_losses;
  Tensor logits;                                                                 // a chunk of rows
  Tensor dresidual, dbranch, dbranch_operand, dnorm, dqkv, dattention, dhidden;  // backward

  /// Adds every tensor to the arena, for up to `rows` tokens.
  void plan(Arena& arena, const ModelConfig& config, int64_t rows, Purpose purpose);
  /// The part that `batch` x `time` tokens use, in the shapes that the operations expect; logits as planned.
  Activations of_batch(int64_t batch, int64_t time, int n_head) const;
};

}  // namespace topolm
