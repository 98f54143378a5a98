#include <algorithm>
#include <numeric>

#include "kernels/sampling.h"
#include "tests/errors.h"
#include "tests/kernel_test.h"

using namespace topolm;
using namespace topolm::test;

namespace {

constexpr double kLog2E = 1.4426950408889634;  // as a temperature: logits are logarithms to base 2

int32_t draw(Kernels& k, const Values& logits, const Sampling& sampling, double uniform) {
  OnDevice token(k, DType::i32, {1});
  k.sample(token, OnDevice(k, DType::f32, {static_cast<int64_t>(logits.size())}, logits),
           OnDevice(k, DType::f32, {1}, {uniform}), sampling);
  return static_cast<int32_t>(token.get()[0]);
}

/// What Sampling says, to the letter, for integers: probabilities are powers of 2.
int32_t draw_powers_of_two(const Values& logits, const Sampling& s, double uniform) {
  const double best = *std::max_element(logits.begin(), logits.end());
  struct Token {
    int32_t id;
    double p;
  };
  std::vector<Token> tokens;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double p = std::exp2(logits[i] - best);
    tokens.push_back({static_cast<int32_t>(i), p < std::exp2(-40) ? 0 : p});
  }
  std::stable_sort(tokens.begin(), tokens.end(), [](const Token& a, const Token& b) { return a.p > b.p; });
  if (s.top_k > 0) tokens.resize(std::min(tokens.size(), static_cast<size_t>(s.top_k)));
  const auto total = [&] {
    return std::accumulate(tokens.begin(), tokens.end(), 0.0L,
                           [](long double sum, const Token& t) { return sum + t.p; });
  };
  const long double all = total();
  long double kept = 0;
  size_t count = 0;
  while (count < tokens.size() && (count == 0 || kept < s.top_p * all)) kept += tokens[count++].p;
  tokens.resize(count);
  std::erase_if(tokens, [&](const Token& t) { return t.p < s.min_p; });
  std::sort(tokens.begin(), tokens.end(), [](const Token& a, const Token& b) { return a.id < b.id; });
  const long double target = uniform * total();
  long double passed = 0;
  for (const Token& t : tokens)
    if ((passed += t.p) > target) return t.id;
  return -2;
}

}  // namespace

TEST_CASE("sample: against sorting, with many ties") {
  Random random(5, Random::Purpose::tests);
  const auto one_of = [&](auto... x) {
    return std::array{static_cast<double>(x)...}[random.below(sizeof...(x))];
  };
  for (const int64_t n : {1, 2, 31, 130, 1500, 3000})
    for (int i = 0; i < 12; ++i) {
      Values logits(static_cast<size_t>(n));
      const uint64_t levels = static_cast<uint64_t>(one_of(1, 3, 12, 60));
      for (double& x : logits) x = 7 - static_cast<double>(random.below(levels));
      if (n > 2) logits[1] = -INFINITY;
      const Sampling sampling{kLog2E, static_cast<int>(one_of(0, 0, 1, 3, n / 2, n - 1, n, n + 5)),
                              one_of(1, 1, 0.9, 0.5, 0.25, 1e-30), one_of(0, 0, 0.25, 0.2, 1)};
      const double uniform = one_of(0, 0.125, 0.5, 0.75, 1 - 1.0 / (1 << 24));
      CAPTURE(n);
      CAPTURE(levels);
      CAPTURE(sampling.top_k);
      CAPTURE(sampling.top_p);
      CAPTURE(sampling.min_p);
      CAPTURE(uniform);
      const int32_t expected = draw_powers_of_two(logits, sampling, uniform);
      for_each_device([&](Kernels& k) { CHECK(draw(k, logits, sampling, uniform) == expected); });
    }
}

