#include "tools/analysis/statistics.h"

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <numeric>

#include "engine/error.h"
#include "engine/tensor.h"

namespace topolm {

namespace {

/// Boost would compute in long double, five times slower, for digits that nobody sees.
using StudentsT = boost::math::students_t_distribution<
    double, boost::math::policies::policy<boost::math::policies::promote_double<false>>>;

/// The squared standard errors of two means.
struct Errors {
  double a, b;
};

Errors squared_errors(const Sample& a, const Sample& b) {
  require(a.n >= 2 && b.n >= 2, "a t test needs at least two values a group; these have {} and {}", a.n, b.n);
  return {a.variance / static_cast<double>(a.n), b.variance / static_cast<double>(b.n)};
}

/// In eight partial sums, which a vector holds.
double dot(const double* a, const double* b, size_t n) {
  constexpr size_t kLanes = 8;
  double sums[kLanes] = {}, sum = 0;
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (size_t lane = 0; lane < kLanes; ++lane) sums[lane] += a[i + lane] * b[i + lane];
  for (; i < n; ++i) sum += a[i] * b[i];
  return std::accumulate(sums, sums + kLanes, sum);
}

}  // namespace

Sample describe(std::span<const double> values) {
  require(!values.empty(), "there are no values to take the mean of");
  // From the first value on: equal values then have exactly their mean, and no variance out of rounding.
  const auto n = static_cast<double>(values.size());
  double shift = 0, squares = 0;
  for (const double x : values) shift += (x - values[0]) / n;
  const double mean = values[0] + shift;
  for (const double x : values) squares += (x - mean) * (x - mean);
  require(std::isfinite(mean) && std::isfinite(squares), "a value is not a finite number, or too large");
  return {std::ssize(values), mean, n > 1 ? squares / (n - 1) : 0};
}

double welch_t(const Sample& a, const Sample& b) {
  const Errors e = squared_errors(a, b);
  return e.a + e.b > 0 ? (a.mean - b.mean) / std::sqrt(e.a + e.b) : 0;
}

WelchTest welch_test(const Sample& a, const Sample& b) {
  const Errors e = squared_errors(a, b);
  if (!(e.a + e.b > 0)) return {};
  // Shares of the squared error: their own squares would underflow.
  const double share = e.a / (e.a + e.b), rest = e.b / (e.a + e.b);
  WelchTest test;
  test.t = welch_t(a, b);
  test.df = 1 / (share * share / static_cast<double>(a.n - 1) + rest * rest / static_cast<double>(b.n - 1));
  test.p = 2 * boost::math::cdf(StudentsT(test.df), -std::abs(test.t));
  return test;
}

WelchTest welch_test(std::span<const double> a, std::span<const double> b) {
  return welch_test(describe(a), describe(b));
}

std::vector<double> benjamini_hochberg(std::span<const double> p) {
  for (const double x : p) require(x >= 0 && x <= 1, "{} is no p-value: it is not in [0, 1]", x);
  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t i, size_t j) { return p[i] < p[j]; });
  std::vector<double> q(p.size());
  double smallest = 1;
  for (size_t rank = p.size(); rank > 0; --rank) {
    const size_t i = order[rank - 1];
    smallest = std::min(smallest, p[i] * static_cast<double>(p.size()) / static_cast<double>(rank));
    q[i] = smallest;
  }
  return q;
}

MeanInterval mean_interval(std::span<const double> values, double confidence) {
  require(confidence > 0 && confidence < 1, "a confidence of {} is not between 0 and 1", confidence);
  const Sample sample = describe(values);
  if (sample.n == 1) return {sample.mean, sample.mean, sample.mean};
  const StudentsT distribution(static_cast<double>(sample.n - 1));
  const double quantile = boost::math::quantile(boost::math::complement(distribution, (1 - confidence) / 2));
  const double half = quantile * std::sqrt(sample.variance / static_cast<double>(sample.n));
  return {sample.mean, sample.mean - half, sample.mean + half};
}

double effective_dimensionality(std::span<const float> activations, int64_t units) {
  require(units > 0 && !activations.empty(), "there are no activations to count dimensions of");
  const auto n = static_cast<size_t>(units),
             rows = static_cast<size_t>(div_exact(std::ssize(activations), units));
  // X'X and XX' have the same eigenvalues but for zeros; we take the smaller. Their sum is the trace, the sum
  // of their squares that of all elements squared.
  const size_t count = std::min(rows, n), length = std::max(rows, n);
  std::vector<double> vectors(count * length);
  for (size_t unit = 0; unit < n; ++unit) {
    const double first = activations[unit];
    double shift = 0;
    for (size_t row = 0; row < rows; ++row)
      shift += (activations[row * n + unit] - first) / static_cast<double>(rows);
    for (size_t row = 0; row < rows; ++row)
      vectors[rows < n ? row * n + unit : unit * rows + row] = activations[row * n + unit] - first - shift;
  }
  double trace = 0, squares = 0;
  for (size_t i = 0; i < count; ++i) {
    for (size_t j = 0; j < i; ++j)
      squares += 2 * std::pow(dot(&vectors[i * length], &vectors[j * length], length), 2);
    const double square = dot(&vectors[i * length], &vectors[i * length], length);
    trace += square;
    squares += square * square;
  }
  require(std::isfinite(squares), "an activation is not a finite number");
  return squares > 0 ? trace / squares * trace : 0;
}

}  // namespace topolm
