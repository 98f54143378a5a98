// A CUDA runtime and a cuBLASLt made of host memory, for what kernels/cuda does on the host where there is no
// GPU. As lazy as a GPU may be: a stream does nothing until somebody waits for it, so whatever is read,
// reused or freed too early shows. Kernels run on the simt device.
#pragma once

#include <cstddef>
#include <memory>

#include "kernels/cuda/cuda_device.h"
#include "kernels/simt/simt_device.h"

namespace topolm::fake {

struct State {
  size_t free_bytes = size_t{1} << 30;  // on the device
  int waits = 0;                        // calls that made the host wait for something unfinished
  int graph_launches = 0, captures = 0;
  int heuristics = 0, products = 0;  // calls of cuBLASLt
  double clock = 0;                  // milliseconds: products take time, nothing else does
  int driver_version = 13000, devices = 1, major = 9;
  const char* failing = nullptr;  // the function whose next call reports `failure`
  cudaError_t failure = cudaSuccess;
};
extern State state;

/// A CudaDevice whose kernels the simt device runs: what make_kernels puts in its place here.
class Device final : public GpuDevice {
 public:
  explicit Device(std::unique_ptr<GpuDevice> cuda) : cuda_(std::move(cuda)) {}
  std::string name() const override { return cuda_->name(); }
  std::string description() const override { return cuda_->description(); }
  void* allocate(size_t bytes, const std::string& what) override { return cuda_->allocate(bytes, what); }
  void release(void* memory) noexcept override { cuda_->release(memory); }
  void upload(const Tensor& to, const void* from) override { cuda_->upload(to, from); }
  void download(void* to, const Tensor& from) override { cuda_->download(to, from); }
  void synchronize() override { cuda_->synchronize(); }
  void replay(std::unique_ptr<Recording>& recording, const std::vector<int64_t>& key,
              const std::function<void()>& issue) override {
    record ? cuda_->replay(recording, key, issue) : issue();
  }
  void launch(const Launch& launch) override;
  void* scratch(size_t bytes) override { return cuda_->scratch(bytes); }
  size_t scratch_bytes() const override { return cuda_->scratch_bytes(); }
  FaultRecord* fault() override { return cuda_->fault(); }

  bool record = true;

 private:
  std::unique_ptr<GpuDevice> cuda_;
};

}  // namespace topolm::fake

/// For the library: does work in stream order.
extern "C" void fake_enqueue(void (*run)(void*), void* argument);
extern "C" topolm::fake::State* fake_state();
