#include "engine/error.h"
#include "tests/kernel_test.h"

using namespace topolm;
using namespace topolm::test;

namespace {

enum class Metric { l2, chebyshev };

double distance(int64_t i, int64_t j, int64_t side, Metric metric) {
  const double dx = std::abs(static_cast<double>(i / side - j / side)),
               dy = std::abs(static_cast<double>(i % side - j % side));
  return metric == Metric::l2 ? std::hypot(dx, dy) : std::max(dx, dy);
}

/// D of a side x side block, centred and normalised over its pairs: [n,n] with diagonal 0.
Values normalised_inverse_distance(int64_t side, Metric metric = Metric::l2) {
  const int64_t n = side * side;
  Values d(static_cast<size_t>(n * n));
  double mean = 0, square = 0;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < i; ++j)
      mean += 2.0 / static_cast<double>(n * (n - 1)) / (1 + distance(i, j, side, metric));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < i; ++j) square += std::pow(1 / (1 + distance(i, j, side, metric)) - mean, 2);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j)
      if (i != j)
        d[i * n + j] =
            round_to(DType::f32, (1 / (1 + distance(i, j, side, metric)) - mean) / std::sqrt(square));
  return d;
}

/// (1 - Pearson(r, D)) / 2 over pairs, and its gradient with respect to r (lower triangles of [n,n]).
double loss_of_correlations(const Values& r, const Values& d, int64_t n, Values* dr = nullptr) {
  double mean = 0, square = 0, product = 0;
  const auto pairs = static_cast<double>(n * (n - 1) / 2);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < i; ++j) mean += r[i * n + j] / pairs;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < i; ++j) {
      square += std::pow(r[i * n + j] - mean, 2);
      product += (r[i * n + j] - mean) * d[i * n + j];
    }
  if (dr) dr->assign(static_cast<size_t>(n * n), 0);
  if (square <= 1e-12 * pairs) return 0.5;
  const double norm = std::sqrt(square), rho = product / norm;
  if (dr)
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < i; ++j)
        (*dr)[i * n + j] = -0.5 / norm * (d[i * n + j] - rho / norm * (r[i * n + j] - mean));
  return (1 - rho) / 2;
}

struct Problem {
  int64_t rows, c, k, side;
  Aggregation aggregation = Aggregation::mean;
  Metric metric = Metric::l2;
  int64_t n() const { return side * side; }
};

/// K overlapping side x side blocks of a sheet whose units are scattered over the columns. c is a square.
Values random_members(const Problem& p) {
  const auto width = static_cast<int64_t>(std::sqrt(static_cast<double>(p.c)));
  REQUIRE(width * width == p.c);
  std::vector<int64_t> unit(static_cast<size_t>(p.c));
  for (int64_t i = 0; i < p.c; ++i) unit[i] = (i * 53 + 7) % p.c;  // 53 has no factor in common with c
  Values members;
  for (int64_t k = 0; k < p.k; ++k) {
    const int64_t top = k * 3 % (width - p.side + 1), left = k * 2 % (width - p.side + 1);
    for (int64_t i = 0; i < p.n(); ++i)
      members.push_back(static_cast<double>(unit[(top + i / p.side) * width + left + i % p.side]));
  }
  return members;
}

struct Reference {
  double loss = 0, mean_r = 0;
  Values dx;
};

