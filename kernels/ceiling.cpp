#include "kernels/ceiling.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <functional>
#include <string>

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

double measure_multiply_add_speed(const DeviceOptions& options, DType dtype, double seconds) {
  constexpr int64_t kTasks = 64, kCount = 24 * 32 * 1000;  // a task: some 10 microseconds
  const CeilingLoops loops = ceiling_loops(options);
  const auto loop =
      dtype == DType::bf16 && loops.bf16_multiply_add ? loops.bf16_multiply_add : loops.multiply_add;
  ThreadPool pool(options.threads);
  const double best =
      shortest(seconds, [&] { pool.parallel_for(kTasks, [&](int64_t, int) { loop(kCount); }); });
  return 2.0 * kTasks * kCount / best;
}

double MemorySpeed::best() const { return std::max({read, copy, triad, update}); }

MemorySpeed measure_memory_speed(const DeviceOptions& options, double seconds) {
  constexpr int64_t kTask = 1 << 17, kTasks = 200, kCount = kTask * kTasks;  // 4 x 100 MB
  const CeilingLoops loops = ceiling_loops(options);
  const auto kernels = make_kernels(options);
  Arena arena(kernels->device(), "the memory speed test");
  Tensor a, b, c, d;
  for (Tensor* t : {&a, &b, &c, &d}) arena.add(*t, "stream", DType::f32, {kCount});
  arena.commit();
  ThreadPool pool(options.threads);
  const auto time = [&](auto&& loop) {
    return shortest(seconds,
                    [&] { pool.parallel_for(kTasks, [&](int64_t task, int) { loop(task * kTask); }); });
  };
  float *const x = a.f32(), *const y = b.f32(), *const z = c.f32(), *const u = d.f32();
  constexpr double kBytes = 4.0 * kCount;
  // All four: of 100 MB read again and again an L3 of 32 MB still had a quarter.
  return {4 * kBytes / time([=](int64_t i) {
            for (const float* from : {x, y, z, u}) loops.read(from + i, kTask);
          }),
          2 * kBytes / time([=](int64_t i) { loops.copy(x + i, y + i, kTask); }),
          3 * kBytes / time([=](int64_t i) { loops.triad(x + i, y + i, z + i, kTask); }),
          7 * kBytes / time([=](int64_t i) { loops.update(x + i, y + i, z + i, u + i, kTask); })};
}

int64_t cache_size(int level) {
  // Not sysconf: it sums up the third level of processors that this virtual machine has no part of.
  for (int index = 0; index < 8; ++index) {
    const std::string directory = fmt::format("/sys/devices/system/cpu/cpu0/cache/index{}/", index);
    int found = 0;
    std::string type;
    int64_t kilobytes = 0;
    if (std::ifstream(directory + "level") >> found && found == level &&
        std::ifstream(directory + "type") >> type && type != "Instruction" &&
        std::ifstream(directory + "size") >> kilobytes)  // "48K": all three levels are told in K
      return kilobytes << 10;
  }
  return 0;
}

std::vector<CacheSpeed> measure_cache_speed(const DeviceOptions& options, double seconds) {
  constexpr int64_t kTasks = 64, kTaskBytes = 4 << 20;
  const CeilingLoops loops = ceiling_loops(options);
  const auto kernels = make_kernels(options);
  ThreadPool pool(options.threads);
  std::vector<CacheSpeed> speeds;
  for (int level = 1; level <= 3; ++level) {
    const int64_t sharers = level == 3 ? pool.threads() : 1;
    const int64_t footprint = cache_size(level) / 2 / sharers / 4096 * 4096;
    if (footprint == 0) continue;
    Arena arena(kernels->device(), "the cache speed test");
    Tensor buffers;
    arena.add(buffers, "buffers", DType::f32, {pool.threads(), footprint / 4});
    arena.commit();
    const int64_t repeats = ceil_div(kTaskBytes, footprint);
    const double best = shortest(seconds, [&] {
      pool.parallel_for(kTasks, [&](int64_t, int thread) {
        const float* const buffer = buffers.f32() + thread * footprint / 4;
        for (int64_t i = 0; i < repeats; ++i) loops.read(buffer, footprint / 4);
      });
    });
    speeds.push_back({level, footprint, static_cast<double>(kTasks * repeats * footprint) / best});
  }
  return speeds;
}

}  // namespace topolm
