#include "tests/kernel_test.h"

using namespace topolm;
using namespace topolm::test;

namespace {

struct Reference {
  Values out, mean, rstd;
};

Reference layernorm(const Values& x, const Values& weight, int64_t n, int64_t c) {
  Reference r{Values(x.size()), Values(static_cast<size_t>(n)), Values(static_cast<size_t>(n))};
  for (int64_t i = 0; i < n; ++i) {
    double mean = 0, variance = 0;
    for (int64_t j = 0; j < c; ++j) mean += x[i * c + j] / static_cast<double>(c);
    for (int64_t j = 0; j < c; ++j) variance += std::pow(x[i * c + j] - mean, 2) / static_cast<double>(c);
    r.mean[i] = mean;
    r.rstd[i] = 1 / std::sqrt(variance + 1e-5);
    for (int64_t j = 0; j < c; ++j) r.out[i * c + j] = (x[i * c + j] - mean) * r.rstd[i] * weight[j];
  }
  return r;
}

struct Gradient {
  Values dx, dweight;
};

Gradient layernorm_backward(const Values& dout, const Values& x, const Values& weight, int64_t n, int64_t c) {
  const Reference f = layernorm(x, weight, n, c);
  Gradient g{Values(x.size()), Values(weight.size())};
  for (int64_t i = 0; i < n; ++i) {
    double mean_g = 0, mean_gx = 0;
    const auto xhat = [&](int64_t j) { return (x[i * c + j] - f.mean[i]) * f.rstd[i]; };
    for (int64_t j = 0; j < c; ++j) {
      mean_g += dout[i * c + j] * weight[j] / static_cast<double>(c);
      mean_gx += dout[i * c + j] * weight[j] * xhat(j) / static_cast<double>(c);
      g.dweight[j] += dout[i * c + j] * xhat(j);
    }
    for (int64_t j = 0; j < c; ++j)
      g.dx[i * c + j] = f.rstd[i] * (dout[i * c + j] * weight[j] - mean_g - xhat(j) * mean_gx);
  }
  return g;
}

}  // namespace

TEST_CASE("layernorm: forward, residual forward and backward against double precision") {
  // Rows that a warp holds in registers (up to 256 and 1024 columns), longer and odd ones; so many rows that
  // a warp of the backward pass takes several.
  for (const auto& [rows, cols] :
       {std::pair{1, 36}, {7, 36}, {31, 196}, {67, 49}, {5, 784}, {3, 1}, {5, 1024}, {6, 1028}, {2, 1031}})
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const int64_t n = rows, c = cols;  // clang 14 cannot capture structured bindings
      CAPTURE(n);
      CAPTURE(c);
      const Values residual = random_values(n * c, 1, DType::f32, 2.0, 0.3),
                   branch = random_values(n * c, 2, dtype);
      const Values weight = random_values(c, 3, DType::f32, 0.2, 1), dout = random_values(n * c, 4, dtype);
      const Values dx0 = random_values(n * c, 5), dw0 = random_values(c, 6);
      Values x = residual;
      for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(residual[i] + branch[i]);
      const Reference expected = layernorm(x, weight, n, c);
      const Gradient g = layernorm_backward(dout, x, weight, n, c);

      if (c > 1) {  // a single column is always constant
        CHECK(finite_difference_error(
                  [&](const Values& v) { return dot(layernorm(v, weight, n, c).out, dout); }, x, g.dx) <
              1e-6);
        CHECK(finite_difference_error([&](const Values& w) { return dot(layernorm(x, w, n, c).out, dout); },
                                      weight, g.dweight) < 1e-6);
      }
      Values dx = dx0, dw = dw0;
      for (size_t i = 0; i < dx.size(); ++i) dx[i] += g.dx[i];
      for (size_t i = 0; i < dw.size(); ++i) dw[i] += g.dweight[i];

      for_each_device([&](Kernels& k) {
        OnDevice out(k, dtype, {n, c}), mean(k, DType::f32, {n}), rstd(k, DType::f32, {n});
        OnDevice sum(k, DType::f32, {n, c}), w(k, DType::f32, {c}, weight);
        k.residual_layernorm_forward(sum, out, mean, rstd, OnDevice(k, DType::f32, {n, c}, residual),
                                     OnDevice(k, dtype, {n, c}, branch), w);
        CHECK(relative_error(sum.get(), x) < 1e-7);
        CHECK(relative_error(out.get(), expected.out) < tolerance(dtype));
        CHECK(relative_error(mean.get(), expected.mean) < 1e-5);
        CHECK(relative_error(rstd.get(), expected.rstd) < 1e-6);

        OnDevice alone(k, dtype, {n, c});
        k.layernorm_forward(alone, mean, rstd, sum, w);
        CHECK(alone.get() == out.get());

        OnDevice stream(k, DType::f32, {n, c}, residual);  // in place, as the model does it
        k.residual_layernorm_forward(stream, alone, mean, rstd, stream, OnDevice(k, dtype, {n, c}, branch),
                                     w);
        CHECK(stream.get() == sum.get());
        CHECK(alone.get() == out.get());

        OnDevice dx_out(k, DType::f32, {n, c}, dx0), dw_out(k, DType::f32, {c}, dw0);
        k.layernorm_backward(dx_out, dw_out, OnDevice(k, dtype, {n, c}, dout), sum, w, mean, rstd);
        CHECK(relative_error(dx_out.get(), dx) < 2e-5);
        CHECK(relative_error(dw_out.get(), dw) < 2e-5);
      });
    }
}

