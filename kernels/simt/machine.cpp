#include "kernels/simt/machine.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "engine/error.h"
#include "kernels/simt/fiber.h"
#include "kernels/simt/shared_memory.h"
#include "kernels/simt/simt.h"
#include "kernels/simt/tensor_core.h"
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim

namespace topolm::simt {

constinit thread_local ThreadState* this_thread = nullptr;
constinit thread_local BlockState this_block{};

namespace {

enum class State : uint8_t { ready, at_barrier, in_warp, exited };

struct Thread : ThreadState {
  State state = State::exited;
  const Site* site = nullptr;  // where it waits
  uint32_t mask = 0;           // for whom
  void* lane_data = nullptr;
  Resolver resolve = nullptr;
  Fiber fiber;
};

struct Warp {
  uint32_t present, waiting;  // lanes that have not exited; that wait for others of their warp
  // Of __syncwarp, by the lowest lane of its mask. Two take turns: a lane that goes on late must not see what
  // others released at the next one.
  std::array<std::array<Token, 2>, 32> tokens;
  std::array<uint8_t, 32> turn;
};

bool same(const Site& a, const Site& b) {
  return &a == &b || (a.wrapper && a.wrapper == b.wrapper && a.line == b.line && a.file == b.file);
}

std::string text(const Extent& e) { return fmt::format("({}, {}, {})", e.x, e.y, e.z); }

/// Runs one block at a time. Its fibers live on from block to block.
class Multiprocessor {
 public:
  Multiprocessor() { host_.adopt(); }

  void run(const Launch& launch, Order order, RandomBits random);
  /// The host has seen everything that blocks did.
  void finish() {
    for (Token& token : block_ended_) token.acquire();
  }

  void sync_block(const Site& site);
  void warp_operation(uint32_t mask, const Site& site, void* lane, Resolver resolve);
  Copies& copies() { return copies_[running_->linear]; }
  RandomBits& random() { return schedule_.random(); }
  void* static_array(const SharedSlot& slot) { return shared_.static_array(slot); }

 private:
  static void thread_main();
  void begin_threads(const Extent& extent);
  void run_thread();
  void exit_thread();
  void wait();
  void meet_warp(const Thread& me);
  void stop(const std::string& what);
  std::string describe(const std::string& what) const;
  std::string thread(const Thread& t) const;
  std::string waiting_threads(int first, int count) const;

  Thread& at(int i) { return threads_[static_cast<size_t>(i)]; }
  const Thread& at(int i) const { return threads_[static_cast<size_t>(i)]; }
  Warp& warp_of(const Thread& t) { return warps_[static_cast<size_t>(t.warp)]; }

  const Launch* launch_ = nullptr;
  Thread* running_ = nullptr;
  int count_ = 0, live_ = 0, at_barrier_ = 0;  // threads
  Extent extent_{0, 0, 0};                     // of which the threads know their place
  Schedule schedule_;
  std::string error_;
  bool stopped_ = false;
  int started_ = 0;  // fibers
  std::array<Thread, kMaxThreads> threads_;
  std::array<Warp, kMaxThreads / 32> warps_{};
  std::unique_ptr<Copies[]> copies_ = std::make_unique_for_overwrite<Copies[]>(kMaxThreads);
  SharedMemory shared_;
  Fiber host_;

