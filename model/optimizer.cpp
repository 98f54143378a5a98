#include "model/optimizer.h"

#include <array>

#include "engine/profile.h"

namespace topolm {

Optimizer::Optimizer(TopoLM& model, const TrainConfig& config)
    : model_(model),
      config_(config),
      m_(model.kernels().device(), model.config(), "the first moments"),
      v_(model.kernels().device(), model.config(), "the second moments"),
      arena_(model.kernels().device(), "the gradient norm") {
  arena_.add(norm_and_scale_, "norm and scale", DType::f32, {2});
  arena_.commit();
  for (const ParameterInfo& info : parameter_list(model.config()))
    table_.push_back({info.in(model.weights().fp32()), info.in(model.gradients()), info.in(m_.tensors),
                      info.in(v_.tensors), model.weights().bf16_copy(info),
                      info.is_matrix() ? static_cast<float>(config.weight_decay) : 0.0f});
}

void Optimizer::update(double lr, int64_t step) {
  const Range range("optimizer");
  Kernels& k = model_.kernels();
  k.gradient_norm(norm_and_scale_, model_.gradient_vector(), static_cast<float>(config_.clip));
  k.adamw(table_, norm_and_scale_,
          {static_cast<float>(lr), static_cast<float>(config_.beta1), static_cast<float>(config_.beta2),
           static_cast<float>(config_.eps), step});
}

double Optimizer::norm() {
  std::array<float, 2> values{};
  model_.kernels().device().synchronize();
  model_.kernels().device().download(values.data(), norm_and_scale_);
  return values[0];
}

}  // namespace topolm