Reference spatial_loss(const Problem& p, const Values& x, const Values& members, const Values& d) {
  const int64_t n = p.n();
  Values mean(static_cast<size_t>(p.c));
  for (int64_t i = 0; i < p.rows; ++i)
    for (int64_t j = 0; j < p.c; ++j) mean[j] += x[i * p.c + j] / static_cast<double>(p.rows);
  Reference result;
  for (int64_t k = 0; k < p.k; ++k) {
    const auto column = [&](int64_t i) { return static_cast<int64_t>(members[k * n + i]); };
    const auto at = [&](int64_t row, int64_t i) { return x[row * p.c + column(i)] - mean[column(i)]; };
    Values norm(static_cast<size_t>(n)), r(static_cast<size_t>(n * n)), dr, dx(x.size());
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t row = 0; row < p.rows; ++row) norm[i] += at(row, i) * at(row, i);
      norm[i] = norm[i] < 1e-12 ? 0 : std::sqrt(norm[i]);
    }
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < i; ++j) {
        if (norm[i] == 0 || norm[j] == 0) continue;
        for (int64_t row = 0; row < p.rows; ++row)
          r[i * n + j] += at(row, i) * at(row, j) / (norm[i] * norm[j]);
        result.mean_r += r[i * n + j] * 2 / static_cast<double>(n * (n - 1) * p.k);
      }
    const double loss = loss_of_correlations(r, d, n, &dr);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < i; ++j) {
        if (norm[i] == 0 || norm[j] == 0) continue;
        for (int64_t row = 0; row < p.rows; ++row) {  // dr/dx_i = (z_j - r z_i) / |x_i| with z = x / |x|
          const double zi = at(row, i) / norm[i], zj = at(row, j) / norm[j], rij = r[i * n + j];
          dx[row * p.c + column(i)] += dr[i * n + j] * (zj - rij * zi) / norm[i];
          dx[row * p.c + column(j)] += dr[i * n + j] * (zi - rij * zj) / norm[j];
        }
      }
    if (p.aggregation == Aggregation::mean) {
      result.loss += loss / static_cast<double>(p.k);
      result.dx.resize(x.size());
      for (size_t i = 0; i < dx.size(); ++i) result.dx[i] += dx[i] / static_cast<double>(p.k);
    } else if (k == 0 || loss > result.loss) {
      result.loss = loss;
      result.dx = dx;
    }
  }
  return result;
}

struct Computed {
  double loss;
  Values dx;
};

Computed compute(Kernels& kernels, const Problem& p, DType dtype, const Values& x, const Values& members,
                 const Values& d, float scale = 1, const Values& dx0 = {}) {
  const int64_t n = p.n();
  OnDevice in(kernels, dtype, {p.rows, p.c}, x), who(kernels, DType::i32, {p.k, n}, members);
  OnDevice loss(kernels, DType::f32, {1}), mean(kernels, DType::f32, {p.c});
  OnDevice gradient(kernels, DType::f32, {p.k, n, n});
  OnDevice dx(kernels, DType::f32, {p.rows, p.c}, dx0.empty() ? Values(x.size()) : dx0);
  kernels.spatial_loss_forward(loss, mean, gradient, in, who, OnDevice(kernels, DType::f32, {n, n}, d),
                               p.aggregation);
  kernels.spatial_loss_backward(dx, in, mean, gradient, who, scale);
  return {loss.get()[0], dx.get()};
}

double largest_difference(const Values& a, const Values& b) {
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

}  // namespace

