// What the kernel tests share: devices to test, tensors filled from double-precision vectors, errors, finite
// differences. The reference implementations (tests/reference.h) are plain loops in double.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "engine/random.h"
#include "kernels/kernels.h"

namespace topolm::test {

using Values = std::vector<double>;

/// Every device and instruction set to test, or the one that $TOPOLM_DEVICE names. Three threads, so that
/// tasks really are spread in ways that do not divide evenly.
inline std::vector<DeviceOptions> test_devices(int threads = 3) {
  const char* wanted = std::getenv("TOPOLM_DEVICE");
  std::vector<DeviceOptions> devices;
  if (!wanted || std::string(wanted) == "cpu")
    for (const auto& isa : cpu_instruction_sets()) devices.push_back({"cpu", threads, isa});
  for (const auto& name : gpu_devices())
    if (!wanted || wanted == name) devices.push_back({name, threads, ""});
  return devices;
}

/// Runs `body` on every device.
inline void for_each_device(const std::function<void(Kernels&)>& body,
                            const std::vector<DeviceOptions>& devices = test_devices()) {
  for (const auto& options : devices) {
    CAPTURE(options.name);
    CAPTURE(options.isa);
    CAPTURE(options.products);
    const auto kernels = make_kernels(options);
    body(*kernels);
  }
}

/// Checks that `results`, called with every device at several numbers of threads, returns the same numbers
/// each time. A NaN is equal to a NaN.
inline void check_same_bits_at_any_thread_count(const std::function<std::vector<Values>(Kernels&)>& results,
                                                const std::vector<DeviceOptions>& devices = test_devices()) {
  for (auto options : devices) {
    CAPTURE(options.name);
    CAPTURE(options.isa);
    CAPTURE(options.products);
    std::vector<Values> expected;
    for (const int threads : {1, 2, 3, 8}) {
      CAPTURE(threads);
      options.threads = threads;
      const auto kernels = make_kernels(options);
      const std::vector<Values> got = results(*kernels);
      if (expected.empty()) expected = got;
      REQUIRE(got.size() == expected.size());
      for (size_t i = 0; i < got.size(); ++i) {
        CAPTURE(i);
        REQUIRE(got[i].size() == expected[i].size());
        CHECK(std::memcmp(got[i].data(), expected[i].data(), got[i].size() * sizeof(double)) == 0);
      }
    }
  }
}

/// The same for a body with one result.
inline void for_each_thread_count(const std::function<Values(Kernels&)>& body) {
  check_same_bits_at_any_thread_count([&](Kernels& k) { return std::vector<Values>{body(k)}; });
}

inline float round_to(DType dtype, double x) {
  const float f = static_cast<float>(x);
  if (dtype != DType::bf16) return f;
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  bits = (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000u;
  float rounded;
  std::memcpy(&rounded, &bits, 4);
  return rounded;
}

/// Standard normal values times scale plus shift, rounded to dtype: the reference sees the same.
inline Values random_values(int64_t n, uint32_t stream, DType dtype = DType::f32, double scale = 1,
                            double shift = 0) {
  Random random(7, Random::Purpose::tests, stream);
  Values v(static_cast<size_t>(n));
  for (double& x : v) x = round_to(dtype, random.normal() * scale + shift);
  return v;
}

/// A tensor in device memory, filled with NaN unless values are given: an output that is not written shows.
class OnDevice {
 public:
  OnDevice(Kernels& kernels, DType dtype, Shape shape, const Values& values = {})
      : device_(kernels.device()), tensor_{nullptr, dtype, shape} {
    tensor_.data = device_.allocate(static_cast<size_t>(tensor_.bytes()), "a test tensor");
    set(values.empty() ? Values(static_cast<size_t>(tensor_.elements()), std::nan("")) : values);
  }
  ~OnDevice() { device_.release(tensor_.data); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

  operator const Tensor&() const { return tensor_; }
  const Tensor& tensor() const { return tensor_; }

  void set(const Values& values) {
    REQUIRE(static_cast<int64_t>(values.size()) == tensor_.elements());
    std::vector<char> raw(static_cast<size_t>(tensor_.bytes()));
    for (size_t i = 0; i < values.size(); ++i) {
      const float f = round_to(tensor_.dtype, values[i]);
      const int32_t n = tensor_.dtype == DType::i32 ? static_cast<int32_t>(values[i]) : 0;
      uint32_t bits;
      std::memcpy(&bits, tensor_.dtype == DType::i32 ? static_cast<const void*>(&n) : &f, 4);
      const uint16_t high = static_cast<uint16_t>(bits >> 16);
      if (tensor_.dtype == DType::bf16)
        std::memcpy(raw.data() + 2 * i, &high, 2);
      else
        std::memcpy(raw.data() + 4 * i, &bits, 4);
    }
    device_.upload(tensor_, raw.data());
  }

  Values get() const {
    std::vector<char> raw(static_cast<size_t>(tensor_.bytes()));
    device_.synchronize();
    device_.download(raw.data(), tensor_);
    Values values(static_cast<size_t>(tensor_.elements()));
    for (size_t i = 0; i < values.size(); ++i) {
      uint32_t bits = 0;
      if (tensor_.dtype == DType::bf16)
        std::memcpy(reinterpret_cast<char*>(&bits) + 2, raw.data() + 2 * i, 2);
      else
        std::memcpy(&bits, raw.data() + 4 * i, 4);
      float f;
      std::memcpy(&f, &bits, 4);
      values[i] = tensor_.dtype == DType::i32 ? static_cast<double>(static_cast<int32_t>(bits)) : f;
    }
    return values;
  }

 private:
  Device& device_;
  Tensor tensor_;
};

/// A position, as the operations of decoding want it.
inline OnDevice position_at(Kernels& kernels, int64_t position) {
  return {kernels, DType::i32, {1}, {static_cast<double>(position)}};
}

/// Elements [begin, begin + n) of a tensor: at an address that vectors may not have.
inline Tensor part(const Tensor& t, int64_t begin, int64_t n) {
  return {static_cast<char*>(t.data) + begin * size_of(t.dtype), t.dtype, {n}};
}

/// |got - expected| / |expected| in the Frobenius norm (absolute where expected is all zero). NaN if any is.
inline double relative_error(const Values& got, const Values& expected) {
  REQUIRE(got.size() == expected.size());
  double difference = 0, norm = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    difference += (got[i] - expected[i]) * (got[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  return std::sqrt(difference) / (norm > 0 ? std::sqrt(norm) : 1.0);
}

/// The tolerance of an operation against the double-precision reference: fp32 rounding, or bf16 outputs.
inline double tolerance(DType dtype) { return dtype == DType::bf16 ? 1e-2 : 2e-6; }

/// The same on a device: GPU kernels may use the hardware's approximate exponentials and logarithms.
inline double tolerance(DType dtype, Kernels& kernels) {
  if (kernels.device().name() == "cpu") return tolerance(dtype);
  return dtype == DType::bf16 ? 2e-2 : 2e-5;
}

/// Central differences of loss at x along `directions` random directions, against the gradient: the largest
/// error relative to the gradient's norm. Both are double-precision references.
inline double finite_difference_error(const std::function<double(const Values&)>& loss, const Values& x,
                                      const Values& gradient, int directions = 4) {
  double norm = 0, worst = 0;
  for (const double g : gradient) norm += g * g;
  norm = std::max(std::sqrt(norm), 1e-12);
  for (int d = 0; d < directions; ++d) {
    const Values direction = random_values(static_cast<int64_t>(x.size()), 1000 + static_cast<uint32_t>(d));
    constexpr double kStep = 1e-5;
    Values plus = x, minus = x;
    double expected = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      plus[i] += kStep * direction[i];
      minus[i] -= kStep * direction[i];
      expected += gradient[i] * direction[i];
    }
    worst = std::max(worst, std::abs((loss(plus) - loss(minus)) / (2 * kStep) - expected) / norm);
  }
  return worst;
}

inline double dot(const Values& a, const Values& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace topolm::test
