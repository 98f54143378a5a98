// The machine of fibers catches what it claims to catch.
#include <doctest/doctest.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "engine/error.h"
#include "kernels/simt/sanitizers.h"
#include "kernels/simt/simt_device.h"
#include "tests/errors.h"
#include "tests/programs.h"
#include "tests/simt_bugs.h"

using namespace topolm;
using namespace topolm::test;
using simt::Order;

namespace {

struct Schedule {
  Order order;
  char letter;
};
constexpr Schedule kSchedules[] = {
    {Order::forward, 'f'}, {Order::reverse, 'r'}, {Order::random, 'R'}, {Order::priority, 'p'}};
constexpr uint64_t kSeeds = 20;

/// The outputs of a kernel, each in memory of exactly its size; NaN where nothing was written.
std::vector<float> outputs(BugKernel kernel, const PlantedBug& bug, const simt::Settings& schedule,
                           int threads) {
  SimtDevice device(threads);
  device.schedule() = schedule;
  std::vector<float> values(static_cast<size_t>(kBugInputs)), got(static_cast<size_t>(bug.outputs));
  for (size_t i = 0; i < values.size(); ++i) values[i] = 0.25f * static_cast<float>(i * 37 % 101) - 9;
  const std::vector<float> nan(got.size(), std::nanf(""));
  const Tensor in{device.allocate(4 * values.size(), "inputs"), DType::f32, {kBugInputs}};
  const Tensor out{device.allocate(4 * got.size(), "outputs"), DType::f32, {bug.outputs}};
  device.upload(in, values.data());
  device.upload(out, nan.data());
  const Argument arguments[] = {{&out.data, sizeof(void*), alignof(void*)},
                                {&in.data, sizeof(void*), alignof(void*)}};
  try {
    device.launch({bug.name, reinterpret_cast<const void*>(kernel), call_bug, bug.grid, {}, arguments});
  } catch (...) {
    device.release(in.data), device.release(out.data);
    throw;
  }
  device.download(got.data(), out);
  device.release(in.data), device.release(out.data);
  return got;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), 4 * a.size()) == 0;
}

bool any_nan(const std::vector<float>& v) {
  for (const float x : v)
    if (std::isnan(x)) return true;
  return false;
}

/// What a sanitizer of this build reports of a bug; null when it sees nothing.
const char* sanitizer_report(const PlantedBug& bug) {
  return simt::kAddressSanitizer  ? bug.caught_by.address_report
         : simt::kThreadSanitizer ? bug.caught_by.thread_report
                                  : nullptr;
}

}  // namespace

TEST_CASE("simt: kernels without the planted bugs pass in silence, with the same bits under every schedule") {
  for (const PlantedBug& bug : planted_bugs()) {
    const std::string name = bug.name;
    CAPTURE(name);
    const std::vector<float> expected = outputs(bug.correct, bug, {}, 1);
    CHECK_FALSE(any_nan(expected));
    for (const Schedule& schedule : kSchedules)
      for (uint64_t seed = 1; seed <= kSeeds; ++seed)
        CHECK(same_bits(outputs(bug.correct, bug, {schedule.order, seed}, seed == 1 ? 3 : 1), expected));
  }
}

TEST_CASE(
    "simt: planted bugs give wrong values under the schedules that are said to show them, and no other") {
  for (const PlantedBug& bug : planted_bugs()) {
    if (bug.caught_by.message || bug.caught_by.address_report || sanitizer_report(bug)) continue;
    const std::string name = bug.name;
    CAPTURE(name);
    const std::vector<float> expected = outputs(bug.correct, bug, {}, 1);
    for (const Schedule& schedule : kSchedules) {
      const char letter = schedule.letter;
      CAPTURE(letter);
      int wrong = 0;
      for (uint64_t seed = 1; seed <= kSeeds; ++seed)
        wrong += !same_bits(outputs(bug.buggy, bug, {schedule.order, seed}, 1), expected);
      CAPTURE(wrong);
      CHECK((wrong > 0) == contains(bug.caught_by.wrong_under, std::string(1, letter)));
    }
  }
}