TEST_CASE("spatial loss: the oracles of the reference document") {
  const int64_t n = 81;
  double mean = 0, square = 0, smallest = 1, largest = 0;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < i; ++j) {
      const double d = 1 / (1 + distance(i, j, 9, Metric::l2));
      mean += d / 3240;
      square += d * d / 3240;
      smallest = std::min(smallest, d);
      largest = std::max(largest, d);
    }
  CHECK(mean == doctest::Approx(0.2085613080).epsilon(1e-9));
  CHECK(square - mean * mean == doctest::Approx(0.0098369308).epsilon(1e-7));
  CHECK(smallest == doctest::Approx(0.0812103031).epsilon(1e-9));
  CHECK(largest == 0.5);

  const auto loss = [&](Metric metric, double (*r)(double)) {
    Values correlations(static_cast<size_t>(n * n));
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n; ++j)
        correlations[i * n + j] = r(distance(i, j, 9, Metric::l2));  // only D changes with the metric
    return loss_of_correlations(correlations, normalised_inverse_distance(9, metric), n);
  };
  const auto is = [](double x) { return doctest::Approx(x).epsilon(1e-5).scale(0.05); };
  CHECK(loss(Metric::l2, [](double d) { return std::exp(-d / 2); }) == is(0.001060));
  CHECK(loss(Metric::chebyshev, [](double d) { return std::exp(-d / 2); }) == is(0.010197));
  CHECK(loss(Metric::l2, [](double d) { return std::exp(-d * d / 8); }) == is(0.008319));
  CHECK(loss(Metric::chebyshev, [](double d) { return std::exp(-d * d / 8); }) == is(0.015108));
  CHECK(loss(Metric::l2, [](double d) { return -d; }) == is(0.051913));
  CHECK(loss(Metric::l2, [](double d) { return 1 / ((1 + d) * (1 + d)); }) == is(0.011633));

  Values x, members;
  for (int s = 0; s < 64; ++s)
    for (int i = 0; i < n; ++i)
      x.push_back(std::cos(0.7 * (s + 1) * (i / 9) / 9.0) + std::sin(0.3 * (s + 1) * (i % 9) / 9.0 + s));
  for (int i = 0; i < n; ++i) members.push_back(i);
  for (const Metric metric : {Metric::l2, Metric::chebyshev}) {
    const Problem p{64, n, 1, 9, Aggregation::mean, metric};
    const Values d = normalised_inverse_distance(9, metric);
    const double expected = metric == Metric::l2 ? 0.31564538 : 0.36531479;
    const Reference reference = spatial_loss(p, x, members, d);
    CHECK(reference.loss == doctest::Approx(expected).epsilon(2e-8));
    CHECK(reference.mean_r == doctest::Approx(0.12149859).epsilon(5e-8));
    for_each_device([&](Kernels& k) {
      CHECK(compute(k, p, DType::f32, x, members, d).loss == doctest::Approx(expected).epsilon(1e-6));
    });
  }
}

/// Of the loss. GPU kernels keep 17 bits of an activation, so of few pairs over few rows they know less.
double loss_tolerance(Kernels& kernels) { return kernels.device().name() == "cpu" ? 1e-6 : 2e-6; }

TEST_CASE("spatial loss: forward and backward against double precision") {
  for (const Aggregation aggregation : {Aggregation::mean, Aggregation::max})
    for (const Problem& p : {Problem{1, 36, 1, 3, aggregation},
                             {2, 36, 3, 2, aggregation},
                             {31, 36, 3, 2, aggregation},
                             {67, 36, 5, 3, aggregation},
                             {3, 196, 5, 9, aggregation},
                             {131, 196, 5, 9, aggregation},
                             {1031, 36, 3, 3, aggregation},
                             {18, 49, 2, 5, aggregation},    // rows that are no whole number of vectors
                             {17, 144, 6, 9, aggregation},   // more matrices than a GPU's block holds
                             {17, 1024, 2, 6, aggregation},  // rows that do not fit in its shared memory
                             {37, 144, 70, 4, aggregation},  // more neighborhoods than a mask has bits
                             {33, 400, 1, 19, aggregation}})
      for (const DType dtype : {DType::f32, DType::bf16}) {
        CAPTURE(p.rows);
        CAPTURE(p.side);
        const Values x = random_values(p.rows * p.c, 1, dtype, 1, 0.3), members = random_members(p),
                     d = normalised_inverse_distance(p.side);
        const Reference expected = spatial_loss(p, x, members, d);
        const auto loss = [&](const Values& v) { return spatial_loss(p, v, members, d).loss; };
        if (p.rows > 2 && p.rows < 100 && p.side < 9)
          CHECK(finite_difference_error(loss, x, expected.dx) < 1e-6);
        const Values dx0 = random_values(p.rows * p.c, 2);
        Values dx = dx0;
        for (size_t i = 0; i < dx.size(); ++i) dx[i] += 2.5 * expected.dx[i];
        for_each_device([&](Kernels& k) {
          const Computed c = compute(k, p, dtype, x, members, d);
          CHECK(std::abs(c.loss - expected.loss) < loss_tolerance(k));
          // Two rows correlate by 1 or -1 whatever they are: the gradient is 0 but for rounding.
          CHECK((p.rows > 2 ? relative_error(c.dx, expected.dx) : largest_difference(c.dx, expected.dx)) <
                1e-5);
          if (aggregation == Aggregation::mean)
            CHECK(relative_error(compute(k, p, dtype, x, members, d, 2.5, dx0).dx, dx) < 1e-6);
        });
      }
}

