#include <doctest/doctest.h>

#include <atomic>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "engine/error.h"
#include "engine/parallel.h"
#include "tests/temporary.h"

using namespace topolm;

TEST_CASE("parallel: every task runs once, at any number of threads") {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    CHECK(pool.threads() == threads);
    for (int round = 0; round < 200; ++round) {
      const int64_t n = round * 7 % 97;
      std::vector<std::atomic<int>> runs(static_cast<size_t>(n));
      std::vector<std::atomic<int>> holders(static_cast<size_t>(threads));
      bool slot_shared = false;
      pool.parallel_for(n, [&](int64_t task, int thread) {
        if (holders[thread].fetch_add(1) != 0) slot_shared = true;
        ++runs[task];
        holders[thread].fetch_sub(1);
      });
      for (const auto& r : runs) CHECK(r == 1);
      CHECK_FALSE(slot_shared);
    }
  }
}

TEST_CASE("parallel: a task's exception reaches the caller, and the pool works on") {
  ThreadPool pool(3);
  CHECK_THROWS_WITH_AS(pool.parallel_for(50, [](int64_t i, int) { require(i != 20, "task {} failed", i); }),
                       "task 20 failed", Error);
  std::atomic<int> sum = 0;
  pool.parallel_for(10, [&](int64_t i, int) { sum += static_cast<int>(i); });
  CHECK(sum == 45);
}

TEST_CASE("parallel: a pool can end right after its last job, whoever is still waking up for it") {
  std::atomic<int> sum = 0;
  for (int i = 0; i < 10000; ++i) {  // a worker that sleeps through the end hangs the test
    ThreadPool pool(2 + i % 3);
    pool.parallel_for(2, [&](int64_t, int) { ++sum; });
  }
  CHECK(sum == 20000);
}

TEST_CASE("parallel: all is done though other threads keep every CPU busy") {
  std::atomic<bool> stop = false;
  std::vector<std::thread> busy;
  for (int i = 0; i < 2 * available_cpus(); ++i)
    busy.emplace_back([&] {
      while (!stop) {
      }
    });
  ThreadPool pool(3);
  std::atomic<int64_t> sum = 0;
  int64_t expected = 0;
  for (int round = 0; round < 300; ++round) {
    const int64_t n = 1 + round % 9;
    expected += n * (n + 1) / 2;
    pool.parallel_for(n, [&](int64_t task, int) {
      volatile int work = 2000;  // a worker may lose its CPU in the middle of it
      while (work > 0) work = work - 1;
      sum += task + 1;
    });
  }
  stop = true;
  for (auto& thread : busy) thread.join();
  CHECK(sum == expected);
}

TEST_CASE("parallel: the quota of the cgroup and of those around it, versions 1 and 2") {
  const TemporaryDirectory directory;
  const std::string root = directory.path().string();
  const auto write = [&](const std::string& name, const char* text) {
    make_directories(fs::path(root + name).parent_path());
    std::ofstream(root + name) << text;
  };
  const auto cpus = [&] { return cgroup_cpus(root + "/self", root + "/mount"); };
  CHECK(cpus() == 1 << 20);  // no cgroups at all
  write("/self", "0::/a/b\n");
  write("/mount/a/b/cpu.max", "max 100000\n");
  CHECK(cpus() == 1 << 20);
  write("/mount/a/b/cpu.max", "650000 100000\n");
  CHECK(cpus() == 7);
  write("/mount/a/cpu.max", "300000 100000\n");
  CHECK(cpus() == 3);
  write("/mount/cpu.max", "50000 100000\n");
  CHECK(cpus() == 1);
  fs::remove_all(root + "/mount");
  write("/self", "12:cpuset:/c\n4:cpu,cpuacct:/a/b\n");
  write("/mount/cpuset/c/cpu.cfs_quota_us", "100000\n");  // not a cgroup of the controller cpu
  write("/mount/cpuset/c/cpu.cfs_period_us", "100000\n");
  write("/mount/cpu,cpuacct/a/b/cpu.cfs_quota_us", "-1\n");
  write("/mount/cpu,cpuacct/a/b/cpu.cfs_period_us", "100000\n");
  CHECK(cpus() == 1 << 20);
  write("/mount/cpu,cpuacct/a/cpu.cfs_quota_us", "200000\n");
  write("/mount/cpu,cpuacct/a/cpu.cfs_period_us", "50000\n");
  CHECK(cpus() == 4);
}
