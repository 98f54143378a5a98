// Whole training steps against the numbers of the reference implementation: every golden set in
// $TOPOLM_GOLDEN (tests/golden by default), of any shapes. Names and layout: tests/golden/README.md.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/error.h"
#include "engine/safetensors.h"
#include "model/optimizer.h"
#include "tests/kernel_test.h"

using namespace topolm;
using namespace topolm::test;

namespace {

Values host_values(const HostTensor& t) {
  Values values(static_cast<size_t>(t.shape.elements()));
  for (size_t i = 0; i < values.size(); ++i) {
    const char* p = static_cast<const char*>(t.data) + 4 * i;
    float f;
    int32_t n;
    std::memcpy(&f, p, 4);
    std::memcpy(&n, p, 4);
    values[i] = t.dtype == DType::i32 ? n : static_cast<double>(f);
  }
  return values;
}

std::vector<int32_t> ids(const HostTensor& t) {
  const Values values = host_values(t);
  return {values.begin(), values.end()};
}

Values device_values(Device& device, const Tensor& t) {
  Values values(static_cast<size_t>(t.elements()));
  device.synchronize();
  if (t.dtype == DType::bf16) {
    std::vector<bf16> halves(values.size());
    device.download(halves.data(), t);
    std::transform(halves.begin(), halves.end(), values.begin(), bf16_to_float);
  } else {
    std::vector<float> floats(values.size());
    device.download(floats.data(), t);
    std::copy(floats.begin(), floats.end(), values.begin());
  }
  return values;
}

double largest_difference(const Values& a, const Values& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  return worst;
}

struct Tolerance {
  double loss, output, tensor;  // absolute, absolute (fp32) or relative (bf16), relative
};

void check_golden_set(const std::filesystem::path& json_path, Kernels& kernels, DType dtype, bool recompute) {
  const Tolerance tolerance = dtype == DType::f32 ? Tolerance{1e-5, 5e-5, 2e-5} : Tolerance{2e-2, 2e-2, 2e-2};
  const auto json = nlohmann::json::parse(std::ifstream(json_path));
  const SafetensorsFile golden(std::filesystem::path(json_path).replace_extension(".safetensors"));

  nlohmann::json config_json = json.at("config");
  config_json["topography"] = config_json;  // the sets list all fields side by side
  const auto places = ids(golden.get("coordinates"));
  int rows = 0, cols = 0;
  for (size_t i = 0; i < places.size(); i += 2) {
    rows = std::max(rows, places[i] + 1);
    cols = std::max(cols, places[i + 1] + 1);
  }
  config_json["topography"]["sheet"] = {rows, cols};
  const auto config = config_json.get<ModelConfig>();
  std::vector<Sheet> sheets;
  for (int site = 0; site < config.sites(); ++site) {
    std::vector<Position> positions;
    for (int unit = 0; unit < config.n_embd; ++unit) {
      const size_t i = 2 * static_cast<size_t>(site * config.n_embd + unit);
      positions.push_back({places[i], places[i + 1]});
    }
    sheets.emplace_back("coordinates", rows, cols, positions);
  }

  const int64_t batch = json.at("batch"), time = json.at("time");
  TopoLM model(kernels, config, sheets, batch, time, dtype, true, recompute);
  TrainConfig train;
  const auto& adamw = json.at("adamw");
  train.beta1 = adamw.at("betas").at(0), train.beta2 = adamw.at("betas").at(1);
  train.eps = adamw.at("eps"), train.weight_decay = adamw.at("weight_decay"),
  train.clip = adamw.at("grad_clip");
  Optimizer optimizer(model, train);

  Device& device = kernels.device();
  const auto golden_name = [](const ParameterInfo& info) {
    return info.name.substr(sizeof "transformer." - 1);
  };
  for (const ParameterInfo& info : parameter_list(config)) {
    const HostTensor& start = golden.get("step0.param." + golden_name(info));
    REQUIRE(start.shape == info.shape);
    device.upload(info.in(model.weights().fp32()), start.data);
  }
  model.weights().refresh();

  const auto& steps = json.at("steps");
  for (size_t step = 0; step < steps.size(); ++step) {
    CAPTURE(step);
    const auto& expected = steps[step];
    const std::string prefix = fmt::format("step{}.", step);
    model.set_batch(batch, time, ids(golden.get(prefix + "tokens")), ids(golden.get(prefix + "targets")),
                    expected.at("neighborhoods").get<std::vector<std::vector<int32_t>>>());
    model.zero_losses();
    model.zero_gradients();
    model.forward();
    if (golden.contains(prefix + "logits")) {
      const auto logits = model.logits();
      const Values got(logits.begin(), logits.end()), want = host_values(golden.get(prefix + "logits"));
      CHECK((dtype == DType::f32 ? largest_difference(got, want) : relative_error(got, want)) <
            tolerance.output);
    }
    for (int site = 0; site < config.sites(); ++site) {
      const std::string name = fmt::format("{}site{}", prefix, site);
      if (recompute || !golden.contains(name)) continue;
      CAPTURE(name);
      const Values got = device_values(device, model.site(site)), want = host_values(golden.get(name));
      CHECK((dtype == DType::f32 ? largest_difference(got, want) : relative_error(got, want)) <
            tolerance.output);
    }
    model.backward();

    const Losses losses = model.losses();
    CHECK(std::abs(losses.task - expected.at("task_loss").get<double>()) < tolerance.loss);
    for (int site = 0; site < config.sites(); ++site)
      CHECK(std::abs(losses.spatial[static_cast<size_t>(site)] -
                     expected.at("spatial_loss").at(static_cast<size_t>(site)).get<double>()) <
            tolerance.loss);
    CHECK(std::abs(losses.total(config.topography) - expected.at("total_loss").get<double>()) <
          tolerance.loss);
    for (const ParameterInfo& info : parameter_list(config)) {
      const std::string name = prefix + "grad." + golden_name(info);
      if (!golden.contains(name)) continue;
      CAPTURE(name);
      CHECK(relative_error(device_values(device, info.in(model.gradients())), host_values(golden.get(name))) <
            tolerance.tensor);
    }
    optimizer.update(expected.at("lr"), static_cast<int64_t>(step) + 1);
    const double norm = expected.at("grad_norm");
    CHECK(std::abs(optimizer.norm() - norm) < tolerance.tensor * norm);
  }
  for (const ParameterInfo& info : parameter_list(config)) {
    const std::string name = "final.param." + golden_name(info);
    CAPTURE(name);
    CHECK(relative_error(device_values(device, info.in(model.weights().fp32())),
                         host_values(golden.get(name))) < tolerance.tensor);
  }
}

void check_all(DType dtype) {
  const char* named = std::getenv("TOPOLM_GOLDEN");
  const std::filesystem::path directory = named ? named : "tests/golden";
  int sets = 0;
  REQUIRE(std::filesystem::is_directory(directory));
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (entry.path().extension() != ".json") continue;
    CAPTURE(entry.path().string());
    for (const bool recompute : {false, true})
      for_each_device([&](Kernels& kernels) { check_golden_set(entry.path(), kernels, dtype, recompute); });
    ++sets;
  }
  CHECK(sets > 0);
}

}  // namespace

TEST_CASE("golden: losses, activations, gradients and AdamW steps in fp32") { check_all(DType::f32); }

TEST_CASE("golden: the same with bf16 matrix operands") { check_all(DType::bf16); }
