// An NVIDIA GPU: one stream, pinned staging for uploads, CUDA graphs for what is issued again and again.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <unordered_map>

#include "kernels/cuda/gpu_device.h"

namespace topolm {

/// Why there is no GPU to run on, as "no CUDA driver"; empty when there is one.
std::string why_no_cuda();

/// Throws Error unless the call succeeded: "cudaMalloc: out of memory; HINT".
void check_cuda(cudaError_t status, const char* call, const std::string& hint = "");

class CudaDevice final : public GpuDevice {
 public:
  /// The first device that CUDA shows; $CUDA_VISIBLE_DEVICES chooses. Throws Error when there is none.
  CudaDevice();
  ~CudaDevice() override;
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;

  std::string name() const override { return "cuda"; }
  std::string description() const override { return "cuda: " + model_ + details_; }
  /// "NVIDIA H100 80GB HBM3".
  const std::string& model() const { return model_; }
  /// Adds to the description.
  void add_detail(const std::string& detail) { details_ += ", " + detail; }

  void* allocate(size_t bytes, const std::string& what) override;
  void release(void* memory) noexcept override;
  void upload(const Tensor& to, const void* from) override;
  void download(void* to, const Tensor& from) override;
  void synchronize() override;
  void replay(std::unique_ptr<Recording>& recording, const std::vector<int64_t>& key,
              const std::function<void()>& issue) override;
  void launch(const Launch& launch) override;
  void* scratch(size_t bytes) override;
  size_t scratch_bytes() const override { return scratch_bytes_; }
  /// By the device's clock.
  double seconds(const std::function<void()>& issue) override;
  FaultRecord* fault() override { return fault_; }

  cudaStream_t stream() const { return stream_; }
  /// True while operations are recorded rather than run.
  bool capturing() const { return capturing_; }

 private:
  class Graph;

  /// Pinned host memory on its way to the device, free again once `copied`.
  struct Staging {
    void* memory = nullptr;
    cudaEvent_t copied = nullptr;
  };
  /// Pinned host memory for small downloads and for the fault that every wait brings along.
  struct Reply {
    FaultRecord fault;
    std::array<char, 4096> bytes;
  };

  void must_not_capture(const char* operation) const;

  std::string model_, details_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t start_ = nullptr, stop_ = nullptr;  // of seconds()
  std::array<Staging, 16> staging_;
  size_t next_staging_ = 0;
  Reply* reply_ = nullptr;
  FaultRecord* fault_ = nullptr;
  void* scratch_ = nullptr;
  size_t scratch_bytes_ = 0;
  int64_t scratch_generation_ = 0;  // counts its addresses: a graph holds the one that it was captured with
  bool capturing_ = false;
  const char* last_kernel_ = "no kernel";
  std::unordered_map<const void*, size_t> shared_limit_;  // of the functions that were launched with some
};

}  // namespace topolm
