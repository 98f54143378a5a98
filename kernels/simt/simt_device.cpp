#include "kernels/simt/simt_device.h"

#include <cstdlib>
#include <cstring>
#include <utility>

#include "engine/error.h"
#include "kernels/simt/sanitizers.h"

namespace topolm {

namespace {
constexpr size_t kAlignment = 256;  // cudaMalloc's
}

// ThreadSanitizer knows the fibers of one host thread; they are threads enough.
SimtDevice::SimtDevice(int threads) : pool_(simt::kThreadSanitizer ? 1 : threads) {}

SimtDevice::~SimtDevice() { release(scratch_); }

std::string SimtDevice::description() const {
  return fmt::format("simt: CUDA kernels as fibers on the CPU, {} thread{}", pool_.threads(),
                     pool_.threads() == 1 ? "" : "s");
}

void* SimtDevice::allocate(size_t bytes, const std::string& what) {
  // Not a byte more: what lies behind is for AddressSanitizer to guard.
  void* p = nullptr;
  require(posix_memalign(&p, kAlignment, bytes) == 0, "not enough memory for {}: {} MB; {}", what,
          bytes >> 20, kLessMemory);
  std::memset(p, 0, bytes);
  return p;
}

void SimtDevice::release(void* memory) noexcept { std::free(memory); }

void SimtDevice::upload(const Tensor& to, const void* from) {
  std::memcpy(to.data, from, static_cast<size_t>(to.bytes()));
}

void SimtDevice::download(void* to, const Tensor& from) {
  synchronize();
  std::memcpy(to, from.data, static_cast<size_t>(from.bytes()));
}

void SimtDevice::synchronize() { throw_if(std::exchange(fault_, {}).fault()); }

void SimtDevice::launch(const Launch& launch) { simt::run(launch, launches_++, schedule_, pool_); }

void* SimtDevice::scratch(size_t bytes) {
  if (bytes > scratch_bytes_) {
    release(std::exchange(scratch_, nullptr));
    scratch_ = allocate(bytes, "scratch");
    scratch_bytes_ = bytes;
  }
  // Nothing of the last operation, and no more than this one asked for.
  simt::allow_access(scratch_, scratch_bytes_);
  simt::fill_with_nan(scratch_, bytes);
  simt::forbid_access(static_cast<char*>(scratch_) + bytes, scratch_bytes_ - bytes);
  return scratch_;
}

}  // namespace topolm