  // Two of each take turns, as in Warp. A block sees the end of the one before it here, since it reuses its
  // stacks and its shared memory; so blocks that follow each other run on two multiprocessors.
  std::array<Token, 2> barrier_, block_ended_;
  unsigned barrier_turn_ = 0, block_turn_ = 0;
};

constinit thread_local Multiprocessor* here = nullptr;
// Everything the host did before a launch happened before its blocks.
Token launched;

// ---- the life of a block

void Multiprocessor::run(const Launch& launch, Order order, RandomBits random) {
  launch_ = &launch;
  count_ = live_ = static_cast<int>(launch.grid.threads.x * launch.grid.threads.y * launch.grid.threads.z);
  at_barrier_ = 0;
  block_turn_ ^= 1;
  for (; started_ < count_; ++started_) at(started_).fiber.start(thread_main);
  begin_threads(launch.grid.threads);
  this_block.dynamic_shared = shared_.begin(launch.grid.shared);
  schedule_.begin(order, random);
  schedule_.add_all(count_);

  here = this;
  running_ = &at(schedule_.take());
  this_thread = running_;
  host_.switch_to(running_->fiber);
  here = nullptr;
  this_thread = nullptr;
  if (stopped_) {
    finish();
    for (int i = 0; i < started_; ++i) at(i).fiber.start(thread_main);  // whatever they were in the midst of
    stopped_ = false;
    throw Error(std::exchange(error_, {}));
  }
}

void Multiprocessor::begin_threads(const Extent& extent) {
  if (extent.x != extent_.x || extent.y != extent_.y || extent.z != extent_.z) {
    extent_ = extent;
    for (int i = 0; i < count_; ++i) {
      const uint32_t u = static_cast<uint32_t>(i);
      static_cast<ThreadState&>(at(i)) = {
          {u % extent.x, u / extent.x % extent.y, u / (extent.x * extent.y)}, i, i % 32, i / 32};
    }
  }
  for (int i = 0; i < count_; ++i) at(i).state = State::ready;
  for (int i = 0; i < count_; i += 32) {
    Warp& warp = warps_[static_cast<size_t>(i / 32)];
    warp.present = count_ - i >= 32 ? ~0u : (1u << (count_ - i)) - 1;
    warp.waiting = 0;
  }
}

// A fiber never ends: it runs its thread of one block after another.
void Multiprocessor::thread_main() {
  here->running_->fiber.begin();
  for (;;) {
    here->run_thread();
    here->exit_thread();
  }
}

void Multiprocessor::run_thread() {
  launched.acquire();
  block_ended_[block_turn_ ^ 1].acquire();
  copies().begin();
  try {
    launch_->call(launch_->function, launch_->arguments);
  } catch (const std::exception& e) {
    error_ = describe(fmt::format("{}: {}", thread(*running_), e.what()));
    stopped_ = true;
  }
}

void Multiprocessor::exit_thread() {
  Thread& me = *running_;
  me.state = State::exited;
  --live_;
  block_ended_[block_turn_].release();
  if (!stopped_) {
    Warp& warp = warp_of(me);
    const uint32_t bit = 1u << me.lane;
    warp.present &= ~bit;
    if (at_barrier_ > 0)
      stop(fmt::format("{} exited while others wait for it at a barrier: {}", thread(me),
                       waiting_threads(0, count_)));
    for (uint32_t w = warp.waiting; w; w &= w - 1)
      if (at(me.warp * 32 + std::countr_zero(w)).mask & bit)
        stop(fmt::format("{} exited while lanes of its warp wait for it: {}", thread(me),
                         waiting_threads(me.warp * 32, 32)));
  }
  wait();
}

/// Lets others run until this thread is ready and its turn has come.
void Multiprocessor::wait() {
  Thread& me = *running_;
  const int next = stopped_ ? -1 : schedule_.take();
  if (next < 0) {
    if (!stopped_ && live_ > 0)
      stop("its threads wait for each other for ever: " + waiting_threads(0, count_));
    me.fiber.switch_to(host_);
  } else if (next != me.linear) {
    running_ = &at(next);
    this_thread = running_;
    me.fiber.switch_to(running_->fiber);
  }
}

/// The next wait() ends the block, and the launch, with an Error. It does not return, so nothing that must be
/// destroyed may be alive there.
void Multiprocessor::stop(const std::string& what) {
  if (std::exchange(stopped_, true)) return;
  error_ = describe(what);
  block_ended_[block_turn_].release();
}

// ---- meetings

void Multiprocessor::sync_block(const Site& site) {
  Thread& me = *running_;
  me.state = State::at_barrier;
  me.site = &site;
  ++at_barrier_;
  Token& token = barrier_[barrier_turn_];
  token.release();
  if (live_ != count_) {
    stop(fmt::format("{} waits at a barrier to which others cannot come: {}", thread(me),
                     waiting_threads(0, count_)));
  } else if (at_barrier_ == count_) {
    for (int i = 0; i < count_; ++i) {
      if (!same(*at(i).site, site))
        stop("its threads wait at different barriers: " + waiting_threads(0, count_));
    }
    for (int i = 0; i < count_; ++i) at(i).state = State::ready;
    at_barrier_ = 0;
    barrier_turn_ ^= 1;
    schedule_.add_all(count_);
  }
  wait();
  token.acquire();
}

void Multiprocessor::warp_operation(uint32_t mask, const Site& site, void* lane, Resolver resolve) {
  Thread& me = *running_;
  Warp& warp = warp_of(me);
  me.state = State::in_warp;
  me.site = &site;
  me.mask = mask;
  me.lane_data = lane;
  me.resolve = resolve;
  warp.waiting |= 1u << me.lane;
  const size_t leader = static_cast<size_t>(std::countr_zero(mask | 1u << 31));
  Token& token = warp.tokens[leader][warp.turn[leader]];
  if (!resolve) token.release();
  if (!(mask >> me.lane & 1))
    stop(fmt::format("{} is not in its own mask: {}", thread(me), waiting_threads(me.linear, 1)));
  else if (mask & ~warp.present)
    stop(fmt::format("{} names lanes in its mask that have exited or never were: {}", thread(me),
                     waiting_threads(me.warp * 32, 32)));
  else if ((warp.waiting & mask) == mask)
    meet_warp(me);
  wait();
  if (!resolve) token.acquire();
}

/// All lanes of this thread's mask wait for each other; or some for others, and will come here later.
void Multiprocessor::meet_warp(const Thread& me) {
  Warp& warp = warp_of(me);
  void* lanes[32];
  for (uint32_t m = me.mask; m; m &= m - 1) {
    const int lane = std::countr_zero(m);
    const Thread& other = at(me.warp * 32 + lane);
    if (other.mask != me.mask) return;
    if (!same(*other.site, *me.site))
      return stop("lanes of one mask are in different operations: " + waiting_threads(me.warp * 32, 32));
    lanes[lane] = other.lane_data;
  }
  if (me.resolve) {
    const UncheckedAccesses unchecked;  // it reads and writes what lies on the other lanes' stacks
    me.resolve(lanes, me.mask);
  }
  for (uint32_t m = me.mask; m; m &= m - 1) at(me.warp * 32 + std::countr_zero(m)).state = State::ready;
  warp.waiting &= ~me.mask;
  warp.turn[static_cast<size_t>(std::countr_zero(me.mask))] ^= 1;
  schedule_.add_lanes(me.warp * 32, me.mask);
}

// ---- messages

std::string Multiprocessor::describe(const std::string& what) const {
  return fmt::format("{}, block {}: {}", launch_->kernel, text(this_block.index), what);
}

std::string Multiprocessor::thread(const Thread& t) const { return "thread " + text(t.index); }

/// What threads [first, first + count) wait for, those who wait for the same together, by their numbers.
std::string Multiprocessor::waiting_threads(int first, int count) const {
  struct Group {
    const Thread* like;
    std::vector<std::pair<int, int>> ranges;
  };
  std::vector<Group> groups;
  for (int i = first; i < std::min(first + count, count_); ++i) {
    const Thread& t = at(i);
    const auto alike = [&](const Group& g) {
      const Thread& o = *g.like;
      if (o.state != t.state) return false;
      if (t.state == State::at_barrier) return same(*o.site, *t.site);
      return t.state != State::in_warp || (same(*o.site, *t.site) && o.mask == t.mask);
    };
    auto group = std::find_if(groups.begin(), groups.end(), alike);
    if (group == groups.end()) group = groups.insert(group, Group{&t, {}});
    if (group->ranges.empty() || group->ranges.back().second != i - 1)
      group->ranges.emplace_back(i, i);
    else
      group->ranges.back().second = i;
  }
  std::string out;
  for (const auto& [like, ranges] : groups) {
    if (!out.empty()) out += "; ";
    out += ranges.size() == 1 && ranges[0].first == ranges[0].second ? "thread " : "threads ";
    for (size_t i = 0; i < ranges.size() && i < 4; ++i) {
      out += fmt::format("{}{}", i ? "," : "", ranges[i].first);
      if (ranges[i].second > ranges[i].first) out += fmt::format("-{}", ranges[i].second);
    }
    if (ranges.size() > 4) out += ",...";
    switch (like->state) {
      case State::ready:
        out += " run";
        break;
      case State::exited:
        out += " exited";
        break;
      case State::at_barrier:
        out += fmt::format(" in {} ({}:{})", like->site->operation, like->site->file, like->site->line);
        break;
      case State::in_warp:
        out += fmt::format(" in {} with mask {:08x} ({}:{})", like->site->operation, like->mask,
                           like->site->file, like->site->line);
        break;
    }
  }
  return out;
}

}  // namespace

void sync_block(const Site& site) { here->sync_block(site); }
void warp_operation(uint32_t mask, const Site& site, void* lane, Resolver resolve) {
  here->warp_operation(mask, site, lane, resolve);
}
void copy_async(const Site& site, void* shared, const void* global, int size, int bytes) {
  here->copies().issue(site, shared, global, size, bytes, here->random());
}
void copy_async_commit() { here->copies().commit(); }
void copy_async_wait(int newest) { here->copies().wait(newest); }
void kernel_failed(const char* what) { fail("{}", what); }
void operation_failed(const Site& site, const char* what) {
  fail("{} ({}:{}) {}", site.operation, site.file, site.line, what);
}

void SharedSlot::allocate() {
  address = here->static_array(*this);
  epoch = this_block.epoch;
}

namespace {

void check_grid(const Launch& launch) {
  const Extent &b = launch.grid.blocks, &t = launch.grid.threads;
  const auto check = [&](bool good, const std::string& what) {
    require(good, "{} cannot start: {}", launch.kernel, what);
  };
  check(b.x > 0 && b.y > 0 && b.z > 0 && b.x <= 0x7fffffff && b.y <= 65535 && b.z <= 65535,
        fmt::format("a grid of {} blocks; 1 to (2147483647, 65535, 65535) can be", text(b)));
  check(t.x > 0 && t.y > 0 && t.z > 0 && t.z <= 64 && uint64_t{t.x} * t.y <= kMaxThreads &&
            uint64_t{t.x} * t.y * t.z <= kMaxThreads,
        fmt::format("a block of {} threads; at most {} can be, z up to 64", text(t), kMaxThreads));
  check(launch.grid.shared <= kMaxShared,
        fmt::format("{} bytes of dynamic shared memory; the limit is {}", launch.grid.shared, kMaxShared));
  check(this_thread == nullptr, "a kernel cannot launch another");
}

/// In which order blocks start; empty: as they are counted.
std::vector<uint32_t> block_order(int64_t blocks, Order order, RandomBits random) {
  std::vector<uint32_t> list;
  if (order == Order::forward || blocks >= int64_t{1} << 32) return list;
  list.resize(static_cast<size_t>(blocks));
  std::iota(list.begin(), list.end(), 0u);
  if (order == Order::reverse)
    std::reverse(list.begin(), list.end());
  else
    for (uint32_t i = static_cast<uint32_t>(blocks); i > 1; --i)
      std::swap(list[i - 1], list[random.below(i)]);
  return list;
}

constexpr size_t kTurns = kThreadSanitizer ? 2 : 1;  // see block_ended_

/// This host thread's. A function of its own, so that every thread passes the declaration: only then are they
/// destroyed, and their thousands of stacks unmapped, when the thread ends.
std::array<std::unique_ptr<Multiprocessor>, kTurns>& multiprocessors() {
  static thread_local std::array<std::unique_ptr<Multiprocessor>, kTurns> all;
  return all;
}

std::unique_ptr<Multiprocessor>& next_multiprocessor() {
  static thread_local size_t turn = 0;
  return multiprocessors()[turn = (turn + 1) % kTurns];
}

}  // namespace

void run(const Launch& launch, uint64_t number, const Settings& settings, ThreadPool& pool) {
  check_grid(launch);
  const Grid& grid = launch.grid;
  const int64_t blocks = int64_t{grid.blocks.x} * grid.blocks.y * grid.blocks.z;
  const std::vector<uint32_t> order =
      block_order(blocks, settings.order, random_bits(settings.seed, number, ~uint64_t{0}));

  std::atomic<bool> failed{false};
  launched.release();
  pool.parallel_for(blocks, [&](int64_t task, int) {
    if (failed.load(std::memory_order_relaxed)) return;
    const uint64_t block = order.empty() ? static_cast<uint64_t>(task) : order[static_cast<size_t>(task)];
    const uint64_t column = block / grid.blocks.x;
    this_block = {
        {static_cast<uint32_t>(block % grid.blocks.x), static_cast<uint32_t>(column % grid.blocks.y),
         static_cast<uint32_t>(column / grid.blocks.y)},
        grid.threads,
        grid.blocks,
        nullptr,
        this_block.epoch + 1};
    auto& multiprocessor = next_multiprocessor();
    try {
      if (!multiprocessor) multiprocessor = std::make_unique<Multiprocessor>();
      multiprocessor->run(launch, settings.order, random_bits(settings.seed, number, block));
    } catch (...) {
      failed.store(true, std::memory_order_relaxed);
      throw;
    }
  });
  for (const auto& multiprocessor : multiprocessors())
    if (multiprocessor) multiprocessor->finish();
}

}  // namespace topolm::simt
