#include <doctest/doctest.h>

#include <atomic>
#include <vector>

#include "engine/error.h"
#include "engine/parallel.h"

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
