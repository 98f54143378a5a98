#include "tools/bench/measure.h"

#include <sys/resource.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <algorithm>
#include <ctime>
#include <fstream>
#include <numeric>

#include "model/config.h"
#include "tools/process_memory.h"

namespace topolm::bench {

DType dtype_of(const std::string& word) {
  DType dtype{};
  parse_word(word, dtype);
  return dtype;
}

double cpu_time() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

double Samples::median() const {
  if (values.empty()) return 0;
  std::vector<double> v = values;
  std::sort(v.begin(), v.end());
  const size_t half = v.size() / 2;
  return v.size() % 2 ? v[half] : (v[half - 1] + v[half]) / 2;
}

double Samples::low() const { return values.empty() ? 0 : *std::min_element(values.begin(), values.end()); }
double Samples::high() const { return values.empty() ? 0 : *std::max_element(values.begin(), values.end()); }
double Samples::sum() const { return std::accumulate(values.begin(), values.end(), 0.0); }

Samples time_calls(double seconds, const std::function<void(int64_t)>& run) {
  Samples times;
  run(0);
  const double end = now() + seconds;
  for (int64_t i = 1; i <= 3 || now() < end; ++i) {
    const double start = now();
    run(i);
    times.add(now() - start);
  }
  return times;
}

void forget_peak_memory() {
#if defined(__GLIBC__)
  malloc_trim(0);  // what an earlier model left in the heap: 40 MB of tiny's 212
#endif
  std::ofstream("/proc/self/clear_refs") << "5";
}

double peak_memory() {
  if (const double peak = process_memory("VmHWM"); peak > 0) return peak;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return 1024.0 * static_cast<double>(usage.ru_maxrss);
}

Table::Table(std::vector<std::string> columns) : columns_(std::move(columns)) {
  for (std::string& c : columns_) {
    right_.push_back(c.starts_with('>'));
    if (right_.back()) c.erase(0, 1);
  }
}

void Table::add(std::vector<std::string> cells) {
  cells.resize(columns_.size());
  rows_.push_back(std::move(cells));
}

void Table::print(bool markdown) const {
  std::vector<size_t> widths;
  for (size_t c = 0; c < columns_.size(); ++c) {
    widths.push_back(columns_[c].size());
    for (const auto& row : rows_) widths.back() = std::max(widths.back(), row[c].size());
  }
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string text = markdown ? "|" : " ";
    for (size_t c = 0; c < cells.size(); ++c)
      if (markdown)
        text += fmt::format(" {} |", cells[c]);
      else if (right_[c])
        text += fmt::format("  {:>{}}", cells[c], widths[c]);
      else
        text += fmt::format(" {:<{}}", cells[c], widths[c] + (c == 0 ? 0 : 1));
    text.erase(text.find_last_not_of(' ') + 1);
    fmt::print("{}\n", text);
  };
  line(columns_);
  if (markdown) {
    std::string rule = "|";
    for (const bool right : right_) rule += right ? "---:|" : "---|";
    fmt::print("{}\n", rule);
  }
  for (const auto& row : rows_) line(row);
  std::fflush(stdout);
}

void print_heading(bool markdown, const std::string& text) {
  fmt::print("\n{}{}\n{}", markdown ? "### " : "", text, markdown ? "\n" : "");
}

void print_line(bool markdown, const std::string& text) {
  fmt::print("{}{}\n", markdown ? "" : "  ", text);
  std::fflush(stdout);
}

std::string milliseconds(double seconds) {
  if (seconds == 0) return "";
  return seconds < 1e-3 ? fmt::format("{:.1f} us", 1e6 * seconds)
                        : fmt::format("{:.{}f} ms", 1e3 * seconds, seconds < 0.1 ? 2 : 1);
}

std::string giga(double per_second) {
  return per_second == 0 ? "" : fmt::format("{:.1f}", 1e-9 * per_second);
}

std::string share(double part, double whole) { return fmt::format("{:.1f} %", percent(part, whole)); }

std::string counted(int64_t n, const std::string& what) {
  return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s");
}

}  // namespace topolm::bench
