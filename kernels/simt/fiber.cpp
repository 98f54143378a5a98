#include "kernels/simt/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "engine/error.h"

// Pushes what the calling convention lets a function rely on after a call, exchanges stack pointers, pops.
#if defined(__x86_64__)
asm(R"(
.text
.globl topolm_simt_switch
.type topolm_simt_switch,@function
topolm_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size topolm_simt_switch,.-topolm_simt_switch
)");
#elif defined(__aarch64__)
asm(R"(
.text
.globl topolm_simt_switch
.type topolm_simt_switch,%function
topolm_simt_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size topolm_simt_switch,.-topolm_simt_switch
)");
#endif

namespace topolm::simt {

constinit thread_local Fiber* fiber_left = nullptr;

namespace {

// Kernels keep tens of values in arrays; unoptimised and instrumented code needs more for the same.
#if defined(__OPTIMIZE__)
constexpr size_t kStackBytes = (kAddressSanitizer || kThreadSanitizer ? 128 : 64) << 10;
#else
constexpr size_t kStackBytes = 128 << 10;
#endif

size_t page() {
  static const size_t bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

}  // namespace

Fiber::~Fiber() {
  if (!mapping_) return;
  if constexpr (kThreadSanitizer) __tsan_destroy_fiber(thread_);
  allow_access(mapping_, page() + kStackBytes);  // what is mapped here next is no stack
  munmap(mapping_, page() + kStackBytes);
}

void Fiber::adopt() {
  if constexpr (kThreadSanitizer) thread_ = __tsan_get_current_fiber();
}

void Fiber::start(void (*entry)()) {
  if (!mapping_) {
    void* const p = mmap(nullptr, page() + kStackBytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    // The limit on mappings (vm.max_map_count) is what a machine with very many host threads meets first.
    require(p != MAP_FAILED && mprotect(p, page(), PROT_NONE) == 0,
            "simt: no stack for a CUDA thread: {}; use fewer --threads", std::strerror(errno));
    mapping_ = static_cast<unsigned char*>(p);
    stack_ = mapping_ + page();
    stack_bytes_ = kStackBytes;
  }
  unsigned char* const stack = mapping_ + page();
  allow_access(stack, kStackBytes);  // abandoned frames left their traps
  if constexpr (kThreadSanitizer) {
    if (thread_) {
      // Its stack is used again: what it did happened before, which a switch with flags 0 says.
      void* const host = __tsan_get_current_fiber();
      __tsan_switch_to_fiber(thread_, kNoSynchronization);
      __tsan_switch_to_fiber(host, 0);
      __tsan_destroy_fiber(thread_);
    }
    thread_ = __tsan_create_fiber(0);
  }
#if defined(TOPOLM_UCONTEXT)
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack;
  context_.uc_stack.ss_size = kStackBytes;
  context_.uc_link = nullptr;
  makecontext(&context_, entry, 0);
#else
  auto** sp = reinterpret_cast<void**>(stack + kStackBytes);
#if defined(__x86_64__)
  *--sp = nullptr;  // the return address of entry, which aligns the stack as after a call
  *--sp = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--sp = nullptr;
#else
  constexpr int kSaved = 20, kLink = 11;
  for (int i = 0; i < kSaved; ++i) *--sp = nullptr;
  sp[kLink] = reinterpret_cast<void*>(entry);
#endif
  sp_ = sp;
#endif
}

}  // namespace topolm::simt
