// A small fixed pool of threads and one way to use it: parallel_for(n, fn). Which thread runs a task is
// decided as it goes; what a task computes is not. So results are the same bits at any thread count, as long
// as tasks are cut by the problem's size and never by the number of threads.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>

namespace topolm {

/// CPUs this process may use: its affinity mask, cut to its cgroup's quota.
int available_cpus();

/// CPUs that the quotas of the process's cgroup and of those around it leave, rounded up; 2^20 without a
/// quota. Versions 1 and 2. The arguments are for tests.
int cgroup_cpus(const std::string& memberships = "/proc/self/cgroup",
                const std::string& mount = "/sys/fs/cgroup");

class ThreadPool {
 public:
  /// `threads` workers including the caller; 0 means available_cpus().
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const;

  /// Calls fn(task, thread) once for each task in [0, n); returns when all are done. `thread` < threads()
  /// names a slot that no two tasks hold at once: use it for scratch, never for the result. Not reentrant: a
  /// task must not call parallel_for. The first exception thrown by a task is rethrown here in the end.
  template <class F>
  void parallel_for(int64_t n, F&& fn) {
    using Fn = std::remove_reference_t<F>;
    run(
        n, [](void* f, int64_t task, int thread) { (*static_cast<Fn*>(f))(task, thread); },
        const_cast<std::remove_const_t<Fn>*>(&fn));
  }

 private:
  using Call = void (*)(void*, int64_t, int);
  void run(int64_t n, Call call, void* context);

  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace topolm
