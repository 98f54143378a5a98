#include "kernels/simt/machine.h"

#include <sys/mman.h>

#include <cstdlib>
#include <memory>
#include <vector>

#include "engine/error.h"
#include "kernels/simt/simt.h"
#include "kernels/simt/tensor_core.h"
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim

// A minimal machine to begin with: one order, x86-64 only.
extern "C" void topolm_simt_switch(void** save, void* load);
asm(R"(
.text
.globl topolm_simt_switch
.type topolm_simt_switch,@function
topolm_simt_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
.size topolm_simt_switch,.-topolm_simt_switch
)");

namespace topolm::simt {

thread_local ThreadState* this_thread = nullptr;
thread_local BlockState this_block{};

namespace {

enum class State : uint8_t { ready, at_barrier, in_warp, done };

struct Fiber : ThreadState {
  State state = State::done;
  const Site* site = nullptr;
  uint32_t mask = 0;
  void* lane_data = nullptr;
  Resolver resolve = nullptr;
  unsigned char* stack = nullptr;
  void* sp = nullptr;
};

constexpr size_t kStack = 64 << 10, kShared = 228 << 10;

struct Worker {
  std::vector<Fiber> fibers;
  std::unique_ptr<unsigned char[]> stacks, shared;
  size_t shared_used = 0;
  std::vector<int> ready;
  size_t head = 0;
  int live = 0, at_barrier = 0;
  void* main_sp = nullptr;
  Fiber* running = nullptr;
  const Launch* launch = nullptr;
  std::string error;
};
thread_local Worker worker;

void next(void** save) {
  Worker& w = worker;
  if (w.head == w.ready.size() || !w.error.empty()) {
    if (w.live && w.error.empty()) w.error = "threads wait for each other for ever";
    this_thread = nullptr;
    topolm_simt_switch(save, w.main_sp);
    return;
  }
  Fiber& f = w.fibers[static_cast<size_t>(w.ready[w.head++])];
  w.running = &f, this_thread = &f;
  if (save != &f.sp) topolm_simt_switch(save, f.sp);
}

void entry() {
  Worker& w = worker;
  try {
    w.launch->call(w.launch->function, w.launch->arguments);
  } catch (const std::exception& e) {
    if (w.error.empty()) w.error = e.what();
  }
  w.running->state = State::done;
  --w.live;
  next(&w.running->sp);
}

}  // namespace

void kernel_failed(const std::string& what) { fail("{}", what); }

void sync_block(const Site& site) {
  Worker& w = worker;
  Fiber& me = *w.running;
  me.state = State::at_barrier, me.site = &site;
  if (++w.at_barrier == w.live) {
    w.at_barrier = 0;
    w.ready.clear(), w.head = 0;
    for (Fiber& f : w.fibers)
      if (f.state == State::at_barrier) f.state = State::ready, w.ready.push_back(f.linear);
  }
  next(&me.sp);
}

void warp_operation(uint32_t mask, const Site& site, void* lane, Resolver resolve) {
  Worker& w = worker;
  Fiber& me = *w.running;
  me.state = State::in_warp, me.site = &site, me.mask = mask, me.lane_data = lane, me.resolve = resolve;
  void* lanes[32] = {};
  bool all = true;
  for (uint32_t m = mask; m && all; m &= m - 1) {
    const size_t other = static_cast<size_t>(me.warp * 32 + std::countr_zero(m));
    all = other < w.fibers.size() && w.fibers[other].state == State::in_warp && w.fibers[other].site == &site;
    if (all) lanes[std::countr_zero(m)] = w.fibers[other].lane_data;
  }
  if (all) {
    resolve(lanes, mask);
    for (uint32_t m = mask; m; m &= m - 1) {
      Fiber& f = w.fibers[static_cast<size_t>(me.warp * 32 + std::countr_zero(m))];
      f.state = State::ready, w.ready.push_back(f.linear);
    }
  }
  next(&me.sp);
}

// For now a copy lands at once.
void copy_async(void* shared, const void* global, int size, int bytes) {
  std::memset(shared, 0, static_cast<size_t>(size));
  std::memcpy(shared, global, static_cast<size_t>(bytes));
}
void copy_async_commit() {}
void copy_async_wait(int) {}

void SharedSlot::allocate() {
  Worker& w = worker;
  const size_t a = std::max<size_t>(alignment, 16), begin = (w.shared_used + a - 1) / a * a;
  require(begin + bytes <= kShared, "too much shared memory at {}", name);
  w.shared_used = begin + bytes;
  address = w.shared.get() + begin;
  epoch = this_block.epoch;
}

void run(const Launch& launch, const Settings&, ThreadPool& pool) {
  const Grid& g = launch.grid;
  const int64_t blocks = int64_t{g.blocks.x} * g.blocks.y * g.blocks.z;
  const int threads = static_cast<int>(g.threads.x * g.threads.y * g.threads.z);
  pool.parallel_for(blocks, [&](int64_t block, int) {
    Worker& w = worker;
    w.launch = &launch;
    if (!w.shared) w.shared = std::make_unique<unsigned char[]>(kShared);
    if (w.fibers.size() != static_cast<size_t>(threads)) {
      w.fibers.assign(static_cast<size_t>(threads), {});
      w.stacks = std::make_unique_for_overwrite<unsigned char[]>(kStack * static_cast<size_t>(threads));
    }
    const uint64_t b = static_cast<uint64_t>(block);
    this_block = {{static_cast<uint32_t>(b % g.blocks.x), static_cast<uint32_t>(b / g.blocks.x % g.blocks.y),
                   static_cast<uint32_t>(b / (uint64_t{g.blocks.x} * g.blocks.y))},
                  g.threads,
                  g.blocks,
                  w.shared.get(),
                  this_block.epoch + 1};
    std::memset(w.shared.get(), 0xff, kShared);
    w.shared_used = g.shared, w.live = threads, w.at_barrier = 0, w.head = 0;
    w.ready.clear(), w.error.clear();
    for (int i = 0; i < threads; ++i) {
      Fiber& f = w.fibers[static_cast<size_t>(i)];
      const uint32_t u = static_cast<uint32_t>(i);
      f.index = {u % g.threads.x, u / g.threads.x % g.threads.y, u / (g.threads.x * g.threads.y)};
      f.linear = i, f.lane = i % 32, f.warp = i / 32, f.state = State::ready;
      f.stack = w.stacks.get() + kStack * static_cast<size_t>(i);
      auto** sp = reinterpret_cast<void**>((reinterpret_cast<uintptr_t>(f.stack) + kStack) & ~uintptr_t{15});
      *--sp = nullptr;
      *--sp = reinterpret_cast<void*>(&entry);
      for (int r = 0; r < 6; ++r) *--sp = nullptr;
      f.sp = sp;
      w.ready.push_back(i);
    }
    next(&w.main_sp);
    require(w.error.empty(), "{}: {}", launch.kernel, w.error);
  });
}

}  // namespace topolm::simt
