#include "tests/errors.h"
#include "tests/kernel_test.h"

using namespace topolm;
using namespace topolm::test;

TEST_CASE("elementwise: fill, cast and add_scaled at any size") {
  for (const int64_t n : {1, 7, 36, 255, 256, 257, 4099}) {
    const Values x = random_values(n, 1), y = random_values(n, 2);
    for_each_device([&](Kernels& k) {
      OnDevice out(k, DType::f32, {n});
      k.fill(out, 1.5f);
      CHECK(out.get() == Values(static_cast<size_t>(n), 1.5));
      for (const DType from : {DType::f32, DType::bf16}) {
        out.set(x);
        const OnDevice in(k, from, {n}, y);
        k.add_scaled(out, in, -0.5f);
        Values sum = x, addend = in.get();
        for (size_t i = 0; i < sum.size(); ++i) sum[i] -= 0.5 * addend[i];
        CHECK(relative_error(out.get(), sum) < 1e-7);
      }
      for (const DType to : {DType::f32, DType::bf16})
        for (const DType from : {DType::f32, DType::bf16}) {
          OnDevice in(k, from, {n}, x), cast(k, to, {n});
          k.cast(cast, in);
          Values expected = in.get();
          for (double& e : expected) e = round_to(to, e);
          CHECK(cast.get() == expected);
        }
    });
  }
}

TEST_CASE("elementwise: what is larger than the caches is filled past them, to its last element") {
  const int64_t n = (int64_t{1} << 23) + 40017, guard = 16;
  std::vector<float> values(static_cast<size_t>(n + 2 * guard + 1));
  for (const auto& options : test_devices()) {
    if (options.name != "cpu") continue;  // a simulated GPU would take a minute
    CAPTURE(options.isa);
    const auto k = make_kernels(options);
    const auto address = reinterpret_cast<uintptr_t>(values.data() + guard);
    for (const int64_t shift : {static_cast<int64_t>((64 - address % 64) % 64 / 4), int64_t{1}}) {
      std::fill(values.begin(), values.end(), 7.0f);
      const auto begin = values.begin() + guard + shift;  // aligned as a vector, or not
      k->fill({&*begin, DType::f32, {n}}, -2.5f);
      CHECK(std::all_of(values.begin(), begin, [](float x) { return x == 7; }));
      CHECK(std::all_of(begin, begin + n, [](float x) { return x == -2.5f; }));
      CHECK(std::all_of(begin + n, values.end(), [](float x) { return x == 7; }));
    }
  }
}

TEST_CASE("elementwise: a part of a tensor at any address; its neighbours stay as they are") {
  const int64_t n = 1100, size = n + 8;
  const Values x = random_values(size, 1), y = random_values(size, 2);
  for_each_device([&](Kernels& k) {
    for (const int64_t begin : {0, 1, 2, 4}) {
      CAPTURE(begin);
      const auto inside = [&](size_t i) { return i >= static_cast<size_t>(begin) && i - begin < n; };
      OnDevice out(k, DType::f32, {size}, x), in(k, DType::f32, {size}, y);
      Values expected = x;
      k.fill(part(out, begin, n), -2);
      for (size_t i = 0; i < x.size(); ++i)
        if (inside(i)) expected[i] = -2;
      CHECK(out.get() == expected);
      k.add_scaled(part(out, begin, n), part(in, begin, n), 0.5f);
      for (size_t i = 0; i < x.size(); ++i)
        if (inside(i)) expected[i] = static_cast<float>(-2 + 0.5 * y[i]);
      CHECK(out.get() == expected);
      for (const DType to : {DType::f32, DType::bf16})
        for (const DType from : {DType::f32, DType::bf16}) {
          OnDevice source(k, from, {size}, x), cast(k, to, {size}, y);
          expected = cast.get();
          k.cast(part(cast, begin, n), part(source, 1, n));  // two different offsets
          const Values s = source.get();
          for (size_t i = 0; i < x.size(); ++i)
            if (inside(i)) expected[i] = round_to(to, s[i - begin + 1]);
          CHECK(cast.get() == expected);
        }
    }
  });
}

TEST_CASE("elementwise: shapes and types that do not fit are errors") {
  for_each_device([&](Kernels& k) {
    OnDevice six(k, DType::f32, {2, 3}), five(k, DType::f32, {5}), half(k, DType::bf16, {2, 3});
    CHECK(error_of([&] { k.cast(six, five); }) == "cast: in is [5], not [2, 3]");
    CHECK(error_of([&] { k.add_scaled(six, five, 1); }) == "add_scaled: in is [5], not [2, 3]");
    CHECK_THROWS_AS(k.fill(half, 1), Error);
    CHECK_THROWS_AS(k.add_scaled(half, six, 1), Error);
  });
}
