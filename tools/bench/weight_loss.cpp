// ./bench --decode: what weights in fewer bits cost. The text is the model's own, drawn from what it says in
// fp32: the mean difference of the losses on it is then the Kullback-Leibler divergence of the two models'
// predictions, and needs no data.
#include <unistd.h>

#include <cmath>

#include "engine/error.h"
#include "model/checkpoint.h"
#include "model/trainer.h"
#include "tools/bench/decode.h"
#include "tools/decode_bench.h"
#include "tools/random_tokens.h"

using nlohmann::json;

namespace topolm::bench {

namespace {

constexpr int kSteps = 300;       // of the model trained on the spot: half a second
constexpr int64_t kTokens = 512;  // of text

/// A language to learn: each token has three that follow it, half, a quarter and a quarter of the time.
TokenFile small_language(int vocab_size) {
  const auto v = static_cast<uint64_t>(vocab_size);
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
  Trainer trainer(kernels, m, train, make_sheets(m, "random", train.seed));
  const TokenFile tokens = small_language(m.vocab_size);
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

/// Texts that the model writes when tokens are drawn just as probable as it says they are.
std::vector<std::vector<int32_t>> own_texts(Generator& generator) {
  const ModelConfig& m = generator.config();
  const int64_t length = std::min<int64_t>(m.block_size, 128);
  std::vector<std::vector<int32_t>> texts(static_cast<size_t>(ceil_div(kTokens, length)));
  Random random(6, Random::Purpose::tests);
  for (auto& text : texts) {
    generator.reset();
    text.push_back(static_cast<int32_t>(random.below(static_cast<uint64_t>(m.vocab_size))));
    while (std::ssize(text) <= length) {
      generator.append({&text.back(), 1});
      text.push_back(generator.next({.temperature = 1}, random.uniform(), m.vocab_size));
    }
  }
  return texts;
}

}  // namespace

json measure_weight_loss(const Options& o, int threads) {
  const auto kernels = make_kernels(o.device(threads));
  const TemporaryDirectory directory;
  const auto given = o.model.empty() ? std::nullopt : find_checkpoint(o.model);
  require(o.model.empty() || given, "--model: there is no checkpoint in '{}'", o.model);
  const fs::path checkpoint = given ? *given : train_small_model(*kernels, directory.path);

  Generator exact(*kernels, checkpoint, DType::f32);
  const auto texts = own_texts(exact);
  std::vector<double> base;
  for (const auto& text : texts) base.push_back(mean_loss(exact, text));
  json report = {{"model", given ? given->string() : fmt::format("nano, {} steps", kSteps)},
                 {"texts", texts.size()},
                 {"loss", Samples{base}.sum() / static_cast<double>(base.size())}};
  std::string line;
  for (const std::string weights : {"bf16", "int8"}) {
    Generator generator(*kernels, checkpoint, DType::bf16, {.int8 = weights == "int8"});
    double mean = 0, squares = 0;
    const auto n = static_cast<double>(texts.size());
    std::vector<double> changes;
    for (size_t i = 0; i < texts.size(); ++i) changes.push_back(mean_loss(generator, texts[i]) - base[i]);
    for (const double c : changes) mean += c / n;
    for (const double c : changes) squares += (c - mean) * (c - mean);
    const double error = n > 1 ? std::sqrt(squares / (n - 1) / n) : 0;
    line +=
        fmt::format("{}{} {:+.5f} (standard error {:.5f})", line.empty() ? "" : ", ", weights, mean, error);
    report[weights] = {{"loss_change", mean}, {"standard_error", error}};
  }
  print_line(o.markdown,
             fmt::format("loss, nats a token, on {} tokens that the model wrote itself: fp32 {:.3f}, {}",
                         texts.size() * (texts.front().size() - 1), report["loss"].get<double>(), line));
  print_line(
      o.markdown,
      given ? fmt::format("of {}", given->string())
            : fmt::format("of a nano model trained for {} steps just now; --model measures yours", kSteps));
  return report;
}

}  // namespace topolm::bench
