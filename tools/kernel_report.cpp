// kernel_report: what the compiler can prove of the CUDA kernels. ptxas says what each takes of a
// multiprocessor; the launches, and what they must move and compute, come from running the model on the
// device that only records. Fails where a kernel spills registers or uses local memory.
#include <cxxabi.h>
#include <dlfcn.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <set>

#include "engine/file.h"
#include "kernels/cuda/dry_device.h"
#include "model/generator.h"
#include "model/optimizer.h"
#include "tools/main.h"

using namespace topolm;

namespace {

// ---- what ptxas says

struct Resources {
  int registers = 0, stack = 0, spilled = 0;  // bytes a thread
  int shared = 0;                             // bytes a block, of fixed size
};
using Architecture = int;                                                   // 80, 90, ...
using Compiled = std::map<std::string, std::map<Architecture, Resources>>;  // by the kernel's name

/// "void topolm::cuda_kernels::cast_kernel<topolm::bf16, float>(...)": cast_kernel<bf16, float>.
std::string readable(const std::string& symbol) {
  int status = 0;
  char* const demangled = abi::__cxa_demangle(symbol.c_str(), nullptr, nullptr, &status);
  if (!demangled) return symbol;
  std::string name = demangled;
  std::free(demangled);
  const size_t kernel = name.find("cuda_kernels::");
  if (kernel != std::string::npos) name = name.substr(kernel + 14);
  int depth = 0;  // of template arguments, which may contain (casts)
  for (size_t i = 0; i < name.size(); ++i) {
    depth += (name[i] == '<') - (name[i] == '>');
    if (depth == 0 && name[i] == '(') name.resize(i);
  }
  for (const std::string qualifier : {"topolm::", "cuda_kernels::"})
    for (size_t at; (at = name.find(qualifier)) != std::string::npos;) name.erase(at, qualifier.size());
  return name;
}

/// The whole number before `unit`; 0 where there is none: "Used 40 registers".
int number_before(const std::string& line, const std::string& unit) {
  const size_t end = line.find(" " + unit);
  if (end == std::string::npos) return 0;
  const size_t begin = line.find_last_not_of("0123456789", end - 1) + 1;
  return std::stoi(line.substr(begin, end - begin));
}

/// Reads the output of `ptxas -v`: a kernel's name and architecture, then its properties.
void read_ptxas(const fs::path& path, Compiled& compiled) {
  std::ifstream file(path);
  require(file.is_open(), "{}: cannot be read", path.string());
  const std::string entry = "Compiling entry function '";
  Resources* current = nullptr;
  for (std::string line; std::getline(file, line);) {
    if (const size_t at = line.find(entry); at != std::string::npos) {
      const size_t name = at + entry.size(), end = line.find('\'', name), sm = line.find("sm_", end);
      require(end != std::string::npos && sm != std::string::npos, "{}: {}", path.string(), line);
      current = &compiled[readable(line.substr(name, end - name))][std::stoi(line.substr(sm + 3))];
    } else if (current && line.find("bytes stack frame") != std::string::npos) {
      current->stack += number_before(line, "bytes stack frame");
      current->spilled +=
          number_before(line, "bytes spill stores") + number_before(line, "bytes spill loads");
    } else if (current && line.find(": Used ") != std::string::npos) {
      current->registers = number_before(line, "registers");
      current->shared = number_before(line, "bytes smem");
    }
  }
}

std::string without_arguments(const std::string& name) { return name.substr(0, name.find('<')); }

// ---- what fits a multiprocessor

struct Multiprocessor {
  const char* gpu;
  int threads, blocks, shared_kb;
};
/// CUDA programming guide, "Technical Specifications per Compute Capability". All have 64 K registers.
const std::map<Architecture, Multiprocessor> kMultiprocessors = {{80, {"A100", 2048, 32, 164}},
                                                                 {90, {"H100", 2048, 32, 228}},
                                                                 {100, {"B200", 2048, 32, 228}},
                                                                 {120, {"RTX 50", 1536, 24, 100}}};

/// The share of a multiprocessor's threads that can be resident: cuda_occupancy.h's rules for these GPUs.
double occupancy(const Multiprocessor& m, const Resources& kernel, int threads, size_t dynamic_shared) {
  const auto up = [](int n, int unit) { return (n + unit - 1) / unit * unit; };
  const int warps = up(threads, 32) / 32;
  const int registers = up(kernel.registers * 32, 256);  // a warp; a quarter of them serves each scheduler
  const int by_registers = 65536 / 4 / std::max(registers, 256) * 4 / warps;
  const int shared =
      up(kernel.shared + static_cast<int>(dynamic_shared) + 1024, 128);  // 1 KB is the driver's
  const int by_shared = m.shared_kb * 1024 / shared;
  const int blocks = std::min({m.blocks, m.threads / (warps * 32), by_registers, by_shared});
  return static_cast<double>(blocks * warps * 32) / m.threads;
}

// ---- what is launched

/// The launches of one kind of work, gathered by kernel.
struct Launches {
  int count = 0;
  Extent threads;
  size_t shared = 0;
  double least_blocks = 0, most_blocks = 0, bytes = 0, flops = 0;
};
using Run = std::map<std::string, Launches>;  // by the kernel's name

/// The program holds the kernels as compiled by the C++ compiler, in a namespace whose name is as long as
/// that of nvcc's.
std::string name_of(const LaunchRecord& record) {
  Dl_info info{};
  require(dladdr(record.function, &info) && info.dli_saddr == record.function && info.dli_sname,
          "{} has no symbol in this program; is it static, or the program not linked with -rdynamic?",
          record.kernel);
  std::string symbol = info.dli_sname;
  for (size_t at = 0; (at = symbol.find("12simt_kernels", at)) != std::string::npos;)
    symbol.replace(at, 14, "12cuda_kernels");
  return readable(symbol);
}

Run gather(const LaunchLog& log) {
  Run run;
  for (const LaunchRecord& r : log) {
    Launches& l = run[name_of(r)];
    const double blocks = double{1} * r.grid.blocks.x * r.grid.blocks.y * r.grid.blocks.z;
    l.threads = r.grid.threads;
    l.shared = std::max(l.shared, r.grid.shared);
    l.least_blocks = l.count == 0 ? blocks : std::min(l.least_blocks, blocks);
    l.most_blocks = std::max(l.most_blocks, blocks);
    l.bytes += r.work.bytes, l.flops += r.work.flops;
    ++l.count;
  }
  return run;
}

/// One micro-batch forward and backward, and one update.
Run training_step(const std::string& preset, DType dtype) {
  LaunchLog log;
  const auto kernels = make_dry_kernels(log);
  const ModelConfig config = model_preset(preset);
  const TrainConfig train = train_preset(preset);
  TopoLM model(*kernels, config, make_sheets(config, "random", 1), train.batch, train.seq, dtype, true);
  Optimizer optimizer(model, train);
  const std::vector<int32_t> tokens(static_cast<size_t>(train.batch) * train.seq);
  model.set_batch(train.batch, train.seq, tokens, tokens, model.draw_neighborhoods(1, 0, 0));
  log.clear();
  model.zero_losses();
  model.zero_gradients();
  model.forward_backward();
  optimizer.update(train.lr, 1);
  return gather(log);
}

/// One token through the network, and the next one drawn.
Run decoding_step(const std::string& preset, DType dtype) {
  LaunchLog log;
  const auto kernels = make_dry_kernels(log);
  Generator generator(*kernels, model_preset(preset), dtype);
  log.clear();
  generator.append(std::vector<int32_t>{0});
  (void)generator.next({}, 0.5, generator.config().vocab_size);
  return gather(log);
}

// ---- the report

struct Report {
  Compiled compiled;
  std::vector<std::pair<std::string, Run>> runs;  // with a table each
  std::vector<Run> others;                        // that tell only how kernels are launched
  std::set<Architecture> architectures;

