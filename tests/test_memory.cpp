// What a training step keeps in memory, and that what it does not keep is computed again to the same bits.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "engine/error.h"
#include "kernels/cuda/dry_device.h"
#include "kernels/cuda/matrix_products.h"
#include "kernels/simt/simt_device.h"
#include "model/trainer.h"
#include "tests/kernel_test.h"
#include "tests/temporary.h"

using namespace topolm;
using test::for_each_device;

namespace topolm::simt_kernels {
std::unique_ptr<Kernels> make_gpu_kernels(std::unique_ptr<GpuDevice> device,
                                          std::unique_ptr<MatrixProducts> products);
}

namespace {

/// Odd everywhere: 3 heads of 15, batches of 3 x 17.
ModelConfig odd_model() {
  ModelConfig c = model_preset("nano");
  c.n_layer = 3, c.n_head = 3, c.n_embd = 45, c.block_size = 17, c.vocab_size = 67;
  c.topography.rows = 5, c.topography.cols = 9;
  return c;
}

/// Losses, gradient norms and the last weights of some steps: every one of them to the bit.
struct Outcome {
  std::vector<double> numbers;
  std::vector<float> gradient, weights;

  bool operator==(const Outcome& o) const {
    return numbers == o.numbers && std::ranges::equal(gradient, o.gradient) &&
           std::ranges::equal(weights, o.weights);
  }
};

std::vector<float> all_of(Device& device, const Tensor& vector) {
  std::vector<float> values(static_cast<size_t>(vector.elements()));
  device.synchronize();
  device.download(values.data(), vector);
  return values;
}

Outcome train(Kernels& kernels, const ModelConfig& config, DType dtype, bool recompute) {
  const int64_t batch = 3, time = 17;
  TopoLM model(kernels, config, make_sheets(config, "random", 1), batch, time, dtype, true, recompute);
  TrainConfig train;
  train.lr = 1e-2, train.recompute = recompute;
  Optimizer optimizer(model, train);
  model.weights().initialise(3);
  Outcome outcome;
  for (int step = 0; step < 3; ++step) {
    model.zero_losses();
    model.zero_gradients();
    for (const int64_t b : {batch, batch - 1}) {  // a full batch, and a smaller one
      std::vector<int32_t> tokens(static_cast<size_t>(b * time)), targets(tokens.size());
      for (size_t i = 0; i < tokens.size(); ++i) {
        tokens[i] = static_cast<int32_t>((i * 7 + static_cast<size_t>(step)) % 67);
        targets[i] = i % 5 == 3 ? -1 : 66 - tokens[i];
      }
      model.set_batch(b, time, tokens, targets, model.draw_neighborhoods(1, step, b));
      model.forward_backward(0.5f);
    }
    optimizer.update(train.lr, step + 1);
    const Losses losses = model.losses();
    outcome.numbers.push_back(losses.task);
    outcome.numbers.push_back(losses.decay);
    outcome.numbers.push_back(optimizer.norm());
    outcome.numbers.insert(outcome.numbers.end(), losses.spatial.begin(), losses.spatial.end());
  }
  outcome.gradient = all_of(kernels.device(), model.gradient_vector());
  for (const ParameterInfo& info : parameter_list(config)) {
    const auto values = all_of(kernels.device(), info.in(model.weights().fp32()));
    outcome.weights.insert(outcome.weights.end(), values.begin(), values.end());
  }
  return outcome;
}

}  // namespace

TEST_CASE("memory: a step that recomputes gives the same bits") {
  for_each_device([](Kernels& kernels) {
    for (const DType dtype : {DType::f32, DType::bf16})
      for (const Tap tap : {Tap::pre, Tap::post})
        for (const Aggregation aggregation : {Aggregation::mean, Aggregation::max})
          for (const double decay : {0.0, 0.1}) {
            CAPTURE(to_word(dtype));
            CAPTURE(to_word(tap));
            CAPTURE(to_word(aggregation));
            CAPTURE(decay);
            ModelConfig config = odd_model();
            config.topography.tap = tap;
            config.topography.aggregation = aggregation;
            config.topography.activation_decay = decay;
            config.topography.alpha = {2.5, 0, 1, 0.5, 0, 3};  // sites without a gradient among them
            const Outcome kept = train(kernels, config, dtype, false);
            CHECK(std::all_of(kept.numbers.begin(), kept.numbers.end(),
                              [](double x) { return std::isfinite(x); }));
            CHECK(kept == train(kernels, config, dtype, true));
          }
  });
}

TEST_CASE("memory: a model without gradients keeps its sites, and they are those of one in training") {
  for_each_device([](Kernels& kernels) {
    for (const DType dtype : {DType::f32, DType::bf16})
      for (const Tap tap : {Tap::pre, Tap::post}) {
        CAPTURE(to_word(dtype));
        CAPTURE(to_word(tap));
        ModelConfig config = odd_model();
        config.topography.tap = tap;
        std::vector<int32_t> tokens(34);
        for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * i % 67);
        const auto sites = [&](bool training) {
          TopoLM model(kernels, config, make_sheets(config, "random", 1), 2, 17, dtype, training);
          model.weights().initialise(3);
          model.set_batch(2, 17, tokens, tokens, model.draw_neighborhoods(1, 0, 0));
          model.forward();
          model.evaluate();
          std::vector<std::vector<char>> all;
          for (int site = 0; site < config.sites(); ++site) {
            const Tensor t = model.site(site);
            CHECK(t.shape == Shape{34, 45});
            CHECK(t.dtype == (tap == Tap::pre ? dtype : DType::f32));
            all.emplace_back(static_cast<size_t>(t.bytes()));
            kernels.device().synchronize();
            kernels.device().download(all.back().data(), t);
          }
          return all;
        };
        CHECK(sites(false) == sites(true));
      }
  });
}

