// Every operation, under many schedules: the order in which threads and blocks run may not change a bit.
#include <span>
#include <string>
#include <vector>

#include "kernels/simt/sanitizers.h"
#include "kernels/simt/simt_device.h"
#include "tests/kernel_test.h"

using namespace topolm;
using namespace topolm::test;

namespace {

using Outputs = std::vector<Values>;

struct Case {
  std::string name;
  std::function<Outputs(Kernels&)> run;
};

OnDevice random(Kernels& k, DType dtype, Shape shape, uint32_t stream, double scale = 1, double shift = 0) {
  return {k, dtype, shape, random_values(shape.elements(), stream, dtype, scale, shift)};
}

/// 0 .. below - 1, each again and again.
Values indices(int64_t n, int64_t below) {
  Values v(static_cast<size_t>(n));
  for (size_t i = 0; i < v.size(); ++i) v[i] = static_cast<double>(i * 7 % static_cast<size_t>(below));
  return v;
}

/// The operations with shapes that are small and yet take several blocks, tiles and tails.
std::vector<Case> cases(DType dtype) {
  const DType f32 = DType::f32, i32 = DType::i32;
  std::vector<Case> list;
  const auto add = [&](std::string name, std::function<Outputs(Kernels&)> run) {
    list.push_back({std::move(name) + ", " + std::string(name_of(dtype)), std::move(run)});
  };

  add("elementwise", [=](Kernels& k) {
    OnDevice filled(k, f32, {777}), cast(k, dtype, {777}), sum = random(k, f32, {777}, 1);
    k.fill(filled, 0.5f);
    k.cast(cast, sum);
    k.add_scaled(sum, filled, 0.25f);
    return Outputs{filled.get(), cast.get(), sum.get()};
  });
  if (dtype == f32)
    add("embedding", [=](Kernels& k) {
      const int64_t b = 3, t = 11, c = 36, v = 13;
      const Values tokens = indices(b * t, v);
      const std::vector<int32_t> ids(tokens.begin(), tokens.end()), order = token_order(ids);
      OnDevice ids_in(k, i32, {b, t}, tokens), order_in(k, i32, {b * t}, Values(order.begin(), order.end()));
      OnDevice out(k, f32, {b, t, c}), dwte = random(k, f32, {v, c}, 1), dwpe = random(k, f32, {t, c}, 2);
      k.embedding_forward(out, ids_in, random(k, f32, {v, c}, 3), random(k, f32, {t, c}, 4),
                          position_at(k, 0));
      k.embedding_backward(dwte, dwpe, random(k, f32, {b, t, c}, 5), ids_in, order_in);
      return Outputs{out.get(), dwte.get(), dwpe.get()};
    });
  for (const int64_t c : {36, 49})
    add("layernorm, " + std::to_string(c) + " columns", [=](Kernels& k) {
      const int64_t n = 37;
      OnDevice sum(k, f32, {n, c}), out(k, dtype, {n, c}), mean(k, f32, {n}), rstd(k, f32, {n});
      OnDevice dx = random(k, f32, {n, c}, 1), dw = random(k, f32, {c}, 2), weight = random(k, f32, {c}, 3);
      k.residual_layernorm_forward(sum, out, mean, rstd, random(k, f32, {n, c}, 4),
                                   random(k, dtype, {n, c}, 5), weight);
      k.layernorm_backward(dx, dw, random(k, dtype, {n, c}, 6), sum, weight, mean, rstd);
      Outputs outputs{sum.get(), out.get(), mean.get(), rstd.get(), dx.get(), dw.get()};
      k.layernorm_forward(out, mean, rstd, sum, weight);
      outputs.push_back(out.get());
      return outputs;
    });
  for (const int64_t n : {2, 67})
    add("linear, " + std::to_string(n) + " rows", [=](Kernels& k) {
      const int64_t in = 40, out = 49;
      OnDevice x = random(k, dtype, {n, in}, 1), weight = random(k, dtype, {out, in}, 2);
      OnDevice dy = random(k, dtype, {n, out}, 3), dweight = random(k, f32, {out, in}, 4);
      OnDevice y(k, dtype, {n, out}), dx(k, dtype, {n, in});
      k.linear_forward(y, x, weight);
      k.linear_backward_input(dx, dy, weight);
      k.linear_backward_weight(dweight, dy, x);
      return Outputs{y.get(), dx.get(), dweight.get()};
    });
  for (const Gelu kind : {Gelu::erf, Gelu::tanh})
    add(kind == Gelu::erf ? "gelu by erf" : "gelu by tanh", [=](Kernels& k) {
      OnDevice x = random(k, dtype, {777}, 1, 2), out(k, dtype, {777}), dx(k, dtype, {777});
      k.gelu_forward(out, x, kind);
      k.gelu_backward(dx, random(k, dtype, {777}, 2), x, kind);
      return Outputs{out.get(), dx.get()};
    });
  add("attention", [=](Kernels& k) {
    const int64_t t = 70, c = 49;
    OnDevice qkv = random(k, dtype, {1, t, 3 * c}, 1), out(k, dtype, {1, t, c}), lse(k, f32, {1, 1, t});
    OnDevice dqkv(k, dtype, {1, t, 3 * c});
    k.attention_forward(out, lse, qkv, 1);
    k.attention_backward(dqkv, random(k, dtype, {1, t, c}, 2), qkv, out, lse, 1);
    return Outputs{out.get(), lse.get(), dqkv.get()};
  });
  add("attention_cached", [=](Kernels& k) {
    const int64_t m = 2, most = 80, c = 36;
    OnDevice keys = random(k, dtype, {most, c}, 1), values = random(k, dtype, {most, c}, 2),
             out(k, dtype, {m, c});
    k.attention_cached(out, keys, values, random(k, dtype, {m, 3 * c}, 3), position_at(k, 70), 2);
    return Outputs{out.get(), keys.get(), values.get()};
  });
  add("cross_entropy", [=](Kernels& k) {
    const int64_t n = 5, v = 1001;
    OnDevice logits = random(k, dtype, {n, v}, 1, 3), losses(k, f32, {n}), again(k, f32, {n});
    OnDevice targets(k, i32, {n}, {3, -1, 1000, 0, 512});
    k.cross_entropy_forward(losses, logits, targets);
    k.cross_entropy_backward(again, logits, targets, 0.125f);
    return Outputs{losses.get(), again.get(), logits.get()};
  });
  for (const Aggregation aggregation : {Aggregation::mean, Aggregation::max})
    add(aggregation == Aggregation::mean ? "spatial_loss, mean" : "spatial_loss, max", [=](Kernels& k) {
      const int64_t rows = 37, c = 36, side = 3, n = side * side, number = 4;
      Values who;  // the corner blocks of a 6x6 grid
      for (int64_t q = 0; q < number; ++q)
        for (int64_t i = 0; i < n; ++i)
          who.push_back(static_cast<double>((q / 2 * side + i / side) * 6 + q % 2 * side + i % side));
      Values distance = random_values(n * n, 1, f32, 0.2);
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j <= i; ++j)
          distance[static_cast<size_t>(i * n + j)] = i == j ? 0 : distance[static_cast<size_t>(j * n + i)];
      OnDevice x = random(k, dtype, {rows, c}, 2), members(k, i32, {number, n}, who);
      OnDevice loss(k, f32, {1}), mean(k, f32, {c}), gradient(k, f32, {number, n, n}),
          dx = random(k, f32, {rows, c}, 3);
      k.spatial_loss_forward(loss, mean, gradient, x, members, OnDevice(k, f32, {n, n}, distance),
                             aggregation);
      k.spatial_loss_backward(dx, x, mean, gradient, members, 0.5f);
      return Outputs{loss.get(), mean.get(), gradient.get(), dx.get()};
    });
  add("sums", [=](Kernels& k) {
    OnDevice x = random(k, dtype, {9001}, 1), sum(k, f32, {1}), squares(k, f32, {1}), norm(k, f32, {2});
    k.sum(sum, x);
    k.sum_of_squares(squares, x);
    k.gradient_norm(norm, random(k, f32, {9001}, 2), 1);
    return Outputs{sum.get(), squares.get(), norm.get()};
  });
  add("adamw", [=](Kernels& k) {
    OnDevice weight = random(k, f32, {777}, 1), gradient = random(k, f32, {777}, 2),
             m = random(k, f32, {777}, 3);
    OnDevice v = random(k, f32, {777}, 4, 0.1, 1), copy(k, DType::bf16, {777}, Values(777)),
             norm(k, f32, {2}, {1, 0.5});
    const AdamWTensor tensor{weight, gradient, m, v, dtype == f32 ? Tensor{} : copy.tensor(), 0.1f};
    k.adamw(std::span(&tensor, 1), norm, {1e-3f, 0.9f, 0.95f, 1e-8f, 2});
    return Outputs{weight.get(), m.get(), v.get(), copy.get()};
  });
  if (dtype == f32)
    for (const Sampling& sampling : {Sampling{0, 0, 1, 0}, Sampling{0.8, 40, 0.9, 0.01}})
      add(sampling.temperature == 0 ? "sample, the likeliest" : "sample", [=](Kernels& k) {
        OnDevice token(k, i32, {1}, {-7});
        k.sample(token, random(k, f32, {1500}, 1, 3), OnDevice(k, f32, {1}, {0.4}), sampling);
        return Outputs{token.get()};
      });
  return list;
}

