// Lesions and drive: units fall silent or speak louder, exactly; nothing else changes.
#include "model/intervention.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "model/topolm.h"
#include "tests/errors.h"
#include "tests/kernel_test.h"

using namespace topolm;

namespace {

constexpr int64_t kBatch = 2, kTime = 7;

ModelConfig nano(Tap tap = Tap::pre) {
  ModelConfig c = model_preset("nano");
  c.vocab_size = 64, c.block_size = 16;
  c.topography.tap = tap;
  return c;
}

/// A small model with weights large enough for every site to matter.
class Patient {
 public:
  explicit Patient(Kernels& kernels, DType dtype = DType::f32, Tap tap = Tap::pre)
      : model_(kernels, nano(tap), make_sheets(nano(tap), "random", 3), kBatch, kTime, dtype, false) {
    model_.weights().initialise(5);
    for (const ParameterInfo& info : parameter_list(model_.config())) {
      std::vector<float> w = download(info.in(model_.weights().fp32()));
      for (float& x : w) x *= info.is_matrix() ? 6.0f : 1.0f;
      kernels.device().upload(info.in(model_.weights().fp32()), w.data());
    }
    model_.weights().refresh();
  }

  Patient& treat(const std::vector<Intervention>& interventions) {
    intervene(interventions, model_.config(), device(), model_.weights());
    return *this;
  }
  /// Runs the same text as ever, or one's own [kBatch, kTime].
  Patient& read(std::vector<int32_t> tokens = {}) {
    if (tokens.empty())
      for (int32_t i = 0; i < kBatch * kTime; ++i) tokens.push_back((i * i * 7 + 5 * i + 1) % 64);
    const std::vector<int32_t> none(tokens.size(), -1);
    model_.set_batch(kBatch, kTime, tokens, none, model_.draw_neighborhoods(1, 0, 0));
    model_.zero_losses();
    model_.forward();
    return *this;
  }
  std::vector<float> site(int k) { return download(model_.site(k)); }
  std::vector<float> logits() { return model_.logits(); }
  /// Every weight: fp32, then the bf16 copies if there are any.
  std::vector<float> weights() {
    std::vector<float> all;
    const auto add = [&](const Tensor& t) {
      const auto values = download(t);
      all.insert(all.end(), values.begin(), values.end());
    };
    for (const ParameterInfo& info : parameter_list(model_.config())) {
      add(info.in(model_.weights().fp32()));
      if (const Tensor copy = model_.weights().bf16_copy(info)) add(copy);
    }
    return all;
  }
  TopoLM& model() { return model_; }

