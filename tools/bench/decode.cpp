#include "tools/bench/decode.h"

#include <algorithm>

#include "engine/error.h"
#include "engine/progress.h"
#include "model/generator.h"

using nlohmann::json;

namespace topolm::bench {

std::vector<std::string> decoding_weights(const Options& o) {
  std::vector<std::string> weights = o.dtypes;
  return weights;
}

DecodeTimes time_decoding(const Options& o, const std::string& preset, const std::string& weights,
                          int threads) {
  DecodeTimes t{preset, weights, threads};
  const ModelConfig m = model_preset(preset);
  const auto kernels = make_kernels(o.device(threads));
  forget_peak_memory();
  Generator generator(*kernels, m, dtype_of(weights));
  const int64_t prompt = m.block_size / 2, count = std::min<int64_t>(o.tokens, m.block_size - prompt - 1);
  const std::vector<int32_t> tokens(static_cast<size_t>(prompt));
  generator.append(tokens);
  generator.reset();
  const double start = now();
  generator.append(tokens);
  const double middle = now();
  for (int64_t i = 0; i < count; ++i)
    generator.append(std::vector<int32_t>{generator.next({}, 0.5, m.vocab_size)});
  t.tokens_per_second = static_cast<double>(count) / (now() - middle);
  t.prefill_tokens_per_second = static_cast<double>(prompt) / (middle - start);
  const double size = static_cast<double>(size_of(dtype_of(weights)));
  const double read = static_cast<double>(m.parameters() - int64_t{m.block_size} * m.n_embd);
  const double cached =
      2.0 * m.n_layer * m.n_embd * (static_cast<double>(prompt) + static_cast<double>(count) / 2);
  t.bytes_per_token = size * (read + cached);
  t.memory = peak_memory();
  return t;
}

json measure_decoding(const Options& o, const std::string& preset, const Ceilings& c) {
  print_heading(o.markdown, fmt::format("{}, {}: one sequence, from the middle of the context", preset,
                                        counted(c.threads, "thread")));
  Table table(
      {"weights", ">tokens/s", ">GB/s", ">of the read bandwidth", ">prompt tokens/s", ">peak memory"});
  json report;
  for (const std::string& weights : decoding_weights(o)) {
    const DecodeTimes t = time_decoding(o, preset, weights, c.threads);
    table.add({weights, fmt::format("{:.1f}", t.tokens_per_second), giga(t.read()),
               share(t.read(), c.memory.read), human_count(t.prefill_tokens_per_second),
               human_bytes(t.memory)});
    report.push_back({{"preset", preset},
                      {"weights", weights},
                      {"threads", c.threads},
                      {"tokens_per_second", t.tokens_per_second},
                      {"prefill_tokens_per_second", t.prefill_tokens_per_second},
                      {"bytes_per_token", t.bytes_per_token},
                      {"percent_of_read_bandwidth", percent(t.read(), c.memory.read)},
                      {"peak_memory_bytes", t.memory}});
  }
  table.print(o.markdown);
  return report;
}

}  // namespace topolm::bench
