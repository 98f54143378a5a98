// GELU, and through it (and the softmax of test_cross_entropy.cpp) the vector functions of
// kernels/cpu/simd.h.
#include "tests/kernel_test.h"

using namespace topolm;
using namespace topolm::test;

namespace {

double gate(double x, Gelu kind) {
  return kind == Gelu::erf ? 0.5 * std::erfc(-x / std::sqrt(2.0))
                           : 1 / (1 + std::exp(-2 * 0.7978845608 * (x + 0.044715 * x * x * x)));
}

double gelu(double x, Gelu kind) { return x * gate(x, kind); }

double gelu_derivative(double x, Gelu kind) {
  const double g = gate(x, kind);
  return kind == Gelu::erf ? g + x * std::exp(-x * x / 2) / std::sqrt(2 * M_PI)
                           : g + x * 2 * g * (1 - g) * 0.7978845608 * (1 + 3 * 0.044715 * x * x);
}

double gelu_as_gpt2_writes_it(double x) {
  return 0.5 * x * (1 + std::tanh(0.7978845608 * (x + 0.044715 * x * x * x)));
}

}  // namespace

TEST_CASE("gelu: forward and backward against double precision") {
  CHECK(gelu(0.7, Gelu::tanh) == doctest::Approx(gelu_as_gpt2_writes_it(0.7)));
  for (const Gelu kind : {Gelu::erf, Gelu::tanh})
    for (const int64_t n : {1, 36, 97, 20011})
      for (const DType dtype : {DType::f32, DType::bf16}) {
        CAPTURE(n);
        const Values x = random_values(n, 1, dtype, 2), dout = random_values(n, 2, dtype);
        Values out = x, dx = x;
        for (size_t i = 0; i < x.size(); ++i) {
          out[i] = gelu(x[i], kind);
          dx[i] = dout[i] * gelu_derivative(x[i], kind);
        }
        const auto loss = [&](const Values& v) {
          double sum = 0;
          for (size_t i = 0; i < v.size(); ++i) sum += dout[i] * gelu(v[i], kind);
          return sum;
        };
        if (n < 100) CHECK(finite_difference_error(loss, x, dx) < 1e-6);
        for_each_device([&](Kernels& k) {
          OnDevice in(k, dtype, {n}, x), o(k, dtype, {n}), d(k, dtype, {n}, dout), g(k, dtype, {n});
          k.gelu_forward(o, in, kind);
          CHECK(relative_error(o.get(), out) < tolerance(dtype));
          k.gelu_backward(g, d, in, kind);
          CHECK(relative_error(g.get(), dx) < tolerance(dtype));
          k.gelu_backward(d, d, in, kind);  // in place
          CHECK(d.get() == g.get());
        });
      }
}

TEST_CASE("gelu: every mixture of types, at any address") {
  const int64_t n = 131;
  const std::array types = {DType::f32, DType::bf16};
  for (const Gelu kind : {Gelu::erf, Gelu::tanh})
    for (const DType x_type : types)
      for (const DType out_type : types) {
        const Values x = random_values(n + 1, 1, x_type, 2), dout = random_values(n + 1, 2, DType::bf16);
        Values out(x.begin() + 1, x.end()), dx = out;
        for (size_t i = 0; i < dx.size(); ++i) {
          dx[i] = dout[i + 1] * gelu_derivative(out[i], kind);
          out[i] = gelu(out[i], kind);
        }
        for_each_device([&](Kernels& k) {
          OnDevice in(k, x_type, {n + 1}, x), whole(k, out_type, {n});
          k.gelu_forward(whole, part(in, 1, n), kind);
          CHECK(relative_error(whole.get(), out) < tolerance(out_type));
          for (const DType dout_type : types) {
            OnDevice d(k, dout_type, {n + 1}, dout);
            k.gelu_backward(whole, part(d, 1, n), part(in, 1, n), kind);
            CHECK(relative_error(whole.get(), dx) < tolerance(out_type));
          }
        });
      }
}

// Every element by itself: the norm over many hides the tails.
TEST_CASE("gelu: relative accuracy from one tail to the other, NaN and infinities") {
  for (const Gelu kind : {Gelu::erf, Gelu::tanh}) {
    Values x;
    for (double v = -12.9; v < 13; v += 1.0 / 4096) x.push_back(static_cast<float>(v));
    for (double v = 1e-30; v < 1; v *= 1.5)
      for (const double sign : {-1, 1}) x.push_back(static_cast<float>(sign * v));
    const int64_t n = static_cast<int64_t>(x.size());
    for_each_device([&](Kernels& k) {
      OnDevice in(k, DType::f32, {n}, x), out(k, DType::f32, {n}), dx(k, DType::f32, {n});
      k.gelu_forward(out, in, kind);
      k.gelu_backward(dx, OnDevice(k, DType::f32, {n}, Values(x.size(), 1)), in, kind);
      const Values y = out.get(), d = dx.get();
      double worst = 0, worst_derivative = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        const double expected = gelu(x[i], kind), difference = std::abs(y[i] - expected);
        // The rounding of the exponent (-x^2/2, or 2u) counts exponent times. Below 1e-36 e^x is flushed to
        // 0.
        const double exponent =
            1 + x[i] * x[i] / 2 + (kind == Gelu::tanh ? 0.08 * std::abs(x[i] * x[i] * x[i]) : 0);
        if (difference > 1e-36) worst = std::max(worst, difference / std::abs(expected) / exponent);
        worst_derivative = std::max(worst_derivative, std::abs(d[i] - gelu_derivative(x[i], kind)));
      }
      CHECK(worst < 5e-7);
      CHECK(worst_derivative < 1e-6);
    });
    for_each_device([&](Kernels& k) {
      const double inf = INFINITY, big = 1e30;
      OnDevice in(k, DType::f32, {6}, {NAN, inf, big, -big, 0, -0.0}), out(k, DType::f32, {6});
      k.gelu_forward(out, in, kind);
      const Values y = out.get();
      CHECK(std::isnan(y[0]));
      CHECK(y[1] == inf);
      CHECK(y[2] == static_cast<float>(big));
      CHECK(y[3] == 0);
      CHECK(y[4] == 0);
      CHECK((y[5] == 0 && std::signbit(y[5])));
    });
  }
}

TEST_CASE("gelu: the same bits at any number of threads") {
  const int64_t n = 40009;
  const Values x = random_values(n, 1);
  for_each_thread_count([&](Kernels& k) {
    OnDevice out(k, DType::f32, {n});
    k.gelu_forward(out, OnDevice(k, DType::f32, {n}, x), Gelu::erf);
    return out.get();
  });
}
