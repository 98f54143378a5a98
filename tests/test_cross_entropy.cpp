#include "tests/errors.h"
#include "tests/kernel_test.h"

using namespace topolm;
using namespace topolm::test;

namespace {

struct Reference {
  Values losses, dlogits;
};

Reference cross_entropy(const Values& logits, const Values& targets, int64_t v, double scale) {
  Reference r{Values(targets.size()), Values(logits.size())};
  for (size_t i = 0; i < targets.size(); ++i) {
    if (targets[i] < 0) continue;
    const double* const x = logits.data() + i * static_cast<size_t>(v);
    const int64_t target = static_cast<int64_t>(targets[i]);
    double largest = -INFINITY, sum = 0;
    for (int64_t j = 0; j < v; ++j) largest = std::max(largest, x[j]);
    for (int64_t j = 0; j < v; ++j) sum += std::exp(x[j] - largest);
    r.losses[i] = std::log(sum) + largest - x[target];
    for (int64_t j = 0; j < v; ++j)
      r.dlogits[i * static_cast<size_t>(v) + static_cast<size_t>(j)] =
          scale * (std::exp(x[j] - largest) / sum - (j == target));
  }
  return r;
}

}  // namespace

TEST_CASE("cross entropy: losses and gradient against double precision") {
  for (const auto& [rows, cols] : {std::pair{1, 1}, {7, 97}, {31, 5}, {2, 1031}, {9, 4096}, {3, 17000}})
    for (const double spread : {1.0, 1e4})
      for (const DType dtype : {DType::f32, DType::bf16}) {
        const int64_t n = rows, v = cols;  // clang 14 cannot capture structured bindings
        CAPTURE(v);
        CAPTURE(spread);
        const float scale = 1.0f / 31;
        const Values logits = random_values(n * v, 1, dtype, spread);
        Values targets = random_values(n, 2, DType::f32, 1000);
        for (double& t : targets) t = std::fmod(std::abs(std::floor(t)), v);
        if (n > 2) targets[1] = -1;
        const Reference expected = cross_entropy(logits, targets, v, scale);
        if (spread == 1 && v < 100) {
          const auto mean = [&](const Values& x) {
            double sum = 0;
            for (const double loss : cross_entropy(x, targets, v, scale).losses) sum += scale * loss;
            return sum;
          };
          CHECK(finite_difference_error(mean, logits, expected.dlogits) < 1e-6);
        }
        for_each_device([&](Kernels& k) {
          OnDevice x(k, dtype, {n, v}, logits), t(k, DType::i32, {n}, targets);
          OnDevice forward(k, DType::f32, {n}), losses(k, DType::f32, {n});
          k.cross_entropy_forward(forward, x, t);
          CHECK(relative_error(forward.get(), expected.losses) < 1e-6);
          // Rows that do not start at 16 bytes.
          const OnDevice shifted(k, dtype, {n * v + 1, 1}, [&] {
            Values behind = logits;
            behind.insert(behind.begin(), NAN);
            return behind;
          }());
          k.cross_entropy_forward(losses, shifted.tensor().row_range(1, n * v).view({n, v}), t);
          CHECK(relative_error(losses.get(), expected.losses) < 1e-6);
          k.cross_entropy_backward(losses, x, t, scale);
          CHECK(losses.get() == forward.get());
          const Values d = x.get();
          CHECK(relative_error(d, expected.dlogits) < tolerance(dtype, k));
          if (n > 2) {
            CHECK(losses.get()[1] == 0);
            CHECK(std::all_of(d.begin() + v, d.begin() + 2 * v, [](double g) { return g == 0; }));
          }
          if (v == 1) CHECK(losses.get()[0] == 0);
        });
      }
}

