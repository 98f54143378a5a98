#include "tools/bench/bars.h"

namespace topolm::bench {

namespace {

struct Bar {
  const char *key, *what;
  double bar, aim;
  const char* unit = "x";
  bool at_most = false;  // smaller is better
};

constexpr Bar kBars[] = {
    {"step tiny fp32", "step `tiny` fp32, PyTorch's time over ours", 2.5, 4},
    {"step tiny bf16", "step `tiny` bf16", 4, 6},
    {"step base fp32", "step `base` fp32", 1.5, 2},
    {"step base bf16", "step `base` bf16", 2.5, 4},
    {"spatial tiny", "the spatial loss alone, `tiny`", 9, 20},
    {"spatial base", "the spatial loss alone, `base`", 9, 20},
    {"share tiny fp32", "its share of our step, `tiny` fp32", 10, 6, " %", true},
    {"share tiny bf16", "its share of our step, `tiny` bf16", 10, 6, " %", true},
    {"share base fp32", "its share of our step, `base` fp32", 3, 2, " %", true},
    {"share base bf16", "its share of our step, `base` bf16", 3, 2, " %", true},
    {"optimizer base", "optimizer step `base`", 5, 0},
    {"optimizer stream base", "its share of AdamW's stream over memory", 0, 90, " %"},
    {"decode base fp32", "decode `base` fp32, against PyTorch fp32 with a cache", 5, 0},
    {"decode base bf16", "decode `base` bf16, against PyTorch bf16 with a cache", 4, 0},
    {"decode base int8", "decode `base` int8, against PyTorch bf16 with a cache", 8, 0},
    {"uncached base fp32", "decode `base` fp32, against the official generate(), which caches nothing", 5, 0},
    {"uncached base bf16", "decode `base` bf16, against the same", 4, 0},
    {"uncached base int8", "decode `base` int8, against the same in bf16", 8, 0},
    {"read base fp32", "its share of the read bandwidth, fp32", 0, 90, " %"},
    {"read base bf16", "its share of the read bandwidth, bf16", 0, 90, " %"},
    {"read base int8", "its share of the read bandwidth, int8", 0, 90, " %"},
    {"llm.c tiny fp32", "step `tiny` fp32, llm.c's time over ours", 8, 12},
    {"llm.c tiny bf16", "step `tiny` bf16, llm.c's time over ours", 17, 30},
    {"products base fp32", "matrix products of `base` fp32, of the peak", 80, 88, " %"},
    {"products base bf16", "matrix products of `base` bf16, of the peak", 30, 45, " %"},
    {"memory tiny fp32", "peak memory of a step, `tiny` fp32, ours over PyTorch's", 0.5, 0.4, "x", true},
    {"memory tiny bf16", "peak memory of a step, `tiny` bf16", 0.5, 0.4, "x", true},
    {"memory base fp32", "peak memory of a step, `base` fp32", 0.9, 0.6, "x", true},
    {"memory base bf16", "peak memory of a step, `base` bf16", 0.9, 0.6, "x", true},
    {"busy tiny fp32", "a step beside a busy process a core, over its fair share", 2, 0, "x", true},
};

/// 0 is no bar, or no aim.
std::string limit(const Bar& b, double value) {
  return value == 0 ? "" : fmt::format("{}{:g}{}", b.at_most ? "<= " : "", value, b.unit);
}

bool reached(const Bar& b, double measured, double value) {
  return b.at_most ? measured <= value : measured >= value;
}

std::string verdict(const Bar& b, double measured) {
  if (b.aim != 0 && reached(b, measured, b.aim)) return "aim reached";
  if (b.bar != 0) return reached(b, measured, b.bar) ? "bar reached" : "MISSED";
  return "below the aim";
}

}  // namespace

std::string spread(const Samples& s, int digits) {
  return s.values.size() < 2 ? fmt::format("{:.{}f}", s.median(), digits)
                             : fmt::format("{:.{}f} ({:.{}f} to {:.{}f})", s.median(), digits, s.low(),
                                           digits, s.high(), digits);
}

nlohmann::json print_bars(const Options& o, const Figures& figures) {
  print_heading(o.markdown, "Bars");
  Table table({"", ">bar", ">aim", ">measured", "verdict"});
  nlohmann::json report;
  for (const Bar& b : kBars) {
    const auto found = figures.find(b.key);
    const bool measured = found != figures.end();
    const std::string word = measured ? verdict(b, found->second.median()) : "not measured";
    table.add({b.what, limit(b, b.bar), limit(b, b.aim),
               measured ? spread(found->second, b.unit[0] == 'x' ? 2 : 1) + b.unit : "", word});
    report.push_back(
        {{"key", b.key}, {"bar", b.bar}, {"aim", b.aim}, {"at_most", b.at_most}, {"verdict", word}});
    if (measured) report.back()["measured"] = found->second.values;
  }
  table.print(o.markdown);
  return report;
}

}  // namespace topolm::bench
