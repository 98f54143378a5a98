// The statistics of response maps: tests between two groups of stimuli, correction for many tests, intervals.
// Distributions come from Boost.Math; everything is in double.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace topolm {

/// All that a t test asks of a sample.
struct Sample {
  int64_t n = 0;
  double mean = 0, variance = 0;  // unbiased; of equal values exactly 0, and so for a single one
};
/// In two passes. Throws Error when there is no value, or one is not finite.
Sample describe(std::span<const double> values);

/// Welch's t test of two independent samples with unequal variances; p is two-sided.
struct WelchTest {
  double t = 0, df = 0, p = 1;
};
/// mean(a) - mean(b) over its standard error; degrees of freedom after Welch and Satterthwaite. Both samples
/// need at least two values (Error). When neither varies: t = 0, p = 1.
WelchTest welch_test(const Sample& a, const Sample& b);
WelchTest welch_test(std::span<const double> a, std::span<const double> b);
/// Its t alone.
double welch_t(const Sample& a, const Sample& b);

/// Adjusted p-values (Benjamini & Hochberg, 1995): q_(i) = min over j >= i of min(1, p_(j) m / j). In the
/// order of p. Throws Error when one is not in [0, 1].
std::vector<double> benjamini_hochberg(std::span<const double> p);

/// A mean and its two-sided confidence interval by Student's t. One value: the interval is the value itself;
/// none, or a confidence outside (0, 1): Error.
struct MeanInterval {
  double mean = 0, low = 0, high = 0;
};
MeanInterval mean_interval(std::span<const double> values, double confidence = 0.95);

/// (sum of eigenvalues)^2 / sum of squared eigenvalues of the covariance of `units` columns: how many
/// directions the activations [rows, units] really use. 0 when nothing varies.
double effective_dimensionality(std::span<const float> activations, int64_t units);

}  // namespace topolm
