// Configuration, sheets, parameters and the learning-rate schedule: the published numbers, and what is
// refused.
#include <doctest/doctest.h>

#include <cmath>
#include <set>

#include "engine/error.h"
#include "engine/safetensors.h"
#include "model/topolm.h"
#include "model/trainer.h"
#include "tests/temporary.h"

using namespace topolm;

TEST_CASE("model: presets have the published sizes") {
  const ModelConfig base = model_preset("base");
  CHECK(base.head_size() == 49);
  CHECK(base.sites() == 24);
  CHECK(base.parameters() == 128771216);
  CHECK(base.parameters() - int64_t{base.block_size} * base.n_embd == 127968400);  // as nanoGPT counts
  for (const char* name : {"nano", "tiny", "base"}) {
    const ModelConfig c = model_preset(name);
    c.check();
    train_preset(name).check(c);
    int64_t elements = 0;
    for (const ParameterInfo& info : parameter_list(c)) elements += info.shape.elements();
    CHECK(elements == c.parameters());
  }
  CHECK(model_preset("tiny").n_embd == 196);
  CHECK(model_preset("nano").n_embd == 36);
  CHECK_THROWS_WITH_AS(model_preset("huge"), "there is no preset 'huge'; choose nano, tiny or base", Error);
}

TEST_CASE("model: the published learning-rate schedule") {
  const TrainConfig t = train_preset("base");
  CHECK(t.lr_at(0) == 0);
  CHECK(t.lr_at(1) == doctest::Approx(3.0e-7));
  CHECK(t.lr_at(2000) == doctest::Approx(6.0e-4));
  CHECK(t.lr_at(78000) == doctest::Approx(5.7876e-4).epsilon(1e-5));
  CHECK(t.lr_at(100000) == doctest::Approx(5.6500e-4).epsilon(1e-5));
  CHECK(t.lr_at(600000) == doctest::Approx(6.0e-5));
  CHECK(t.lr_at(700000) == doctest::Approx(6.0e-5));
  TrainConfig linear = t, constant = t;
  linear.schedule = Schedule::linear;
  constant.schedule = Schedule::constant;
  CHECK(linear.lr_at(301000) == doctest::Approx((6.0e-4 + 6.0e-5) / 2));
  CHECK(constant.lr_at(1000) == doctest::Approx(3.0e-4));
  CHECK(constant.lr_at(599999) == doctest::Approx(6.0e-4));
}

TEST_CASE("model: a configuration survives JSON") {
  ModelConfig c = model_preset("tiny");
  c.gelu = Gelu::tanh;
  c.topography = {7, 28, {0, 1, 2, 3, 4, 5, 6, 7}, 3, 2, Tap::post, Distance::linf, Aggregation::max, 0.25};
  c.check();
  const nlohmann::json j = c;
  CHECK(nlohmann::json(j.get<ModelConfig>()) == j);
  CHECK(c.topography.alpha_of(3) == 3);
  TrainConfig t = train_preset("base");
  t.schedule = Schedule::linear, t.dtype = DType::bf16, t.seed = UINT64_MAX;
  t.recompute = true;
  nlohmann::json k = t;
  CHECK(nlohmann::json(k.get<TrainConfig>()) == k);
  k.erase("recompute");  // of a checkpoint that is older than the field
  CHECK_FALSE(k.get<TrainConfig>().recompute);
  CHECK_THROWS_WITH_AS(
      nlohmann::json({{"n_layer", "four"}}).get<ModelConfig>(),
      "the field 'n_layer' of the configuration has the value \"four\", which is of the wrong type", Error);
}

TEST_CASE("model: what does not fit is refused in one sentence") {
  const auto error = [](auto change) {
    ModelConfig c = model_preset("tiny");
    change(c);
    return error_of([&] { c.check(); });
  };
  CHECK(contains(error([](ModelConfig& c) { c.n_head = 5; }), "n_embd 196 is not divisible by n_head 5"));
  CHECK(contains(error([](ModelConfig& c) { c.topography.cols = 13; }),
                 "a sheet of 14x13 holds 182 units, but n_embd is 196"));
  CHECK(contains(error([](ModelConfig& c) { c.topography.radius = 8; }),
                 "15x15 units, more than the 14x14 sheet"));
  CHECK(contains(error([](ModelConfig& c) { c.topography.radius = 1; }), "at least 2"));
  CHECK(contains(error([](ModelConfig& c) { c.topography.neighborhoods = 37; }), "between 1 and the 36"));
  CHECK(contains(error([](ModelConfig& c) { c.topography.alpha = {1, 2}; }), "2 values"));
  CHECK(contains(error([](ModelConfig& c) { c.topography.alpha = {-1}; }), "0 or more"));
  CHECK(contains(error([](ModelConfig& c) { c.n_layer = 0; }), "at least 1"));
  const auto train_error = [](auto change) {
    TrainConfig t = train_preset("tiny");
    change(t);
    return error_of([&] { t.check(model_preset("tiny")); });
  };
  CHECK(contains(train_error([](TrainConfig& t) { t.seq = 257; }), "--seq 257"));
  CHECK(contains(train_error([](TrainConfig& t) { t.batch = 0; }), "--batch 0"));
  CHECK(contains(train_error([](TrainConfig& t) { t.lr = std::nan(""); }), "--lr nan"));
  CHECK(contains(train_error([](TrainConfig& t) { t.beta2 = 1; }), "--beta2 1"));
}

