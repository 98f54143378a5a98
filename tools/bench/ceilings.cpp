#include "tools/bench/ceilings.h"

#include "engine/progress.h"

namespace topolm::bench {

Ceilings measure_ceilings(const Options& o, int threads) {
  const DeviceOptions device = o.device(threads);
  Ceilings c{
      threads, {}, {}, measure_memory_speed(device, o.seconds), measure_cache_speed(device, o.seconds)};
  const auto kernels = make_kernels(device);
  for (const std::string dtype : {"fp32", "bf16"}) {
    c.multiply_add[dtype] = measure_multiply_add_speed(device, dtype_of(dtype), o.seconds);
    c.product[dtype] = measure_matrix_speed(*kernels, dtype_of(dtype), o.seconds);
  }
  return c;
}

void print_ceilings(const Options& o, const std::vector<Ceilings>& all) {
  print_heading(o.markdown, "Ceilings");
  std::vector<std::string> columns = {""};
  for (const Ceilings& c : all) columns.push_back(">" + counted(c.threads, "thread"));
  columns.push_back("");
  Table table(columns);
  const auto row = [&](const std::string& name, auto&& value, const std::string& unit) {
    std::vector<std::string> cells = {name};
    for (const Ceilings& c : all) cells.push_back(giga(value(c)));
    cells.push_back(unit);
    table.add(cells);
  };
  for (const std::string dtype : {"fp32", "bf16"})
    row(
        "multiply-add " + dtype, [&](const Ceilings& c) { return c.multiply_add.at(dtype); },
        "GFLOP/s, on registers");
  for (const std::string dtype : {"fp32", "bf16"})
    row(
        "product " + dtype, [&](const Ceilings& c) { return c.product.at(dtype); },
        "GFLOP/s, of 768 x 768 matrices by our kernels");
  for (size_t i = 0; i < all.front().caches.size(); ++i)
    row(
        fmt::format("read L{}", all.front().caches[i].level),
        [&](const Ceilings& c) { return c.caches[i].read; },
        fmt::format("GB/s, {} a thread", human_bytes(static_cast<double>(all.front().caches[i].footprint))));
  row(
      "read", [](const Ceilings& c) { return c.memory.read; }, "GB/s, from memory");
  row(
      "copy", [](const Ceilings& c) { return c.memory.copy; }, "GB/s, a = b");
  row(
      "triad", [](const Ceilings& c) { return c.memory.triad; }, "GB/s, a = b + s c");
  row(
      "update", [](const Ceilings& c) { return c.memory.update; }, "GB/s, a, b, c += s d: AdamW's stream");
  table.print(o.markdown);
}

nlohmann::json to_json(const Ceilings& c) {
  nlohmann::json j = {{"threads", c.threads},
                      {"multiply_add_flops_per_second", c.multiply_add},
                      {"matrix_flops_per_second", c.product},
                      {"read_bytes_per_second", c.memory.read},
                      {"copy_bytes_per_second", c.memory.copy},
                      {"triad_bytes_per_second", c.memory.triad},
                      {"update_bytes_per_second", c.memory.update}};
  for (const CacheSpeed& cache : c.caches)
    j["caches"].push_back({{"level", cache.level},
                           {"footprint_bytes", cache.footprint},
                           {"read_bytes_per_second", cache.read}});
  return j;
}

}  // namespace topolm::bench
