#include "model/generator.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "engine/error.h"
#include "model/checkpoint.h"

namespace topolm {

void SamplingConfig::check() const {
  require(std::isfinite(temperature) && temperature >= 0, "--temperature {} must be 0 or more", temperature);
  require(top_k >= 0, "--top-k {} must be 0 (all tokens) or more", top_k);
  require(top_p > 0 && top_p <= 1, "--top-p {} must lie in (0, 1]", top_p);
  require(min_p >= 0 && min_p <= 1, "--min-p {} must lie in [0, 1]", min_p);
}

int32_t sample(std::span<const float> logits, const SamplingConfig& config, Random& random) {
  config.check();
  const auto best = std::max_element(logits.begin(), logits.end());
  require(best != logits.end() && std::isfinite(*best),
          "the model's logits are not finite; its weights are damaged");
  if (config.temperature == 0) return static_cast<int32_t>(best - logits.begin());

  struct Candidate {
    int32_t id;
    double p;  // relative to the best token's
  };
  std::vector<Candidate> candidates(logits.size());
  for (size_t i = 0; i < logits.size(); ++i)
    candidates[i] = {static_cast<int32_t>(i),
                     std::exp((static_cast<double>(logits[i]) - *best) / config.temperature)};
  const auto likelier = [](const Candidate& a, const Candidate& b) {
    return a.p != b.p ? a.p > b.p : a.id < b.id;
  };
  const auto sum = [&] {
    return std::accumulate(candidates.begin(), candidates.end(), 0.0,
                           [](double total, const Candidate& c) { return total + c.p; });
  };
  if (const auto k = static_cast<size_t>(config.top_k); k > 0 && k < candidates.size()) {
    std::nth_element(candidates.begin(), candidates.begin() + config.top_k, candidates.end(), likelier);
    candidates.resize(k);
  }
  if (config.top_p < 1) {
    std::sort(candidates.begin(), candidates.end(), likelier);
    const double wanted = config.top_p * sum();
    double kept = 0;
    const auto end = std::find_if(candidates.begin(), candidates.end(),
                                  [&](const Candidate& c) { return (kept += c.p) >= wanted; });
    if (end != candidates.end()) candidates.erase(end + 1, candidates.end());
  }
  std::erase_if(candidates, [&](const Candidate& c) { return c.p < config.min_p; });
  double target = random.uniform() * sum();
  for (const Candidate& c : candidates)
    if ((target -= c.p) < 0) return c.id;
  return candidates.back().id;  // rounding left a crumb
}

Generator::Generator(Kernels& kernels, const fs::path& checkpoint, DType dtype, int64_t prefill)
    : kernels_(kernels),
      config_(load_config(checkpoint)),
      weights_(kernels, config_, dtype),
      arena_(kernels.device(), "the generator"),
      keys_(static_cast<size_t>(config_.n_layer)),
      values_(keys_.size()),
      host_logits_(static_cast<size_t>(config_.vocab_size)) {
  load_weights(checkpoint, config_, kernels.device(), weights_);
  const int64_t rows = std::min<int64_t>(prefill, config_.block_size), c = config_.n_embd;
  arena_.add(tokens_, "tokens", DType::i32, {rows, 1});
  arena_.add(residual_, "residual", DType::f32, {rows, c});
  arena_.add(branch_, "branch", DType::f32, {rows, c});
  arena_.add(norm_, "norm", dtype, {rows, c});
  arena_.add(mean_, "mean", DType::f32, {rows, 1});
  arena_.add(rstd_, "rstd", DType::f32, {rows, 1});
  arena_.add(qkv_, "qkv", dtype, {rows, 3 * c});
  arena_.add(attention_, "attention", dtype, {rows, c});
  arena_.add(hidden_, "hidden", dtype, {rows, 4 * c});
  arena_.add(logits_, "logits", DType::f32, {1, config_.vocab_size});
  for (Tensor& t : keys_) arena_.add(t, "keys", dtype, {config_.block_size, c});
  for (Tensor& t : values_) arena_.add(t, "values", dtype, {config_.block_size, c});
  arena_.commit();
}

void Generator::reset() { history_.clear(); }

std::span<const float> Generator::append(std::span<const int32_t> tokens) {
  require(!tokens.empty(), "the generator needs at least one token to continue from");
  const size_t context = static_cast<size_t>(config_.block_size), step = static_cast<size_t>(tokens_.rows());
  for (size_t i = 0; i < tokens.size();) {
    if (history_.size() == context) {
      const std::vector<int32_t> newer(history_.end() - static_cast<ptrdiff_t>(context / 2), history_.end());
      history_.clear();
      append(newer);
    }
    const size_t count = std::min({step, tokens.size() - i, context - history_.size()});
    process(tokens.subspan(i, count));
    i += count;
  }
  kernels_.device().synchronize();
  kernels_.device().download(host_logits_.data(), logits_);
  return host_logits_;
}

void Generator::process(std::span<const int32_t> tokens) {
  const auto m = std::ssize(tokens), position = std::ssize(history_), c = int64_t{config_.n_embd};
  const auto rows = [m](const Tensor& t) { return t.row_range(0, m); };
  const Tensor residual = rows(residual_), branch = rows(branch_), norm = rows(norm_), qkv = rows(qkv_);
  const Tensor attention = rows(attention_), hidden = rows(hidden_);
  const Tensor mean = rows(mean_).view({m}), rstd = rows(rstd_).view({m}), ids = rows(tokens_).view({1, m});
  const Parameters& w = weights_.fp32();

  kernels_.device().upload(ids, tokens.data());
  kernels_.embedding_forward(residual.view({1, m, c}), ids, w.wte, w.wpe, position);
  kernels_.layernorm_forward(norm, mean, rstd, residual, w.h[0].ln_1);
  for (size_t l = 0; l < w.h.size(); ++l) {
    const BlockParameters& matrices = weights_.operands().h[l];
    const Tensor& next_norm = l + 1 < w.h.size() ? w.h[l + 1].ln_1 : w.ln_f;
    kernels_.linear_forward(qkv, norm, matrices.c_attn);
    kernels_.attention_cached(attention, keys_[l], values_[l], qkv, position, config_.n_head);
    kernels_.linear_forward(branch, attention, matrices.attn_proj);
    kernels_.residual_layernorm_forward(residual, norm, mean, rstd, residual, branch, w.h[l].ln_2);
    kernels_.linear_forward(hidden, norm, matrices.c_fc);
    kernels_.gelu_forward(hidden, hidden, config_.gelu);
    kernels_.linear_forward(branch, hidden, matrices.mlp_proj);
    kernels_.residual_layernorm_forward(residual, norm, mean, rstd, residual, branch, next_norm);
  }
  kernels_.linear_forward(logits_, norm.row_range(m - 1, 1), weights_.operands().wte);
  history_.insert(history_.end(), tokens.begin(), tokens.end());
}

}  // namespace topolm
