// Training as a whole: the same bits at any thread count and across stop and resume, losses that fall,
// gradients that add up, checkpoints that are whole or refused.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "engine/error.h"
#include "kernels/sampling.h"
#include "model/generator.h"
#include "model/trainer.h"
#include "tests/kernel_test.h"
#include "tests/temporary.h"

using namespace topolm;
using test::test_devices;

namespace {

/// A token file with something to learn: each token is the one before it times 5 plus 3, with some noise.
fs::path write_tokens(const TemporaryDirectory& directory, int64_t count, uint32_t vocabulary = 61) {
  Random random(3, Random::Purpose::tests);
  std::vector<uint16_t> tokens(static_cast<size_t>(count));
  uint32_t last = 1;
  for (uint16_t& t : tokens) {
    last =
        random.below(10) == 0 ? static_cast<uint32_t>(random.below(vocabulary)) : (last * 5 + 3) % vocabulary;
    t = static_cast<uint16_t>(last);
  }
  return directory.write("tokens.bin", {reinterpret_cast<const char*>(tokens.data()), tokens.size() * 2});
}

ModelConfig nano(Tap tap = Tap::pre) {
  ModelConfig c = model_preset("nano");
  c.vocab_size = 64;
  c.block_size = 32;
  c.topography.tap = tap;
  return c;
}

TrainConfig short_run(int accumulate = 1) {
  TrainConfig t = train_preset("nano");
  t.steps = 20, t.batch = 3, t.seq = 17, t.accumulate = accumulate, t.warmup = 3, t.lr = 1e-2;
  return t;
}

Trainer make_trainer(Kernels& kernels, const ModelConfig& config, const TrainConfig& train) {
  return Trainer(kernels, config, train, make_sheets(config, "random", train.seed));
}

std::vector<float> all_weights(Trainer& trainer) {
  std::vector<float> all;
  Device& device = trainer.model().kernels().device();
  for (const ParameterInfo& info : parameter_list(trainer.model().config())) {
    const size_t begin = all.size();
    all.resize(begin + static_cast<size_t>(info.shape.elements()));
    device.download(all.data() + begin, info.in(trainer.model().weights().fp32()));
  }
  return all;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

TEST_CASE("training: the same bits at 1, 2 and 3 threads, in fp32 and bf16, both taps") {
  const TemporaryDirectory directory;
  const TokenFile tokens(write_tokens(directory, 5000));
  for (DeviceOptions options : test_devices())
    for (const DType dtype : {DType::f32, DType::bf16})
      for (const Tap tap : {Tap::pre, Tap::post}) {
        CAPTURE(options.isa);
        std::vector<float> expected;
        for (const int threads : {1, 2, 3}) {
          CAPTURE(threads);
          options.threads = threads;
          const auto kernels = make_kernels(options);
          TrainConfig train = short_run(2);
          train.dtype = dtype;
          Trainer trainer = make_trainer(*kernels, nano(tap), train);
          const DataLoader data(tokens, train.batch, train.seq, train.seed);
          for (int step = 0; step < 5; ++step) trainer.step(data);
          const auto weights = all_weights(trainer);
          if (expected.empty()) expected = weights;
          CHECK(same_bits(weights, expected));
        }
      }
}

TEST_CASE("training: 20 steps are 7 steps, stop, resume, 13 steps, to the bit") {
  const TemporaryDirectory directory;
  const TokenFile tokens(write_tokens(directory, 5000));
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const auto kernels = make_kernels({"auto", 2, ""});
    TrainConfig train = short_run(2);
    train.dtype = dtype;
    const DataLoader data(tokens, train.batch, train.seq, train.seed);
    Trainer straight = make_trainer(*kernels, nano(), train);
    std::vector<double> losses;
    for (int step = 0; step < 20; ++step) losses.push_back(straight.step(data).losses.task);

    const fs::path out = directory / to_word(dtype);
    {
      Trainer first = make_trainer(*kernels, nano(), train);
      for (int step = 0; step < 7; ++step)
        CHECK(first.step(data).losses.task == losses[static_cast<size_t>(step)]);
      first.save(out, {}, "", 1);
    }
    const fs::path checkpoint = find_checkpoint(out).value();
    CHECK(checkpoint.filename() == "checkpoint-000007");
    const ModelConfig config = load_config(checkpoint);
    CHECK(nlohmann::json(config) == nlohmann::json(nano()));
    TrainConfig other_seed = load_trainer_state(checkpoint).train;
    Trainer second(*kernels, config, other_seed, load_sheets(checkpoint, config));
    second.resume(checkpoint);
    CHECK(second.steps_done() == 7);
    for (size_t step = 7; step < 20; ++step) CHECK(second.step(data).losses.task == losses[step]);
    CHECK(same_bits(all_weights(second), all_weights(straight)));
  }
}

TEST_CASE("training: the batch prepared ahead is used for its own data and step only") {
  const TemporaryDirectory directory;
  const fs::path file = write_tokens(directory, 5000);
  const TokenFile tokens(file), again(file);
  const auto kernels = make_kernels({"auto", 2, ""});
  const TrainConfig train = short_run();
  const DataLoader data(tokens, train.batch, train.seq, train.seed);
  const DataLoader other(tokens.slice(1000, 3000), train.batch, train.seq, train.seed);
  CHECK(data == DataLoader(tokens, train.batch, train.seq, train.seed));
  CHECK(data != other);
  CHECK(data != DataLoader(tokens, train.batch, train.seq, train.seed + 1));
  CHECK(data != DataLoader(again, train.batch, train.seq, train.seed));  // another mapping

  // Step 2 on other data, then back to the checkpoint after step 1 and step 2 on the first data.
  Trainer straight = make_trainer(*kernels, nano(), train), turning = make_trainer(*kernels, nano(), train);
  straight.step(data), turning.step(data);
  const fs::path checkpoint = turning.save(directory / "out", {}, "", 1);
  const double expected = straight.step(data).losses.task;
  CHECK(turning.step(other).losses.task != expected);
  turning.resume(checkpoint);
  CHECK(turning.step(data).losses.task == expected);
  CHECK(same_bits(all_weights(turning), all_weights(straight)));
}

TEST_CASE("training: the loss falls, the spatial loss too; the control keeps its spatial loss") {
  const TemporaryDirectory directory;
  const TokenFile tokens(write_tokens(directory, 20000));
  const auto kernels = make_kernels();
  TrainConfig train = short_run();
  train.steps = 150, train.batch = 8;
  const DataLoader data(tokens, train.batch, train.seq, train.seed);
  const auto run = [&](double alpha) {
    ModelConfig config = nano();
    config.topography.alpha = {alpha};
    Trainer trainer = make_trainer(*kernels, config, train);
    for (int64_t step = 0; step < train.steps; ++step) trainer.step(data);
    return trainer.evaluate(EvalLoader(tokens, train.batch, train.seq), 10);
  };
  const Losses topographic = run(2.5), control = run(0);
  CHECK(topographic.task < 2.5);  // log(61) = 4.1 at the start
  CHECK(control.task < 2.5);
  CHECK(topographic.mean_spatial() < 0.15);
  CHECK(control.mean_spatial() > 0.35);
}

TEST_CASE("training: twenty steps of nano on a GPU device follow the CPU's losses") {
  const TemporaryDirectory directory;
  const TokenFile tokens(write_tokens(directory, 20000, 509));
  const ModelConfig config = model_preset("nano");
  TrainConfig train = train_preset("nano");
  train.steps = 20;
  const DataLoader data(tokens, train.batch, train.seq, train.seed);
  const auto cpu = make_kernels({"cpu", 2, ""});
  for (const std::string& name : gpu_devices()) {
    CAPTURE(name);
    const auto gpu = make_kernels({name, 2, ""});
    Trainer expected = make_trainer(*cpu, config, train), trainer = make_trainer(*gpu, config, train);
    for (int step = 0; step < 20; ++step) {
      CAPTURE(step);
      const StepReport want = expected.step(data), got = trainer.step(data);
      CHECK(std::abs(got.losses.task - want.losses.task) < 1e-3);
      CHECK(std::abs(got.losses.mean_spatial() - want.losses.mean_spatial()) < 1e-3);
      CHECK(std::abs(got.norm - want.norm) < 1e-3 * want.norm);
    }
  }
}

TEST_CASE("training: gradient accumulation adds micro-batches up, a site's alpha is its own") {
  const auto kernels = make_kernels();
  ModelConfig config = nano();
  const int64_t batch = 2, time = 9;
  std::vector<int32_t> tokens(static_cast<size_t>(batch * time)), targets(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<int32_t>(i * 7 % 64), targets[i] = tokens[i] / 2;
  targets[3] = -1;
  const auto gradient = [&](const std::vector<double>& alpha, double decay, int micro_batches) {
    config.topography.alpha = alpha;
    config.topography.activation_decay = decay;
    TopoLM model(*kernels, config, make_sheets(config, "random", 1), batch, time, DType::f32, true);
    model.weights().initialise(5);
    model.zero_gradients();
    model.zero_losses();
    for (int i = 0; i < micro_batches; ++i) {
      model.set_batch(batch, time, tokens, targets, model.draw_neighborhoods(1, 0, 0));
      model.forward(1.0f / static_cast<float>(micro_batches));
      model.backward(1.0f / static_cast<float>(micro_batches));
    }
    test::Values values(static_cast<size_t>(model.gradient_vector().elements()));
    std::vector<float> raw(values.size());
    kernels->device().download(raw.data(), model.gradient_vector());
    return std::pair{test::Values(raw.begin(), raw.end()), model.losses().total(config.topography)};
  };
  const auto one = gradient({2.5}, 0.1, 1), three = gradient({2.5}, 0.1, 3);
  CHECK(test::relative_error(three.first, one.first) < 1e-6);
  CHECK(three.second == doctest::Approx(one.second).epsilon(1e-6));

  // The gradient is linear in each alpha: those of two single sites add up.
  const auto none = gradient({0, 0, 0, 0}, 0, 1), second = gradient({0, 2, 0, 0}, 0, 1);
  const auto fourth = gradient({0, 0, 0, 3}, 0, 1), both = gradient({0, 2, 0, 3}, 0, 1);
  test::Values sum = second.first;
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += fourth.first[i] - none.first[i];
  CHECK(test::relative_error(both.first, sum) < 1e-5);
  CHECK(test::relative_error(second.first, none.first) > 1e-3);
}

TEST_CASE("training: the gradient of the whole loss is its derivative") {
  // Central differences in fp32 are good to about 1e-3: enough to see a term that is missing or counted
  // twice.
  const auto kernels = make_kernels();
  for (const Tap tap : {Tap::pre, Tap::post})
    for (const Aggregation aggregation : {Aggregation::mean, Aggregation::max}) {
      ModelConfig config = nano(tap);
      config.topography.aggregation = aggregation;
      config.topography.activation_decay = 0.05;
      const int64_t batch = 4, time = 16;
      TopoLM model(*kernels, config, make_sheets(config, "random", 1), batch, time, DType::f32, true);
      model.weights().initialise(5);
      std::vector<int32_t> tokens(static_cast<size_t>(batch * time)), targets(tokens.size());
      for (size_t i = 0; i < tokens.size(); ++i)
        tokens[i] = static_cast<int32_t>(i * 7 % 64), targets[i] = 63 - tokens[i];
      model.set_batch(batch, time, tokens, targets, model.draw_neighborhoods(1, 0, 0));
      const auto total = [&] {
        model.zero_losses();
        model.forward();
        model.evaluate();
        return model.losses().total(config.topography);
      };
      model.zero_losses();
      model.zero_gradients();
      model.forward();
      model.backward();
      Device& device = kernels->device();
      for (const ParameterInfo& info : parameter_list(config)) {
        CAPTURE(info.name);
        const size_t n = static_cast<size_t>(info.shape.elements());
        std::vector<float> gradient(n), weights(n), moved(n);
        device.download(gradient.data(), info.in(model.gradients()));
        device.download(weights.data(), info.in(model.weights().fp32()));
        double norm = 0;
        for (const float g : gradient) norm += double{g} * g;
        norm = std::sqrt(norm);
        REQUIRE(norm > 0);
        const double step = 3e-4;
        const auto at = [&](double sign) {
          for (size_t i = 0; i < n; ++i)
            moved[i] = static_cast<float>(weights[i] + sign * step * gradient[i] / norm);
          device.upload(info.in(model.weights().fp32()), moved.data());
          return total();
        };
        const double slope = (at(1) - at(-1)) / (2 * step);
        device.upload(info.in(model.weights().fp32()), weights.data());
        CHECK(slope == doctest::Approx(norm).epsilon(0.01));
      }
    }
}

TEST_CASE("training: a loss that is not finite stops the run") {
  const TemporaryDirectory directory;
  const auto kernels = make_kernels();
  TrainConfig train = short_run();
  train.lr = 1e30, train.warmup = 0, train.clip = 0;
  const TokenFile tokens(write_tokens(directory, 5000));
  const DataLoader data(tokens, train.batch, train.seq, train.seed);
  Trainer trainer = make_trainer(*kernels, nano(), train);
  const std::string error = error_of([&] {
    for (int step = 0; step < 5; ++step) trainer.step(data);
  });
  CHECK(contains(error, "the loss is not finite at step"));
  CHECK(contains(error, "lower --lr"));
}

TEST_CASE("checkpoint: damaged, cut or foreign ones are refused, half-written ones ignored") {
  const TemporaryDirectory directory;
  const auto kernels = make_kernels();
  Trainer trainer = make_trainer(*kernels, nano(), short_run());
  const fs::path out = directory / "out";
  const fs::path checkpoint = trainer.save(out, {}, "", 1);
  const auto load = [&](const fs::path& from) {
    return error_of([&] {
      const ModelConfig config = load_config(from);
      Trainer other(*kernels, config, load_trainer_state(from).train, load_sheets(from, config));
      other.resume(from);
    });
  };
  CHECK(load(checkpoint).empty());

  fs::create_directories(out / "checkpoint-000099.partial");  // a kill in the middle of a save
  CHECK(find_checkpoint(out) == checkpoint);
  CHECK_FALSE(find_checkpoint(directory / "nowhere").has_value());

  const auto damaged = [&](const std::string& file, auto change) {
    const fs::path copy = directory / "copy";
    fs::remove_all(copy);
    fs::copy(checkpoint, copy);
    std::string bytes = read_file(copy / file);
    change(bytes);
    write_file(copy / file, bytes);
    const std::string error = load(copy);
    CHECK(contains(error, file));
    CHECK_FALSE(contains(error, "\n"));
  };
  for (const char* file : {"model.safetensors", "optimizer.safetensors"}) {
    damaged(file, [](std::string& b) { b.resize(b.size() / 2); });
    damaged(file, [](std::string& b) { b.resize(4); });
    damaged(file, [](std::string& b) { b[10] ^= 0x40; });
    damaged(file, [](std::string& b) { b += "more"; });
  }
  damaged("config.json", [](std::string& b) { b.resize(b.size() / 2); });
  damaged("config.json", [](std::string& b) { b = "[]"; });
  damaged("trainer.json", [](std::string& b) { b = "{}"; });
  // A configuration of another shape: the error names the file whose tensors do not fit it.
  const fs::path copy = directory / "copy";
  fs::remove_all(copy);
  fs::copy(checkpoint, copy);
  auto json = nlohmann::json::parse(read_file(copy / "config.json"));
  json["vocab_size"] = 96;
  write_file(copy / "config.json", json.dump());
  CHECK(contains(load(copy),
                 "transformer.wte.weight is fp32 [64, 36], but the configuration makes it fp32 [96, 36]"));
}

TEST_CASE("generator: the cache gives the logits of the whole sequence, also past the context") {
  const TemporaryDirectory directory;
  for (const auto& options : test_devices()) {
    CAPTURE(options.isa);
    const auto kernels = make_kernels(options);
    const ModelConfig config = nano();
    Trainer trainer = make_trainer(*kernels, config, short_run());
    const fs::path out = directory / options.isa;
    const fs::path checkpoint = trainer.save(out, {}, "", 1);
    const int64_t time = 17;
    std::vector<int32_t> tokens(static_cast<size_t>(time));
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * 11 % 64);
    TopoLM& model = trainer.model();
    model.set_batch(1, time, tokens, tokens, model.draw_neighborhoods(1, 0, 0));
    model.forward();
    const auto expected = model.logits();
    for (const size_t chunk : {1, 2, 5, 17}) {
      Generator generator(*kernels, checkpoint, DType::f32, {.prefill = 4});
      for (size_t i = 0; i < tokens.size(); i += chunk)
        generator.append(std::span(tokens).subspan(i, std::min(chunk, tokens.size() - i)));
      const std::vector<float> logits = generator.logits();
      const test::Values got(logits.begin(), logits.end());
      CHECK(test::relative_error(got, {expected.end() - config.vocab_size, expected.end()}) < 1e-5);
    }
    // 40 tokens in a context of 32: after the 32nd, the newer 16 are kept.
    Generator long_text(*kernels, checkpoint, DType::f32), fresh(*kernels, checkpoint, DType::f32);
    std::vector<int32_t> many(40);
    for (size_t i = 0; i < many.size(); ++i) many[i] = static_cast<int32_t>(i * 13 % 64);
    for (const int32_t id : many) long_text.append({&id, 1});
    long_text.append(std::vector<int32_t>{7});
    const std::vector<float> slid = long_text.logits();
    const test::Values got(slid.begin(), slid.end());
    std::vector<int32_t> kept(many.begin() + 16, many.end());
    kept.push_back(7);
    fresh.append(kept);
    const std::vector<float> direct = fresh.logits();
    CHECK(test::relative_error(got, {direct.begin(), direct.end()}) < 1e-5);
  }
}

TEST_CASE("generator: tokens are drawn on the device as sample() draws them from the logits") {
  const TemporaryDirectory directory;
  for (const auto& options : test_devices()) {
    CAPTURE(options.name);
    CAPTURE(options.isa);
    const auto kernels = make_kernels(options);
    Trainer trainer = make_trainer(*kernels, nano(), short_run());
    const fs::path checkpoint = trainer.save(directory / (options.name + options.isa), {}, "", 1);
    Generator generator(*kernels, checkpoint, DType::f32);
    generator.append(std::vector<int32_t>{1, 2, 3});
    Random random(1, Random::Purpose::tests);
    for (const Sampling& sampling : {Sampling{0, 0, 1, 0}, {1, 0, 1, 0}, {2, 5, 1, 0}, {2, 0, 0.5, 0}})
      for (const int64_t known : {64, 40, 1}) {
        CAPTURE(known);
        const std::vector<float> logits = generator.logits();
        const double uniform = random.uniform();
        const int32_t token = generator.next(sampling, uniform, known);
        CHECK(token == sample(std::span(logits).first(static_cast<size_t>(known)), sampling,
                              static_cast<float>(uniform)));
        generator.append({&token, 1});
      }
    // In fp32 this is 1, which is no token's.
    const int32_t last = generator.next({1, 0, 1, 0}, 1 - 0x1p-32, 64);
    CHECK((last >= 0 && last < 64));

    // A weight that is not a number, in the row that the last token reads.
    const ModelConfig config = nano();
    std::vector<float> wte(static_cast<size_t>(config.vocab_size) * config.n_embd, NAN);
    kernels->device().upload(trainer.model().weights().fp32().wte, wte.data());
    Generator damaged(*kernels, trainer.save(directory / "damaged", {}, "", 1), DType::f32);
    damaged.append(std::vector<int32_t>{1});
    CHECK(error_of([&] { damaged.next({}, 0.5, 64); }) ==
          "the model's logits are not finite; its weights are damaged or driven too far");
  }
}

TEST_CASE("sampling: temperature, top-k, top-p, min-p") {
  const std::vector<float> logits = {std::log(0.1f), std::log(0.4f), std::log(0.3f), std::log(0.2f)};
  const auto frequencies = [&](const Sampling& config) {
    Random random(1, Random::Purpose::tests);
    std::array<double, 4> f{};
    for (int i = 0; i < 20000; ++i)
      f[static_cast<size_t>(sample(logits, config, random.uniform()))] += 1 / 20000.0;
    return f;
  };
  const auto plain = frequencies({1.0, 0, 1.0, 0.0});
  for (size_t i = 0; i < 4; ++i) CHECK(plain[i] == doctest::Approx(std::exp(logits[i])).epsilon(0.05));
  CHECK(frequencies({0.0, 0, 1.0, 0.0})[1] == doctest::Approx(1));
  CHECK(frequencies({1.0, 1, 1.0, 0.0})[1] == doctest::Approx(1));
  const auto two = frequencies({1.0, 2, 1.0, 0.0});
  CHECK(two[0] + two[3] == 0);
  CHECK(two[1] == doctest::Approx(4.0 / 7).epsilon(0.03));
  const auto nucleus = frequencies({1.0, 0, 0.6, 0.0});  // 0.4 is not enough, 0.4 + 0.3 is
  CHECK(nucleus[0] + nucleus[3] == 0);
  const auto likely = frequencies({1.0, 0, 1.0, 0.6});  // 0.24 and more
  CHECK(likely[0] + likely[3] == 0);
  CHECK(likely[2] > 0.3);
  const auto cold = frequencies({0.5, 0, 1.0, 0.0});
  CHECK(cold[1] == doctest::Approx(0.16 / 0.30).epsilon(0.03));
  Random random(1, Random::Purpose::tests);
  for (const Sampling& bad : {Sampling{-1, 0, 1, 0}, {1, -1, 1, 0}, {1, 0, 0, 0}, {1, 0, 1, 2}})
    CHECK_THROWS_AS(bad.check(), Error);
  CHECK(sample(std::vector<float>{NAN, NAN}, {}, 0.5) == -1);
}
