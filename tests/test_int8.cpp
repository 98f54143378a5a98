// Linear layers whose weights are 8-bit integers and a scale a row.
#include "engine/error.h"
#include "tests/errors.h"
#include "tests/kernel_test.h"

using namespace topolm;
using namespace topolm::test;

namespace {

constexpr DType kFloat = DType::f32, kHalf = DType::bf16;

/// A weight [out, in] and its scales on the CPU, as the device quantised it.
class Quantized {
 public:
  Quantized(Kernels& kernels, const Values& weight, int64_t out, int64_t in)
      : device_(kernels.device()),
        values_{device_.allocate(static_cast<size_t>(out * in), "int8"), DType::i8, {out, in}},
        scale_(kernels, kFloat, {out}) {
    kernels.quantize_rows(values_, scale_, OnDevice(kernels, kFloat, {out, in}, weight));
  }
  ~Quantized() { device_.release(values_.data); }
  Quantized(const Quantized&) = delete;
  Quantized& operator=(const Quantized&) = delete;

  const Tensor& values() const { return values_; }
  const Tensor& scale() const { return scale_; }
  std::vector<int8_t> integers() const {
    std::vector<int8_t> v(static_cast<size_t>(values_.elements()));
    device_.download(v.data(), values_);
    return v;
  }
  Values scales() const { return scale_.get(); }
  /// scale * values in double precision.
  Values dequantised() const {
    const auto v = integers();
    const Values s = scales();
    Values w(v.size());
    for (size_t i = 0; i < w.size(); ++i) w[i] = s[i / static_cast<size_t>(values_.cols())] * v[i];
    return w;
  }

 private:
  Device& device_;
  Tensor values_;
  OnDevice scale_;
};

std::vector<DeviceOptions> cpu_devices() {
  std::vector<DeviceOptions> devices = test_devices();
  std::erase_if(devices, [](const DeviceOptions& o) { return o.name != "cpu"; });
  return devices;
}

void for_each_cpu(const std::function<void(Kernels&)>& body) { for_each_device(body, cpu_devices()); }

}  // namespace

TEST_CASE("int8: a row's largest weight is 127, and none is off by more than half a step") {
  for (const auto& shape : {std::pair<int64_t, int64_t>{1, 1}, {5, 3}, {3, 49}, {33, 196}, {70, 1031}}) {
    const int64_t out = shape.first, in = shape.second;
    Values weight = random_values(out * in, 1, kFloat, 0.02);
    for (int64_t i = 0; i < in; ++i) weight[i] *= 1e-20, weight[(out - 1) * in + i] *= 1e20;
    for_each_cpu([&](Kernels& k) {
      const Quantized q(k, weight, out, in);
      const auto integers = q.integers();
      const Values scales = q.scales();
      for (int64_t o = 0; o < out; ++o) {
        double largest = 0;
        int most = 0;
        for (int64_t i = o * in; i < (o + 1) * in; ++i) {
          largest = std::max(largest, std::abs(weight[i]));
          most = std::max(most, std::abs(int{integers[i]}));
          REQUIRE(std::abs(scales[o] * integers[i] - weight[i]) <= 0.5001 * scales[o]);
        }
        CHECK(most == 127);
        CHECK(scales[o] == doctest::Approx(largest / 127).epsilon(1e-6));
      }
    });
  }
}

TEST_CASE("int8: rows of zero, and rows that are damaged") {
  for_each_cpu([&](Kernels& k) {
    const int64_t in = 37;
    for (const double bad : {static_cast<double>(NAN), HUGE_VAL, -HUGE_VAL}) {
      Values weight(3 * in, 0.0);
      for (int64_t i = 0; i < in; ++i) weight[in + i] = i == 20 ? bad : 1;
      const Quantized q(k, weight, 3, in);
      OnDevice y(k, kFloat, {1, 3});
      k.linear_int8_forward(y, OnDevice(k, kFloat, {1, in}, Values(in, 1.0)), q.values(), q.scale());
      const Values got = y.get();
      CHECK(got[0] == 0);
      CHECK(std::isnan(got[1]));  // not hidden
      CHECK(got[2] == 0);
    }
  });
}

