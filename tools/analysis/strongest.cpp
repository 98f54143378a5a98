#include "tools/analysis/strongest.h"

#include <cmath>
#include <limits>

#include "engine/error.h"

namespace topolm {

namespace {

/// The list of one unit: k positions and their values, in order.
struct Ranking {
  uint16_t* positions;
  float* values;
  int k;

  void offer(float value, uint16_t position) {
    const auto before = [&](int i) {
      return value > values[i] || (value == values[i] && position < positions[i]);
    };
    if (!before(k - 1)) return;
    int i = k - 1;
    for (; i > 0 && before(i - 1); --i) values[i] = values[i - 1], positions[i] = positions[i - 1];
    values[i] = value, positions[i] = position;
  }
};

}  // namespace

StrongestTokens find_strongest(Subject& subject, std::span<const int32_t> tokens, int k) {
  constexpr int64_t kMost = 1 << 16;  // positions are 16 bits wide
  require(k > 0 && std::ssize(tokens) >= k && std::ssize(tokens) <= kMost,
          "a text of {} tokens does not do to find the {} strongest of; give {} to {}", tokens.size(), k,
          std::max(k, 1), kMost);
  const ModelConfig& config = subject.config();
  const auto context = static_cast<size_t>(config.block_size), units = static_cast<size_t>(config.n_embd);
  std::vector<std::vector<int32_t>> windows;
  for (size_t begin = 0; begin < tokens.size(); begin += context) {
    const auto window = tokens.subspan(begin, std::min(context, tokens.size() - begin));
    windows.emplace_back(window.begin(), window.end());
  }

  const size_t places = static_cast<size_t>(config.sites()) * units * static_cast<size_t>(k);
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  StrongestTokens strongest{{tokens.begin(), tokens.end()},
                            k,
                            std::vector<uint16_t>(places, std::numeric_limits<uint16_t>::max()),
                            std::vector<float>(places, kNone)};
  subject.run(windows, [&](std::span<const Subject::Sequence> batch) {
    for (int site = 0; site < config.sites(); ++site) {
      const std::vector<float> rows = subject.activations(site);
      for (const Subject::Sequence& s : batch)
        for (size_t u = 0; u < units; ++u) {
          const size_t place = (static_cast<size_t>(site) * units + u) * static_cast<size_t>(k);
          Ranking ranking{&strongest.positions[place], &strongest.values[place], k};
          for (size_t i = 0; i < static_cast<size_t>(s.tokens); ++i)
            ranking.offer(rows[(static_cast<size_t>(s.row) + i) * units + u],
                          static_cast<uint16_t>(s.index * context + i));
        }
    }
  });
  // What is no number is never stronger than kNone, and neither is a place that no number came to.
  for (const float value : strongest.values)
    require(std::isfinite(value), "the activations of '{}' are not finite; the model is damaged",
            subject.checkpoint().string());
  return strongest;
}

}  // namespace topolm