TEST_CASE("simt: threads that break CUDA's rules are an Error that names kernel, block, threads and line") {
  for (const PlantedBug& bug : planted_bugs()) {
    if (!bug.caught_by.message) continue;
    const std::string name = bug.name;
    CAPTURE(name);
    for (const Schedule& schedule : kSchedules) {
      const std::string error = error_of([&] { outputs(bug.buggy, bug, {schedule.order, 1}, 1); });
      CAPTURE(error);
      CHECK(error.starts_with(bug.name + std::string(", block (0, 0, 0): ")));
      CHECK(contains(error, "thread"));
      CHECK(contains(error, "(tests/simt_bugs.cu:"));
      CHECK(contains(error, bug.caught_by.message));
    }
    // The machine works on.
    CHECK_FALSE(any_nan(outputs(bug.correct, bug, {}, 1)));
  }
}

// A sanitizer ends the program: so it is another run of this one.
TEST_CASE("simt: the planted bug that $TOPOLM_BUG names" * doctest::skip()) {
  for (const PlantedBug& bug : planted_bugs())
    if (bug.name == std::string(std::getenv("TOPOLM_BUG"))) outputs(bug.buggy, bug, {}, 1);
}

TEST_CASE("simt: planted bugs are reported by the sanitizer of this build, with file and line" *
          doctest::skip(!simt::kAddressSanitizer && !simt::kThreadSanitizer)) {
  char self[4096] = {};
  REQUIRE(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
  for (const PlantedBug& bug : planted_bugs()) {
    if (!sanitizer_report(bug)) continue;
    const std::string name = bug.name;
    CAPTURE(name);
    const Outcome run = shell("UBSAN_OPTIONS=print_stacktrace=1 TOPOLM_BUG=" + std::string(bug.name) + " " +
                              self + " --no-skip --test-case='simt: the planted bug that *'");
    CAPTURE(run.output);
    CHECK(run.status != 0);
    CHECK(contains(run.output, sanitizer_report(bug)));
    CHECK(contains(run.output, "tests/simt_bugs.cu:"));
  }
}

TEST_CASE("simt: a grid that CUDA would refuse is refused") {
  SimtDevice device(1);
  const auto error = [&](Grid grid) {
    const Launch launch{"some_kernel<float>", nullptr, nullptr, grid, {}, {}};
    return error_of([&] { device.launch(launch); });
  };
  CHECK(
      error({{0}, {32}, 0}) ==
      "some_kernel<float> cannot start: a grid of (0, 1, 1) blocks; 1 to (2147483647, 65535, 65535) can be");
  CHECK(contains(error({{1, 65536}, {32}, 0}), "a grid of (1, 65536, 1) blocks"));
  CHECK(contains(error({{1, 1, 65536}, {32}, 0}), "a grid of (1, 1, 65536) blocks"));
  CHECK(error({{1}, {1025}, 0}) ==
        "some_kernel<float> cannot start: a block of (1025, 1, 1) threads; at most 1024 can be, z up to 64");
  CHECK(contains(error({{1}, {0}, 0}), "a block of (0, 1, 1) threads"));
  CHECK(contains(error({{1}, {32, 8, 8}, 0}), "a block of (32, 8, 8) threads"));
  CHECK(contains(error({{1}, {1, 1, 65}, 0}), "a block of (1, 1, 65) threads"));
  CHECK(contains(error({{1}, {32}, 101377}), "101377 bytes of dynamic shared memory; the limit is 101376"));
}

TEST_CASE("simt: $TOPOLM_SIMT says the schedule, or nothing that can be understood") {
  const auto is = [](const char* text, Order order, uint64_t seed) {
    const simt::Settings s = simt::parse_settings(text);
    return s.order == order && s.seed == seed;
  };
  CHECK(is("forward", Order::forward, 1));
  CHECK(is("reverse:3", Order::reverse, 3));
  CHECK(is("random:18446744073709551615", Order::random, ~uint64_t{0}));
  CHECK(is("priority:7", Order::priority, 7));
  for (const std::string text :
       {"", "backward", "priority:", "priority:x", "priority:7x", "priority:-1", ":7"})
    CHECK(contains(error_of([&] { simt::parse_settings(text); }), "simt: '" + text + "' is no schedule"));
}
