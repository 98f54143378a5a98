#include "kernels/sampling.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <numeric>
#include <vector>

#include "engine/error.h"

namespace topolm {

void Sampling::check() const {
  require(std::isfinite(temperature) && temperature >= 0, "--temperature {} must be 0 or more", temperature);
  require(top_k >= 0, "--top-k {} must be 0 (all tokens) or more", top_k);
  require(top_p > 0 && top_p <= 1, "--top-p {} must lie in (0, 1]", top_p);
  require(min_p >= 0 && min_p <= 1, "--min-p {} must lie in [0, 1]", min_p);
}

float sampling_scale(double temperature) {
  constexpr double kLog2E = 1.4426950408889634;
  return static_cast<float>(std::min(kLog2E / temperature, double{FLT_MAX}));
}

uint64_t weight_drawn(uint64_t total, double uniform) { return drawn_weight(total, uniform); }

int64_t token_reaching(std::span<const float> logits, float best, float scale, uint64_t wanted) {
  uint64_t sum = 0;
  for (size_t i = 0; i < logits.size(); ++i)
    if ((sum += sampling_weight(relative_probability(logits[i], best, scale))) >= wanted)
      return static_cast<int64_t>(i);
  fail("the weights of {} tokens do not add up", logits.size());
}

int32_t sample(std::span<const float> logits, const Sampling& config, double uniform) {
  const auto best = std::max_element(logits.begin(), logits.end());
  if (best == logits.end() || !std::isfinite(*best) ||
      std::any_of(logits.begin(), logits.end(), [](float x) { return std::isnan(x); }))
    return -1;
  if (config.temperature == 0) return static_cast<int32_t>(best - logits.begin());

  struct Candidate {
    int32_t id;
    float p;  // relative to the best token's
    uint64_t weight;
  };
  std::vector<Candidate> candidates(logits.size());
  const float scale = sampling_scale(config.temperature);
  for (size_t i = 0; i < logits.size(); ++i) {
    const float p = relative_probability(logits[i], *best, scale);
    candidates[i] = {static_cast<int32_t>(i), p, sampling_weight(p)};
  }
  const auto likelier = [](const Candidate& a, const Candidate& b) {
    return a.p != b.p ? a.p > b.p : a.id < b.id;
  };
  const auto total = [&] {
    return std::accumulate(candidates.begin(), candidates.end(), uint64_t{0},
                           [](uint64_t sum, const Candidate& c) { return sum + c.weight; });
  };
  // The first candidate at which the running sum of weights reaches `wanted`.
  const auto reached = [&](uint64_t wanted) {
    uint64_t sum = 0;
    return std::find_if(candidates.begin(), candidates.end(),
                        [&](const Candidate& c) { return (sum += c.weight) >= wanted; });
  };
  if (const auto k = static_cast<size_t>(config.top_k); k > 0 && k < candidates.size()) {
    std::nth_element(candidates.begin(), candidates.begin() + config.top_k, candidates.end(), likelier);
    candidates.resize(k);
  }
  if (config.top_p < 1) {
    std::sort(candidates.begin(), candidates.end(), likelier);
    candidates.erase(reached(top_p_weight(total(), config.top_p)) + 1, candidates.end());
  }
  std::erase_if(candidates, [&](const Candidate& c) { return c.p < config.min_p; });
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  return reached(drawn_weight(total(), uniform))->id;
}

std::vector<int32_t> token_order(std::span<const int32_t> tokens) {
  std::vector<int32_t> order(tokens.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return tokens[static_cast<size_t>(a)] < tokens[static_cast<size_t>(b)];
  });
  return order;
}

}  // namespace topolm
