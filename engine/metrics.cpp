#include "engine/metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "engine/error.h"

namespace topolm {

namespace {

std::string json_string(const std::string& text) { return nlohmann::json(text).dump(); }

/// The step of a row; nothing if `row` is not one.
std::optional<int64_t> step_of(std::string_view row, std::string_view lead) {
  if (!row.starts_with(lead)) return {};
  int64_t step = 0;
  const char* last = row.data() + row.size();
  const auto [end, error] = std::from_chars(row.data() + lead.size(), last, step);
  if (error != std::errc() || (end != last && *end != ',' && *end != '}')) return {};
  return step;
}

/// How much of the file a resumed run keeps: the header and whole rows up to `resume_step`.
size_t length_to_keep(const fs::path& path, std::string_view header, std::string_view lead,
                      int64_t resume_step) {
  const std::string text = read_file(path);
  const size_t first_line = text.find('\n');
  if (first_line == text.npos) return 0;  // killed in the middle of the first line
  require(text.starts_with(header), "'{}' has the columns '{}', this run has '{}'; move it away to go on",
          path.string(), text.substr(0, first_line), header.substr(0, header.size() - 1));
  size_t kept = header.size();
  for (size_t newline; (newline = text.find('\n', kept)) != text.npos; kept = newline + 1) {
    const std::optional<int64_t> step = step_of(std::string_view(text).substr(kept, newline - kept), lead);
    if (!step || *step > resume_step) break;
  }
  return kept;
}

}  // namespace

MetricsLog::RowFile::RowFile(fs::path path, std::string_view header, std::string_view lead,
                             std::optional<int64_t> resume_step)
    : path_(std::move(path)) {
  const size_t keep =
      resume_step && fs::exists(path_) ? length_to_keep(path_, header, lead, *resume_step) : 0;
  descriptor_ = open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (keep ? 0 : O_TRUNC), 0666);
  require(descriptor_ >= 0, "cannot write '{}': {}; choose a writable place", path_.string(),
          std::strerror(errno));
  try {
    require(keep == 0 || ftruncate(descriptor_, static_cast<off_t>(keep)) == 0,
            "cannot cut '{}' to the rows to keep: {}", path_.string(), std::strerror(errno));
    if (keep == 0) append(header);
  } catch (...) {
    close(descriptor_);  // the destructor of a half-made object does not run
    throw;
  }
}

MetricsLog::RowFile::~RowFile() { close(descriptor_); }

void MetricsLog::RowFile::append(std::string_view line) {
  while (!line.empty()) {
    const ssize_t n = write(descriptor_, line.data(), line.size());
    if (n < 0 && errno == EINTR) continue;
    require(n > 0, "cannot write '{}': {}; make room and resume", path_.string(), std::strerror(errno));
    line.remove_prefix(static_cast<size_t>(n));
  }
}

MetricsLog::MetricsLog(const fs::path& directory, std::vector<std::string> columns,
                       std::optional<int64_t> resume_step)
    : columns_(std::move(columns)),
      csv_(directory / "metrics.csv", fmt::format("{}\n", fmt::join(columns_, ",")), "", resume_step),
      jsonl_(directory / "metrics.jsonl", "", "{" + json_string(columns_.at(0)) + ":", resume_step) {}

void MetricsLog::row(std::span<const std::optional<double>> values) {
  require(values.size() == columns_.size(), "a row of {} metrics came for {} columns", values.size(),
          columns_.size());
  std::string csv, json;
  for (size_t i = 0; i < values.size(); ++i) {
    const std::string text = values[i] ? shortest(*values[i]) : "";
    const bool in_json = values[i] && std::isfinite(*values[i]);
    csv += (i ? "," : "") + text;
    json += (i ? "," : "{") + json_string(columns_[i]) + ":" + (in_json ? text : "null");
  }
  csv_.append(csv + "\n");
  jsonl_.append(json + "}\n");
}

std::vector<std::vector<double>> read_metrics(const fs::path& csv, std::span<const std::string> names) {
  const auto split = [](std::string_view text, char separator) {
    std::vector<std::string_view> parts;
    for (size_t end; (end = text.find(separator)) != text.npos; text.remove_prefix(end + 1))
      parts.push_back(text.substr(0, end));
    parts.push_back(text);
    return parts;
  };
  const std::string text = read_file(csv);
  const auto lines = split(text, '\n');
  const auto header = split(lines[0], ',');
  std::vector<std::vector<double>> columns(names.size());
  for (size_t c = 0; c < names.size(); ++c) {
    const auto place =
        static_cast<size_t>(std::find(header.begin(), header.end(), names[c]) - header.begin());
    require(place < header.size(), "'{}' has no column '{}'; it is not of a training run", csv.string(),
            names[c]);
    for (size_t i = 1; i < lines.size(); ++i) {
      const auto fields = split(lines[i], ',');
      if (fields.size() != header.size()) continue;
      double value = std::numeric_limits<double>::quiet_NaN();
      std::from_chars(fields[place].data(), fields[place].data() + fields[place].size(), value);
      columns[c].push_back(value);
    }
  }
  return columns;
}

std::string shortest(double value) {
  if (std::isnan(value)) return "nan";  // x86's own NaN has its sign bit set and would print as "-nan"
  if (std::abs(value) < 0x1p63 && value == std::trunc(value))
    return fmt::format("{}", static_cast<int64_t>(value));
  // Most metrics are floats: 0.1f is "0.1", not the "0.10000000149011612" of the double it widens to.
  const auto narrow = static_cast<float>(value);
  return narrow == value ? fmt::format("{}", narrow) : fmt::format("{}", value);
}

}  // namespace topolm
