#include "kernels/sampling.h"

#include <algorithm>
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

int32_t sample(std::span<const float> logits, const Sampling& config, double uniform) {
  const auto best = std::max_element(logits.begin(), logits.end());
  if (best == logits.end() || !std::isfinite(*best)) return -1;
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
  double target = uniform * sum();
  for (const Candidate& c : candidates)
    if ((target -= c.p) < 0) return c.id;
  return candidates.back().id;  // rounding left a crumb
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