TEST_CASE("cross entropy: NaN and infinite logits stay in their row; targets are checked") {
  for_each_device([&](Kernels& k) {
    const int64_t v = 37;
    for (const int64_t at : {0, 16, 36}) {
      Values logits(static_cast<size_t>(4 * v), -7);  // all below 0: lanes past the row must not count
      logits[static_cast<size_t>(at)] = NAN;
      logits[static_cast<size_t>(v + (at + 1) % v)] = -INFINITY;  // a masked token
      logits[static_cast<size_t>(3 * v + at)] = INFINITY;
      OnDevice losses(k, DType::f32, {4});
      k.cross_entropy_forward(losses, OnDevice(k, DType::f32, {4, v}, logits),
                              OnDevice(k, DType::i32, {4}, Values(4, static_cast<double>(at))));
      const Values l = losses.get();
      CHECK(std::isnan(l[0]));
      CHECK(l[1] == doctest::Approx(std::log(36.0)));
      CHECK(l[2] == doctest::Approx(std::log(37.0)));
      CHECK(std::isnan(l[3]));
    }
    OnDevice losses(k, DType::f32, {2}), logits(k, DType::f32, {2, 97});
    CHECK(error_of([&] {
            k.cross_entropy_forward(losses, logits, OnDevice(k, DType::i32, {2}, {0, 97}));
            k.device().synchronize();
          }) == "cross_entropy_forward: target 97 at position 1 is outside the vocabulary of 97");
    CHECK(error_of([&] {
            k.cross_entropy_backward(losses, logits, OnDevice(k, DType::i32, {2}, {-2, 0}), 1);
            k.device().synchronize();
          }) == "cross_entropy_backward: target -2 at position 0 is outside the vocabulary of 97");
  });
}

// With logits (0, x) the second gradient is e^x / (1 + e^x).
TEST_CASE("cross entropy: the exponential is accurate down to where it is 0") {
  for_each_device([&](Kernels& k) {
    const bool cpu = k.device().name() == "cpu";
    Values logits, targets;
    for (double x = -87; x <= 0; x += cpu ? 1.0 / 1024 : 1.0 / 16) {
      logits.insert(logits.end(), {0, static_cast<float>(x)});
      targets.push_back(0);
    }
    logits.insert(logits.end(), {0, -88, 0, -INFINITY});
    targets.insert(targets.end(), 2, 0);
    const int64_t n = static_cast<int64_t>(targets.size());
    OnDevice x(k, DType::f32, {n, 2}, logits), losses(k, DType::f32, {n});
    k.cross_entropy_backward(losses, x, OnDevice(k, DType::i32, {n}, targets), 1);
    const Values d = x.get();
    for (size_t i = 0; i + 2 < targets.size(); ++i) {
      const double e = std::exp(logits[2 * i + 1]), expected = e / (1 + e);
      // 2 ulp, and the roundings of the sum, the quotient and the product. A GPU also rounds x log2(e), and
      // the logarithm itself: each counts |x| times.
      const double bound = 3 * 1.2e-7 + (cpu ? 0 : std::abs(logits[2 * i + 1]) * 1.2e-7);
      REQUIRE(std::abs(d[2 * i + 1] - expected) < bound * expected);
    }
    CHECK(d[d.size() - 3] == 0);
    CHECK(d[d.size() - 1] == 0);
  });
}

TEST_CASE("cross entropy: the losses of targets that are almost certain") {
  const int64_t n = 18, v = 41;
  Values logits = random_values(n * v, 1, DType::f32, 0.5), targets(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    targets[static_cast<size_t>(i)] = static_cast<double>(i * 2);
    logits[static_cast<size_t>(i * v + i * 2)] = static_cast<double>(i);
  }
  for_each_device([&](Kernels& k) {
    OnDevice x(k, DType::f32, {n, v}, logits), losses(k, DType::f32, {n});
    k.cross_entropy_backward(losses, x, OnDevice(k, DType::i32, {n}, targets), 1);
    const Values l = losses.get(), d = x.get();
    // The CPU adds the target's 1 to the sum, so its error is absolute; a GPU leaves it out.
    const double absolute = k.device().name() == "cpu" ? 3e-7 : 0;
    for (int64_t i = 0; i < n; ++i) {
      const size_t row = static_cast<size_t>(i), target = static_cast<size_t>(i * v + i * 2);
      double odds = 0;
      for (int64_t j = 0; j < v; ++j)
        if (j != i * 2) odds += std::exp(logits[static_cast<size_t>(i * v + j)] - logits[target]);
      CHECK(std::abs(l[row] - std::log1p(odds)) < absolute + 3e-6 * std::log1p(odds));
      CHECK(std::abs(d[target] + odds / (1 + odds)) < absolute + 3e-6 * odds / (1 + odds));
    }
  });
}

TEST_CASE("cross entropy: the same bits at any number of threads") {
  const int64_t n = 37, v = 1009;
  const Values logits = random_values(n * v, 1);
  for_each_thread_count([&](Kernels& k) {
    OnDevice x(k, DType::f32, {n, v}, logits), losses(k, DType::f32, {n});
    k.cross_entropy_backward(losses, x, OnDevice(k, DType::i32, {n}, Values(static_cast<size_t>(n), 5)), 1);
    return x.get();
  });
}
