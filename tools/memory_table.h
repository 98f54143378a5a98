// What a training step keeps where, as a table.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "engine/progress.h"
#include "model/trainer.h"
#include "tools/process_memory.h"

namespace topolm {

/// The device's memory of a trainer that has done a step; then the process's own, which on a CPU holds it.
inline void print_memory(const Trainer& trainer) {
  const std::string activations = "activations: ";
  double sum = 0, of_activations = 0, small = 0;
  const std::vector<MemoryUse> rows = trainer.memory();
  for (const MemoryUse& row : rows) {
    const auto bytes = static_cast<double>(row.bytes);
    sum += bytes;
    if (row.name.starts_with(activations)) of_activations += bytes;
  }
  const auto print = [&](const std::string& name, double bytes) {
    fmt::print("{:<32}{:>12}{:>8.1f} %\n", name, human_bytes(bytes), 100 * bytes / sum);
  };
  for (const MemoryUse& row : rows)
    if (!row.name.starts_with(activations)) print(row.name, static_cast<double>(row.bytes));
  print("activations", of_activations);
  for (const MemoryUse& row : rows) {
    if (!row.name.starts_with(activations)) continue;
    const auto bytes = static_cast<double>(row.bytes);
    if (bytes < 0.001 * sum)
      small += bytes;
    else
      print("  " + row.name.substr(activations.size()), bytes);
  }
  print("  all others", small);
  print("sum", sum);
  const double peak = process_memory("VmHWM"), files = process_memory("RssFile");
  if (peak == 0) return;
  fmt::print("\n{:<32}{:>12}\n", "peak of this process", human_bytes(peak));
  fmt::print("{:<32}{:>12}\n", "  files: the program, tokens read", human_bytes(files));
  if (trainer.model().kernels().device().name() != "cuda")
    fmt::print("{:<32}{:>12}\n", "  beside the device's", human_bytes(std::max(0.0, peak - files - sum)));
}

}  // namespace topolm
