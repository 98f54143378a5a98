#include "engine/error.h"
#include "tests/kernel_test.h"

using namespace topolm;
using namespace topolm::test;

TEST_CASE("sum and sum of squares against double precision") {
  for (const int64_t n : {1, 36, 97, 4096, 200003, 4300007})
    for (const DType dtype : {DType::f32, DType::bf16}) {
      if (n > 1000000 && dtype == DType::f32) continue;
      CAPTURE(n);
      const Values x = random_values(n, 1, dtype, 1, 0.5);
      double sum = 0;
      for (const double v : x) sum += v;
      for_each_device([&](Kernels& k) {
        OnDevice in(k, dtype, {n}, x), out(k, DType::f32, {1});
        k.sum(out, in);
        CHECK(out.get()[0] == doctest::Approx(sum).epsilon(2e-6));
        k.sum_of_squares(out, in);
        CHECK(out.get()[0] == doctest::Approx(dot(x, x)).epsilon(1e-6));
        if (n == 1) return;
        k.sum(out, in.tensor().view({n, 1}).row_range(1, n - 1));  // not aligned to 16 bytes
        CHECK(out.get()[0] == doctest::Approx(sum - x[0]).epsilon(2e-6));
        k.sum_of_squares(out, in.tensor().view({n, 1}).row_range(1, n - 1));
        CHECK(out.get()[0] == doctest::Approx(dot(x, x) - x[0] * x[0]).epsilon(1e-6));
      });
    }
}