/// How many schedules: $TOPOLM_SCHEDULES, or 100; a sanitizer's build, which looks for something else, a few.
int schedules() {
  if (const char* wanted = std::getenv("TOPOLM_SCHEDULES")) return std::atoi(wanted);
  return simt::kThreadSanitizer ? 4 : simt::kAddressSanitizer ? 8 : 100;
}

}  // namespace

TEST_CASE("schedules: every operation gives the same bits under a hundred of them") {
  const char* const wanted = std::getenv("TOPOLM_DEVICE");
  if (wanted && std::string(wanted) != "simt") return;
  const auto kernels = make_kernels({"simt", 2, "", "own"});
  auto& schedule = dynamic_cast<SimtDevice&>(kernels->device()).schedule();
  REQUIRE(schedules() > 0);
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const auto& [name, run] : cases(dtype)) {
      schedule = {};
      const Outputs expected = run(*kernels);
      for (int i = 1; i <= schedules(); ++i) {
        schedule = {static_cast<simt::Order>(i % 4), static_cast<uint64_t>(i)};
        const Outputs got = run(*kernels);
        bool same = got.size() == expected.size();
        for (size_t o = 0; same && o < got.size(); ++o)
          same = got[o].size() == expected[o].size() &&
                 std::memcmp(got[o].data(), expected[o].data(), got[o].size() * sizeof(double)) == 0;
        if (!same) FAIL_CHECK(name << " differs under schedule " << i % 4 << ", seed " << i);
      }
      for (const Values& values : expected)
        CHECK(std::none_of(values.begin(), values.end(), [](double x) { return std::isnan(x); }));
    }
}
