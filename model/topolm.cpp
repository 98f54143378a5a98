#include "model/topolm.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <utility>

#include "engine/error.h"
#include "engine/profile.h"
#include "engine/random.h"

namespace topolm {

double Losses::total(const TopographyConfig& topography) const {
  double sum = task + decay;
  for (size_t k = 0; k < spatial.size(); ++k) sum += topography.alpha_of(static_cast<int>(k)) * spatial[k];
  return sum;
}

double Losses::mean_spatial() const {
  return std::accumulate(spatial.begin(), spatial.end(), 0.0) / static_cast<double>(spatial.size());
}

TopoLM::TopoLM(Kernels& kernels, const ModelConfig& config, std::vector<Sheet> sheets, int64_t batch,
               int64_t time, DType dtype, bool training, bool recompute)
    : kernels_(kernels),
      config_((config.check(), config)),
      sheets_(std::move(sheets)),
      neighborhoods_(config.topography.rows, config.topography.cols, config.topography.radius),
      purpose_{dtype, training, recompute},
      weights_(kernels, config, dtype),
      arena_(kernels.device(), "the activations") {
  require(static_cast<int>(sheets_.size()) == config.sites(), "{} sheets for a model of {} sites",
          sheets_.size(), config.sites());
  require(time <= config.block_size, "sequences of {} tokens are longer than the model's context of {}", time,
          config.block_size);
  if (training) gradients_ = std::make_unique<ParameterArena>(kernels.device(), config, "the gradients");
  plan(batch * time);
  kernels.device().upload(distance_, neighborhoods_.distances(config.topography.distance).data());
}

void TopoLM::plan(int64_t rows) {
  const int64_t sites = config_.sites(), units = neighborhoods_.units();
  arena_.add(first_, "first position", DType::i32, {1});
  arena_.add(distance_, "distances", DType::f32, {units, units});
  arena_.add(running_, "losses", DType::f32, {1 + 2 * sites, 1});
  arena_.add(loss_, "losses", DType::f32, {1});
  a_.plan(arena_, config_, rows, purpose_);
  arena_.commit();
}

std::vector<const Arena*> TopoLM::arenas() const {
  std::vector<const Arena*> all = weights_.arenas();
  if (gradients_) all.push_back(&gradients_->arena);
  all.push_back(&arena_);
  return all;
}

std::vector<std::vector<int32_t>> TopoLM::draw_neighborhoods(uint64_t seed, int64_t step,
                                                             int64_t micro_step) const {
  std::vector<std::vector<int32_t>> draws;
  // One stream a (step, micro-batch), read site by site.
  Random random(seed, Random::Purpose::neighborhoods, static_cast<uint32_t>(step),
                static_cast<uint32_t>(micro_step));
  for (int site = 0; site < config_.sites(); ++site)
    draws.push_back(random.draw(config_.topography.neighborhoods, neighborhoods_.count()));
  return draws;
}

Batch TopoLM::make_batch(int64_t batch, int64_t time, std::span<const int32_t> tokens,
                         std::span<const int32_t> targets,
                         const std::vector<std::vector<int32_t>>& neighborhoods) const {
  const int64_t sites = config_.sites(), k = config_.topography.neighborhoods, units = neighborhoods_.units();
  require(batch * time <= a_.tokens.rows() && time <= config_.block_size,
          "a batch of {} x {} tokens does not fit the {} planned", batch, time, a_.tokens.rows());
  require(std::ssize(tokens) == batch * time && std::ssize(targets) == batch * time,
          "a batch of {} x {} needs as many tokens and targets, not {} and {}", batch, time, tokens.size(),
          targets.size());
  require(neighborhoods.empty() || std::ssize(neighborhoods) == sites,
          "neighborhoods are given for {} sites, not {}", neighborhoods.size(), sites);
  std::vector<int32_t> members(neighborhoods.size() * static_cast<size_t>(k * units));
  for (int64_t site = 0; site < std::ssize(neighborhoods); ++site) {
    require(std::ssize(neighborhoods[site]) == k, "site {} has {} neighborhoods, not {}", site,
            neighborhoods[site].size(), k);
    for (int64_t i = 0; i < k; ++i)
      neighborhoods_.members(sheets_[site], neighborhoods[site][i],
                             std::span(members).subspan(static_cast<size_t>((site * k + i) * units),
                                                        static_cast<size_t>(units)));
  }
  return {batch,
          time,
          {tokens.begin(), tokens.end()},
          {targets.begin(), targets.end()},
          token_order(tokens),
          std::move(members)};
}

void TopoLM::set_batch(const Batch& batch) {
  const int64_t time = batch.time;
  rows_ = batch.batch * time;
  targets_ = std::count_if(batch.targets.begin(), batch.targets.end(), [](int32_t t) { return t != -1; });
  b_ = a_.of_batch(batch.batch, time, config_.n_head);

  Device& device = kernels_.device();
  device.upload(b_.tokens, batch.tokens.data());
  device.upload(b_.targets, batch.targets.data());
  device.upload(b_.order, batch.order.data());
  if (batch.members.empty())
    b_.members = {};  // those of the batch before are not this one's
  else
    device.upload(b_.members, batch.members.data());
}

void TopoLM::zero_losses() { kernels_.fill(running_, 0); }

void TopoLM::zero_gradients() { kernels_.fill(gradient_vector(), 0); }

void TopoLM::run_network() { run_blocks(std::nullopt); }

void TopoLM::forward(float scale) {
  const Range range("forward");
  require(static_cast<bool>(b_.members), "a batch without neighborhoods has no spatial loss");
  run_blocks(scale);
}

/// The network up to its head. With `spatial_scale` also the spatial losses, each as soon as its site is
/// there.
void TopoLM::run_blocks(std::optional<float> spatial_scale) {
  const Parameters& w = weights_.fp32();
  const Tensor& embedded = b_.residual[0];
  kernels_.embedding_forward(embedded.view(Shape{b_.tokens.shape[0], b_.tokens.shape[1], config_.n_embd}),
                             b_.tokens, w.wte, w.wpe, first_);
  kernels_.layernorm_forward(b_.norm[0], b_.mean[0], b_.rstd[0], embedded, w.h[0].ln_1);
  for (int block = 0; block < config_.n_layer; ++block) {
    const Range range("block", block);
    attention_branch(block);
    add_branch(2 * block);
    if (spatial_scale) spatial_forward(2 * block, *spatial_scale);
    mlp_hidden(block);
    mlp_branch(block);
    add_branch(2 * block + 1);
    if (spatial_scale) spatial_forward(2 * block + 1, *spatial_scale);
  }
}

void TopoLM::attention_branch(int block) {
  const size_t l = static_cast<size_t>(block), attn = 2 * l;
  const BlockParameters& m = weights_.operands().h[l];
  kernels_.linear_forward(b_.qkv[l], b_.norm[attn], m.c_attn);
  kernels_.attention_forward(b_.attention[l], b_.logsumexp[l], b_.qkv[l], config_.n_head);
  kernels_.linear_forward(b_.branch[attn], b_.attention[l], m.attn_proj);
}

void TopoLM::mlp_hidden(int block) {
  const size_t l = static_cast<size_t>(block), mlp = 2 * l + 1;
  kernels_.linear_gelu_forward(b_.hidden_gelu[l], b_.hidden[l], b_.norm[mlp], weights_.operands().h[l].c_fc,
                               config_.gelu);
}

void TopoLM::mlp_branch(int block) {
  const size_t l = static_cast<size_t>(block), mlp = 2 * l + 1;
  kernels_.linear_forward(b_.branch[mlp], b_.hidden_gelu[l], weights_.operands().h[l].mlp_proj);
}

/// Adds a branch to the residual stream, and normalises the sum for the next one.
void TopoLM::add_branch(int site) {
  const size_t s = static_cast<size_t>(site), next = s + 1, block = next / 2;
  const Parameters& w = weights_.fp32();
  const Tensor& weight = block == w.h.size() ? w.ln_f : next % 2 == 0 ? w.h[block].ln_1 : w.h[block].ln_2;
  kernels_.residual_layernorm_forward(b_.residual[next], b_.norm[next], b_.mean[next], b_.rstd[next],
                                      b_.residual[s], b_.branch[s], weight);
}

void TopoLM::evaluate(float scale) { head(false, scale); }

void TopoLM::forward_backward(float scale) {
  // All that the host hands to operations, besides tensors whose place and shape follow from these.
  const std::vector<int64_t> key = {b_.tokens.shape[0], b_.tokens.shape[1], targets_,
                                    std::bit_cast<int32_t>(scale)};
  kernels_.device().replay(recording_, key, [&] {
    forward(scale);
    backward(scale);
  });
}

void TopoLM::backward(float scale) {
  const Range range("backward");
  require(purpose_.training, "backward() of a model that was planned without gradients");
  const Parameters& w = weights_.fp32();
  Parameters& g = gradients_->tensors;
  const size_t last = b_.residual.size() - 1;
  head(true, scale);
  kernels_.fill(b_.dresidual, 0);
  kernels_.layernorm_backward(b_.dresidual, g.ln_f, b_.dnorm, b_.residual[last], w.ln_f, b_.mean[last],
                              b_.rstd[last]);
  for (int block = config_.n_layer - 1; block >= 0; --block) backward_block(block, scale);
  kernels_.embedding_backward(g.wte, g.wpe,
                              b_.dresidual.view({b_.tokens.shape[0], b_.tokens.shape[1], config_.n_embd}),
                              b_.tokens, b_.order);
}

void TopoLM::backward_block(int block, float scale) {
  const Range range("block", block);
  const size_t l = static_cast<size_t>(block), attn = 2 * l, mlp = 2 * l + 1;
  const BlockParameters &w = weights_.fp32().h[l], &m = weights_.operands().h[l];
  BlockParameters& g = gradients_->tensors.h[l];

  restore_block(block);
  Tensor dbranch = branch_gradient(2 * block + 1, scale);
  kernels_.linear_backward_weight(g.mlp_proj, dbranch, b_.hidden_gelu[l]);
  kernels_.linear_gelu_backward(b_.dhidden, dbranch, m.mlp_proj, b_.hidden[l], config_.gelu);
  kernels_.linear_backward_weight(g.c_fc, b_.dhidden, b_.norm[mlp]);
  kernels_.linear_backward_input(b_.dnorm, b_.dhidden, m.c_fc);
  kernels_.layernorm_backward(b_.dresidual, g.ln_2, b_.dnorm, b_.residual[mlp], w.ln_2, b_.mean[mlp],
                              b_.rstd[mlp]);

  dbranch = branch_gradient(2 * block, scale);
  kernels_.linear_backward_weight(g.attn_proj, dbranch, b_.attention[l]);
  kernels_.linear_backward_input(b_.dattention, dbranch, m.attn_proj);
  kernels_.attention_backward(b_.dqkv, b_.dattention, b_.qkv[l], b_.attention[l], b_.logsumexp[l],
                              config_.n_head);
  kernels_.linear_backward_weight(g.c_attn, b_.dqkv, b_.norm[attn]);
  kernels_.linear_backward_input(b_.dnorm, b_.dqkv, m.c_attn);
  kernels_.layernorm_backward(b_.dresidual, g.ln_1, b_.dnorm, b_.residual[attn], w.ln_1, b_.mean[attn],
                              b_.rstd[attn]);
}

/// Computes again, to the same bits, what the backward of a block needs and its forward did not keep: the sum
/// between its branches and its LayerNorm, which is 0.4 % of a step of tiny for a ninth of the activations;
/// or nearly all.
void TopoLM::restore_block(int block) {
  const Range range("restore");
  const size_t l = static_cast<size_t>(block), attn = 2 * l;
  if (purpose_.recompute) {
    kernels_.layernorm_forward(b_.norm[attn], b_.mean[attn], b_.rstd[attn], b_.residual[attn],
                               weights_.fp32().h[l].ln_1);
    attention_branch(block);
  }
  add_branch(2 * block);
  if (!purpose_.recompute) return;
  mlp_hidden(block);
  if (shapes_branch(2 * block + 1)) mlp_branch(block);
}

/// The classifier, a chunk of rows at a time. Without `backward` it only fills in the losses.
void TopoLM::head(bool backward, float scale) {
  const Range range("head");
  require(targets_ > 0, "a batch without a single target has no loss");
  const Tensor& norm = b_.norm.back();
  const Tensor targets = b_.targets.view({rows_, 1});
  // Even chunks where no gradient is summed over them: few rows are multiplied as in decoding, which rounds
  // otherwise, and a row's loss shall not depend on how many came with it.
  const int64_t limit = a_.logits.rows(), even = ceil_div(rows_, ceil_div(rows_, limit));
  const int64_t chunk = backward ? limit : even;
  for (int64_t begin = 0; begin < rows_; begin += chunk) {
    const int64_t count = std::min(chunk, rows_ - begin);
    const Tensor logits = a_.logits.row_range(0, count), x = norm.row_range(begin, count);
    const Tensor losses = b_.token_losses.row_range(begin, count).view({count});
    const Tensor chunk_targets = targets.row_range(begin, count).view({count});
    kernels_.linear_forward(logits, x, weights_.operands().wte);
    if (!backward) {
      kernels_.cross_entropy_forward(losses, logits, chunk_targets);
      continue;
    }
    kernels_.cross_entropy_backward(losses, logits, chunk_targets, scale / static_cast<float>(targets_));
    kernels_.linear_backward_weight(gradients_->tensors.wte, logits, x);
    kernels_.linear_backward_input(b_.dnorm.row_range(begin, count), logits, weights_.operands().wte);
  }
  kernels_.sum(loss_, b_.token_losses);
  add_loss(0, scale / static_cast<float>(targets_));
}

Tensor TopoLM::site(int site) const {
  require(!purpose_.training || !purpose_.recompute,
          "the activations of a model that recomputes them cannot be read; plan it without `recompute`");
  return tapped(site);
}

const Tensor& TopoLM::tapped(int site) const {
  const size_t s = static_cast<size_t>(site);
  return config_.topography.tap == Tap::pre ? b_.branch[s] : b_.residual[s + 1];
}

Tensor TopoLM::members_of(int site) const {
  const int64_t k = config_.topography.neighborhoods;
  return b_.members.row_range(site * k, k);
}

void TopoLM::spatial_forward(int site, float scale) {
  const Range range("site", site);
  const size_t s = static_cast<size_t>(site);
  kernels_.spatial_loss_forward(loss_, b_.spatial_mean[s], b_.spatial_gradient[s], tapped(site),
                                members_of(site), distance_, config_.topography.aggregation);
  add_loss(1 + site, scale);
  if (config_.topography.activation_decay > 0) {
    kernels_.sum_of_squares(loss_, tapped(site));
    add_loss(1 + config_.sites() + site, scale / static_cast<float>(rows_));
  }
}

/// Whether the topography has a say in the gradient of a site's own branch, and so needs the branch.
bool TopoLM::shapes_branch(int site) const {
  const TopographyConfig& t = config_.topography;
  return t.tap == Tap::pre && (t.alpha_of(site) > 0 || t.activation_decay > 0);
}

/// The gradient of a branch's output as an operand of matrix products. A site tapped after the addition
/// passes its spatial gradient down the residual stream; one tapped before, only into its own branch.
Tensor TopoLM::branch_gradient(int site, float scale) {
  const Range range("site", site);
  const TopographyConfig& t = config_.topography;
  const size_t s = static_cast<size_t>(site);
  const float alpha = static_cast<float>(t.alpha_of(site)) * scale;
  const float decay = static_cast<float>(2 * t.activation_decay / static_cast<double>(rows_)) * scale;
  Tensor gradient = b_.dresidual;
  if (shapes_branch(site)) {
    gradient = b_.dbranch;
    kernels_.cast(gradient, b_.dresidual);
  }
  if (alpha > 0)
    kernels_.spatial_loss_backward(gradient, tapped(site), b_.spatial_mean[s], b_.spatial_gradient[s],
                                   members_of(site), alpha);
  if (decay > 0) kernels_.add_scaled(gradient, tapped(site), decay);
  if (purpose_.dtype == DType::f32) return gradient;
  kernels_.cast(b_.dbranch_operand, gradient);
  return b_.dbranch_operand;
}

void TopoLM::add_loss(int index, float scale) {
  kernels_.add_scaled(running_.row_range(index, 1).view({1}), loss_, scale);
}

Losses TopoLM::losses() {
  std::vector<float> values(static_cast<size_t>(running_.elements()));
  kernels_.device().synchronize();
  kernels_.device().download(values.data(), running_);
  const auto sites = config_.sites();
  Losses losses{values[0], {values.begin() + 1, values.begin() + 1 + sites}, 0};
  losses.decay =
      config_.topography.activation_decay * std::accumulate(values.begin() + 1 + sites, values.end(), 0.0);
  return losses;
}

std::vector<float> TopoLM::logits() {
  std::vector<float> all(static_cast<size_t>(rows_ * config_.vocab_size));
  std::vector<bf16> halves;
  for (int64_t begin = 0; begin < rows_; begin += a_.logits.rows()) {
    const int64_t count = std::min(a_.logits.rows(), rows_ - begin);
    const Tensor logits = a_.logits.row_range(0, count);
    kernels_.linear_forward(logits, b_.norm.back().row_range(begin, count), weights_.operands().wte);
    kernels_.device().synchronize();
    float* const out = all.data() + begin * config_.vocab_size;
    if (purpose_.dtype == DType::f32) {
      kernels_.device().download(out, logits);
    } else {
      halves.resize(static_cast<size_t>(logits.elements()));
      kernels_.device().download(halves.data(), logits);
      std::transform(halves.begin(), halves.end(), out, bf16_to_float);
    }
  }
  return all;
}

std::vector<float> TopoLM::token_losses() {
  std::vector<float> losses(static_cast<size_t>(rows_));
  kernels_.device().synchronize();
  kernels_.device().download(losses.data(), b_.token_losses);
  return losses;
}

}  // namespace topolm
