#include "model/generator.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "engine/error.h"
#include "engine/profile.h"
#include "model/checkpoint.h"

namespace topolm {

Generator::Generator(Kernels& kernels, const fs::path& checkpoint, DType dtype,
                     const GeneratorOptions& options)
    : Generator(kernels, load_config(checkpoint), dtype, options) {
  weights_.load(checkpoint, options.interventions);
}

Generator::Generator(Kernels& kernels, const ModelConfig& config, DType dtype,
                     const GeneratorOptions& options)
    : kernels_(kernels),
      config_(config),
      weights_(kernels, config_, dtype, options.int8),
      arena_(kernels.device(), "the generator"),
      keys_(static_cast<size_t>(config_.n_layer)),
      values_(keys_.size()) {
  const int64_t rows = std::min<int64_t>(options.prefill, config_.block_size), c = config_.n_embd;
  const DType cache = options.int8 ? DType::bf16 : dtype;
  arena_.add(input_, "position and tokens", DType::i32, {1 + rows, 1});
  arena_.add(residual_, "residual", DType::f32, {rows, c});
  arena_.add(branch_, "branch", DType::f32, {rows, c});
  arena_.add(norm_, "norm", dtype, {rows, c});
  arena_.add(mean_, "mean", DType::f32, {rows, 1});
  arena_.add(rstd_, "rstd", DType::f32, {rows, 1});
  arena_.add(qkv_, "qkv", dtype, {rows, 3 * c});
  arena_.add(attention_, "attention", dtype, {rows, c});
  arena_.add(hidden_, "hidden", dtype, {rows, 4 * c});
  arena_.add(logits_, "logits", DType::f32, {1, config_.vocab_size});
  arena_.add(uniform_, "uniform", DType::f32, {1});
  arena_.add(token_, "token", DType::i32, {1});
  for (Tensor& t : keys_) arena_.add(t, "keys", cache, {config_.block_size, c});
  for (Tensor& t : values_) arena_.add(t, "values", cache, {config_.block_size, c});
  if (options.int8) {
    arena_.add(embedding_, "embedding", DType::f32, {rows, c});
    arena_.add(rows_, "rows of the embedding", DType::i32, {rows, 1});
  }
  arena_.commit();
  if (options.int8) {
    std::vector<int32_t> ascending(static_cast<size_t>(rows));
    std::iota(ascending.begin(), ascending.end(), 0);
    kernels.device().upload(rows_, ascending.data());
  }
}

int64_t Generator::bytes_per_token(int64_t position) const {
  return weights_.streamed_bytes() +
         2 * config_.n_layer * position * config_.n_embd * size_of(keys_.front().dtype);
}

void Generator::reset() { history_.clear(); }

void Generator::append(std::span<const int32_t> tokens) {
  require(!tokens.empty(), "the generator needs at least one token to continue from");
  const size_t context = static_cast<size_t>(config_.block_size),
               step = static_cast<size_t>(residual_.rows());
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
}

int32_t Generator::next(const Sampling& sampling, double uniform, int64_t known) {
  // What is nearly 1 may not round to it.
  const float below_one = std::min(static_cast<float>(uniform), std::nextafter(1.0f, 0.0f));
  int32_t token = -1;
  kernels_.device().upload(uniform_, &below_one);
  kernels_.sample(token_, {logits_.data, DType::f32, {std::min(known, logits_.cols())}}, uniform_, sampling);
  kernels_.device().download(&token, token_);
  require(token >= 0, "the model's logits are not finite; its weights are damaged or driven too far");
  return token;
}

std::vector<float> Generator::logits() {
  std::vector<float> logits(static_cast<size_t>(logits_.elements()));
  kernels_.device().download(logits.data(), logits_);
  return logits;
}

void Generator::process(std::span<const int32_t> tokens) {
  const Range range(tokens.size() == 1 ? "token" : "prefill", std::ssize(history_));
  std::vector<int32_t> input = {static_cast<int32_t>(history_.size())};
  input.insert(input.end(), tokens.begin(), tokens.end());
  history_.insert(history_.end(), tokens.begin(), tokens.end());
  kernels_.device().upload(input_.row_range(0, std::ssize(input)), input.data());
  if (embedding_) weights_.look_up(embedding_, tokens);
  if (tokens.size() == 1)
    kernels_.device().replay(decoding_, {}, [&] { run(1); });
  else
    run(std::ssize(tokens));
}

/// The network over the m tokens of input_; the logits of the last.
void Generator::run(int64_t m) {
  const int64_t c = config_.n_embd;
  const auto rows = [m](const Tensor& t) { return t.row_range(0, m); };
  const Tensor position = input_.row_range(0, 1).view({1}), ids = input_.row_range(1, m).view({1, m});
  const Tensor residual = rows(residual_), branch = rows(branch_), norm = rows(norm_), qkv = rows(qkv_);
  const Tensor attention = rows(attention_), hidden = rows(hidden_);
  const Tensor mean = rows(mean_).view({m}), rstd = rows(rstd_).view({m});
  const Parameters &w = weights_.fp32(), &matrices = weights_.operands(), &scales = weights_.scales();

  if (embedding_)
    kernels_.embedding_forward(residual.view({1, m, c}), rows(rows_).view({1, m}), rows(embedding_), w.wpe,
                               position);
  else
    kernels_.embedding_forward(residual.view({1, m, c}), ids, w.wte, w.wpe, position);
  kernels_.layernorm_forward(norm, mean, rstd, residual, w.h[0].ln_1);
  for (size_t l = 0; l < w.h.size(); ++l) {
    const Range block("block", static_cast<int64_t>(l));
    const BlockParameters &matrix = matrices.h[l], &scale = scales.h[l];
    const Tensor& next_norm = l + 1 < w.h.size() ? w.h[l + 1].ln_1 : w.ln_f;
    linear(qkv, norm, matrix.c_attn, scale.c_attn);
    kernels_.attention_cached(attention, keys_[l], values_[l], qkv, position, config_.n_head);
    linear(branch, attention, matrix.attn_proj, scale.attn_proj);
    kernels_.residual_layernorm_forward(residual, norm, mean, rstd, residual, branch, w.h[l].ln_2);
    linear(hidden, norm, matrix.c_fc, scale.c_fc);
    kernels_.gelu_forward(hidden, hidden, config_.gelu);
    linear(branch, hidden, matrix.mlp_proj, scale.mlp_proj);
    kernels_.residual_layernorm_forward(residual, norm, mean, rstd, residual, branch, next_norm);
  }
  linear(logits_, norm.row_range(m - 1, 1), matrices.wte, scales.wte);
}

/// y = x weight^T; int8 where there is a scale.
void Generator::linear(const Tensor& y, const Tensor& x, const Tensor& weight, const Tensor& scale) {
  if (scale)
    kernels_.linear_int8_forward(y, x, weight, scale);
  else
    kernels_.linear_forward(y, x, weight);
}

}  // namespace topolm
