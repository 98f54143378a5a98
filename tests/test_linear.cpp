#include "engine/error.h"
#include "tests/kernel_test.h"

using namespace topolm;
using namespace topolm::test;

namespace {

/// x [n, in] weight^T, weight [out, in].
Values linear(const Values& x, const Values& weight, int64_t n, int64_t in, int64_t out) {
  Values y(static_cast<size_t>(n * out));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t o = 0; o < out; ++o)
      for (int64_t k = 0; k < in; ++k) y[i * out + o] += x[i * in + k] * weight[o * in + k];
  return y;
}

struct Gradient {
  Values dx, dweight;
};

Gradient linear_backward(const Values& dy, const Values& x, const Values& weight, int64_t n, int64_t in,
                         int64_t out) {
  Gradient g{Values(x.size()), Values(weight.size())};
  for (int64_t i = 0; i < n; ++i)
    for (int64_t o = 0; o < out; ++o)
      for (int64_t k = 0; k < in; ++k) {
        g.dx[i * in + k] += dy[i * out + o] * weight[o * in + k];
        g.dweight[o * in + k] += dy[i * out + o] * x[i * in + k];
      }
  return g;
}

struct Sizes {
  int64_t n, in, out;
};

/// Every device, and GPUs once more with their own matrix products in place of the library's.
std::vector<DeviceOptions> all_products() {
  std::vector<DeviceOptions> devices = test_devices();
  for (const DeviceOptions& options : test_devices()) {
    if (options.name == "cpu") continue;
    devices.push_back(options);
    devices.back().products = "own";
  }
  return devices;
}

void for_all_products(const std::function<void(Kernels&)>& body) { for_each_device(body, all_products()); }

constexpr DType kFloat = DType::f32, kHalf = DType::bf16;

}  // namespace

TEST_CASE("linear: forward and both gradients against double precision") {
  constexpr Sizes kSizes[] = {{1, 1, 1},
                              {1, 36, 108},
                              {2, 49, 7},
                              {3, 196, 33},
                              {4, 17, 65},
                              {5, 1, 3},
                              {7, 36, 144},
                              {14, 196, 32},
                              {31, 49, 196},
                              {64, 131, 67},
                              {29, 1031, 16},
                              {1027, 5, 34},
                              {6, 13, 2053},
                              {40, 72, 136},
                              {1032, 8, 40},
                              {2177, 1, 113},
                              {2, 264, 40},
                              // Rows a multiple of 4096 bytes apart, in fp32 and in bf16.
                              {15, 1024, 50},
                              {22, 2048, 35}};
  for (const Sizes& size : kSizes) {
    const int64_t n = size.n, in = size.in, out = size.out;
    CAPTURE(n);
    CAPTURE(in);
    CAPTURE(out);
    for (const auto& types : {std::pair{kFloat, kFloat}, {kHalf, kHalf}, {kHalf, kFloat}, {kFloat, kHalf}}) {
      const DType input = types.first, output = types.second;
      const Values x = random_values(n * in, 1, input), weight = random_values(out * in, 2, input);
      const Values dy = random_values(n * out, 3, input), dweight0 = random_values(out * in, 4);
      const Values y = linear(x, weight, n, in, out);
      Gradient g = linear_backward(dy, x, weight, n, in, out);
      if (n * in * out < 10000) {
        CHECK(finite_difference_error([&](const Values& v) { return dot(linear(v, weight, n, in, out), dy); },
                                      x, g.dx) < 1e-6);
        CHECK(finite_difference_error([&](const Values& v) { return dot(linear(x, v, n, in, out), dy); },
                                      weight, g.dweight) < 1e-6);
      }
      for (size_t i = 0; i < dweight0.size(); ++i) g.dweight[i] += dweight0[i];

      for_all_products([&](Kernels& k) {
        const OnDevice x_(k, input, {n, in}, x), weight_(k, input, {out, in}, weight);
        const OnDevice dy_(k, input, {n, out}, dy);
        OnDevice y_(k, output, {n, out}), dx_(k, output, {n, in}), dweight_(k, kFloat, {out, in}, dweight0);
        k.linear_forward(y_, x_, weight_);
        CHECK(relative_error(y_.get(), y) < tolerance(output));
        k.linear_backward_input(dx_, dy_, weight_);
        CHECK(relative_error(dx_.get(), g.dx) < tolerance(output));
        k.linear_backward_weight(dweight_, dy_, x_);
        CHECK(relative_error(dweight_.get(), g.dweight) < tolerance(kFloat));
      });
    }
  }
}

