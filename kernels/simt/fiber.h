// A fiber: a stack and the place where its code stopped. Switching takes a few nanoseconds, since it saves no
// more than a function call must keep. A fiber stays on the host thread that started it.
#pragma once

#include <cstddef>

#include "kernels/simt/sanitizers.h"

#if !defined(__x86_64__) && !defined(__aarch64__)
#define TOPOLM_UCONTEXT  // slow: each switch asks the kernel for the signal mask
#endif
#if defined(TOPOLM_UCONTEXT)
#include <ucontext.h>
#else
extern "C" void topolm_simt_switch(void** save, void* load);
#endif

namespace topolm::simt {

class Fiber {
 public:
  Fiber() = default;
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Makes this the fiber that runs now, on the host thread's own stack.
  void adopt();
  /// The next switch to this fiber calls `entry`, which must never return and must call begin() first. What
  /// the fiber did before is abandoned. The first start() makes the stack, with a guard page beneath it.
  void start(void (*entry)());
  void begin() { arrive(nullptr); }
  /// Called by the running fiber; returns when somebody switches back to it.
  void switch_to(Fiber& next);

 private:
  void arrive(void* fake_stack);

#if defined(TOPOLM_UCONTEXT)
  ucontext_t context_;
#else
  void* sp_ = nullptr;
#endif
  unsigned char* mapping_ = nullptr;  // the guard page, then the stack
  const void* stack_ = nullptr;
  size_t stack_bytes_ = 0;
  void* fake_stack_ = nullptr;  // AddressSanitizer's
  void* thread_ = nullptr;      // ThreadSanitizer's name for this fiber
};

}  // namespace topolm::simt

extern "C" {
void __sanitizer_start_switch_fiber(void** fake_stack, const void* stack, size_t bytes);
void __sanitizer_finish_switch_fiber(void* fake_stack, const void** old_stack, size_t* old_bytes);
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
}

namespace topolm::simt {

extern constinit thread_local Fiber* fiber_left;
constexpr unsigned kNoSynchronization = 1;  // a switch orders nothing: only CUDA's own operations do

inline void Fiber::arrive([[maybe_unused]] void* fake_stack) {
  // The stack that was left tells its bounds: how those of a host thread become known.
  if constexpr (kAddressSanitizer)
    __sanitizer_finish_switch_fiber(fake_stack, &fiber_left->stack_, &fiber_left->stack_bytes_);
}

inline void Fiber::switch_to(Fiber& next) {
  if constexpr (kAddressSanitizer) {
    fiber_left = this;
    __sanitizer_start_switch_fiber(&fake_stack_, next.stack_, next.stack_bytes_);
  }
  if constexpr (kThreadSanitizer) __tsan_switch_to_fiber(next.thread_, kNoSynchronization);
#if defined(TOPOLM_UCONTEXT)
  swapcontext(&context_, &next.context_);
#else
  topolm_simt_switch(&sp_, next.sp_);
#endif
  arrive(fake_stack_);
}

}  // namespace topolm::simt
