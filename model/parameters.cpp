#include "model/parameters.h"

#include <algorithm>
#include <cmath>

#include "engine/random.h"

namespace topolm {

namespace {
constexpr int64_t kPiece = 1 << 20;  // initial values at a time: all of base's wte are 158 MB, at the peak
}

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

std::vector<const Arena*> Weights::arenas() const {
  std::vector<const Arena*> all = {&masters_.arena};
  if (copies_) all.push_back(&copies_->arena);
  return all;
}

void Weights::refresh() {
  if (!copies_) return;
  for (const ParameterInfo& info : list_)
    if (info.is_matrix()) kernels_.cast(info.in(operands_), info.in(masters_.tensors));
}

void Weights::initialise(uint64_t seed) {
  uint32_t index = 0;
  for (const ParameterInfo& info : list_) {
    Random random(seed, Random::Purpose::weights, index++);
    const int64_t count = info.shape.elements();
    const Tensor weight = info.in(masters_.tensors).view({count, 1});
    std::vector<float> piece(static_cast<size_t>(std::min(count, kPiece)), 1.0f);
    for (int64_t begin = 0; begin < count; begin += kPiece) {
      const int64_t size = std::min(kPiece, count - begin);
      if (info.deviation > 0)
        std::generate_n(piece.begin(), size,
                        [&] { return static_cast<float>(random.normal() * info.deviation); });
      kernels_.device().upload(weight.row_range(begin, size), piece.data());
    }
  }
  refresh();
}

}  // namespace topolm