TEST_CASE("topography: neighborhoods of the published sheet") {
  const Neighborhoods five(28, 28, 5), ten(28, 28, 10);
  CHECK(five.count() == 400);
  CHECK(five.units() == 81);
  CHECK(ten.count() == 100);
  CHECK(ten.units() == 361);

  // Centres in row-major order; members by place: index 21 is the centre (5, 5) of a radius-5 sheet, so its
  // members are rows and columns 1 to 9.
  const Sheet sheet("identity", 28, 28, Sheet::identity(28, 28));
  std::vector<int32_t> members(81);
  five.members(sheet, 21, members);
  CHECK(members[0] == 1 * 28 + 1);
  CHECK(members[8] == 1 * 28 + 9);
  CHECK(members[80] == 9 * 28 + 9);
  CHECK_THROWS_AS(five.members(sheet, 400, members), Error);
}

TEST_CASE("topography: the distance table is D, centred and normalised over pairs") {
  const Neighborhoods block(9, 9, 5);
  for (const Distance norm : {Distance::l2, Distance::l1, Distance::linf}) {
    const auto table = block.distances(norm);
    double sum = 0, squares = 0, smallest = 1, largest = -1;
    for (size_t i = 0; i < 81; ++i) {
      CHECK(table[i * 81 + i] == 0);
      for (size_t j = i + 1; j < 81; ++j) {
        const double d = table[i * 81 + j];
        CHECK(table[j * 81 + i] == table[i * 81 + j]);
        sum += d, squares += d * d, smallest = std::min(smallest, d), largest = std::max(largest, d);
      }
    }
    CHECK(sum == doctest::Approx(0).epsilon(1e-6));
    CHECK(squares == doctest::Approx(1).epsilon(1e-6));
    if (norm ==
        Distance::l2) {  // mean 0.2085613080, population variance 0.0098369308, range of D over 3240 pairs
      const double deviation = std::sqrt(0.0098369308 * 3240);
      CHECK(smallest * deviation + 0.2085613080 == doctest::Approx(0.0812103031).epsilon(1e-7));
      CHECK(largest * deviation + 0.2085613080 == doctest::Approx(0.5).epsilon(1e-7));
    }
  }
}

TEST_CASE("topography: positions are a bijection onto the sheet, or refused") {
  CHECK(Sheet::permutation(14, 14, 1, 0) == Sheet::permutation(14, 14, 1, 0));
  CHECK(Sheet::permutation(14, 14, 1, 0) != Sheet::permutation(14, 14, 1, 1));
  CHECK(Sheet::permutation(14, 14, 1, 0) != Sheet::permutation(14, 14, 2, 0));
  const Sheet random("random", 3, 5, Sheet::permutation(3, 5, 9, 2));
  for (int row = 0; row < 3; ++row)
    for (int col = 0; col < 5; ++col)
      CHECK(random.positions()[static_cast<size_t>(random.unit_at(row, col))] == Position{row, col});

  const auto error = [](std::vector<Position> positions) {
    return error_of([&] { Sheet("here", 2, 2, std::move(positions)); });
  };
  CHECK(error({{0, 0}, {0, 1}, {1, 0}, {1, 1}}).empty());
  CHECK(error({{0, 0}, {0, 1}, {1, 0}, {0, 1}}) ==
        "here puts units 1 and 3 both at (0, 1); positions must be a bijection onto the sheet");
  CHECK(contains(error({{0, 0}, {0, 1}, {1, 0}, {1, 2}}), "outside the 2x2 sheet"));
  CHECK(contains(error({{0, 0}}), "places 1 units on a sheet of 2x2"));
}

TEST_CASE("topography: positions from a file") {
  const TemporaryDirectory directory;
  const ModelConfig config = model_preset("nano");
  const fs::path path = directory / "positions.safetensors";
  std::vector<std::vector<Position>> places;
  std::vector<HostTensor> tensors;
  for (int site = 0; site < config.sites(); ++site) places.push_back(Sheet::permutation(6, 6, 4, site));
  for (int site = 0; site < config.sites(); ++site)
    tensors.push_back({positions_name(site), DType::i32, {36, 2}, places[static_cast<size_t>(site)].data()});
  write_safetensors(path, tensors);
  const auto sheets = make_sheets(config, path.string(), 0);
  for (size_t site = 0; site < sheets.size(); ++site) CHECK(sheets[site].positions() == places[site]);

  places[1][0] = places[1][1];
  write_safetensors(path, tensors);
  const std::string error = error_of([&] { make_sheets(config, path.string(), 0); });
  CHECK(contains(error, path.string()));
  CHECK(contains(error, "topography.h.0.mlp"));
  CHECK(contains(error, "bijection"));
  places[1] = Sheet::identity(6, 6);
  tensors[1].data = places[1].data();
  tensors.pop_back();
  write_safetensors(path, tensors);
  CHECK(contains(error_of([&] { make_sheets(config, path.string(), 0); }), "topography.h.1.mlp"));
}