TEST_CASE("spatial loss: constant units have no correlation and no gradient") {
  const Problem p{53, 36, 3, 3};
  const Values members = random_members(p), d = normalised_inverse_distance(p.side);
  for (const int constants : {1, 2, 36}) {
    Values x = random_values(p.rows * p.c, 1);
    std::vector<int64_t> constant;
    for (int u = 0; u < constants; ++u)
      constant.push_back(constants == 36 ? u : static_cast<int64_t>(members[u]));
    for (const int64_t u : constant)
      for (int64_t i = 0; i < p.rows; ++i) x[i * p.c + u] = round_to(DType::f32, 0.1 + u);
    const Reference expected = spatial_loss(p, x, members, d);
    if (constants == 36) CHECK(expected.loss == 0.5);
    for_each_device([&](Kernels& k) {
      const Computed c = compute(k, p, DType::f32, x, members, d);
      CHECK(std::abs(c.loss - expected.loss) < 1e-6);
      CHECK(relative_error(c.dx, expected.dx) < 1e-5);
      for (const int64_t u : constant)
        for (int64_t i = 0; i < p.rows; ++i) CHECK(c.dx[i * p.c + u] == 0);
    });
  }
}

TEST_CASE("spatial loss: units whose mean is 1000 times their deviation") {
  const Problem p{257, 196, 5, 9};
  const Values x = random_values(p.rows * p.c, 1, DType::f32, 1, 1000), members = random_members(p),
               d = normalised_inverse_distance(p.side);
  const Reference expected = spatial_loss(p, x, members, d);
  for_each_device([&](Kernels& k) {
    const Computed c = compute(k, p, DType::f32, x, members, d);
    CHECK(std::abs(c.loss - expected.loss) < 1e-6);
    CHECK(relative_error(c.dx, expected.dx) < 5e-5);  // the saved mean is rounded to 3e-5 of a deviation
  });
}

TEST_CASE("spatial loss: NaN is not hidden; members are checked") {
  const Problem p{16, 36, 3, 3, Aggregation::max};
  const Values members = random_members(p), d = normalised_inverse_distance(p.side);
  for_each_device([&](Kernels& k) {
    for (int64_t q = 0; q < p.k; ++q) {
      Values x = random_values(p.rows * p.c, 1);
      x[static_cast<size_t>(5 * p.c) + static_cast<size_t>(members[static_cast<size_t>(q * p.n())])] = NAN;
      for (const Aggregation aggregation : {Aggregation::mean, Aggregation::max})
        CHECK(std::isnan(compute(k, {16, 36, 3, 3, aggregation}, DType::f32, x, members, d).loss));
    }
    Values wrong = members;
    wrong[4] = 36;
    CHECK_THROWS_WITH_AS(compute(k, p, DType::f32, random_values(p.rows * p.c, 1), wrong, d),
                         "spatial_loss_forward: member 36 at position 4 is outside the units of 36", Error);

    const int64_t n = p.n();
    OnDevice x(k, DType::f32, {p.rows, p.c}, random_values(p.rows * p.c, 1)),
        who(k, DType::i32, {p.k, n}, wrong);
    OnDevice mean(k, DType::f32, {p.c}, Values(p.c)),
        gradient(k, DType::f32, {p.k, n, n}, Values(p.k * n * n));
    const auto backward = [&] {
      OnDevice dx(k, DType::f32, {p.rows, p.c});
      k.spatial_loss_backward(dx, x, mean, gradient, who, 1);
      k.device().synchronize();
    };
    CHECK_THROWS_WITH_AS(backward(),
                         "spatial_loss_backward: member 36 at position 4 is outside the units of 36", Error);
  });
}

TEST_CASE("spatial loss: the same bits at any number of threads") {
  const Problem p{300, 196, 3, 9};
  const Values x = random_values(p.rows * p.c, 1), members = random_members(p),
               d = normalised_inverse_distance(p.side);
  for_each_thread_count([&](Kernels& k) {
    Computed c = compute(k, p, DType::f32, x, members, d);
    c.dx.push_back(c.loss);
    return c.dx;
  });
}
