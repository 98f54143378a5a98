// Decoding with weights of its own: what int8 costs, interventions on the way in, losses token by token.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "engine/error.h"
#include "model/intervention.h"
#include "model/trainer.h"
#include "tests/kernel_test.h"
#include "tests/temporary.h"
#include "tools/bench/decode_speed.h"

using namespace topolm;
using test::test_devices;

namespace {

ModelConfig nano() {
  ModelConfig c = model_preset("nano");
  c.vocab_size = 97;
  c.block_size = 32;
  return c;
}

TrainConfig short_run() {
  TrainConfig t = train_preset("nano");
  t.batch = 1, t.seq = 32;
  return t;
}

/// A model of weights that make something of the tokens: as initialised, but ten times as large.
struct Subject {
  explicit Subject(Kernels& kernels)
      : trainer(kernels, nano(), short_run(), make_sheets(nano(), "random", 1)) {
    for (const ParameterInfo& info : parameter_list(nano()))
      if (info.is_matrix())
        change(info, [](auto& values) {
          for (float& x : values) x *= 10;
        });
  }

  template <class F>
  void change(const ParameterInfo& info, F&& f) {
    Device& device = trainer.model().kernels().device();
    const Tensor t = info.in(trainer.model().weights().fp32());
    std::vector<float> values(static_cast<size_t>(t.elements()));
    device.download(values.data(), t);
    f(values);
    device.upload(t, values.data());
  }
  fs::path save(const std::string& name) { return trainer.save(directory / name, {}, "", 1); }

  TemporaryDirectory directory;
  Trainer trainer;
};

std::vector<int32_t> some_tokens(int count) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * i * 11 % 97);
  return tokens;
}

test::Values logits_of(Generator& generator, std::span<const int32_t> tokens, size_t chunk) {
  generator.reset();
  for (size_t i = 0; i < tokens.size(); i += chunk)
    generator.append(tokens.subspan(i, std::min(chunk, tokens.size() - i)));
  const std::vector<float> logits = generator.logits();
  return {logits.begin(), logits.end()};
}

/// Nats a token of a text that fits into the context, each token predicted from all before it as it is when
/// text is generated. The difference between two generators is what their formats cost.
double mean_loss(Generator& generator, std::span<const int32_t> tokens) {
  require(tokens.size() >= 2 && std::ssize(tokens) <= generator.config().block_size + 1,
          "a loss needs 2 to {} tokens, not {}", generator.config().block_size + 1, tokens.size());
  generator.reset();
  double sum = 0;
  for (size_t i = 0; i + 1 < tokens.size(); ++i) {
    generator.append(tokens.subspan(i, 1));
    const std::vector<float> logits = generator.logits();
    const double largest = *std::max_element(logits.begin(), logits.end());
    double exponentials = 0;
    for (const float logit : logits) exponentials += std::exp(logit - largest);
    sum += largest + std::log(exponentials) - logits.at(static_cast<size_t>(tokens[i + 1]));
  }
  return sum / static_cast<double>(tokens.size() - 1);
}

}  // namespace

TEST_CASE("decoding: int8 weights are near the weights, and exactly what they say") {
  for (const auto& options : test_devices()) {
    if (options.name != "cpu") continue;
    CAPTURE(options.isa);
    const auto kernels = make_kernels(options);
    Subject subject(*kernels);
    const fs::path plain = subject.save("plain");
    // The same weights rounded to what int8 can say: in fp32 they must be what int8 computes.
    for (const ParameterInfo& info : parameter_list(nano())) {
      if (!info.is_matrix() || info.outer == &Parameters::wpe) continue;
      const auto cols = static_cast<size_t>(info.shape[1]);
      subject.change(info, [cols](std::vector<float>& values) {
        for (size_t begin = 0; begin < values.size(); begin += cols) {
          const auto row = std::span(values).subspan(begin, cols);
          float largest = 0;
          for (const float w : row) largest = std::max(largest, std::abs(w));
          for (float& w : row) w = std::nearbyint(w * (127 / largest)) * (largest / 127);
        }
      });
    }
    const fs::path rounded = subject.save("rounded");

    const auto tokens = some_tokens(19);
    Generator exact(*kernels, plain, DType::f32), near(*kernels, rounded, DType::f32);
    for (const DType dtype : {DType::f32, DType::bf16}) {
      Generator int8(*kernels, plain, dtype, {.int8 = true, .prefill = 7});
      const auto got = logits_of(int8, tokens, 19);
      CHECK(test::relative_error(got, logits_of(near, tokens, 19)) < 4e-3 * (dtype == DType::f32 ? 1 : 4));
      const double error = test::relative_error(got, logits_of(exact, tokens, 19));
      CHECK(error < 2e-2);
      CHECK(error > 1e-4);  // it is another set of weights
      for (const size_t chunk : {1, 3, 6})
        CHECK(test::relative_error(logits_of(int8, tokens, chunk), got) <
              (dtype == DType::f32 ? 2e-3 : 1e-2));
      CHECK(logits_of(int8, tokens, 1) == logits_of(int8, tokens, 1));
    }
  }
}

