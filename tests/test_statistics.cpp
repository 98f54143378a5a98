#include "tools/analysis/statistics.h"

#include <limits>

#include "tests/analysis_golden.h"
#include "tests/errors.h"

using namespace topolm;

namespace {

using Values = std::vector<double>;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

}  // namespace

TEST_CASE("statistics: Welch's t, its degrees of freedom and p are SciPy's") {
  const auto cases = analysis_golden("welch");
  CHECK(cases.size() == 6);
  for (const auto& c : cases) {
    const auto a = c.at("a").get<Values>(), b = c.at("b").get<Values>();
    const WelchTest test = welch_test(a, b);
    check_same({test.t, test.df, test.p}, {c.at("t"), c.at("df"), c.at("p")});
    const WelchTest other = welch_test(b, a);
    CHECK(other.t == -test.t);
    CHECK(other.p == test.p);
    CHECK(welch_t(describe(a), describe(b)) == test.t);
  }
}

TEST_CASE("statistics: groups that do not vary, tiny numbers, too few values") {
  // 0.1 is no double, so that a mean by plain summation would differ from it.
  const Values same(10, 0.1), other(7, 0.3), varying = {0.1, 0.2, 0.4};
  for (const WelchTest test : {welch_test(same, other), welch_test(same, same)}) {
    CHECK(test.t == 0);
    CHECK(test.df == 0);
    CHECK(test.p == 1);
  }
  const WelchTest one = welch_test(same, varying);
  CHECK(one.df == doctest::Approx(2));
  CHECK(one.p > 0);
  CHECK(one.p < 1);

  // The fourth powers of the Welch-Satterthwaite formula would underflow here.
  Values a = {1, 2, 4}, b = {3, 5, 4, 9};
  const WelchTest plain = welch_test(a, b);
  for (double& x : a) x *= 0x1p-500;
  for (double& x : b) x *= 0x1p-500;
  const WelchTest tiny = welch_test(a, b);
  CHECK(tiny.t == plain.t);
  CHECK(tiny.df == plain.df);
  CHECK(tiny.p == plain.p);

  // So far apart that p is no double.
  const WelchTest far =
      welch_test(Values{0, 1e-9, 2e-9, 0, 1e-9}, Values{1e99, 1e99 + 1e84, 1e99, 1e99, 1e99});
  CHECK(far.p >= 0);
  CHECK(far.p < 1e-50);

  CHECK(contains(error_of([&] { welch_test(Values{1}, varying); }), "at least two values a group"));
  CHECK(contains(error_of([&] { welch_test(varying, Values{}); }), "no values"));
  CHECK(contains(error_of([&] { welch_test(varying, Values{1, kNaN}); }), "not a finite number"));
  CHECK(contains(error_of([&] { welch_test(varying, Values{1, 1e200}); }), "too large"));
}

TEST_CASE("statistics: Benjamini-Hochberg, the oracle of the reference document and against NumPy") {
  const Values q = benjamini_hochberg(Values{0.01, 0.04, 0.03, 0.005, 0.2, 0.6});
  check_same(q, {0.03, 0.06, 0.06, 0.03, 0.24, 0.6});
  const auto cases = analysis_golden("benjamini_hochberg");
  CHECK(cases.size() == 4);
  for (const auto& c : cases)
    check_same(benjamini_hochberg(c.at("p").get<Values>()), c.at("q").get<Values>());

  CHECK(benjamini_hochberg({}).empty());
  CHECK(benjamini_hochberg(Values{0, 0, 0}) == Values{0, 0, 0});  // everything significant
  CHECK(benjamini_hochberg(Values{1, 1, 1, 1}) == Values{1, 1, 1, 1});
  CHECK(benjamini_hochberg(Values{0.9, 0.95, 1}) == Values{1, 1, 1});  // never above 1
  for (const double bad : {kNaN, -0.1, 1.1})
    CHECK(contains(error_of([&] { benjamini_hochberg(Values{0.5, bad}); }), "no p-value"));
}

TEST_CASE("statistics: intervals by Student's t are SciPy's; of one value it is the value") {
  const auto cases = analysis_golden("mean_interval");
  CHECK(cases.size() == 3);
  for (const auto& c : cases) {
    const MeanInterval interval = mean_interval(c.at("values").get<Values>(), c.at("confidence"));
    check_same({interval.mean, interval.low, interval.high}, {c.at("mean"), c.at("low"), c.at("high")});
  }
  for (const auto& values : {Values{0.1}, Values(9, 0.1)}) {
    const MeanInterval interval = mean_interval(values);
    CHECK(interval.mean == 0.1);
    CHECK(interval.low == 0.1);
    CHECK(interval.high == 0.1);
  }
  CHECK(contains(error_of([] { mean_interval({}); }), "no values"));
  for (const double bad : {0.0, 1.0, 95.0, kNaN})
    CHECK(contains(error_of([&] { mean_interval(Values{1, 2}, bad); }), "not between 0 and 1"));
}

TEST_CASE("statistics: effective dimensionality, as NumPy's eigenvalues give it and by hand") {
  const auto cases = analysis_golden("effective_dimensionality");
  CHECK(cases.size() == 3);  // more rows than units; fewer; of low rank and far from zero
  for (const auto& c : cases) {
    std::vector<float> activations;
    for (const auto& row : c.at("activations"))
      for (const float x : row.get<std::vector<float>>()) activations.push_back(x);
    CHECK(same(effective_dimensionality(activations, c.at("units")), c.at("value")));
  }

  // Three independent directions, all as strong; twice the units, copies of them, use no more.
  std::vector<float> three, copies;
  for (int row = 0; row < 8; ++row)
    for (int unit = 0; unit < 6; ++unit) {
      const auto x = static_cast<float>(row >> unit % 3 & 1);
      copies.push_back(x);
      if (unit < 3) three.push_back(x);
    }
  CHECK(effective_dimensionality(three, 3) == doctest::Approx(3).epsilon(1e-12));
  CHECK(effective_dimensionality(copies, 6) == doctest::Approx(3).epsilon(1e-12));
  CHECK(effective_dimensionality(std::vector<float>(20, 0.1f), 4) == 0);
  CHECK(effective_dimensionality(std::vector<float>{1, 2, 3}, 3) == 0);  // one row
  CHECK_THROWS_AS(effective_dimensionality({}, 3), Error);
  CHECK_THROWS_AS(effective_dimensionality(std::vector<float>(7), 3), Error);
  CHECK(contains(error_of([] {
                   effective_dimensionality(std::vector<float>{1, NAN, 2, 3}, 2);
                 }),
                 "not a finite"));
}
