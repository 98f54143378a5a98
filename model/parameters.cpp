#include "model/parameters.h"

#include <algorithm>
#include <cmath>

#include "engine/random.h"

namespace topolm {

std::vector<ParameterInfo> parameter_list(const ModelConfig& config) {
  const int64_t c = config.n_embd;
  const double deviation = 0.02, residual_deviation = 0.02 / std::sqrt(2.0 * config.n_layer);
  std::vector<ParameterInfo> list;
  const auto outer = [&](const char* name, Shape shape, double d, Tensor Parameters::*member) {
    list.push_back({std::string("transformer.") + name + ".weight", shape, d, member, nullptr, 0});
  };
  outer("wte", {config.vocab_size, c}, deviation, &Parameters::wte);
  outer("wpe", {config.block_size, c}, deviation, &Parameters::wpe);
  for (int block = 0; block < config.n_layer; ++block) {
    const auto inner = [&](const char* name, Shape shape, double d, Tensor BlockParameters::*member) {
      list.push_back({"transformer.h." + std::to_string(block) + "." + name + ".weight", shape, d, nullptr,
                      member, block});
    };
    inner("ln_1", {c}, 0, &BlockParameters::ln_1);
    inner("attn.c_attn", {3 * c, c}, deviation, &BlockParameters::c_attn);
    inner("attn.c_proj", {c, c}, residual_deviation, &BlockParameters::attn_proj);
    inner("ln_2", {c}, 0, &BlockParameters::ln_2);
    inner("mlp.c_fc", {4 * c, c}, deviation, &BlockParameters::c_fc);
    inner("mlp.c_proj", {c, 4 * c}, residual_deviation, &BlockParameters::mlp_proj);
  }
  outer("ln_f", {c}, 0, &Parameters::ln_f);
  return list;
}

ParameterArena::ParameterArena(Device& device, const ModelConfig& config, const std::string& name,
                               DType dtype, bool matrices_only)
    : arena(device, name) {
  tensors.h.resize(static_cast<size_t>(config.n_layer));
  for (const ParameterInfo& info : parameter_list(config))
    if (info.is_matrix() || !matrices_only) arena.add(info.in(tensors), info.name, dtype, info.shape);
  arena.commit();
}

Weights::Weights(Kernels& kernels, const ModelConfig& config, DType dtype)
    : kernels_(kernels), list_(parameter_list(config)), masters_(kernels.device(), config, "the weights") {
  operands_ = masters_.tensors;
  if (dtype == DType::f32) return;
  copies_ = std::make_unique<ParameterArena>(kernels.device(), config, "the bf16 weights", dtype, true);
  for (const ParameterInfo& info : list_)
    if (info.is_matrix()) info.in(operands_) = info.in(copies_->tensors);
}

Tensor Weights::bf16_copy(const ParameterInfo& info) const {
  return copies_ ? info.in(copies_->tensors) : Tensor{};
}

void Weights::refresh() {
  if (!copies_) return;
  for (const ParameterInfo& info : list_)
    if (info.is_matrix()) kernels_.cast(info.in(operands_), info.in(masters_.tensors));
}

void Weights::initialise(uint64_t seed) {
  uint32_t index = 0;
  for (const ParameterInfo& info : list_) {
    std::vector<float> values(static_cast<size_t>(info.shape.elements()), 1.0f);
    Random random(seed, Random::Purpose::weights, index++);
    if (info.deviation > 0)
      std::generate(values.begin(), values.end(),
                    [&] { return static_cast<float>(random.normal() * info.deviation); });
    kernels_.device().upload(info.in(masters_.tensors), values.data());
  }
  refresh();
}

}  // namespace topolm