TEST_CASE("linear: products that are cut into blocks of every dimension") {
  // More columns than are packed at a time (8 MB of them), and more than one block of K, for fp32 and for
  // bf16, whose sums over K wait in fp32.
  const int64_t n = 16, in = 2500, out = 2900;
  const Values x = random_values(n * in, 1, kHalf), weight = random_values(out * in, 2, kHalf);
  const Values dy = random_values(n * out, 3, kHalf);
  const Values y = linear(x, weight, n, in, out);
  const Gradient g = linear_backward(dy, x, weight, n, in, out);
  for_each_device([&](Kernels& k) {
    const OnDevice x_(k, kHalf, {n, in}, x), weight_(k, kHalf, {out, in}, weight),
        dy_(k, kHalf, {n, out}, dy);
    for (const DType dtype : {kFloat, kHalf}) {
      OnDevice y_(k, dtype, {n, out}), dx_(k, dtype, {n, in});
      k.linear_forward(y_, x_, weight_);
      CHECK(relative_error(y_.get(), y) < (dtype == kHalf ? 2e-3 : 2e-6));  // rounded once: 2^-9 at most
      k.linear_backward_input(dx_, dy_, weight_);
      CHECK(relative_error(dx_.get(), g.dx) < (dtype == kHalf ? 2e-3 : 2e-6));
    }
  });
}

TEST_CASE("linear: a row is the same, within rounding, alone and among others") {
  const int64_t n = 20, in = 196, out = 588;
  const Values x = random_values(n * in, 1), weight = random_values(out * in, 2);
  for_all_products([&](Kernels& k) {
    OnDevice x_(k, kFloat, {n, in}, x), weight_(k, kFloat, {out, in}, weight), all(k, kFloat, {n, out});
    k.linear_forward(all, x_, weight_);
    OnDevice alone(k, kFloat, {n, out});
    for (int64_t i = 0; i < n; ++i)
      k.linear_forward(alone.tensor().row_range(i, 1), x_.tensor().row_range(i, 1), weight_);
    CHECK(relative_error(alone.get(), all.get()) < 1e-6);
    OnDevice by_four(k, kFloat, {n, out});
    for (int64_t i = 0; i < n; i += 4)
      k.linear_forward(by_four.tensor().row_range(i, 4), x_.tensor().row_range(i, 4), weight_);
    CHECK(by_four.get() == alone.get());  // decoding does not depend on how many rows are decoded together
  });
}

TEST_CASE("linear: only the output is written") {
  // Outputs are rows 1.. of a larger NaN-filled tensor: what surrounds them must stay NaN.
  for (const int64_t n : {1, 3, 15})
    for_all_products([&](Kernels& k) {
      const int64_t in = 37, out = 41;
      const OnDevice x(k, kFloat, {n, in}, random_values(n * in, 1));
      const OnDevice weight(k, kFloat, {out, in}, random_values(out * in, 2));
      const OnDevice dy(k, kFloat, {n, out}, random_values(n * out, 3));
      const auto check_surroundings = [](const OnDevice& t, int64_t columns) {
        const Values v = t.get();
        const size_t rows = v.size() / static_cast<size_t>(columns);
        for (size_t i = 0; i < v.size(); ++i) {
          const size_t row = i / static_cast<size_t>(columns);
          REQUIRE(std::isnan(v[i]) == (row == 0 || row + 1 == rows));
        }
      };
      for (const DType dtype : {kFloat, kHalf}) {
        OnDevice y(k, dtype, {n + 2, out}), dx(k, dtype, {n + 2, in});
        k.linear_forward(y.tensor().row_range(1, n), x, weight);
        check_surroundings(y, out);
        k.linear_backward_input(dx.tensor().row_range(1, n), dy, weight);
        check_surroundings(dx, in);
      }
      OnDevice hidden(k, kFloat, {n + 2, out}), out_(k, kFloat, {n + 2, out}),
          dhidden(k, kFloat, {n + 2, in});
      k.linear_gelu_forward(out_.tensor().row_range(1, n), hidden.tensor().row_range(1, n), x, weight,
                            Gelu::erf);
      check_surroundings(hidden, out);
      check_surroundings(out_, out);
      k.linear_gelu_backward(dhidden.tensor().row_range(1, n), dy, weight, x, Gelu::erf);
      check_surroundings(dhidden, in);
      OnDevice dweight(k, kFloat, {out + 2, in});
      k.fill(dweight.tensor().row_range(1, out), 0);
      k.linear_backward_weight(dweight.tensor().row_range(1, out), dy, x);
      check_surroundings(dweight, in);
    });
}

