#include "tools/bench/decode.h"

#include <algorithm>

#include "engine/progress.h"

using nlohmann::json;

namespace topolm::bench {

std::vector<std::string> decoding_weights(const Options& o) {
  std::vector<std::string> weights = o.dtypes;
  if (std::find(weights.begin(), weights.end(), "bf16") != weights.end()) weights.push_back("int8");
  return weights;
}

namespace {

bool in_cache(double bytes) { return bytes < static_cast<double>(cache_size(3)); }

/// Of the last level of caches where everything that a token reads stays there, else of memory.
double read_bandwidth(const Options& o, int threads, double bytes) {
  const DeviceOptions device = o.device(threads);
  return in_cache(bytes) ? measure_cache_speed(device, o.seconds / 4).back().read
                         : measure_memory_speed(device, o.seconds / 4).read;
}

}  // namespace

DecodeTimes time_decoding(const Options& o, const std::string& preset, const std::string& weights,
                          int threads) {
  forget_peak_memory();
  const auto kernels = make_kernels(o.device(threads));
  const DecodeSpeed speed =
      decode_speed(*kernels, model_preset(preset), weights == "fp32" ? DType::f32 : DType::bf16,
                   weights == "int8", o.tokens);
  const double memory = peak_memory();
  // In the same moments: on a shared machine it differs by half from minute to minute.
  const double read = read_bandwidth(o, threads, speed.bytes_per_token);
  return {preset, weights, threads, speed, read, memory};
}

json measure_decoding(const Options& o, const std::string& preset, int threads) {
  print_heading(o.markdown, fmt::format("{}, {}: decoding one sequence", preset, counted(threads, "thread")));
  Table table({"weights", ">tokens/s", ">MB a token", ">GB/s", ">of reading", "from", ">prompt tokens/s",
               ">peak memory"});
  json report;
  for (const std::string& weights : decoding_weights(o)) {
    const DecodeTimes t = time_decoding(o, preset, weights, threads);
    table.add({weights, fmt::format("{:.1f}", t.speed.tokens_per_second),
               fmt::format("{:.1f}", 1e-6 * t.speed.bytes_per_token), giga(t.read()),
               share(t.read(), t.read_bandwidth), in_cache(t.speed.bytes_per_token) ? "L3" : "memory",
               human_count(t.speed.prefill_tokens_per_second), human_bytes(t.memory)});
    report.push_back({{"preset", preset},
                      {"weights", weights},
                      {"threads", threads},
                      {"tokens_per_second", t.speed.tokens_per_second},
                      {"prefill_tokens_per_second", t.speed.prefill_tokens_per_second},
                      {"bytes_per_token", t.speed.bytes_per_token},
                      {"percent_of_read_bandwidth", percent(t.read(), t.read_bandwidth)},
                      {"peak_memory_bytes", t.memory}});
  }
  table.print(o.markdown);
  return report;
}

}  // namespace topolm::bench
