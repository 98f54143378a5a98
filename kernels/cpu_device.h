// The CPU as a device: huge pages for memory, nothing to wait for.
#pragma once

#include <memory>
#include <vector>

#include "engine/device.h"
#include "kernels/kernels.h"

namespace topolm {

class CpuDevice final : public Device {
 public:
  CpuDevice(const char* isa, int threads);
  ~CpuDevice() override;
  std::string name() const override;
  std::string description() const override;
  void* allocate(size_t bytes, const std::string& what) override;
  void release(void* memory) noexcept override;
  void upload(const Tensor& to, const void* from) override;
  void download(void* to, const Tensor& from) override;
  void synchronize() override;
  /// Adds to the description why it is this device: "no CUDA driver".
  void explain(const std::string& why);

 private:
  std::string isa_, why_;
  int threads_;
};

/// Working memory of the kernels: packed panels, tiles, partial sums. It grows in the first step and stays;
/// what it holds is not kept from one operation to the next, and is not zeroed. Everything is out of line, so
/// that no copy of it is compiled for an instruction set that the machine may not have.
class Workspace {
 public:
  explicit Workspace(int threads);
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  /// At least n floats, 256-byte aligned, for all tasks of an operation together; get it before they start.
  /// The pointer of an earlier call becomes invalid.
  float* shared(int64_t n);
  /// The same for the tasks of one thread, called from within them.
  float* of_thread(int thread, int64_t n);
  /// The same for what must be known before the size of shared() is: lists of tasks.
  float* of_caller(int64_t n);
  /// What it has grown to.
  int64_t bytes() const;

 private:
  struct Block;
  std::vector<Block> blocks_;  // [0] is shared, [1 + thread] are the threads', the last is the caller's
};

/// Throws Error unless every index lies in [low, limit): "embedding_forward: token id 97 at position 5 is
/// outside the vocabulary of 97" for what = "embedding_forward: token id", of = "the vocabulary".
void check_indices(const char* what, const Tensor& indices, int64_t low, int64_t limit, const char* of);

/// Throws Error for what a processor would not survive: a mistake in a kernel that ran on emulated tiles.
[[noreturn]] void tile_fault(const char* what);

/// Loops that do one thing, as fast as an instruction set can: ./bench times them to know what is possible.
struct CeilingLoops {
  float (*multiply_add)(int64_t n);  // n (or a few more) x = x * a + b on registers
  /// The same of bf16 products with fp32 sums; null where the set multiplies bf16 as fp32.
  float (*bf16_multiply_add)(int64_t n);
  float (*read)(const float* x, int64_t n);
  void (*copy)(float* out, const float* x, int64_t n);
  void (*triad)(float* out, const float* x, const float* y, int64_t n);  // out = x + 0.5 y
  /// The stream of an AdamW step, which reads four arrays and writes three: w, m, v += 0.5 g.
  void (*update)(float* w, float* m, float* v, const float* g, int64_t n);
};

/// Defined by each instruction set's copy of the kernels.
#define TOPOLM_DECLARE_ISA(isa)                           \
  namespace isa {                                         \
  std::unique_ptr<Kernels> make_cpu_kernels(int threads); \
  CeilingLoops ceiling_loops();                           \
  }
#if defined(__x86_64__)
TOPOLM_DECLARE_ISA(sse2)
TOPOLM_DECLARE_ISA(avx2)
TOPOLM_DECLARE_ISA(avx512)
TOPOLM_DECLARE_ISA(avx512_bf16)
TOPOLM_DECLARE_ISA(amx)
TOPOLM_DECLARE_ISA(amx_emulated)
#else
TOPOLM_DECLARE_ISA(neon)
#endif
#undef TOPOLM_DECLARE_ISA

/// The kernels of the instruction set that `options` names, or of the best one.
std::unique_ptr<Kernels> make_cpu_kernels(const DeviceOptions& options);

/// The loops of the instruction set that make_cpu_kernels(options) would choose.
CeilingLoops ceiling_loops(const DeviceOptions& options);

}  // namespace topolm
