// What a run measured, one row a step, as metrics.csv for plotting and metrics.jsonl for programs.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/file.h"

namespace topolm {

class MetricsLog {
 public:
  /// The first column is the step, in increasing order. A new run starts both files afresh. A run resumed
  /// after `resume_step` keeps its rows up to and including that step; later rows, which it will compute
  /// again, and a line torn by a kill are cut off. Throws Error when the csv there has other columns.
  MetricsLog(const fs::path& directory, std::vector<std::string> columns,
             std::optional<int64_t> resume_step = {});

  /// One value a column; nullopt is a value not measured at this step: empty in the csv, null in the jsonl.
  /// NaN and infinity are null in the jsonl too, since JSON cannot say them. The row has left the process on
  /// return. Throws Error on a full disk.
  void row(std::span<const std::optional<double>> values);

 private:
  /// A file of an optional header and rows that begin with `lead` and the step.
  class RowFile {
   public:
    RowFile(fs::path path, std::string_view header, std::string_view lead,
            std::optional<int64_t> resume_step);
    ~RowFile();
    RowFile(const RowFile&) = delete;
    RowFile& operator=(const RowFile&) = delete;
    void append(std::string_view line);

   private:
    fs::path path_;
    int descriptor_ = -1;
  };

  std::vector<std::string> columns_;
  RowFile csv_, jsonl_;
};

/// The named columns of a metrics.csv; NaN for an empty field. Skips a line torn by a kill. Throws Error when
/// a column is missing.
std::vector<std::vector<double>> read_metrics(const fs::path& csv, std::span<const std::string> names);

/// The shortest text that reads back as the same number: "7", "0.001", "nan"; for a number that a float
/// holds, as the same float.
std::string shortest(double value);

}  // namespace topolm
