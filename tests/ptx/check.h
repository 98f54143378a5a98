// The PTX check: a device that runs every launch from its source and then once for each architecture from the
// PTX that nvcc emitted for it, and compares all of its memory.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "kernels/simt/simt_device.h"
#include "tests/ptx/instruction.h"

namespace topolm::ptx {

/// What nvcc compiled for one architecture, and what has become of it.
struct Architecture {
  std::string name;                                              // compute_90
  std::map<std::string, std::shared_ptr<const Kernel>> kernels;  // by symbol
  std::set<std::string> launched;
  uint64_t launches = 0, instructions = 0, differences = 0;
};

/// Adds the kernels of one PTX file. Those whose code an architecture of `others` has too, to the letter, are
/// shared with it: they are run once and counted for both.
void add_module(Architecture& architecture, const std::string& file, const std::string& text,
                const std::vector<Architecture>& others = {});

/// Reads ROOT/80/*.ptx, ROOT/90/*.ptx, ...: the architectures that are there; of these only
/// those in `only`, unless it is empty: "80 90".
std::vector<Architecture> load_architectures(const std::string& root, const std::string& only = "");

/// Those that this program checks.
std::vector<Architecture>& architectures();

/// The symbol of a function of this program, which must be linked with -rdynamic.
std::string symbol_of(const void* function);
/// As people write it.
std::string demangled(const std::string& symbol);

class PtxDevice final : public SimtDevice {
 public:
  /// `differs` is told of each launch whose PTX leaves other bits in memory than its source.
  PtxDevice(int threads, std::vector<Architecture>& architectures,
            std::function<void(const std::string&)> differs);
  ~PtxDevice() override;

  void* allocate(size_t bytes, const std::string& what) override;
  void release(void* memory) noexcept override;
  /// Exactly as large as asked for, unlike the real one's: a kernel that reads beyond its end is found.
  void* scratch(size_t bytes) override;
  void launch(const Launch& launch) override;

 private:
  struct Allocation {
    std::string what;
    size_t bytes;
  };
  std::vector<unsigned char> snapshot() const;
  void restore(const std::vector<unsigned char>& snapshot);
  std::string difference(const std::vector<unsigned char>& expected) const;

  std::vector<Architecture>& architectures_;
  std::function<void(const std::string&)> differs_;
  std::map<unsigned char*, Allocation> memory_;
  void* exact_scratch_ = nullptr;
};

}  // namespace topolm::ptx