TEST_CASE("model: initial weights have the published deviations and depend on the seed alone") {
  const auto kernels = make_kernels({"cpu", 2, ""});
  const ModelConfig config = model_preset("tiny");
  const auto values = [&](uint64_t seed) {
    Weights weights(*kernels, config, DType::f32);
    weights.initialise(seed);
    std::vector<std::vector<float>> all;
    for (const ParameterInfo& info : parameter_list(config)) {
      all.emplace_back(static_cast<size_t>(info.shape.elements()));
      kernels->device().download(all.back().data(), info.in(weights.fp32()));
    }
    return all;
  };
  const auto a = values(1), b = values(2);
  CHECK(a == values(1));
  const auto list = parameter_list(config);
  for (size_t i = 0; i < list.size(); ++i) {
    CAPTURE(list[i].name);
    if (!list[i].is_matrix()) {
      for (const float x : a[i]) CHECK(x == 1);
      continue;
    }
    CHECK(a[i] != b[i]);
    double squares = 0;
    for (const float x : a[i]) squares += double{x} * x;
    const bool projection = contains(list[i].name, "c_proj");
    CHECK(std::sqrt(squares / static_cast<double>(a[i].size())) ==
          doctest::Approx(projection ? 0.02 / std::sqrt(8) : 0.02).epsilon(0.02));
  }
}

TEST_CASE("model: neighborhoods are drawn anew for every site and micro-batch, without replacement") {
  const auto kernels = make_kernels({"cpu", 1, ""});
  const ModelConfig config = model_preset("tiny");
  TopoLM model(*kernels, config, make_sheets(config, "random", 1), 1, 2, DType::f32, false);
  const auto draws = model.draw_neighborhoods(1, 0, 0);
  CHECK(draws == model.draw_neighborhoods(1, 0, 0));
  CHECK(draws != model.draw_neighborhoods(1, 0, 1));
  CHECK(draws != model.draw_neighborhoods(1, 1, 0));
  CHECK(draws[0] != draws[1]);
  for (const auto& site : draws) {
    CHECK(std::set<int32_t>(site.begin(), site.end()).size() == 5);
    for (const int32_t index : site) CHECK((index >= 0 && index < 36));
  }
}

TEST_CASE("model: the network alone computes what the network with its losses does") {
  const auto kernels = make_kernels({"cpu", 2, ""});
  const ModelConfig config = model_preset("nano");
  TopoLM model(*kernels, config, make_sheets(config, "random", 1), 3, 50, DType::f32, false);
  model.weights().initialise(1);
  std::vector<int32_t> tokens(150), targets(150);
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<int32_t>(i * i % 500);
    targets[i] = i % 7 == 0 ? -1 : static_cast<int32_t>(i % 500);
  }
  const auto sites = [&] {
    std::vector<std::vector<float>> all(4, std::vector<float>(150 * 36));
    for (size_t site = 0; site < all.size(); ++site)
      kernels->device().download(all[site].data(), model.site(static_cast<int>(site)));
    return all;
  };
  model.set_batch(3, 50, tokens, targets, model.draw_neighborhoods(1, 0, 0));
  model.forward();
  const auto with_losses = sites();
  model.set_batch(1, 2, std::span(tokens).last(2), std::span(targets).last(2));
  model.run_network();
  model.set_batch(3, 50, tokens, targets);
  model.run_network();
  CHECK(sites() == with_losses);

  model.zero_losses();
  model.evaluate();
  const std::vector<float> losses = model.token_losses(), logits = model.logits();
  REQUIRE(losses.size() == 150);
  double sum = 0;
  for (size_t row = 0; row < losses.size(); ++row) {
    sum += losses[row];
    if (targets[row] < 0) {
      CHECK(losses[row] == 0);
      continue;
    }
    double exponentials = 0;
    for (size_t i = 0; i < 512; ++i) exponentials += std::exp(double{logits[row * 512 + i]});
    CHECK(losses[row] ==
          doctest::Approx(std::log(exponentials) - logits[row * 512 + static_cast<size_t>(targets[row])])
              .epsilon(1e-6));
  }
  CHECK(model.losses().task == doctest::Approx(sum / (150 - 22)).epsilon(1e-6));
  // Not the neighborhoods of the batch before the last, in silence.
  CHECK_THROWS_WITH_AS(model.forward(), "a batch without neighborhoods has no spatial loss", Error);
}