TEST_CASE("linear: a GELU behind the product gives the bits of two operations") {
  for (const Sizes& size : {Sizes{3, 20, 33},
                            {5, 1, 3},
                            {7, 36, 144},
                            {31, 49, 196},
                            {1032, 8, 40},
                            {16, 2100, 70},
                            {20, 13, 2053},
                            {64, 1100, 30}})
    for (const auto& types : {std::pair{kFloat, kFloat}, {kHalf, kHalf}, {kHalf, kFloat}})
      for (const Gelu kind : {Gelu::erf, Gelu::tanh}) {
        const int64_t n = size.n, in = size.in, out = size.out;
        CAPTURE(n);
        CAPTURE(in);
        CAPTURE(out);
        const Values x = random_values(n * in, 1, types.first),
                     weight = random_values(out * in, 2, types.first);
        const Values dy = random_values(n * out, 3, types.first),
                     before = random_values(n * in, 4, types.second);
        for_all_products([&](Kernels& k) {
          const OnDevice x_(k, types.first, {n, in}, x), weight_(k, types.first, {out, in}, weight);
          const OnDevice dy_(k, types.first, {n, out}, dy), before_(k, types.second, {n, in}, before);
          OnDevice hidden(k, types.second, {n, out}), gelu(k, types.second, {n, out});
          OnDevice fused_hidden(k, types.second, {n, out}), fused_gelu(k, types.second, {n, out});
          k.linear_forward(hidden, x_, weight_);
          k.gelu_forward(gelu, hidden, kind);
          k.linear_gelu_forward(fused_gelu, fused_hidden, x_, weight_, kind);
          CHECK(fused_hidden.get() == hidden.get());
          CHECK(fused_gelu.get() == gelu.get());
          OnDevice dhidden(k, types.second, {n, in}), fused_dhidden(k, types.second, {n, in});
          k.linear_backward_input(dhidden, dy_, weight_);
          k.gelu_backward(dhidden, dhidden, before_, kind);
          k.linear_gelu_backward(fused_dhidden, dy_, weight_, before_, kind);
          CHECK(fused_dhidden.get() == dhidden.get());
        });
      }
}

// Rows are read two elements at a time, and past the ends of tiles: what does not belong to a product must
// not reach it, not even times zero.
TEST_CASE("linear: a NaN reaches all that it is a factor of, and nothing else") {
  for (const Sizes& size : {Sizes{20, 7, 33}, {33, 35, 20}, {17, 1, 5}, {15, 1027, 40}})
    for (const DType dtype : {kFloat, kHalf})
      for (const double bad : {std::nan(""), HUGE_VAL}) {
        const int64_t n = size.n, in = size.in, out = size.out;
        CAPTURE(n);
        Values x = random_values(n * in, 1, dtype), weight = random_values(out * in, 2, dtype);
        Values dy = random_values(n * out, 3, dtype);
        const auto check = [&](const OnDevice& result, int64_t columns, int64_t bad_row, int64_t bad_column) {
          const Values v = result.get();
          for (int64_t i = 0; i < std::ssize(v); ++i)
            REQUIRE(std::isfinite(v[static_cast<size_t>(i)]) ==
                    (i / columns != bad_row && i % columns != bad_column));
        };
        // The first element of a row, which follows the last one of the row before; and a last one.
        x[static_cast<size_t>(3 * in)] = dy[static_cast<size_t>(3 * out)] = bad;
        weight[static_cast<size_t>(2 * in - 1)] = bad;
        for_all_products([&](Kernels& k) {
          const OnDevice x_(k, dtype, {n, in}, x), weight_(k, dtype, {out, in}, weight),
              dy_(k, dtype, {n, out}, dy);
          OnDevice y(k, kFloat, {n, out}), dx(k, kFloat, {n, in}), dweight(k, kFloat, {out, in});
          k.linear_forward(y, x_, weight_);
          check(y, out, 3, 1);
          k.linear_backward_input(dx, dy_, weight_);
          check(dx, in, 3, in - 1);
          k.fill(dweight, 0);
          k.linear_backward_weight(dweight, dy_, x_);
          check(dweight, in, 0, 0);
        });
      }
}

