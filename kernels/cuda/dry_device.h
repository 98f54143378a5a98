// A GPU that is not there: it gives out addresses without memory and records launches instead of running
// them. The real model at its real size runs on it in a second, and what it would have done can be read off.
#pragma once

#include <map>

#include "kernels/cuda/launch_log.h"
#include "kernels/kernels.h"

namespace topolm {

class DryDevice : public GpuDevice {
 public:
  /// Every launch is added to `log`, which must outlive the device.
  explicit DryDevice(LaunchLog& log) : log_(log) {}
  ~DryDevice() override;
  std::string name() const override { return "dry"; }
  std::string description() const override { return "dry: launches are recorded, nothing runs"; }
  void* allocate(size_t bytes, const std::string& what) override;
  void release(void* memory) noexcept override;
  void upload(const Tensor&, const void*) override {}
  /// Zeros.
  void download(void* to, const Tensor& from) override;
  void synchronize() override {}
  void launch(const Launch& launch) override;
  void* scratch(size_t bytes) override;
  size_t scratch_bytes() const override { return scratch_bytes_; }
  FaultRecord* fault() override { return &fault_; }

 private:
  LaunchLog& log_;
  std::map<void*, size_t> blocks_;
  void* scratch_ = nullptr;
  size_t scratch_bytes_ = 0;
  FaultRecord fault_{};
};

/// Every operation on it; matrix products are those of our own kernels.
std::unique_ptr<Kernels> make_dry_kernels(LaunchLog& log);

}  // namespace topolm