 private:
  Device& device() { return model_.kernels().device(); }
  std::vector<float> download(const Tensor& t) {
    std::vector<float> values(static_cast<size_t>(t.elements()));
    if (t.dtype == DType::f32) {
      device().download(values.data(), t);
      return values;
    }
    std::vector<bf16> halves(values.size());
    device().download(halves.data(), t);
    std::transform(halves.begin(), halves.end(), values.begin(), bf16_to_float);
    return values;
  }
  TopoLM model_;
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

bool among(const std::vector<int32_t>& units, size_t unit) {
  return std::find(units.begin(), units.end(), static_cast<int32_t>(unit)) != units.end();
}

std::vector<int32_t> every_unit() {
  std::vector<int32_t> units(36);
  for (size_t u = 0; u < units.size(); ++u) units[u] = static_cast<int32_t>(u);
  return units;
}

std::vector<Intervention> everywhere(float gain) {
  std::vector<Intervention> all;
  for (int site = 0; site < nano().sites(); ++site) all.push_back({site, every_unit(), gain});
  return all;
}

const std::vector<int32_t> kUnits = {0, 3, 17, 18, 35};

}  // namespace

TEST_CASE("intervention: a lesioned unit says exactly 0; the others of its site do not notice") {
  for (const DType dtype : {DType::f32, DType::bf16})
    test::for_each_device([&](Kernels& kernels) {
      for (const int site : {0, 1, 2, 3}) {
        CAPTURE(site);
        Patient healthy(kernels, dtype), patient(kernels, dtype);
        healthy.read();
        patient.treat({{site, kUnits, 0}}).read();
        for (int k = 0; k < site; ++k) CHECK(same_bits(patient.site(k), healthy.site(k)));
        const auto before = healthy.site(site), after = patient.site(site);
        size_t silent = 0, spoke = 0, changed = 0;
        for (size_t i = 0; i < after.size(); ++i)
          if (among(kUnits, i % 36))
            silent += after[i] == 0, spoke += before[i] != 0;
          else
            changed += std::memcmp(&after[i], &before[i], sizeof(float)) != 0;
        CHECK(silent == kBatch * kTime * kUnits.size());
        CHECK(spoke == silent);
        CHECK(changed == 0);
        CHECK_FALSE(same_bits(patient.logits(), healthy.logits()));
        if (site < 3) CHECK_FALSE(same_bits(patient.site(site + 1), healthy.site(site + 1)));
      }
    });
}

TEST_CASE("intervention: drive multiplies the unit's output by its gain, and gains multiply") {
  test::for_each_device([](Kernels& kernels) {
    for (const int site : {2, 3}) {
      Patient healthy(kernels), driven(kernels);
      healthy.read();
      driven.treat({{site, {4, 9}, 2.5f}, {site, {9, 30}, -3}}).read();
      const auto before = healthy.site(site), after = driven.site(site);
      const auto gain = [](size_t unit) {
        return unit == 4 ? 2.5 : unit == 9 ? -7.5 : unit == 30 ? -3.0 : 1.0;
      };
      test::Values expected, got(after.begin(), after.end());
      for (size_t i = 0; i < before.size(); ++i) expected.push_back(gain(i % 36) * before[i]);
      CHECK(test::relative_error(got, expected) < 1e-6);
      for (const size_t unit : {4, 9, 30}) {
        test::Values one, wanted;
        for (size_t i = unit; i < before.size(); i += 36)
          one.push_back(got[i]), wanted.push_back(expected[i]);
        CHECK(test::relative_error(one, wanted) < 1e-6);
      }
    }
    // A gain that is a power of two scales every term of a sum alike: to the bit, in bf16 too.
    Patient healthy(kernels, DType::bf16), driven(kernels, DType::bf16);
    driven.treat({{3, every_unit(), 4}}).read();
    auto expected = healthy.read().site(3);
    for (float& x : expected) x *= 4;
    CHECK(same_bits(driven.site(3), expected));
  });
}

TEST_CASE("intervention: a gain of 1, no units, and gains that undo each other change no bit") {
  test::for_each_device([](Kernels& kernels) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      Patient patient(kernels, dtype);
      const auto before = patient.weights();
      CHECK(same_bits(patient.treat({}).weights(), before));
      CHECK(same_bits(patient.treat(everywhere(1)).weights(), before));
      CHECK(same_bits(patient.treat({{1, {}, 0}}).weights(), before));
      CHECK(same_bits(patient.treat({{1, kUnits, 4}, {1, kUnits, 0.25f}}).weights(), before));
      CHECK_FALSE(same_bits(patient.treat({{1, {7}, 0}}).weights(), before));
    }
  });
}

TEST_CASE("intervention: only the rows of the site's projection change, and the bf16 copies follow") {
  const auto kernels = make_kernels({"cpu", 2, ""});
  Patient healthy(*kernels, DType::bf16), patient(*kernels, DType::bf16);
  patient.treat({{1, {7}, 0.5f}, {2, {8}, 0}});
  const auto copy = [&](Patient& p, const ParameterInfo& info, bool bf16) {
    const Tensor t = bf16 ? p.model().weights().bf16_copy(info) : info.in(p.model().weights().fp32());
    std::vector<uint16_t> raw(static_cast<size_t>(t.bytes() / 2));
    kernels->device().download(raw.data(), t);
    return raw;
  };
  int changed = 0;
  for (const ParameterInfo& info : parameter_list(nano())) {
    CAPTURE(info.name);
    const bool mlp = info.name == "transformer.h.0.mlp.c_proj.weight",
               attention = info.name == "transformer.h.1.attn.c_proj.weight";
    if (!mlp && !attention) {
      CHECK(copy(patient, info, false) == copy(healthy, info, false));
      if (info.is_matrix()) CHECK(copy(patient, info, true) == copy(healthy, info, true));
      continue;
    }
    ++changed;
    const size_t cols = static_cast<size_t>(info.shape.back()), row = mlp ? 7 : 8;
    for (const bool bf16 : {false, true}) {
      const size_t width = bf16 ? 1 : 2;  // 16-bit words a number
      const auto before = copy(healthy, info, bf16), after = copy(patient, info, bf16);
      for (size_t i = 0; i < before.size(); i += width) {
        // The upper word of either type holds sign, exponent and the first bits: 0.5 takes 1 off the
        // exponent.
        const uint16_t from = before[i + width - 1], to = after[i + width - 1];
        if (i / width / cols != row)
          CHECK(to == from);
        else if (mlp)
          CHECK(to == from - 0x80);
        else
          CHECK((to & 0x7fff) == 0);
      }
    }
  }
  CHECK(changed == 2);
}