TEST_CASE("linear: the same bits at any number of threads") {
  for (const Sizes& size : {Sizes{2, 196, 588}, {300, 196, 196}, {97, 1100, 70}, {21, 1300, 501}})
    for (const DType dtype : {kFloat, kHalf}) {
      const int64_t n = size.n, in = size.in, out = size.out;
      const Values x = random_values(n * in, 1, dtype), weight = random_values(out * in, 2, dtype);
      const Values dy = random_values(n * out, 3, dtype), dweight0 = random_values(out * in, 4);
      check_same_bits_at_any_thread_count(
          [&](Kernels& k) {
            const OnDevice x_(k, dtype, {n, in}, x), weight_(k, dtype, {out, in}, weight),
                dy_(k, dtype, {n, out}, dy);
            OnDevice y(k, dtype, {n, out}), dx(k, dtype, {n, in}), dweight(k, kFloat, {out, in}, dweight0);
            k.linear_forward(y, x_, weight_);
            k.linear_backward_input(dx, dy_, weight_);
            k.linear_backward_weight(dweight, dy_, x_);
            OnDevice hidden(k, dtype, {n, out}), gelu(k, dtype, {n, out}), dhidden(k, dtype, {n, in});
            k.linear_gelu_forward(gelu, hidden, x_, weight_, Gelu::erf);
            k.linear_gelu_backward(dhidden, dy_, weight_, x_, Gelu::erf);
            return std::vector{y.get(), dx.get(), dweight.get(), hidden.get(), gelu.get(), dhidden.get()};
          },
          all_products());
    }
}

TEST_CASE("linear: shapes and types that do not fit are errors") {
  for_all_products([&](Kernels& k) {
    const OnDevice x(k, kFloat, {5, 7}), weight(k, kFloat, {3, 7}), y(k, kFloat, {5, 3}),
        other(k, kFloat, {5, 8});
    const OnDevice ids(k, DType::i32, {5, 7}), half(k, kHalf, {3, 7});
    CHECK_THROWS_AS(k.linear_forward(y, other, weight), Error);
    CHECK_THROWS_AS(k.linear_forward(other, x, weight), Error);
    CHECK_THROWS_AS(k.linear_forward(y, ids, weight), Error);
    CHECK_THROWS_AS(k.linear_backward_input(other, y, weight), Error);
    CHECK_THROWS_AS(k.linear_backward_input(x, other, weight), Error);
    CHECK_THROWS_AS(k.linear_backward_weight(other, y, x), Error);
    CHECK_THROWS_AS(k.linear_backward_weight(weight, other, x), Error);
    CHECK_THROWS_AS(k.linear_backward_weight(half, y, x), Error);
    CHECK_THROWS_AS(k.linear_gelu_forward(y, other, x, weight, Gelu::erf), Error);
    CHECK_THROWS_AS(k.linear_gelu_forward(other, y, x, weight, Gelu::erf), Error);
    CHECK_THROWS_AS(k.linear_gelu_backward(x, y, weight, other, Gelu::erf), Error);
    CHECK_THROWS_AS(k.linear_gelu_backward(other, y, weight, x, Gelu::erf), Error);
    if (k.device().name() != "cpu") CHECK_THROWS_AS(k.linear_forward(y, x, half), Error);
  });
}

TEST_CASE("linear: sums of so many products that tiles do not take them in one piece") {
  // In each of the three products in turn; 4500 is no multiple of a tile's 32.
  constexpr Sizes kSizes[] = {{6, 4500, 40}, {35, 41, 4500}, {4500, 33, 23}};
  for (const Sizes& size : kSizes) {
    const int64_t n = size.n, in = size.in, out = size.out;
    CAPTURE(n);
    CAPTURE(in);
    CAPTURE(out);
    const Values x = random_values(n * in, 1, kHalf), weight = random_values(out * in, 2, kHalf);
    const Values dy = random_values(n * out, 3, kHalf), dweight0 = random_values(out * in, 4);
    const Values y = linear(x, weight, n, in, out);
    Gradient g = linear_backward(dy, x, weight, n, in, out);
    for (size_t i = 0; i < dweight0.size(); ++i) g.dweight[i] += dweight0[i];
    for_each_device([&](Kernels& k) {
      const OnDevice x_(k, kHalf, {n, in}, x), weight_(k, kHalf, {out, in}, weight);
      const OnDevice dy_(k, kHalf, {n, out}, dy);
      for (const DType dtype : {kFloat, kHalf}) {
        const double limit = dtype == kHalf ? 2e-3 : tolerance(kFloat);  // rounded once: 2^-9 at most
        OnDevice y_(k, dtype, {n, out}), dx_(k, dtype, {n, in});
        k.linear_forward(y_, x_, weight_);
        CHECK(relative_error(y_.get(), y) < limit);
        k.linear_backward_input(dx_, dy_, weight_);
        CHECK(relative_error(dx_.get(), g.dx) < limit);
      }
      OnDevice dweight_(k, kFloat, {out, in}, dweight0);
      k.linear_backward_weight(dweight_, dy_, x_);
      CHECK(relative_error(dweight_.get(), g.dweight) < tolerance(kFloat));
    });
  }
}