TEST_CASE("gradient norm: clips to max_norm, not to its square; NaN and infinity are not hidden") {
  for_each_device([&](Kernels& k) {
    OnDevice out(k, DType::f32, {2}), gradient(k, DType::f32, {4}, {1, -1, 1, -1});  // norm 2
    k.gradient_norm(out, gradient, 1);
    CHECK(out.get() == Values{2, 0.5});
    k.gradient_norm(out, gradient, 3);
    CHECK(out.get() == Values{2, 1});
    k.gradient_norm(out, gradient, 0);
    CHECK(out.get() == Values{2, 1});
    gradient.set({0, 0, 0, 0});
    k.gradient_norm(out, gradient, 1);
    CHECK(out.get() == Values{0, 1});
    for (const double bad : {static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
      gradient.set({0, 0, bad, 1});
      k.gradient_norm(out, gradient, 1);
      CHECK(!std::isfinite(out.get()[0]));
      CHECK(out.get()[1] != 1);
    }
  });
}

TEST_CASE("adamw: three steps of two decay groups against double precision, with the bf16 copy") {
  const std::vector<int64_t> sizes = {1, 36, 97 * 49, 40009};
  const std::vector<float> decays = {0, 0.1f, 0.1f, 0};
  const float lr = 1e-2f, beta1 = 0.9f, beta2 = 0.95f, eps = 1e-8f, scale = 0.5f;
  for_each_device([&](Kernels& k) {
    std::vector<std::unique_ptr<OnDevice>> on_device;
    const auto tensor = [&](DType dtype, int64_t n, const Values& values) -> const OnDevice& {
      return *on_device.emplace_back(std::make_unique<OnDevice>(k, dtype, Shape{n}, values));
    };
    std::vector<AdamWTensor> tensors;
    std::vector<Values> weight, m, v;
    for (size_t i = 0; i < sizes.size(); ++i) {
      const Values zero(static_cast<size_t>(sizes[i]));
      weight.push_back(random_values(sizes[i], static_cast<uint32_t>(i)));
      m.push_back(zero);
      v.push_back(zero);
      tensors.push_back(
          {tensor(DType::f32, sizes[i], weight[i]).tensor(), tensor(DType::f32, sizes[i], zero).tensor(),
           tensor(DType::f32, sizes[i], zero).tensor(), tensor(DType::f32, sizes[i], zero).tensor(),
           i % 2 ? tensor(DType::bf16, sizes[i], {}).tensor() : Tensor{}, decays[i]});
    }
    const auto read = [&](const Tensor& t) {
      for (const auto& candidate : on_device)
        if (candidate->tensor().data == t.data) return candidate->get();
      throw std::logic_error("an unknown tensor");
    };
    for (int step = 1; step <= 3; ++step) {
      for (size_t i = 0; i < sizes.size(); ++i) {
        const Values g =
            random_values(sizes[i], static_cast<uint32_t>(100 * step) + static_cast<uint32_t>(i));
        for (const auto& candidate : on_device)
          if (candidate->tensor().data == tensors[i].gradient.data) candidate->set(g);
        for (size_t j = 0; j < g.size(); ++j) {
          const double gj = scale * g[j];
          m[i][j] = beta1 * m[i][j] + (1 - static_cast<double>(beta1)) * gj;
          v[i][j] = beta2 * v[i][j] + (1 - static_cast<double>(beta2)) * gj * gj;
          const double m_hat = m[i][j] / (1 - std::pow(static_cast<double>(beta1), step));
          const double v_hat = v[i][j] / (1 - std::pow(static_cast<double>(beta2), step));
          weight[i][j] *= 1 - static_cast<double>(lr) * decays[i];
          weight[i][j] -= lr * m_hat / (std::sqrt(v_hat) + eps);
        }
      }
      k.adamw(tensors, tensor(DType::f32, 2, {123, scale}), {lr, beta1, beta2, eps, step});
      for (size_t i = 0; i < sizes.size(); ++i) {
        CAPTURE(i);
        const Values w = read(tensors[i].weight);
        CHECK(relative_error(w, weight[i]) < 2e-7);
        CHECK(relative_error(read(tensors[i].m), m[i]) < 1e-6);
        CHECK(relative_error(read(tensors[i].v), v[i]) < 1e-6);
        if (!tensors[i].copy) continue;
        Values rounded = w;
        for (double& x : rounded) x = round_to(DType::bf16, x);
        CHECK(read(tensors[i].copy) == rounded);
      }
    }
  });
}

TEST_CASE("adamw: hundreds of tensors, at any address, each of them updated once and nothing else") {
  const size_t count = 300;
  const AdamWStep step{1e-2f, 0.9f, 0.95f, 1e-8f, 1};
  for_each_device([&](Kernels& k) {
    const int64_t size = 8 * static_cast<int64_t>(count);
    const Values x = random_values(size, 1), zero(x.size());
    OnDevice weight(k, DType::f32, {size}, x), gradient(k, DType::f32, {size}, Values(x.size(), 3)),
        m(k, DType::f32, {size}, zero), v(k, DType::f32, {size}, zero),
        copy(k, DType::bf16, {size}, Values(x.size(), 7));
    std::vector<AdamWTensor> tensors;
    Values expected = x, rounded(x.size(), 7);
    for (size_t i = 0; i < count; ++i) {  // 1 to 7 elements, none, one or two behind the last tensor's
      const int64_t n = 1 + static_cast<int64_t>(i % 7), begin = 8 * static_cast<int64_t>(i) + (7 - n) / 2;
      const auto of = [&](const OnDevice& all) { return part(all, begin, n); };
      tensors.push_back({of(weight), of(gradient), of(m), of(v), i % 2 ? of(copy) : Tensor{}, 0.1f});
      for (size_t j = static_cast<size_t>(begin); j < static_cast<size_t>(begin + n); ++j) {
        expected[j] = expected[j] * (1 - 1e-2 * 0.1) - 1e-2;  // the first step is the gradient's sign
        if (i % 2) rounded[j] = -1;
      }
    }
    k.adamw(tensors, OnDevice(k, DType::f32, {2}, {6, 0.5}), step);
    const Values w = weight.get(), c = copy.get(), first = m.get();
    for (size_t j = 0; j < w.size(); ++j) {
      CAPTURE(j);
      if (expected[j] == x[j])
        REQUIRE((w[j] == x[j] && first[j] == 0));
      else
        REQUIRE((std::abs(w[j] - expected[j]) < 1e-6 && std::abs(first[j] - 0.15) < 1e-6));
      REQUIRE(c[j] == (rounded[j] == 7 ? 7 : round_to(DType::bf16, w[j])));
    }
  });
}

TEST_CASE("sums and adamw: the same bits at any number of threads") {
  const int64_t n = 300007;
  const Values x = random_values(n, 1), zero(static_cast<size_t>(n));
  for_each_thread_count([&](Kernels& k) {
    OnDevice gradient(k, DType::f32, {n}, x), norm(k, DType::f32, {2});
    OnDevice weight(k, DType::f32, {n}, x), m(k, DType::f32, {n}, zero), v(k, DType::f32, {n}, zero);
    k.gradient_norm(norm, gradient, 1);
    const AdamWTensor tensor{weight, gradient, m, v, {}, 0.1f};
    k.adamw(std::span(&tensor, 1), norm, {1e-3f, 0.9f, 0.95f, 1e-8f, 1});
    Values out = weight.get();
    out.push_back(norm.get()[0]);
    return out;
  });
}