  const Launches* launches(const std::string& kernel) const {
    for (const auto& [name, run] : runs)
      if (const auto found = run.find(kernel); found != run.end()) return &found->second;
    for (const Run& run : others)
      if (const auto found = run.find(kernel); found != run.end()) return &found->second;
    return nullptr;
  }
};

/// 1234567 as "1.23 M".
std::string si(double x) {
  for (const auto& [factor, prefix] : {std::pair{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "K"}})
    if (x >= factor) return fmt::format("{:.2f} {}", x / factor, prefix);
  return fmt::format("{:.0f}", x);
}

std::string resource_table(const Report& report) {
  std::string text =
      "Registers a thread / bytes spilled / bytes of stack / fixed shared memory a block / share of a "
      "multiprocessor's threads that can be resident. Where the last is missing, neither a training step nor "
      "a decoded token of the presets launches the kernel.\n\n| kernel | threads | dynamic shared |";
  for (const Architecture a : report.architectures)
    text += fmt::format(" sm_{} ({}) |", a, kMultiprocessors.contains(a) ? kMultiprocessors.at(a).gpu : "?");
  text += "\n|---|---|---|";
  for (size_t i = 0; i < report.architectures.size(); ++i) text += "---|";
  text += "\n";
  for (const auto& [kernel, architectures] : report.compiled) {
    const Launches* const launch = report.launches(kernel);
    const uint32_t threads = launch ? launch->threads.x * launch->threads.y * launch->threads.z : 0;
    text += fmt::format("| `{}` | {} | {} |", kernel, launch ? std::to_string(threads) : "",
                        launch ? std::to_string(launch->shared) : "");
    for (const Architecture a : report.architectures) {
      const auto found = architectures.find(a);
      if (found == architectures.end()) {
        text += " |";
        continue;
      }
      const Resources& r = found->second;
      text += fmt::format(" {} / {} / {} / {} /", r.registers, r.spilled, r.stack, r.shared);
      if (launch && kMultiprocessors.contains(a))
        text += fmt::format(" {:.0f} %", 100 * occupancy(kMultiprocessors.at(a), r, static_cast<int>(threads),
                                                         launch->shared));
      text += " |";
    }
    text += "\n";
  }
  return text;
}

std::string launch_table(const Run& run) {
  std::string text =
      "| kernel | launches | blocks a launch | bytes a launch | FLOP a launch | bytes | FLOP |\n"
      "|---|---|---|---|---|---|---|\n";
  double bytes = 0, flops = 0;
  int count = 0;
  for (const auto& [kernel, l] : run) {
    const std::string blocks = l.least_blocks == l.most_blocks
                                   ? fmt::format("{:.0f}", l.most_blocks)
                                   : fmt::format("{:.0f}-{:.0f}", l.least_blocks, l.most_blocks);
    text += fmt::format("| `{}` | {} | {} | {} | {} | {} | {} |\n", kernel, l.count, blocks,
                        si(l.bytes / l.count), si(l.flops / l.count), si(l.bytes), si(l.flops));
    bytes += l.bytes, flops += l.flops, count += l.count;
  }
  return text + fmt::format("| all | {} | | | | {} | {} |\n", count, si(bytes), si(flops));
}

/// A line a kernel, whatever its template arguments: the most registers of each architecture.
void print_summary(const Report& report) {
  std::map<std::string, std::pair<int, std::map<Architecture, int>>> kernels;
  for (const auto& [kernel, architectures] : report.compiled) {
    auto& [instantiations, registers] = kernels[without_arguments(kernel)];
    ++instantiations;
    for (const auto& [a, r] : architectures) registers[a] = std::max(registers[a], r.registers);
  }
  fmt::print("{:44}{:>8}", "kernel", "variants");
  for (const Architecture a : report.architectures) fmt::print("{:>9}", fmt::format("sm_{}", a));
  fmt::print("   registers at most\n");
  for (auto& [name, kernel] : kernels) {
    fmt::print("{:44}{:>8}", name, kernel.first);
    for (const Architecture a : report.architectures) fmt::print("{:>9}", kernel.second[a]);
    fmt::print("\n");
  }
}

int complain_of_local_memory(const Report& report) {
  int count = 0;
  for (const auto& [kernel, architectures] : report.compiled)
    for (const auto& [a, r] : architectures)
      if (r.spilled > 0 || r.stack > 0) {
        print_error("error", fmt::format("{} on sm_{}: {} bytes spilled, {} bytes of local memory", kernel, a,
                                         r.spilled, r.stack));
        ++count;
      }
  return count;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("What ptxas and a dry run say of the CUDA kernels.");
  std::vector<std::string> logs;
  std::string out;
  app.add_option("--ptxas", logs, "what ptxas -v printed, one file or several")->required();
  app.add_option("--out", out, "Markdown file to write")->required();
  return run_main(app, argc, argv, [&] {
    Report report;
    for (const std::string& log : logs) read_ptxas(log, report.compiled);
    require(!report.compiled.empty(), "{}: there is no kernel in it", logs[0]);
    for (const auto& [kernel, architectures] : report.compiled)
      for (const auto& [a, resources] : architectures) report.architectures.insert(a);
    report.runs = {{"A training step: `base`, 48 x 1024, bf16", training_step("base", DType::bf16)},
                   {"A decoded token: `base`, bf16", decoding_step("base", DType::bf16)}};
    for (const std::string preset : {"base", "nano"})
      for (const DType dtype : {DType::f32, DType::bf16}) {
        report.others.push_back(training_step(preset, dtype));
        report.others.push_back(decoding_step(preset, dtype));
      }

    std::string text =
        "# CUDA kernels: what the compiler can prove\n\nWritten by `make kernel-report`; "
        "nothing here was measured on a GPU.\n\n## Resources\n\n" +
        resource_table(report);
    for (const auto& [name, run] : report.runs)
      text += fmt::format(
          "\n## {}\n\nWhat launches must at least move and compute, matrix products by our own "
          "kernels.\n\n{}",
          name, launch_table(run));
    write_file(out, text);
    print_summary(report);
    const int bad = complain_of_local_memory(report);
    require(bad == 0, "{} kernels use local memory", bad);
    fmt::print("no spills, no local memory; {} has all of it\n", out);
  });
}
