// A device: where memory lies and in which order work on it happens. It knows no operation.
#pragma once

#include <string>

#include "engine/tensor.h"

namespace topolm {

class Device {
 public:
  virtual ~Device() = default;

  /// "cpu", "simt" or "cuda".
  virtual std::string name() const = 0;
  /// For people: "cpu: AMD EPYC, 2 threads, avx512".
  virtual std::string description() const = 0;

  /// Zeroed memory, aligned to at least 64 bytes. Throws Error naming `what` when there is not enough.
  virtual void* allocate(size_t bytes, const std::string& what) = 0;
  virtual void release(void* memory) noexcept = 0;

  /// Copies between host memory and a tensor, in order with the operations issued before and after. The host
  /// memory may be used again on return.
  virtual void upload(const Tensor& to, const void* from) = 0;
  virtual void download(void* to, const Tensor& from) = 0;

  /// Returns when every operation issued so far has finished.
  virtual void synchronize() = 0;
};

}  // namespace topolm
