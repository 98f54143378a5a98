// The machine of fibers as a device. Memory is the host's.
#pragma once

#include "kernels/cuda/gpu_device.h"
#include "kernels/simt/machine.h"

namespace topolm {

class SimtDevice : public GpuDevice {
 public:
  explicit SimtDevice(int threads);
  ~SimtDevice() override;
  std::string name() const override { return "simt"; }
  std::string description() const override;
  void* allocate(size_t bytes, const std::string& what) override;
  void release(void* memory) noexcept override;
  void upload(const Tensor& to, const void* from) override;
  void download(void* to, const Tensor& from) override;
  void synchronize() override;
  void launch(const Launch& launch) override;
  void* scratch(size_t bytes) override;
  size_t scratch_bytes() const override { return scratch_bytes_; }
  FaultRecord* fault() override { return &fault_; }

  /// In which order threads and blocks of the launches to come run: $TOPOLM_SIMT's, or as set here.
  simt::Settings& schedule() { return schedule_; }

 private:
  ThreadPool pool_;
  simt::Settings schedule_ = simt::settings_from_environment();
  uint64_t launches_ = 0;
  void* scratch_ = nullptr;
  size_t scratch_bytes_ = 0;
  FaultRecord fault_{};
};

}  // namespace topolm