TEST_CASE("memory: activations that are recomputed cannot be read") {
  const auto kernels = make_kernels();
  const ModelConfig config = odd_model();
  const TopoLM model(*kernels, config, make_sheets(config, "random", 1), 1, 17, DType::f32, true, true);
  CHECK(error_of([&] { (void)model.site(0); }) ==
        "the activations of a model that recomputes them cannot be read; plan it without `recompute`");
}

TEST_CASE("memory: base at 8 x 1024 fits 8 GB, and hardly a byte of a plan is idle at its fullest moment") {
  LaunchLog log;
  const auto kernels = make_dry_kernels(log);  // addresses without memory
  const auto activations = [&](const std::string& preset, int64_t batch, int64_t time, DType dtype, Tap tap,
                               bool training, bool recompute) {
    ModelConfig config = model_preset(preset);
    config.topography.tap = tap;
    const TopoLM model(*kernels, config, make_sheets(config, "random", 1), batch, time, dtype, training,
                       recompute);
    const Arena& arena = *model.arenas().back();
    CAPTURE(preset);
    CAPTURE(to_word(dtype));
    CAPTURE(training);
    CAPTURE(recompute);
    for (const MemoryUse& use : arena.usage())
      if (use.name == "between them")
        CHECK(use.bytes < (preset == "base" ? 0.02 : 0.1) * static_cast<double>(arena.bytes()));
    return static_cast<double>(arena.bytes());
  };
  const double parameters = static_cast<double>(model_preset("base").parameters());
  for (const Tap tap : {Tap::pre, Tap::post}) {
    CAPTURE(to_word(tap));
    const auto base = [&](DType dtype, bool training, bool recompute) {
      return activations("base", 8, 1024, dtype, tap, training, recompute);
    };
    const double fp32 = base(DType::f32, true, false), bf16 = base(DType::bf16, true, false);
    const double less = base(DType::f32, true, true), least = base(DType::bf16, true, true);
    CHECK(16 * parameters + less < 4e9);
    CHECK(18 * parameters + least < 4e9);
    CHECK(less < 0.3 * fp32);
    CHECK(least < 0.4 * bf16);
    CHECK(bf16 < 0.57 * fp32);
    // Without gradients: the sites, and what one block needs.
    CHECK(base(DType::f32, false, false) < (2.0 * 12 + 16) * 8 * 1024 * 784 * 4);
    for (const DType dtype : {DType::f32, DType::bf16})
      for (const bool recompute : {false, true}) activations("tiny", 8, 256, dtype, tap, true, recompute);
  }
}

TEST_CASE("memory: the table's sum is what the device was asked for") {
  class CountingDevice final : public SimtDevice {
   public:
    CountingDevice(int64_t& held, std::map<void*, int64_t>& blocks)
        : SimtDevice(1), held_(held), blocks_(blocks) {}
    void* allocate(size_t bytes, const std::string& what) override {
      void* const memory = SimtDevice::allocate(bytes, what);
      held_ += blocks_[memory] = static_cast<int64_t>(bytes);
      return memory;
    }
    void release(void* memory) noexcept override {
      if (const auto block = blocks_.find(memory); block != blocks_.end()) {
        held_ -= block->second;
        blocks_.erase(block);
      }
      SimtDevice::release(memory);
    }

   private:
    int64_t& held_;
    std::map<void*, int64_t>& blocks_;
  };
  const ModelConfig config = odd_model();
  const TemporaryDirectory directory;
  const TokenFile tokens(directory.write("tokens.bin", std::string(400, '\0')));
  for (const DType dtype : {DType::f32, DType::bf16}) {
    CAPTURE(to_word(dtype));
    int64_t held = 0;
    std::map<void*, int64_t> blocks;
    const auto counting =
        simt_kernels::make_gpu_kernels(std::make_unique<CountingDevice>(held, blocks), nullptr);
    const auto cpu = make_kernels({"cpu", 2, ""});
    for (Kernels* kernels : {counting.get(), cpu.get()}) {
      TrainConfig train;
      train.batch = 3, train.seq = 17, train.dtype = dtype;
      Trainer trainer(*kernels, config, train, make_sheets(config, "random", 1));
      trainer.step(DataLoader(tokens, train.batch, train.seq, 1));
      int64_t sum = 0, arenas = 0, parameters = 0;
      for (const MemoryUse& row : trainer.memory()) {
        CHECK(row.bytes > 0);
        CHECK(!row.name.starts_with("the "));
        sum += row.bytes;
        if (row.name == "weights") parameters = row.bytes;
      }
      CHECK(parameters >= 4 * config.parameters());
      CHECK(parameters < 4 * config.parameters() + 256 * std::ssize(parameter_list(config)));
      for (const Arena* arena : trainer.model().arenas()) arenas += arena->bytes();
      CHECK(kernels->working_memory() > 0);
      CHECK(sum == arenas + 2 * parameters + 256 + kernels->working_memory());  // moments, gradient norm
      if (kernels == counting.get()) CHECK(sum == held);
    }
  }
}