TEST_CASE("intervention: where sites tap the residual stream, what the module adds to it is lesioned") {
  const auto kernels = make_kernels({"cpu", 2, ""});
  Patient healthy(*kernels, DType::f32, Tap::post), patient(*kernels, DType::f32, Tap::post);
  const auto unharmed = healthy.read().site(2);
  patient.treat({{2, kUnits, 0}}).read();
  const auto stream = patient.site(1), after = patient.site(2);
  for (size_t i = 0; i < after.size(); ++i)
    if (among(kUnits, i % 36)) {
      CHECK(after[i] == stream[i]);
      CHECK(after[i] != unharmed[i]);
    } else {
      CHECK(after[i] == unharmed[i]);
    }
}

TEST_CASE("intervention: with every unit lesioned only the last token and its position are left") {
  const auto kernels = make_kernels({"cpu", 2, ""});
  std::vector<int32_t> text(kBatch * kTime), other(kBatch * kTime);
  for (size_t i = 0; i < text.size(); ++i) {
    text[i] = static_cast<int32_t>(i * 11 % 64);
    other[i] = static_cast<int32_t>((i * 5 + 1) % 64);
  }
  text[2] = text[5] = other[2] = 42;
  const auto logits_at = [](const std::vector<float>& logits, size_t row) {
    return std::vector<float>(logits.begin() + static_cast<ptrdiff_t>(row * 64),
                              logits.begin() + static_cast<ptrdiff_t>((row + 1) * 64));
  };
  Patient healthy(*kernels), patient(*kernels);
  patient.treat(everywhere(0));
  const auto one = patient.read(text).logits(), two = patient.read(other).logits();
  CHECK(same_bits(logits_at(one, 2), logits_at(two, 2)));        // another context
  CHECK_FALSE(same_bits(logits_at(one, 2), logits_at(one, 5)));  // another position
  CHECK_FALSE(same_bits(logits_at(one, 6), logits_at(two, 6)));  // another token
  CHECK_FALSE(
      same_bits(logits_at(healthy.read(text).logits(), 2), logits_at(healthy.read(other).logits(), 2)));
}

TEST_CASE("intervention: what is not there is refused, and nothing is changed") {
  const auto kernels = make_kernels({"cpu", 1, ""});
  Patient patient(*kernels);
  const auto before = patient.weights();
  const auto error = [&](Intervention wrong) {
    return error_of([&] { patient.treat({{0, {1}, 0}, wrong}); });
  };
  CHECK(error({4, {0}, 0}) == "there is no site 4; the model has 4, numbered from 0");
  CHECK(error({-1, {0}, 0}) == "there is no site -1; the model has 4, numbered from 0");
  CHECK(error({1, {36}, 0}) == "there is no unit 36 in h.0.mlp; it has 36, numbered from 0");
  CHECK(error({1, {-1}, 0}) == "there is no unit -1 in h.0.mlp; it has 36, numbered from 0");
  CHECK(error({1, {2}, std::numeric_limits<float>::infinity()}) ==
        "unit 2 of h.0.mlp cannot have a gain of inf");
  CHECK(contains(error({1, {2}, std::nanf("")}), "cannot have a gain of"));
  CHECK(error({1, {2, 2}, 1e30f}) == "unit 2 of h.0.mlp cannot have a gain of inf");  // twice
  CHECK(same_bits(patient.weights(), before));
}
