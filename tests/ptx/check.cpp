#include "tests/ptx/check.h"

#include <cxxabi.h>
#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "engine/error.h"
#include "tests/ptx/interpreter.h"

namespace topolm::ptx {

void add_module(Architecture& architecture, const std::string& file, const std::string& text,
                const std::vector<Architecture>& others) {
  for (ParsedKernel& parsed : parse(file, text)) {
    std::shared_ptr<const Kernel>& kernel = architecture.kernels[parsed.name];
    for (const Architecture& other : others) {
      const auto twin = other.kernels.find(parsed.name);
      if (twin != other.kernels.end() && twin->second->text == parsed.text &&
          twin->second->dynamic_shared == parsed.dynamic_shared)
        kernel = twin->second;
    }
    if (!kernel) kernel = decode(std::move(parsed));
  }
}

std::vector<Architecture> load_architectures(const std::string& root, const std::string& only) {
  namespace fs = std::filesystem;
  std::vector<Architecture> architectures;
  std::vector<fs::path> directories;
  if (fs::is_directory(root))
    for (const auto& entry : fs::directory_iterator(root)) directories.push_back(entry.path());
  // By number: 80, 90, 100.
  std::sort(directories.begin(), directories.end(), [](const fs::path& a, const fs::path& b) {
    return std::atoi(a.filename().c_str()) < std::atoi(b.filename().c_str());
  });
  for (const auto& directory : directories) {
    if (!only.empty() &&
        (" " + only + " ").find(" " + directory.filename().string() + " ") == std::string::npos)
      continue;
    Architecture architecture;
    architecture.name = "compute_" + directory.filename().string();
    for (const auto& entry : fs::directory_iterator(directory)) {
      if (entry.path().extension() != ".ptx") continue;
      std::ostringstream text;
      text << std::ifstream(entry.path()).rdbuf();
      add_module(architecture, entry.path().string(), text.str(), architectures);
    }
    architectures.push_back(std::move(architecture));
  }
  require(!architectures.empty(), "there is no PTX for '{}' in {}; run: make ptx-check", only, root);
  return architectures;
}

std::vector<Architecture>& architectures() {
  static std::vector<Architecture> all;
  return all;
}

std::string symbol_of(const void* function) {
  Dl_info info{};
  require(dladdr(function, &info) && info.dli_sname && info.dli_saddr == function,
          "a kernel has no symbol: it must not be static, and the program must be linked with -rdynamic");
  return info.dli_sname;
}

std::string demangled(const std::string& symbol) {
  const std::unique_ptr<char, decltype(&std::free)> name(
      abi::__cxa_demangle(symbol.c_str(), nullptr, nullptr, nullptr), &std::free);
  return name ? name.get() : symbol;
}

namespace {

/// The same bits, or both a NaN, whose sign and payload no processor promises: as floats or as pairs of bf16.
bool same(uint32_t a, uint32_t b) {
  const auto is_nan = [](uint32_t bits) { return (bits & 0x7fffffff) > 0x7f800000; };
  const auto same_bf16 = [&](uint32_t x, uint32_t y) { return x == y || (is_nan(x) && is_nan(y)); };
  return a == b || (is_nan(a) && is_nan(b)) ||
         (same_bf16(a << 16, b << 16) && same_bf16(a & 0xffff0000, b & 0xffff0000));
}

}  // namespace

PtxDevice::PtxDevice(int threads, std::vector<Architecture>& architectures,
                     std::function<void(const std::string&)> differs)
    : SimtDevice(threads), architectures_(architectures), differs_(std::move(differs)) {
  memory_[reinterpret_cast<unsigned char*>(fault())] = {"the fault", sizeof(FaultRecord)};
}

PtxDevice::~PtxDevice() { release(exact_scratch_); }

void* PtxDevice::allocate(size_t bytes, const std::string& what) {
  void* const p = SimtDevice::allocate(bytes, what);
  memory_[static_cast<unsigned char*>(p)] = {what, bytes};
  return p;
}

void PtxDevice::release(void* memory) noexcept {
  memory_.erase(static_cast<unsigned char*>(memory));
  SimtDevice::release(memory);
}

void* PtxDevice::scratch(size_t bytes) {
  release(std::exchange(exact_scratch_, nullptr));
  exact_scratch_ = allocate(bytes, "scratch");
  std::memset(exact_scratch_, 0xff, bytes);
  return exact_scratch_;
}

std::vector<unsigned char> PtxDevice::snapshot() const {
  std::vector<unsigned char> copy;
  for (const auto& [begin, allocation] : memory_) copy.insert(copy.end(), begin, begin + allocation.bytes);
  return copy;
}

void PtxDevice::restore(const std::vector<unsigned char>& snapshot) {
  const unsigned char* from = snapshot.data();
  for (const auto& [begin, allocation] : memory_) {
    std::memcpy(begin, from, allocation.bytes);
    from += allocation.bytes;
  }
}

/// Of the device's memory from `expected`, in words; empty where there is none.
std::string PtxDevice::difference(const std::vector<unsigned char>& expected) const {
  size_t offset = 0, words = 0;
  float largest = 0;
  std::string first;
  for (const auto& [begin, allocation] : memory_) {
    for (size_t at = 0; at < allocation.bytes; at += 4) {
      const size_t bytes = std::min<size_t>(4, allocation.bytes - at);
      uint32_t got = 0, want = 0;
      std::memcpy(&got, begin + at, bytes);
      std::memcpy(&want, expected.data() + offset + at, bytes);
      if (same(got, want)) continue;
      if (words++ == 0)
        first = fmt::format("{:08x}, not {:08x}, at byte {} of {}", got, want, at, allocation.what);
      const float distance = std::fabs(std::bit_cast<float>(got) - std::bit_cast<float>(want));
      if (!(distance <= largest)) largest = distance;
    }
    offset += allocation.bytes;
  }
  if (words == 0) return "";
  return fmt::format("{} words differ, read as floats by up to {}; first {}", words, largest, first);
}

void PtxDevice::launch(const Launch& launch) {
  const std::string symbol = symbol_of(launch.function);
  const std::vector<unsigned char> before = snapshot();
  SimtDevice::launch(launch);
  const std::vector<unsigned char> expected = snapshot();

  std::vector<Memory> memory;
  for (const auto& [begin, allocation] : memory_) {
    const auto address = reinterpret_cast<uint64_t>(begin);
    memory.push_back({address, address + allocation.bytes});
  }
  const Kernel* last = nullptr;
  uint64_t instructions = 0;
  std::string found;
  for (Architecture& architecture : architectures_) {
    const auto kernel = architecture.kernels.find(symbol);
    require(kernel != architecture.kernels.end(), "{}: {} has no PTX of {}", launch.kernel, architecture.name,
            demangled(symbol));
    if (kernel->second.get() != last) {
      last = kernel->second.get();
      restore(before);
      instructions = run(*last, launch, memory, [this](const Launch& ptx) { SimtDevice::launch(ptx); });
      found = difference(expected);
    }
    architecture.launched.insert(symbol);
    ++architecture.launches;
    architecture.instructions += instructions;
    if (found.empty()) continue;
    ++architecture.differences;
    differs_(fmt::format("{} on {} ({}): {}", launch.kernel, architecture.name, last->file, found));
  }
}

}  // namespace topolm::ptx
