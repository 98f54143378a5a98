#include "model/intervention.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "engine/error.h"

namespace topolm {

std::map<int, std::vector<float>> unit_gains(std::span<const Intervention> interventions,
                                             const ModelConfig& config) {
  std::map<int, std::vector<float>> sites;
  for (const Intervention& i : interventions) {
    require(i.site >= 0 && i.site < config.sites(), "there is no site {}; the model has {}, numbered from 0",
            i.site, config.sites());
    std::vector<float>& site = sites[i.site];
    site.resize(static_cast<size_t>(config.n_embd), 1.0f);
    for (const int32_t unit : i.units) {
      require(unit >= 0 && unit < config.n_embd, "there is no unit {} in {}; it has {}, numbered from 0",
              unit, site_name(i.site), config.n_embd);
      float& gain = site[static_cast<size_t>(unit)];
      gain *= i.gain;
      require(std::isfinite(i.gain) && std::isfinite(gain), "unit {} of {} cannot have a gain of {}", unit,
              site_name(i.site), gain);
    }
  }
  std::erase_if(sites, [](const auto& site) {
    return std::all_of(site.second.begin(), site.second.end(), [](float g) { return g == 1; });
  });
  return sites;
}

void intervene(std::span<const Intervention> interventions, const ModelConfig& config, Device& device,
               Weights& weights) {
  const auto gains = unit_gains(interventions, config);
  for (const auto& [site, gain] : gains) {
    const BlockParameters& block = weights.fp32().h[static_cast<size_t>(site / 2)];
    const Tensor& projection = site % 2 == 0 ? block.attn_proj : block.mlp_proj;
    std::vector<float> values(static_cast<size_t>(projection.elements()));
    device.download(values.data(), projection);
    for (size_t unit = 0, i = 0; unit < gain.size(); ++unit)
      for (int64_t col = 0; col < projection.cols(); ++col) values[i++] *= gain[unit];
    device.upload(projection, values.data());
  }
  if (!gains.empty()) weights.refresh();
}

}  // namespace topolm
