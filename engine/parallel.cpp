#include "engine/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/error.h"

namespace topolm {

namespace {

// Long enough to bridge the gap between two operations of a step, short enough not to hurt a busy machine. To
// wake a sleeping thread takes 7 us of the caller's time, so after 30 us alone a region of 8 x 5 us
// takes 20.5 us with 60 us and 30 to 34 with 20. A step of tiny: 1 % faster idle, 10 % with a busy process on
// each core, 2 % slower with one on one core; with 200 us two trainers at a time are 5 % slower.
constexpr auto kSpin = std::chrono::microseconds(60);

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Waits until `value` differs from `old`: spins a little, then sleeps in the kernel.
void wait_while_equal(const std::atomic<uint32_t>& value, uint32_t old, bool may_spin) {
  if (may_spin) {
    const auto end = std::chrono::steady_clock::now() + kSpin;
    do {
      for (int i = 0; i < 32; ++i) {
        if (value.load(std::memory_order_acquire) != old) return;
        relax();
      }
    } while (std::chrono::steady_clock::now() < end);
  }
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

/// CPUs that a quota of so many microseconds of each period is, rounded up; kNoQuota where there is none.
constexpr int kNoQuota = 1 << 20;
int cpus_of(long long quota, long long period) {
  if (quota <= 0 || period <= 0) return kNoQuota;
  return static_cast<int>(std::min<long long>((quota + period - 1) / period, kNoQuota));
}

/// Of one cgroup: a directory of version 2 (cpu.max: "max 100000" has no quota), or of version 1.
int quota_of(const std::string& directory) {
  long long quota = 0, period = 0;
  if (!(std::ifstream(directory + "/cpu.max") >> quota >> period) &&
      !(std::ifstream(directory + "/cpu.cfs_quota_us") >> quota &&
        std::ifstream(directory + "/cpu.cfs_period_us") >> period))
    return kNoQuota;
  return cpus_of(quota, period);
}

}  // namespace

int cgroup_cpus(const std::string& memberships, const std::string& mount) {
  int cpus = quota_of(mount);  // in a container's own namespace this may be all that there is to see
  std::ifstream file(memberships);
  for (std::string line; std::getline(file, line);) {  // "0::/a/b" of version 2, "4:cpu,cpuacct:/a/b" of 1
    const size_t controllers = line.find(':') + 1, path = line.find(':', controllers) + 1;
    if (controllers == 0 || path == 0) continue;
    const std::string names = line.substr(controllers, path - 1 - controllers);
    if (!names.empty() && ("," + names + ",").find(",cpu,") == std::string::npos) continue;
    const std::string root = names.empty() ? mount : mount + "/" + names;
    // A group has no more than the groups around it.
    for (std::string group = line.substr(path);; group.resize(group.rfind('/'))) {
      cpus = std::min(cpus, quota_of(root + group));
      if (group.find('/') == std::string::npos) break;
    }
  }
  return cpus;
}

int available_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  const int affinity = sched_getaffinity(0, sizeof set, &set) == 0
                           ? CPU_COUNT(&set)
                           : static_cast<int>(std::thread::hardware_concurrency());
  return std::max(1, std::min(affinity, cgroup_cpus()));
}

// A job is published as a new generation in the high half of `claim`; its low half is the next task. A thread
// takes a task by compare-and-swap, so a thread that woke late, or never, holds nobody up: whoever is awake
// does the work, and run() waits only for tasks that were really taken.
struct ThreadPool::State {
  std::atomic<uint64_t> claim{0};       // generation << 32 | next task
  std::atomic<uint32_t> generation{0};  // what sleeping workers wait on
  std::atomic<uint32_t> done{0};        // finished tasks of this generation
  std::atomic<uint32_t> tasks{0};
  std::atomic<Call> call{nullptr};
  std::atomic<void*> context{nullptr};
  std::atomic<bool> stop{false};
  std::mutex error_mutex;
  std::exception_ptr error;
  bool may_spin = true;
  std::vector<std::thread> workers;

  /// Takes and runs tasks of generation `g` until none is left.
  void work(uint32_t g, int thread) {
    for (;;) {
      uint64_t seen = claim.load(std::memory_order_acquire);
      // Read the job before claiming: if the claim succeeds, the job cannot have changed in between.
      const uint32_t n = tasks.load(std::memory_order_acquire);
      const Call f = call.load(std::memory_order_relaxed);
      void* const c = context.load(std::memory_order_relaxed);
      if (static_cast<uint32_t>(seen >> 32) != g || static_cast<uint32_t>(seen) >= n) return;
      if (!claim.compare_exchange_weak(seen, seen + 1, std::memory_order_acq_rel)) continue;
      try {
        f(c, static_cast<int64_t>(static_cast<uint32_t>(seen)), thread);
      } catch (...) {
        const std::lock_guard lock(error_mutex);
        if (!error) error = std::current_exception();
      }
      if (done.fetch_add(1, std::memory_order_acq_rel) + 1 == n) done.notify_one();
    }
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  require(threads >= 0 && threads <= 4096, "--threads {} is out of range; use 0 (all CPUs) to 4096", threads);
  const int cpus = available_cpus();
  if (threads == 0) threads = cpus;
  state_->may_spin = threads <= cpus;  // spinning on a shared CPU keeps the other thread from working
  for (int i = 1; i < threads; ++i) {
    state_->workers.emplace_back([s = state_.get(), i] {
      for (uint32_t seen = 0;;) {
        wait_while_equal(s->generation, seen, s->may_spin);
        seen = s->generation.load(std::memory_order_acquire);
        // After the load: a worker that woke late, for the job before, would else take the last generation
        // for a job, find none, and sleep for ever on a pool that is being joined.
        if (s->stop.load(std::memory_order_acquire)) return;
        s->work(seen, i);
      }
    });
  }
}

ThreadPool::~ThreadPool() {
  state_->stop.store(true, std::memory_order_release);
  state_->generation.fetch_add(1, std::memory_order_acq_rel);
  state_->generation.notify_all();
  for (auto& worker : state_->workers) worker.join();
}

int ThreadPool::threads() const { return static_cast<int>(state_->workers.size()) + 1; }

void ThreadPool::run(int64_t n, Call call, void* context) {
  if (n <= 0) return;
  if (n == 1 || state_->workers.empty()) {
    for (int64_t i = 0; i < n; ++i) call(context, i, 0);
    return;
  }
  require(n < (int64_t{1} << 32), "parallel_for: {} tasks are more than 2^32 - 1", n);
  State& s = *state_;
  const uint32_t g = s.generation.load(std::memory_order_relaxed) + 1;
  // Close the old generation first: a late worker must not pair its old claim word with the new job.
  s.claim.store(uint64_t{g} << 32 | 0xffffffffu, std::memory_order_release);
  s.call.store(call, std::memory_order_relaxed);
  s.context.store(context, std::memory_order_relaxed);
  s.done.store(0, std::memory_order_relaxed);
  s.tasks.store(static_cast<uint32_t>(n), std::memory_order_release);
  s.claim.store(uint64_t{g} << 32, std::memory_order_release);
  s.generation.store(g, std::memory_order_release);
  s.generation.notify_all();
  s.work(g, 0);
  for (uint32_t d; (d = s.done.load(std::memory_order_acquire)) != n;)
    wait_while_equal(s.done, d, s.may_spin);
  if (s.error) std::rethrow_exception(std::exchange(s.error, nullptr));
}

}  // namespace topolm
