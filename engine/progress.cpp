#include "engine/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>
#include <utf8proc.h>

#include <cmath>
#include <cstdlib>
#include <span>

#include "engine/error.h"

namespace topolm {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds kTerminalInterval{100}, kPlainInterval{10'000};
constexpr const char* kEraseToEnd = "\033[K";

bool is_terminal(std::FILE* stream) {
  const char* term = std::getenv("TERM");
  return isatty(fileno(stream)) && term && std::string_view(term) != "dumb";
}

/// Asked at every line: windows change their size.
int columns_of(std::FILE* stream) {
  winsize size{};
  return ioctl(fileno(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

/// The beginning of `text` that fits into `columns`. Control characters, whose width nobody knows, and broken
/// UTF-8 are dropped.
std::string fit(std::string_view text, int columns) {
  std::string out;
  while (!text.empty()) {
    utf8proc_int32_t c = 0;
    const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                         static_cast<utf8proc_ssize_t>(text.size()), &c);
    const auto bytes = static_cast<size_t>(length < 1 ? 1 : length);
    if (length > 0 && utf8proc_category(c) != UTF8PROC_CATEGORY_CC) {
      columns -= utf8proc_charwidth(c);
      if (columns < 0) break;
      out += text.substr(0, bytes);
    }
    text.remove_prefix(bytes);
  }
  return out;
}

void put(std::FILE* stream, const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stream);
  std::fflush(stream);
}

/// `value` with three digits and the first unit in which rounding leaves it below `base`.
std::string scaled(double value, double base, std::span<const char* const> units) {
  if (!std::isfinite(value)) return "?";
  size_t unit = 0;
  for (; unit + 1 < units.size() && std::abs(value) >= base - 0.5; ++unit) value /= base;
  const double size = std::abs(value);
  // Whole numbers stay whole; otherwise 9.995 is already 10.0 and 99.95 already 100.
  const int decimals = unit == 0 || size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2;
  return fmt::format("{:.{}f}{}", value, decimals, units[unit]);
}

}  // namespace

ProgressLine::ProgressLine(std::FILE* stream) : stream_(stream), terminal_(is_terminal(stream)) {}

void ProgressLine::update(std::string_view text) {
  text_ = text;
  pending_ = true;
  const auto now = std::chrono::steady_clock::now();
  if (now < next_) return;
  next_ = now + (terminal_ ? kTerminalInterval : kPlainInterval);
  show();
}

void ProgressLine::print(std::string_view line) {
  if (!terminal_) return put(stream_, fmt::format("{}\n", line));
  put(stream_, fmt::format("\r{}{}\n", line, kEraseToEnd));
  if (!text_.empty()) show();
}

void ProgressLine::finish() {
  if (text_.empty()) return;
  if (pending_) show();
  if (terminal_) put(stream_, "\n");
  text_.clear();
  next_ = {};
}

void ProgressLine::show() {
  pending_ = false;
  if (!terminal_) return put(stream_, text_ + "\n");
  // One column stays free: a full line leaves the cursor on its last character, which would be erased.
  put(stream_, "\r" + fit(text_, columns_of(stream_) - 1) + kEraseToEnd);
}

std::string human_duration(double seconds) {
  if (!(seconds >= 0 && seconds < 1e12)) return "?";
  if (seconds < 9.95) return fmt::format("{:.1f} s", seconds);
  const int64_t s = std::llround(seconds);  // rounded first: 59.7 s is 1 min 00 s, not 60 s
  if (s < 60) return fmt::format("{} s", s);
  if (s < 3600) return fmt::format("{} min {:02} s", s / 60, s % 60);
  if (s < 86400) return fmt::format("{} h {:02} min", s / 3600, s % 3600 / 60);
  return fmt::format("{} d {:02} h", s / 86400, s % 86400 / 3600);
}

std::string human_count(double count) {
  static constexpr const char* kUnits[] = {"", " k", " M", " G", " T", " P"};
  return scaled(count, 1000, kUnits);
}

std::string human_bytes(double bytes) {
  static constexpr const char* kUnits[] = {" B", " KiB", " MiB", " GiB", " TiB", " PiB"};
  return scaled(bytes, 1024, kUnits);
}

}  // namespace topolm
