#include "kernels/ceiling.h"

#include <algorithm>
#include <chrono>
#include <functional>

#include "engine/arena.h"
#include "engine/parallel.h"
#include "kernels/cpu_device.h"

namespace topolm {

namespace {

/// The shortest time of `run` in seconds, after one run that does not count: working space grows, threads
/// wake.
double shortest(double seconds, const std::function<void()>& run) {
  using Clock = std::chrono::steady_clock;
  const auto time = [&] {
    const auto start = Clock::now();
    run();
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  run();
  double best = time();
  for (const auto end = Clock::now() + std::chrono::duration<double>(seconds); Clock::now() < end;)
    best = std::min(best, time());
  return best;
}

}  // namespace

double measure_matrix_speed(Kernels& kernels, DType dtype, double seconds) {
  // Edges that every tile divides: on a CPU operands within reach of its second-level cache, on a GPU enough
  // tiles for all its multiprocessors.
  const int64_t side = kernels.device().name() == "cuda" ? 6144 : 768;
  Arena arena(kernels.device(), "the matrix speed test");
  Tensor y, x, w;
  arena.add(y, "y", DType::f32, {side, side});
  arena.add(x, "x", dtype, {side, side});
  arena.add(w, "w", dtype, {side, side});
  arena.commit();
  const double best = shortest(seconds, [&] {
    kernels.linear_forward(y, x, w);
    kernels.device().synchronize();
  });
  const auto edge = static_cast<double>(side);
  return 2 * edge * edge * edge / best;
}

double measure_multiply_add_speed(const DeviceOptions& options, double seconds) {
  constexpr int64_t kTasks = 64, kCount = 12 * 16 * 2000;  // a task: some 10 microseconds
  const CeilingLoops loops = ceiling_loops(options);
  ThreadPool pool(options.threads);
  const double best = shortest(
      seconds, [&] { pool.parallel_for(kTasks, [&](int64_t, int) { loops.multiply_add(kCount); }); });
  return 2.0 * kTasks * kCount / best;
}

MemorySpeed measure_memory_speed(const DeviceOptions& options, double seconds) {
  constexpr int64_t kTask = 1 << 17, kTasks = 200, kCount = kTask * kTasks;  // 3 x 100 MB
  const CeilingLoops loops = ceiling_loops(options);
  const auto kernels = make_kernels(options);
  Arena arena(kernels->device(), "the memory speed test");
  Tensor a, b, c;
  for (Tensor* t : {&a, &b, &c}) arena.add(*t, "stream", DType::f32, {kCount});
  arena.commit();
  ThreadPool pool(options.threads);
  const auto time = [&](auto&& loop) {
    return shortest(seconds,
                    [&] { pool.parallel_for(kTasks, [&](int64_t task, int) { loop(task * kTask); }); });
  };
  float *const x = a.f32(), *const y = b.f32(), *const z = c.f32();
  constexpr double kBytes = 4.0 * kCount;
  return {kBytes / time([=](int64_t i) { loops.read(x + i, kTask); }),
          2 * kBytes / time([=](int64_t i) { loops.copy(x + i, y + i, kTask); }),
          3 * kBytes / time([=](int64_t i) { loops.triad(x + i, y + i, z + i, kTask); })};
}

}  // namespace topolm
