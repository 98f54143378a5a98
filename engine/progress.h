// What a person watching a run sees: one live line on a terminal, plain lines in a log file.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

namespace topolm {

/// On a terminal, update() rewrites one line in place, as wide as the terminal at most and ten times a second
/// at most, and print() puts a lasting line above it. Elsewhere both write plain lines without control
/// characters, update() one in ten seconds at most. Failures to write are ignored: a run whose terminal
/// closed goes on.
class ProgressLine {
 public:
  explicit ProgressLine(std::FILE* stream = stderr);
  ~ProgressLine() { finish(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void update(std::string_view text);
  void print(std::string_view line);
  /// Leaves the last update standing as a line of its own, even if it came too soon to be shown.
  void finish();

  bool on_terminal() const { return terminal_; }

 private:
  void show();

  std::FILE* stream_;
  bool terminal_;
  std::string text_;      // of the last update; empty after finish()
  bool pending_ = false;  // text_ is not shown yet
  std::chrono::steady_clock::time_point next_{};
};

/// "3.4 s", "42 s", "3 min 07 s", "2 h 05 min", "3 d 04 h"; "?" for what is not a duration, such as the time
/// left of a run that has not begun.
std::string human_duration(double seconds);
/// Three digits and a decimal prefix: "999", "4.05 k", "1.96 M".
std::string human_count(double count);
/// Three digits and a binary prefix: "512 B", "1.50 KiB", "3.82 GiB".
std::string human_bytes(double bytes);

}  // namespace topolm
