// ./bench --decode: what weights in fewer bits cost in loss, on text that the model draws from what it says
// in fp32. There the loss to be expected grows by the Kullback-Leibler divergence of the two predictions,
// exactly, token by token: no data is needed, and the noise of drawing tokens (0.0004 nats on 512 of them,
// more than int8 costs) is not in it.
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "engine/error.h"
#include "model/checkpoint.h"
#include "model/generator.h"
#include "model/trainer.h"
#include "tools/bench/decode.h"
#include "tools/random_tokens.h"

using nlohmann::json;

namespace topolm::bench {

namespace {

constexpr int kSteps = 300;       // of the model trained on the spot: half a second
constexpr int64_t kTokens = 512;  // of text

/// A language to learn, of 64 words: each has three that follow it, half, a quarter and a quarter of the
/// time.
TokenFile small_language() {
  constexpr uint64_t v = 64;
  Random random(5, Random::Purpose::tests);
  std::vector<uint16_t> followers(3 * v), tokens(1 << 18);
  for (uint16_t& f : followers) f = static_cast<uint16_t>(random.below(v));
  uint16_t last = 0;
  for (uint16_t& t : tokens) {
    const uint64_t draw = random.below(4);
    t = last = followers[3 * last + (draw < 2 ? 0 : draw - 1)];
  }
  return mapped_tokens(tokens);
}

fs::path train_small_model(Kernels& kernels, const fs::path& out) {
  const ModelConfig m = model_preset("nano");
  TrainConfig train = train_preset("nano");
  train.steps = kSteps;
  train.lr = 1e-2;  // its 36 units stand more than the larger models do
  Trainer trainer(kernels, m, train, make_sheets(m, "random", train.seed));
  const TokenFile tokens = small_language();
  const DataLoader data(tokens, train.batch, train.seq, train.seed);
  for (int step = 0; step < kSteps; ++step) trainer.step(data);
  return trainer.save(out, {}, "", 0);
}

struct TemporaryDirectory {
  fs::path path = fs::temp_directory_path() / fmt::format("topolm-bench-{}", getpid());
  TemporaryDirectory() { fs::create_directories(path); }
  ~TemporaryDirectory() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};

/// ln p of every token.
std::vector<double> log_probabilities(const std::vector<float>& logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  std::vector<double> p;
  for (const float logit : logits) p.push_back(logit - largest - std::log(sum));
  return p;
}

/// Nats a token: what fp32 expects to lose, and how much more each of `others` does.
struct Expectation {
  double loss = 0;
  std::vector<double> more;
};

Expectation expected_losses(Generator& exact, const std::vector<Generator*>& others) {
  const ModelConfig& m = exact.config();
  const int64_t length = std::min<int64_t>(m.block_size, 128), texts = ceil_div(kTokens, length);
  const auto share = 1 / static_cast<double>(texts * length);
  Expectation e{0, std::vector<double>(others.size())};
  Random random(6, Random::Purpose::tests);
  for (int64_t text = 0; text < texts; ++text) {
    exact.reset();
    for (Generator* other : others) other->reset();
    int32_t token = 0;
    for (int64_t i = 0; i < length; ++i) {
      exact.append({&token, 1});
      const std::vector<double> p = log_probabilities(exact.logits());
      for (const double ln : p) e.loss -= share * std::exp(ln) * ln;
      for (size_t k = 0; k < others.size(); ++k) {
        others[k]->append({&token, 1});
        const std::vector<double> q = log_probabilities(others[k]->logits());
        for (size_t j = 0; j < p.size(); ++j) e.more[k] += share * std::exp(p[j]) * (p[j] - q[j]);
      }
      token = exact.next({.temperature = 1}, random.uniform(), m.vocab_size);
    }
  }
  return e;
}

}  // namespace

json measure_weight_loss(const Options& o, int threads) {
  const auto kernels = make_kernels(o.device(threads));
  const TemporaryDirectory directory;
  const auto given = o.model.empty() ? std::nullopt : find_checkpoint(o.model);
  require(o.model.empty() || given, "--model: there is no checkpoint in '{}'", o.model);
  const fs::path checkpoint = given ? *given : train_small_model(*kernels, directory.path);

  Generator fp32(*kernels, checkpoint, DType::f32), bf16(*kernels, checkpoint, DType::bf16),
      int8(*kernels, checkpoint, DType::bf16, {.int8 = true});
  const Expectation e = expected_losses(fp32, {&bf16, &int8});
  print_line(o.markdown,
             fmt::format("loss, nats a token: fp32 {:.3f}, bf16 {:.5f} more, int8 {:.5f} more; of {}", e.loss,
                         e.more[0], e.more[1],
                         given ? given->string()
                               : fmt::format("a nano model trained {} steps for this; --model measures yours",
                                             kSteps)));
  return {{"model", given ? given->string() : fmt::format("nano, {} steps", kSteps)},
          {"fp32", e.loss},
          {"bf16_more", e.more[0]},
          {"int8_more", e.more[1]}};
}

}  // namespace topolm::bench
