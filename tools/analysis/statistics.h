// The statistics of response maps: tests between two groups of stimuli, correction for many tests, intervals.
// Distributions come from Boost.Math; everything is in double.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace topolm {

/// Welch's t test of two independent samples with unequal variances; p is two-sided.
struct WelchTest {
  double t = 0, df = 0, p = 1;
};
/// mean(a) - mean(b) over its standard error; degrees of freedom after Welch and Satterthwaite. Both samples
/// need at least two values (Error). When neither varies: t = 0, p = 1.
WelchTest welch_test(std::span<const double> a, std::span<const double> b);

/// Adjusted p-values (Benjamini & Hochberg, 1995): q_(i) = min over j >= i of min(1, p_(j) m / j). In the
/// order of p.
std::vector<double> benjamini_hochberg(std::span<const double> p);

/// A mean and its two-sided confidence interval by Student's t. One value: the interval is the value itself.
struct MeanInterval {
  double mean = 0, low = 0, high = 0;
};
MeanInterval mean_interval(std::span<const double> values, double confidence = 0.95);

/// (sum of eigenvalues)^2 / sum of squared eigenvalues of the covariance of `units` columns: how many
/// directions the activations [rows, units] really use. 0 when nothing varies.
double effective_dimensionality(std::span<const float> activations, int64_t units);

}  // namespace topolm
