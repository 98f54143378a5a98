// A GPU whose launches are timed one by one: what gpu-report's table of kernels is made from. Each launch
// waits for its end, so the sum is more than a step takes.
#pragma once

#include <map>

#include "kernels/cuda/gpu_device.h"
#include "kernels/cuda/matrix_products.h"
#include "kernels/kernels.h"

namespace topolm {

struct LaunchTime {
  int64_t launches = 0;
  double seconds = 0;
  Work work;
};

/// By the kernel's name without template arguments; the library's matrix products go by "linear (library)".
using LaunchTimes = std::map<std::string, LaunchTime>;

/// The kernels of the device that `options` names, cuda or simt, adding up their times in `times`, which must
/// outlive them.
std::unique_ptr<Kernels> make_timed_kernels(const DeviceOptions& options, LaunchTimes& times);

class TimedDevice final : public GpuDevice {
 public:
  TimedDevice(std::unique_ptr<GpuDevice> device, LaunchTimes& times)
      : device_(std::move(device)), times_(times) {}
  std::string name() const override { return device_->name(); }
  std::string description() const override { return device_->description(); }
  void* allocate(size_t bytes, const std::string& what) override { return device_->allocate(bytes, what); }
  void release(void* memory) noexcept override { device_->release(memory); }
  void upload(const Tensor& to, const void* from) override { device_->upload(to, from); }
  void download(void* to, const Tensor& from) override { device_->download(to, from); }
  void synchronize() override { device_->synchronize(); }
  void* scratch(size_t bytes) override { return device_->scratch(bytes); }
  size_t scratch_bytes() const override { return device_->scratch_bytes(); }
  FaultRecord* fault() override { return device_->fault(); }
  void launch(const Launch& launch) override;
  double seconds(const std::function<void()>& issue) override { return device_->seconds(issue); }

 private:
  std::unique_ptr<GpuDevice> device_;
  LaunchTimes& times_;
};

/// `products` on `device`, timed likewise.
std::unique_ptr<MatrixProducts> make_timed_products(std::unique_ptr<MatrixProducts> products,
                                                    GpuDevice& device, LaunchTimes& times);

}  // namespace topolm
