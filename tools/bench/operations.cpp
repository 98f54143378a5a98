#include "tools/bench/operations.h"

#include <algorithm>

#include "engine/arena.h"
#include "engine/error.h"
#include "engine/random.h"
#include "tools/bench/parts.h"
#include "tools/bench/step.h"

using nlohmann::json;

namespace topolm::bench {

namespace {

/// Several times what the last level of the caches holds, of which some stays however it is read; but no more
/// than fills in a moment.
int64_t cold_bytes() { return std::clamp<int64_t>(6 * cache_size(3), 64 << 20, 768 << 20); }

constexpr int64_t kMemoryLimit = int64_t{1} << 30;  // for copies of operands of which little is touched

std::vector<int32_t> some_tokens(int64_t n, int64_t vocab_size) {
  std::vector<int32_t> tokens(static_cast<size_t>(n));
  Random random(3, Random::Purpose::tests);
  for (int32_t& t : tokens) t = static_cast<int32_t>(random.below(static_cast<uint64_t>(vocab_size)));
  return tokens;
}

void fill(Device& device, const Tensor& t, Operand::Content content, const ModelConfig& m) {
  using Content = Operand::Content;
  if (content == Content::zero) return;  // memory comes zeroed
  std::vector<int32_t> ids;
  if (content == Content::tokens) ids = some_tokens(t.elements(), m.vocab_size);
  if (content == Content::order) ids = token_order(some_tokens(t.elements(), m.vocab_size));
  if (content == Content::members) ids = some_members(m);
  if (content == Content::position) ids = {m.block_size / 2};
  if (!ids.empty()) return device.upload(t, ids.data());
  fill_with_numbers(device, t);
}

}  // namespace

Measured measure(const Options& o, Kernels& k, const ModelConfig& m, const Case& c,
                 const Ceilings& ceilings) {
  Measured result{&c, {}, false, 0, false};
  int64_t allocated = 0;
  for (const Operand& operand : c.operands) allocated += operand.shape.elements() * size_of(operand.dtype);
  const auto wanted = static_cast<int64_t>(static_cast<double>(cold_bytes()) / c.bytes()) + 1;
  const int64_t calls = o.seconds > 0 ? 4096 : 4;  // at most that many copies are ever used
  const int64_t copies = std::clamp<int64_t>(std::min(wanted, kMemoryLimit / allocated), 1, calls);
  Arena arena(k.device(), "an operation's operands");
  std::vector<std::vector<Tensor>> tensors(static_cast<size_t>(copies));
  for (auto& set : tensors) {
    set.resize(c.operands.size());
    for (size_t i = 0; i < set.size(); ++i)
      arena.add(set[i], c.name, c.operands[i].dtype, c.operands[i].shape);
  }
  arena.commit();
  for (auto& set : tensors)
    for (size_t i = 0; i < set.size(); ++i) fill(k.device(), set[i], c.operands[i].content, m);

  const double flops = c.flops / ceilings.multiply_add.at(c.dtype == "int8" ? "fp32" : c.dtype);
  const double bytes = std::max(c.bytes_read() / ceilings.memory.read, c.bytes() / ceilings.memory.best());
  result.by_flops = flops > bytes;
  result.floor = std::max(flops, bytes);
  try {
    result.seconds =
        time_calls(o.seconds / 4, [&](int64_t i) { c.run(tensors[static_cast<size_t>(i % copies)]); });
  } catch (const Error&) {
    if (c.dtype != "int8") throw;
    result.refused = true;
  }
  return result;
}

namespace {

json to_json(const Measured& m) {
  const Case& c = *m.what;
  json j = {{"name", c.name},
            {"shape", c.shape},
            {"dtype", c.dtype},
            {"calls", c.calls},
            {"flops", c.flops},
            {"bytes", c.bytes()},
            {"floor_ms", 1e3 * m.floor},
            {"bound_by", m.by_flops ? "flops" : "bytes"},
            {"within_other", c.within_other}};
  if (!m.refused)
    j.update({{"median_ms", 1e3 * m.seconds.median()},
              {"best_ms", 1e3 * m.best()},
              {"percent_of_floor", percent(m.floor, m.seconds.median())}});
  return j;
}

/// All calls of a step or token together, of this kind; int8 is another kind of weights.
json print_together(const Options& o, const std::vector<Measured>& all, const std::string& what) {
  double seconds = 0, floor = 0;
  for (const Measured& m : all)
    if (!m.what->within_other && m.what->dtype != "int8") {
      seconds += m.what->calls * m.seconds.median();
      floor += m.what->calls * m.floor;
    }
  print_line(o.markdown, fmt::format("{} of these calls: {}, floor {}, {:.0f} %", what, milliseconds(seconds),
                                     milliseconds(floor), percent(floor, seconds)));
  return {{"ms", 1e3 * seconds}, {"floor_ms", 1e3 * floor}};
}

/// A row an operation: what it takes beside what it must.
void print_table(const Options& o, const std::vector<Measured>& all) {
  Table table({"operation", "shape", ">calls", ">median", ">best", ">floor", ">GFLOP/s", ">GB/s",
               ">of the floor", "bound by"});
  for (const Measured& m : all) {
    const Case& c = *m.what;
    if (m.refused) {
      table.add({c.name, c.shape, "", "", "", milliseconds(m.floor), "", "", "", "not on this device"});
      continue;
    }
    const double median = m.seconds.median();
    table.add({c.name, c.shape, c.calls > 0 && !c.within_other ? fmt::format("{}", c.calls) : "",
               milliseconds(median), milliseconds(m.best()), milliseconds(m.floor), giga(c.flops / median),
               giga(c.bytes() / median), fmt::format("{:.0f} %", percent(m.floor, median)),
               m.by_flops ? "flops" : "bytes"});
  }
  table.print(o.markdown);
}

bool is_product(const Case& c) {
  return c.name == "linear_forward" || c.name == "linear_backward_input" ||
         c.name == "linear_backward_weight";
}

/// FLOPs over time of those that `wanted` names; 0 where there are none.
double together(const std::vector<Measured>& all, const std::function<bool(const Case&)>& wanted) {
  double flops = 0, seconds = 0;
  for (const Measured& m : all)
    if (is_product(*m.what) && wanted(*m.what)) {
      flops += m.what->calls * m.what->flops;
      seconds += m.what->calls * m.seconds.median();
    }
  return seconds > 0 ? flops / seconds : 0;
}

/// Matrix products by shape, forward and both backward; the last row is all of them, weighted by their FLOPs.
void print_products(const Options& o, const std::vector<Measured>& all, double peak) {
  Table table({"product", ">forward", ">of the peak", ">input's gradient", ">of the peak",
               ">weight's gradient", ">of the peak"});
  std::vector<std::string> shapes;
  for (const Measured& m : all)
    if (is_product(*m.what) && (shapes.empty() || shapes.back() != m.what->shape))
      shapes.push_back(m.what->shape);
  shapes.push_back("");
  for (const std::string& shape : shapes) {
    std::vector<std::string> row = {shape.empty() ? "weighted by their FLOPs" : shape};
    for (const char* name : {"linear_forward", "linear_backward_input", "linear_backward_weight"}) {
      const double speed =
          together(all, [&](const Case& c) { return c.name == name && (shape.empty() || c.shape == shape); });
      row.push_back(giga(speed));
      row.push_back(share(speed, peak));
    }
    table.add(row);
  }
  table.print(o.markdown);
  const double speed = together(all, [](const Case&) { return true; });
  print_line(o.markdown, fmt::format("all: {} GFLOP/s, {} of the peak", giga(speed), share(speed, peak)));
}

std::vector<Measured> measure_all(const Options& o, Kernels& k, const ModelConfig& m,
                                  const std::vector<Case>& cases, const Ceilings& c) {
  std::vector<Measured> all;
  for (const Case& one : cases) all.push_back(measure(o, k, m, one, c));
  return all;
}

}  // namespace

json measure_operations(const Options& o, const std::string& preset, const std::string& dtype,
                        const Ceilings& c) {
  const ModelConfig m = model_preset(preset);
  const TrainConfig train = bench_training(o, preset, dtype);
  const auto kernels = make_kernels(o.device(c.threads));
  json report = {{"preset", preset}, {"dtype", dtype}, {"threads", c.threads}};
  const double peak = c.multiply_add.at(dtype);

  print_heading(o.markdown, fmt::format("{} {}, {}: operations of a step, operands cold", preset, dtype,
                                        counted(c.threads, "thread")));
  const auto cases = step_cases(*kernels, m, train.batch, train.seq, train.dtype);
  const auto all = measure_all(o, *kernels, m, cases, c);
  print_table(o, all);
  report["step_together"] = print_together(o, all, "a step");
  print_heading(o.markdown, fmt::format("{} {}, {}: matrix products, GFLOP/s; the {} peak is {}", preset,
                                        dtype, counted(c.threads, "thread"), dtype, giga(peak)));
  print_products(o, all, peak);
  for (const Measured& one : all) report["step"].push_back(to_json(one));
  const double speed = together(all, [](const Case&) { return true; });
  report["products_flops_per_second"] = speed;
  report["products_percent_of_peak"] = percent(speed, peak);

  print_heading(o.markdown, fmt::format("{} {}, {}: operations of a decoded token", preset, dtype,
                                        counted(c.threads, "thread")));
  const auto decoding = decoding_cases(*kernels, m, train.dtype);
  const auto token = measure_all(o, *kernels, m, decoding, c);
  print_table(o, token);
  report["token_together"] = print_together(o, token, "a token");
  for (const Measured& one : token) report["token"].push_back(to_json(one));
  return report;
}

double product_speed(const Options& o, const std::string& preset, const std::string& dtype,
                     const Ceilings& c) {
  const ModelConfig m = model_preset(preset);
  const TrainConfig train = bench_training(o, preset, dtype);
  const auto kernels = make_kernels(o.device(c.threads));
  auto cases = step_cases(*kernels, m, train.batch, train.seq, train.dtype);
  std::erase_if(cases, [](const Case& one) { return !is_product(one); });
  return together(measure_all(o, *kernels, m, cases, c), [](const Case&) { return true; });
}

}  // namespace topolm::bench
