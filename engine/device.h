// A device: where memory lies and in which order work on it happens. It knows no operation.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/tensor.h"

namespace topolm {

/// What a device keeps of operations that are issued again and again. Whoever issues them owns it; it must go
/// before the device does.
class Recording {
 public:
  virtual ~Recording() = default;
};

/// What an error about too little memory ends with.
constexpr const char* kLessMemory =
    "use --recompute when training, --dtype bf16, or a smaller --batch, --seq or --preset";

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

  /// Runs the operations that `issue` issues. A device may record them in `recording`, empty at first, and
  /// run the recording instead when it is called again with an equal `key`: what differs from call to call
  /// must lie in device memory, or in the key. `issue` may not upload, download, allocate or synchronize.
  virtual void replay(std::unique_ptr<Recording>& recording, const std::vector<int64_t>& key,
                      const std::function<void()>& issue) {
    (void)recording, (void)key;
    issue();
  }
};

}  // namespace topolm
