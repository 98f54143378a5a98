#include "tools/bench/parts.h"

#include <algorithm>
#include <bit>

#include "engine/arena.h"
#include "engine/random.h"
#include "model/optimizer.h"
#include "tools/bench/step.h"

namespace topolm::bench {

namespace {

/// Not zeros, which processors multiply at less power, so at a higher clock.
const std::vector<float>& numbers() {
  static const std::vector<float> block = [] {
    std::vector<float> v(1 << 18);
    Random random(2, Random::Purpose::tests);
    for (float& x : v) x = static_cast<float>(random.uniform() - 0.5);
    return v;
  }();
  return block;
}

}  // namespace

void fill_with_numbers(Device& device, const Tensor& t) {
  std::vector<bf16> halves;
  const void* block = numbers().data();
  if (t.dtype == DType::bf16) {
    for (const float x : numbers())
      halves.push_back({static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16)});
    block = halves.data();
  }
  const int64_t piece = std::ssize(numbers());
  const Tensor flat = t.view({t.elements(), 1});
  for (int64_t i = 0; i < t.elements(); i += piece)
    device.upload(flat.row_range(i, std::min(piece, t.elements() - i)), block);
}

std::vector<int32_t> some_members(const ModelConfig& m) {
  const TopographyConfig& t = m.topography;
  const Neighborhoods hoods(t.rows, t.cols, t.radius);
  const std::vector<Sheet> sheets = make_sheets(m, "random", 1);
  const auto units = static_cast<size_t>(hoods.units());
  std::vector<int32_t> members(static_cast<size_t>(t.neighborhoods) * units);
  Random random(4, Random::Purpose::tests);
  size_t begin = 0;
  for (const int32_t index : random.draw(t.neighborhoods, hoods.count())) {
    hoods.members(sheets.front(), index, std::span(members).subspan(begin, units));
    begin += units;
  }
  return members;
}

Samples time_spatial(const Options& o, const std::string& preset, int threads) {
  const ModelConfig m = model_preset(preset);
  const TrainConfig train = bench_training(o, preset, "fp32");
  const int64_t rows = int64_t{train.batch} * train.seq, c = m.n_embd, hoods = m.topography.neighborhoods;
  const Neighborhoods table(m.topography.rows, m.topography.cols, m.topography.radius);
  const int64_t units = table.units();
  const auto kernels = make_kernels(o.device(threads));
  Device& device = kernels->device();
  Arena arena(device, "the spatial loss");
  const auto sites = static_cast<size_t>(m.sites());
  std::vector<Tensor> x(sites), mean(sites), gradient(sites);
  Tensor loss, dx, members, distance;
  for (size_t s = 0; s < sites; ++s) {
    arena.add(x[s], "activations", DType::f32, {rows, c});
    arena.add(mean[s], "mean", DType::f32, {c});
    arena.add(gradient[s], "gradient", DType::f32, {hoods, units, units});
  }
  arena.add(loss, "loss", DType::f32, {1});
  arena.add(dx, "dx", DType::f32, {rows, c});
  arena.add(members, "members", DType::i32, {hoods, units});
  arena.add(distance, "distance", DType::f32, {units, units});
  arena.commit();
  for (const Tensor& t : x) fill_with_numbers(device, t);
  device.upload(members, some_members(m).data());
  device.upload(distance, table.distances(m.topography.distance).data());
  return time_calls(o.seconds, [&](int64_t) {
    for (size_t s = 0; s < sites; ++s)
      kernels->spatial_loss_forward(loss, mean[s], gradient[s], x[s], members, distance,
                                    m.topography.aggregation);
    for (size_t s = sites; s-- > 0;)
      kernels->spatial_loss_backward(dx, x[s], mean[s], gradient[s], members, 2.5f);
  });
}

Samples time_optimizer(const Options& o, const std::string& preset, int threads) {
  const ModelConfig m = model_preset(preset);
  const TrainConfig train = bench_training(o, preset, "fp32");
  const auto kernels = make_kernels(o.device(threads));
  TopoLM model(*kernels, m, make_sheets(m, "random", train.seed), 1, 8, train.dtype, true);
  model.weights().initialise(train.seed);
  fill_with_numbers(kernels->device(), model.gradient_vector());
  Optimizer optimizer(model, train);
  return time_calls(o.seconds, [&](int64_t i) { optimizer.update(1e-4, i + 1); });
}

}  // namespace topolm::bench