TEST_CASE("int8: the product against double precision") {
  struct Sizes {
    int64_t n, in, out;
  };
  for (const Sizes& size : {Sizes{1, 1, 1},
                            {1, 36, 108},
                            {2, 49, 7},
                            {3, 196, 33},
                            {4, 17, 65},
                            {5, 64, 16},
                            {7, 1031, 131},
                            {1, 3136, 784},
                            {13, 128, 2053},
                            {29, 49, 515}})
    for (const DType input : {kFloat, kHalf})
      for (const DType output : {kFloat, kHalf}) {
        const int64_t n = size.n, in = size.in, out = size.out;
        CAPTURE(n);
        CAPTURE(in);
        CAPTURE(out);
        const Values x = random_values(n * in, 1, input), weight = random_values(out * in, 2, kFloat, 0.1);
        for_each_cpu([&](Kernels& k) {
          const Quantized q(k, weight, out, in);
          const Values w = q.dequantised();
          Values expected(static_cast<size_t>(n * out));
          for (int64_t i = 0; i < n; ++i)
            for (int64_t o = 0; o < out; ++o)
              for (int64_t j = 0; j < in; ++j) expected[i * out + o] += x[i * in + j] * w[o * in + j];
          // The rows around the output are not written.
          OnDevice y(k, output, {n + 2, out});
          k.linear_int8_forward(y.tensor().row_range(1, n), OnDevice(k, input, {n, in}, x), q.values(),
                                q.scale());
          const Values all = y.get();
          CHECK(relative_error({all.begin() + out, all.end() - out}, expected) < tolerance(output));
          for (int64_t o = 0; o < out; ++o)
            REQUIRE((std::isnan(all[o]) && std::isnan(all[(n + 1) * out + o])));
        });
      }
}

TEST_CASE("int8: a row alone and among few has the same bits, at any number of threads") {
  const int64_t n = 4, in = 196, out = 588;
  const Values x = random_values(n * in, 1), weight = random_values(out * in, 2);
  check_same_bits_at_any_thread_count(
      [&](Kernels& k) {
        const Quantized q(k, weight, out, in);
        const OnDevice x_(k, kFloat, {n, in}, x);
        OnDevice all(k, kFloat, {n, out}), alone(k, kFloat, {n, out});
        k.linear_int8_forward(all, x_, q.values(), q.scale());
        for (int64_t i = 0; i < n; ++i)
          k.linear_int8_forward(alone.tensor().row_range(i, 1), x_.tensor().row_range(i, 1), q.values(),
                                q.scale());
        CHECK(alone.get() == all.get());
        return std::vector<Values>{all.get()};
      },
      cpu_devices());
}

TEST_CASE("int8: many rows have the same bits at any number of threads") {
  const int64_t n = 37, in = 49, out = 1031;
  const Values x = random_values(n * in, 1, kHalf), weight = random_values(out * in, 2);
  check_same_bits_at_any_thread_count(
      [&](Kernels& k) {
        const Quantized q(k, weight, out, in);
        OnDevice y(k, kFloat, {n, out});
        k.linear_int8_forward(y, OnDevice(k, kHalf, {n, in}, x), q.values(), q.scale());
        return std::vector<Values>{y.get()};
      },
      cpu_devices());
}

TEST_CASE("int8: what does not fit is an error; so is a GPU") {
  for_each_device([&](Kernels& k) {
    const OnDevice weight(k, kFloat, {3, 7}), scale(k, kFloat, {3}), x(k, kFloat, {2, 7}),
        y(k, kFloat, {2, 3});
    const OnDevice ids(k, DType::i32, {2, 7});
    std::vector<char> memory(21);
    const Tensor values{memory.data(), DType::i8, {3, 7}}, others{memory.data(), DType::i8, {7, 3}};
    if (k.device().name() != "cpu") {
      CHECK(contains(error_of([&] { k.quantize_rows(values, scale, weight); }),
                     "int8 weights are for the CPU"));
      CHECK(contains(error_of([&] { k.linear_int8_forward(y, x, values, scale); }), "int8 weights"));
      return;
    }
    CHECK_THROWS_AS(k.quantize_rows(others, scale, weight), Error);
    CHECK_THROWS_AS(k.quantize_rows(weight, scale, weight), Error);
    CHECK_THROWS_AS(k.quantize_rows(values, weight, weight), Error);
    CHECK_THROWS_AS(k.linear_int8_forward(y, x, weight, scale), Error);
    CHECK_THROWS_AS(k.linear_int8_forward(y, x, others, scale), Error);
    CHECK_THROWS_AS(k.linear_int8_forward(y, x, values, y), Error);
    CHECK_THROWS_AS(k.linear_int8_forward(x, x, values, scale), Error);
    CHECK_THROWS_AS(k.linear_int8_forward(y, ids, values, scale), Error);
  });
}
