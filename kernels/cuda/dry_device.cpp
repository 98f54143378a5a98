#include "kernels/cuda/dry_device.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "engine/error.h"
#include "kernels/cuda/matrix_products.h"

namespace topolm {

namespace simt_kernels {
std::unique_ptr<Kernels> make_gpu_kernels(std::unique_ptr<GpuDevice> device,
                                          std::unique_ptr<MatrixProducts> products);
}

std::unique_ptr<Kernels> make_dry_kernels(LaunchLog& log) {
  return simt_kernels::make_gpu_kernels(std::make_unique<DryDevice>(log), nullptr);
}

DryDevice::~DryDevice() {
  while (!blocks_.empty()) release(blocks_.begin()->first);
}

// Pages that cannot be touched: a launcher that reads device memory crashes here as it would on a GPU.
void* DryDevice::allocate(size_t bytes, const std::string& what) {
  bytes = std::max<size_t>(bytes, 1);
  void* const memory = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  require(memory != MAP_FAILED, "there are no addresses for {}: {} MB", what, bytes >> 20);
  blocks_[memory] = bytes;
  return memory;
}

void DryDevice::release(void* memory) noexcept {
  const auto block = blocks_.find(memory);
  if (block == blocks_.end()) return;
  munmap(block->first, block->second);
  blocks_.erase(block);
}

void DryDevice::download(void* to, const Tensor& from) {
  std::memset(to, 0, static_cast<size_t>(from.bytes()));
}

void DryDevice::launch(const Launch& launch) {
  log_.push_back({launch.kernel, launch.function, launch.grid, launch.work});
}

void* DryDevice::scratch(size_t bytes) {
  if (bytes > scratch_bytes_ || !scratch_) {
    release(scratch_);
    scratch_ = allocate(bytes, "scratch");
    scratch_bytes_ = bytes;
  }
  return scratch_;
}

}  // namespace topolm
