// A GPU as the launchers see it: memory, one stream of kernel launches, scratch, and a place where kernels
// report what they cannot throw. The real one (cuda_device.h) and the one made of fibers
// (kernels/simt/simt_device.h) run the same launchers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "engine/device.h"
#include "kernels/fault.h"

namespace topolm {

/// Blocks of a grid or threads of a block, as CUDA counts them.
struct Extent {
  uint32_t x = 1, y = 1, z = 1;
};

struct Grid {
  Extent blocks, threads;
  size_t shared = 0;  // bytes of dynamic shared memory a block
};

/// What a launch must at least move through memory and compute. Reports divide measured time by it.
struct Work {
  double bytes = 0, flops = 0;
};

struct Argument {
  const void* value;
  uint32_t size, alignment;
};

/// One launch with its types erased: the common language of all devices and of the reports.
struct Launch {
  const char* kernel;    // as in the source: "layernorm_forward_kernel<T>"
  const void* function;  // the __global__ function
  /// Calls the function as an ordinary one, for a machine that runs it on the CPU; null where nvcc compiled
  /// it.
  void (*call)(const void* function, std::span<const Argument> arguments);
  Grid grid;
  Work work;
  std::span<const Argument> arguments;
};

class GpuDevice : public Device {
 public:
  /// Runs a kernel after everything issued before it. Throws Error naming the kernel when it cannot start.
  virtual void launch(const Launch& launch) = 0;

  /// At least `bytes` of device memory for the operation being issued, aligned to 256 bytes. What it holds is
  /// lost at the next operation; the pointer of an earlier call becomes invalid.
  virtual void* scratch(size_t bytes) = 0;
  /// What scratch() has grown to.
  virtual size_t scratch_bytes() const = 0;

  /// How long the device takes for what `issue` issues, once all before it is done. By the host's clock here.
  virtual double seconds(const std::function<void()>& issue);

  /// Device memory of one Fault, kind none until a kernel reports.
  virtual FaultRecord* fault() = 0;
};

/// Throws Error; printf's format. For launchers: nvcc cannot read fmt, and so not engine/error.h; and no
/// std::string is put together in code that is compiled for processors with FMA (tools/lint.sh says why).
[[noreturn, gnu::format(printf, 1, 2)]] void refuse(const char* format, ...);

}  // namespace topolm
