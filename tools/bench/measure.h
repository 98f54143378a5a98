// What every part of ./bench measures and prints with.
#pragma once

#include <fmt/format.h>

#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace topolm::bench {

/// What every part of ./bench is told.
struct Options {
  std::vector<std::string> presets, dtypes{"fp32", "bf16"};
  std::vector<int> threads{0};
  std::string isa;
  int batch = 0, seq = 0, steps = 5, rounds = 3, tokens = 64, busy = 0;
  double seconds = 0.3;
  bool ceilings_only = false, operations = false, decode = false, compare = false, bars = false;
  bool recompute = false, markdown = false;
  std::string llmc, model, json_file;

  DeviceOptions device(int thread_count) const { return {"cpu", thread_count, isa}; }
};

DType dtype_of(const std::string& word);

/// Seconds on the wall's clock.
inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
/// Seconds that all threads of this process have computed. Unlike the wall's clock it stands still while
/// another process has the CPU, so it compares programs on a busy machine, if they do not spin.
double cpu_time();

/// Times of one thing, or ratios, one a turn.
struct Samples {
  std::vector<double> values;

  void add(double value) { values.push_back(value); }
  double median() const;
  double low() const;
  double high() const;
  double sum() const;
};

/// Calls `run` with 0, 1, 2, ... for about `seconds`, at least thrice, after one call that does not count:
/// working space grows, threads wake. The time of each call.
Samples time_calls(double seconds, const std::function<void(int64_t)>& run);

/// Peak memory of the process since forget_peak_memory() where the system can do that (Linux), else ever.
void forget_peak_memory();
double peak_memory();

/// Rows under a heading, in columns; or the same as Markdown.
class Table {
 public:
  /// A column whose name begins with '>' has its cells on the right.
  explicit Table(std::vector<std::string> columns);
  void add(std::vector<std::string> cells);
  void print(bool markdown) const;
  bool empty() const { return rows_.empty(); }

 private:
  std::vector<std::string> columns_;
  std::vector<bool> right_;
  std::vector<std::vector<std::string>> rows_;
};

void print_heading(bool markdown, const std::string& text);
/// A sentence beside a table.
void print_line(bool markdown, const std::string& text);

inline double percent(double part, double whole) { return whole > 0 ? 100 * part / whole : 0; }
std::string milliseconds(double seconds);  // "12.3 ms", "45.6 us"; nothing for 0
std::string giga(double per_second);       // "123.4", in 10^9; nothing for 0
std::string share(double part, double whole);
std::string counted(int64_t n, const std::string& what);  // "1 thread", "2 threads"

}  // namespace topolm::bench