TEST_CASE("decoding: a generator reads weights with interventions as a model has them") {
  const std::vector<Intervention> interventions = {
      {0, {3, 5}, 0}, {3, {0, 35}, 2.5f}, {3, {35}, -0.7f}, {2, {1, 2, 3}, 1}};
  for (const auto& options : test_devices())
    for (const DType dtype : {DType::f32, DType::bf16}) {
      CAPTURE(options.name);
      CAPTURE(options.isa);
      const auto kernels = make_kernels(options);
      Subject subject(*kernels);
      const fs::path plain = subject.save("plain");
      TopoLM& model = subject.trainer.model();
      intervene(interventions, model.config(), kernels->device(), model.weights());
      const fs::path changed = subject.save("changed");
      const auto tokens = some_tokens(9);
      Generator before(*kernels, plain, dtype),
          after(*kernels, plain, dtype, {.interventions = interventions}), expected(*kernels, changed, dtype);
      CHECK(logits_of(after, tokens, 9) == logits_of(expected, tokens, 9));
      CHECK(logits_of(after, tokens, 9) != logits_of(before, tokens, 9));
    }
}

TEST_CASE("decoding: the loss of a text, token by token, is the model's") {
  const auto kernels = make_kernels({"cpu", 2, ""});
  Subject subject(*kernels);
  const auto tokens = some_tokens(33);  // as many as a context of 32 can predict
  TopoLM& model = subject.trainer.model();
  model.set_batch(1, 32, std::span(tokens).first(32), std::span(tokens).last(32));
  model.run_network();
  model.zero_losses();
  model.evaluate();
  const fs::path checkpoint = subject.save("model");
  Generator fp32(*kernels, checkpoint, DType::f32), bf16(*kernels, checkpoint, DType::bf16),
      int8(*kernels, checkpoint, DType::f32, {.int8 = true});
  const double expected = model.losses().task, loss = mean_loss(fp32, tokens);
  CHECK(loss == doctest::Approx(expected).epsilon(1e-5));
  CHECK(std::abs(mean_loss(bf16, tokens) - loss) < 0.02);
  CHECK(std::abs(mean_loss(int8, tokens) - loss) < 0.02);
  CHECK(mean_loss(int8, tokens) != loss);
  CHECK_THROWS_AS(mean_loss(fp32, std::span(tokens).first(1)), Error);
  CHECK_THROWS_AS(mean_loss(fp32, some_tokens(34)), Error);
}

TEST_CASE("decoding: speed is measured, and bytes are those of the format") {
  const auto kernels = make_kernels({"cpu", 2, ""});
  const ModelConfig config = nano();
  const double c = 36, matrices = 2 * 12 * c * c + 97 * c, rows = 2 * 9 * c + 97, cache = 2 * 2 * c;
  const auto bytes = [&](DType dtype, bool int8) {
    const bench::DecodeSpeed speed = bench::decode_speed(*kernels, config, dtype, int8, 8);
    CHECK(speed.tokens_per_second > 0);
    CHECK(speed.prefill_tokens_per_second > 0);
    return speed.bytes_per_token;
  };
  const double half = 16 + 4;  // the position halfway: a prompt of 16, 4 of 8 tokens
  CHECK(bytes(DType::f32, false) == 4 * matrices + 4 * half * cache);
  CHECK(bytes(DType::bf16, false) == 2 * matrices + 2 * half * cache);
  CHECK(bytes(DType::f32, true) == matrices + 4 * rows + 2 * half * cache);
}

TEST_CASE("decoding: int8 on a device without it is one sentence") {
  for (const auto& options : test_devices()) {
    if (options.name == "cpu") continue;
    const auto kernels = make_kernels(options);
    CHECK(contains(error_of([&] { Generator(*kernels, nano(), DType::f32, {.int8 = true}); }),
                   "int8 weights are for the CPU, not for " + options.name + "; use --device cpu"));
  }
}
