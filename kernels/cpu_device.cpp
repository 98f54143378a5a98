#include "kernels/cpu_device.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <utility>

#include "engine/error.h"
#include "engine/parallel.h"

namespace topolm {

namespace {

constexpr size_t kHugePage = size_t{2} << 20;

void* allocate_aligned(size_t bytes) {
  const size_t alignment = bytes >= kHugePage ? kHugePage : 256;
  const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* p = std::aligned_alloc(alignment, rounded);
#if defined(MADV_HUGEPAGE)
  if (p && bytes >= kHugePage) madvise(p, rounded, MADV_HUGEPAGE);  // a wish: TLB misses cost, nothing breaks
#endif
  return p;
}

/// Bytes that can be had before the kernel starts killing processes: it promises more than it has, so asking
/// malloc is not enough.
size_t available_memory() {
  size_t available = SIZE_MAX;
  std::ifstream info("/proc/meminfo");
  for (std::string name, unit; info >> name;) {
    size_t kilobytes = 0;
    if (name == "MemAvailable:" && info >> kilobytes) available = kilobytes << 10;
    std::getline(info, unit);
  }
  size_t limit = 0, used = 0;  // of the cgroup; "max" reads as a failure
  if (std::ifstream("/sys/fs/cgroup/memory.max") >> limit &&
      std::ifstream("/sys/fs/cgroup/memory.current") >> used)
    available = std::min(available, limit - std::min(limit, used));
  return available;
}

std::string cpu_model() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name") && line.find(": ") != std::string::npos)
      return line.substr(line.find(": ") + 2);
  return "unknown processor";
}

}  // namespace

CpuDevice::CpuDevice(const char* isa, int threads) : isa_(isa), threads_(threads) {}
CpuDevice::~CpuDevice() = default;
std::string CpuDevice::name() const { return "cpu"; }
void CpuDevice::synchronize() {}
void CpuDevice::explain(const std::string& why) { why_ = " (" + why + ")"; }

std::string CpuDevice::description() const {
  return fmt::format("cpu{}: {}, {} thread{}, {}", why_, cpu_model(), threads_, threads_ == 1 ? "" : "s",
                     isa_);
}

void* CpuDevice::allocate(size_t bytes, const std::string& what) {
  void* p = bytes < kHugePage || bytes <= available_memory() ? allocate_aligned(std::max<size_t>(bytes, 1))
                                                             : nullptr;
  require(p != nullptr, "not enough memory for {}: {} MB; {}", what, bytes >> 20, kLessMemory);
  std::memset(p, 0, bytes);
  return p;
}

void CpuDevice::release(void* memory) noexcept { std::free(memory); }

void CpuDevice::upload(const Tensor& to, const void* from) {
  std::memcpy(to.data, from, static_cast<size_t>(to.bytes()));
}

void CpuDevice::download(void* to, const Tensor& from) {
  std::memcpy(to, from.data, static_cast<size_t>(from.bytes()));
}

struct Workspace::Block {
  std::unique_ptr<float, decltype(&std::free)> data{nullptr, &std::free};
  int64_t size = 0;

  float* floats(int64_t n) {
    if (n > size) {
      data.reset();
      size = 0;
      data.reset(static_cast<float*>(allocate_aligned(static_cast<size_t>(n) * sizeof(float))));
      require(data != nullptr, "not enough memory for {} MB of working space", n >> 18);
      size = n;
    }
    return data.get();
  }
};

Workspace::Workspace(int threads) : blocks_(static_cast<size_t>(threads) + 2) {}
Workspace::~Workspace() = default;
float* Workspace::shared(int64_t n) { return blocks_[0].floats(n); }
float* Workspace::of_thread(int thread, int64_t n) {
  return blocks_[static_cast<size_t>(thread) + 1].floats(n);
}
float* Workspace::of_caller(int64_t n) { return blocks_.back().floats(n); }

int64_t Workspace::bytes() const {
  int64_t floats = 0;
  for (const Block& b : blocks_) floats += b.size;
  return floats * static_cast<int64_t>(sizeof(float));
}

void check_indices(const char* what, const Tensor& indices, int64_t low, int64_t limit, const char* of) {
  const int32_t* const index = indices.i32();
  for (int64_t i = 0; i < indices.elements(); ++i)
    require(index[i] >= low && index[i] < limit, "{} {} at position {} is outside {} of {}", what, index[i],
            i, of, limit);
}

void tile_fault(const char* what) { fail("emulated AMX: {}; this is a bug of the kernel", what); }

}  // namespace topolm