TEST_CASE("sample: all devices draw the same token") {
  Random random(6, Random::Purpose::tests);
  for (int i = 0; i < 16; ++i) {
    const int64_t n = i == 0 ? 50304 : 1 + static_cast<int64_t>(random.below(2500));
    const Values logits = random_values(n, static_cast<uint32_t>(i), DType::f32, 3);
    const Sampling sampling{0.2 + 1.5 * random.uniform(), i % 2 ? 0 : 40, i % 3 ? 0.95 : 1, i % 5 ? 0 : 0.03};
    const float uniform = static_cast<float>(random.uniform() * 0.999);
    const std::vector<float> on_host(logits.begin(), logits.end());
    const int32_t expected = sample(on_host, sampling, uniform);
    for_each_device([&](Kernels& k) { CHECK(draw(k, logits, sampling, uniform) == expected); });
  }
}

TEST_CASE("sample: where every token may be drawn, the one that sorting finds") {
  // Sizes around blocks of 2048; probabilities down to 2^-40 and below; draws near both ends of a running
  // sum.
  for (const int64_t n : {1, 5, 2047, 2049, 50304})
    for (const double spread : {0.01, 3.0, 12.0}) {
      const Values logits = random_values(n, static_cast<uint32_t>(n), DType::f32, spread, -7);
      const std::vector<float> on_host(logits.begin(), logits.end());
      for_each_device([&](Kernels& k) {
        for (const double uniform : {0.0, 1e-7, 0.3, 0.5, 0.875, 1 - 0x1p-24})
          for (const double temperature : {0.3, 1.0}) {
            const Sampling sampling{temperature, 0, 1, 0};
            REQUIRE(draw(k, logits, sampling, uniform) ==
                    sample(on_host, sampling, static_cast<float>(uniform)));
          }
      });
    }
}

TEST_CASE("sample: temperature 0 takes the lowest id among equals") {
  for_each_device([&](Kernels& k) {
    Values logits(1200, -3);
    logits[700] = logits[1100] = 0.5;
    CHECK(draw(k, logits, {0, 0, 1, 0}, 0.9) == 700);
    logits[800] = 0.50000006;  // the next float
    CHECK(draw(k, logits, {0, 0, 1, 0}, 0.9) == 800);
    logits.assign(1200, -1);
    logits[900] = 0, logits[300] = -0.0;  // equal
    CHECK(draw(k, logits, {0, 0, 1, 0}, 0.9) == 300);
    CHECK(draw(k, logits, {1e-300, 0, 1, 0}, 0.9) == 900);  // the two, and nothing else
  });
}

TEST_CASE("sample: logits that are not finite") {
  for_each_device([&](Kernels& k) {
    for (const double temperature : {0.0, 1.0}) {
      const Sampling sampling{temperature, 0, 1, 0};
      for (const double bad : {static_cast<double>(NAN), -static_cast<double>(NAN), HUGE_VAL}) {
        Values logits(1100, 1);
        logits[1050] = bad;
        CHECK(draw(k, logits, sampling, 0.5) == -1);
      }
      CHECK(draw(k, Values(5, -HUGE_VAL), sampling, 0.5) == -1);
      CHECK(draw(k, {-HUGE_VAL, -2, -HUGE_VAL}, sampling, 0.99) == 1);
      CHECK(draw(k, {3e38, -3e38}, sampling, 0.99) == 0);  // a difference beyond the range of floats
    }
    if (k.device().name() != "cpu")
      CHECK(error_of([&] { draw(k, Values((1 << 17) + 1), {}, 0); }) ==
            "sample: 131073 logits are more than 131072");
  });
}

TEST_CASE("sample: relative probabilities") {
  for (const double temperature : {0.1, 0.8, 1.0, 3.0}) {
    const float scale = sampling_scale(temperature);
    for (double d = 0; d < 27 * temperature; d += temperature / 1024) {
      const float logit = 2.5f - static_cast<float>(d);
      const double expected = std::exp((static_cast<double>(logit) - 2.5) / temperature);
      const float p = relative_probability(logit, 2.5f, scale);
      REQUIRE(p <= 1);
      REQUIRE(std::abs(p - expected) < (2e-7 + d / temperature * 2e-7) * expected);
    }
  }
  CHECK(relative_probability(2.5f, 2.5f, 1e30f) == 1);
  CHECK(sampling_weight(1) == uint64_t{1} << 40);
  CHECK(relative_probability(-39, 0, 1) == std::exp2(-39));
  CHECK(relative_probability(-41, 0, 1) == 0);
}