TEST_CASE("layernorm: a backward pass over so many rows that each warp of a GPU takes several") {
  for (const auto& [rows, cols] : {std::pair{4100, 4}, {4099, 5}}) {
    const int64_t n = rows, c = cols;
    CAPTURE(n);
    const Values x = random_values(n * c, 1), weight = random_values(c, 2), dout = random_values(n * c, 3);
    const Reference f = layernorm(x, weight, n, c);
    const Gradient g = layernorm_backward(dout, x, weight, n, c);
    for_each_device([&](Kernels& k) {
      OnDevice dx(k, DType::f32, {n, c}, Values(x.size())), dw(k, DType::f32, {c}, Values(weight.size()));
      k.layernorm_backward(dx, dw, OnDevice(k, DType::f32, {n, c}, dout), OnDevice(k, DType::f32, {n, c}, x),
                           OnDevice(k, DType::f32, {c}, weight), OnDevice(k, DType::f32, {n}, f.mean),
                           OnDevice(k, DType::f32, {n}, f.rstd));
      CHECK(relative_error(dx.get(), g.dx) < 2e-6);
      CHECK(relative_error(dw.get(), g.dweight) < 2e-6);
    });
  }
}

TEST_CASE("layernorm: every mixture of types, and rows at any address") {
  for (const auto& [cols, first] : {std::pair{36, 0}, {36, 1}, {260, 0}, {1028, 0}}) {
    const int64_t n = 5, c = cols, begin = first;
    CAPTURE(c);
    CAPTURE(begin);
    const Values residual = random_values(n * c + 1, 1), branch = random_values(n * c, 2, DType::bf16),
                 weight = random_values(c, 3), dout = random_values(n * c, 4, DType::bf16),
                 dx0 = random_values(n * c + 1, 5);
    Values x(residual.begin() + begin, residual.begin() + begin + n * c), dx = dx0;
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(x[i] + branch[i]);
    const Reference expected = layernorm(x, weight, n, c);
    const Gradient g = layernorm_backward(dout, x, weight, n, c);
    for (size_t i = 0; i < x.size(); ++i) dx[i + static_cast<size_t>(begin)] += g.dx[i];
    for_each_device([&](Kernels& k) {
      OnDevice mean(k, DType::f32, {n}), rstd(k, DType::f32, {n}), w(k, DType::f32, {c}, weight);
      OnDevice stream(k, DType::f32, {n * c + 1});
      const Tensor sum = part(stream, begin, n * c).view({n, c});
      for (const DType out_type : {DType::f32, DType::bf16})
        for (const DType branch_type : {DType::f32, DType::bf16}) {
          OnDevice out(k, out_type, {n, c});
          stream.set(residual);
          k.residual_layernorm_forward(sum, out, mean, rstd, sum, OnDevice(k, branch_type, {n, c}, branch),
                                       w);
          CHECK(relative_error(out.get(), expected.out) < tolerance(out_type));
        }
      Values written = residual;
      std::copy(x.begin(), x.end(), written.begin() + begin);
      CHECK(stream.get() == written);
      for (const DType dout_type : {DType::f32, DType::bf16}) {
        OnDevice gradient(k, DType::f32, {n * c + 1}, dx0), dw(k, DType::f32, {c}, Values(weight.size()));
        k.layernorm_backward(part(gradient, begin, n * c).view({n, c}), dw,
                             OnDevice(k, dout_type, {n, c}, dout), sum, w, mean, rstd);
        CHECK(relative_error(gradient.get(), dx) < 2e-6);
        CHECK(relative_error(dw.get(), g.dweight) < 2e-6);
        CHECK(gradient.get()[begin ? 0 : static_cast<size_t>(n * c)] ==
              dx0[begin ? 0 : static_cast<size_t>(n * c)]);
      }
    });
  }
}

TEST_CASE("layernorm: the same bits at any number of threads") {
  const int64_t n = 200, c = 36;
  const Values x = random_values(n * c, 1), dout = random_values(n * c, 2), weight = random_values(c, 3);
  check_same_bits_at_any_thread_count([&](Kernels& k) {
    OnDevice out(k, DType::f32, {n, c}), mean(k, DType::f32, {n}), rstd(k, DType::f32, {n});
    OnDevice in(k, DType::f32, {n, c}, x), w(k, DType::f32, {c}, weight), dx(k, DType::f32, {n, c}, x),
        dweight(k, DType::f32, {c}, weight);
    k.layernorm_forward(out, mean, rstd, in, w);
    k.layernorm_backward(dx, dweight, OnDevice(k, DType::f32, {n, c}, dout), in, w, mean, rstd);
    return std::vector<Values>{out.get(), dx.get(), dweight.get()};
  });
}

TEST_CASE("layernorm: a row with a mean 1000 times its deviation keeps its precision") {
  const int64_t c = 196;
  const Values x = random_values(c, 1, DType::f32, 1, 1000), weight(static_cast<size_t>(c), 1);
  const Reference expected = layernorm(x, weight, 1, c);
  for_each_device([&](Kernels& k) {
    OnDevice out(k, DType::f32, {1, c}), mean(k, DType::f32, {1}), rstd(k, DType::f32, {1});
    k.layernorm_forward(out, mean, rstd, OnDevice(k, DType::f32, {1, c}, x),
                        OnDevice(k, DType::f32, {c}, weight));
    CHECK(relative_error(out.get(), expected.out) < 2e-4);  // x itself is rounded to 6e-5 of a deviation
  });
}
