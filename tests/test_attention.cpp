#include "tests/errors.h"
#include "tests/kernel_test.h"

using namespace topolm;
using namespace topolm::test;

namespace {

constexpr DType kFloat = DType::f32, kHalf = DType::bf16;

struct Sizes {
  int64_t b, t, heads, size;
  int64_t c() const { return heads * size; }
  int64_t rows() const { return b * t; }
};

struct Reference {
  Values out, logsumexp;
};

/// The probability with which query i sees key j is p[i * t + j], for one head.
Values probabilities(const Values& qkv, const Sizes& s, int64_t b, int64_t head,
                     double* logsumexp = nullptr) {
  const int64_t c = s.c();
  Values p(static_cast<size_t>(s.t * s.t));
  for (int64_t i = 0; i < s.t; ++i) {
    double largest = -1e300, sum = 0;
    for (int64_t j = 0; j <= i; ++j) {
      const double* const q = &qkv[(b * s.t + i) * 3 * c + head * s.size];
      const double* const k = &qkv[(b * s.t + j) * 3 * c + c + head * s.size];
      double score = 0;
      for (int64_t d = 0; d < s.size; ++d) score += q[d] * k[d];
      p[i * s.t + j] = score / std::sqrt(static_cast<double>(s.size));
      largest = std::max(largest, p[i * s.t + j]);
    }
    for (int64_t j = 0; j <= i; ++j) sum += p[i * s.t + j] = std::exp(p[i * s.t + j] - largest);
    for (int64_t j = 0; j <= i; ++j) p[i * s.t + j] /= sum;
    if (logsumexp) logsumexp[i] = largest + std::log(sum);
  }
  return p;
}

Reference attention(const Values& qkv, const Sizes& s) {
  const int64_t c = s.c();
  Reference r{Values(static_cast<size_t>(s.rows() * c)), Values(static_cast<size_t>(s.b * s.heads * s.t))};
  for (int64_t b = 0; b < s.b; ++b)
    for (int64_t h = 0; h < s.heads; ++h) {
      const Values p = probabilities(qkv, s, b, h, &r.logsumexp[(b * s.heads + h) * s.t]);
      for (int64_t i = 0; i < s.t; ++i)
        for (int64_t j = 0; j <= i; ++j)
          for (int64_t d = h * s.size; d < (h + 1) * s.size; ++d)
            r.out[(b * s.t + i) * c + d] += p[i * s.t + j] * qkv[(b * s.t + j) * 3 * c + 2 * c + d];
    }
  return r;
}

Values attention_backward(const Values& dout, const Values& qkv, const Sizes& s) {
  const int64_t c = s.c();
  const double scale = 1 / std::sqrt(static_cast<double>(s.size));
  Values g(qkv.size());
  for (int64_t b = 0; b < s.b; ++b)
    for (int64_t h = 0; h < s.heads; ++h) {
      const Values p = probabilities(qkv, s, b, h);
      for (int64_t i = 0; i < s.t; ++i) {
        const double* const d_out = &dout[(b * s.t + i) * c + h * s.size];
        const int64_t q = (b * s.t + i) * 3 * c + h * s.size;
        Values dp(static_cast<size_t>(i + 1));
        double mean = 0;
        for (int64_t j = 0; j <= i; ++j) {
          const int64_t v = (b * s.t + j) * 3 * c + 2 * c + h * s.size;
          for (int64_t d = 0; d < s.size; ++d) {
            dp[j] += d_out[d] * qkv[v + d];
            g[v + d] += p[i * s.t + j] * d_out[d];
          }
          mean += p[i * s.t + j] * dp[j];
        }
        for (int64_t j = 0; j <= i; ++j) {
          const int64_t k = (b * s.t + j) * 3 * c + c + h * s.size;
          const double ds = p[i * s.t + j] * (dp[j] - mean) * scale;
          for (int64_t d = 0; d < s.size; ++d) {
            g[q + d] += ds * qkv[k + d];
            g[k + d] += ds * qkv[q + d];
          }
        }
      }
    }
  return g;
}

}  // namespace

TEST_CASE("attention: forward and backward against double precision") {
  // Eight heads of a size that 8 does not divide begin at every place of 16 aligned bytes.
  constexpr Sizes kSizes[] = {{2, 1, 3, 9},    {1, 2, 2, 49},   {3, 17, 4, 9},  {2, 64, 2, 49},
                              {1, 131, 3, 49}, {1, 67, 2, 64},  {1, 97, 1, 80}, {2, 131, 1, 16},
                              {1, 5, 2, 1},    {1, 9, 8, 1},    {2, 33, 8, 9},  {1, 35, 4, 20},
                              {2, 70, 8, 49},  {1, 130, 8, 49}, {1, 18, 8, 51}, {1, 5, 8, 125},
                              {1, 70, 1, 128}, {1, 40, 1, 130}, {1, 523, 1, 49}};
  for (const Sizes& s : kSizes) {
    CAPTURE(s.t);
    CAPTURE(s.size);
    for (const auto& types : {std::pair{kFloat, kFloat}, {kHalf, kHalf}, {kFloat, kHalf}, {kHalf, kFloat}}) {
      const DType input = types.first, output = types.second;
      const int64_t c = s.c();
      const Values qkv = random_values(s.rows() * 3 * c, 1, input),
                   dout = random_values(s.rows() * c, 2, input);
      const Reference expected = attention(qkv, s);
      const Values gradient = attention_backward(dout, qkv, s);
      if (s.t < 20)
        CHECK(finite_difference_error([&](const Values& v) { return dot(attention(v, s).out, dout); }, qkv,
                                      gradient) < 1e-6);
      for_each_device([&](Kernels& k) {
        if ((s.size > 128 || s.t > 200) && k.device().name() != "cpu") return;  // too wide, or too slow
        const OnDevice qkv_(k, input, {s.b, s.t, 3 * c}, qkv), dout_(k, input, {s.b, s.t, c}, dout);
        OnDevice out(k, output, {s.b, s.t, c}), logsumexp(k, kFloat, {s.b, s.heads, s.t});
        k.attention_forward(out, logsumexp, qkv_, static_cast<int>(s.heads));
        CHECK(relative_error(out.get(), expected.out) < tolerance(output));
        CHECK(relative_error(logsumexp.get(), expected.logsumexp) < 2e-6);
        OnDevice dqkv(k, output, {s.b, s.t, 3 * c});
        k.attention_backward(dqkv, dout_, qkv_, out, logsumexp, static_cast<int>(s.heads));
        CHECK(relative_error(dqkv.get(), gradient) < (output == kHalf ? 1e-2 : 2e-5));
      });
    }
  }
}

TEST_CASE("attention: large scores stay finite, a NaN is seen") {
  const Sizes s{1, 70, 2, 49};
  const int64_t c = s.c();
  Values qkv = random_values(s.rows() * 3 * c, 1);
  for (double& x : qkv) x = x > 0 ? 100 : -100;
  const Values dout = random_values(s.rows() * c, 2);
  const Reference expected = attention(qkv, s);
  for_each_device([&](Kernels& k) {
    OnDevice out(k, kFloat, {s.b, s.t, c}), logsumexp(k, kFloat, {s.b, s.heads, s.t});
    OnDevice dqkv(k, kFloat, {s.b, s.t, 3 * c}), dout_(k, kFloat, {s.b, s.t, c}, dout);
    const OnDevice large(k, kFloat, {s.b, s.t, 3 * c}, qkv);
    k.attention_forward(out, logsumexp, large, 2);
    CHECK(relative_error(out.get(), expected.out) < 1e-3);  // scores of 10^4 have an absolute error of 10^-3
    k.attention_backward(dqkv, dout_, large, out, logsumexp, 2);
    for (const double x : dqkv.get()) REQUIRE(std::isfinite(x));

    for (int64_t part = 0; part < 3; ++part) {  // a NaN in a query, key or value of position 3, head 1
      Values broken = qkv;
      broken[3 * 3 * c + part * c + 50] = std::nan("");
      const OnDevice broken_(k, kFloat, {s.b, s.t, 3 * c}, broken);
      k.attention_forward(out, logsumexp, broken_, 2);
      k.attention_backward(dqkv, dout_, broken_, out, logsumexp, 2);
      const Values o = out.get(), g = dqkv.get();
      CHECK(std::isnan(o[3 * c + 50]));
      CHECK(std::isfinite(o[3 * c + 48]));  // the other head
      CHECK(std::isnan(g[3 * 3 * c + 50]));
    }
  });
}

TEST_CASE("attention: no head sees another") {
  const Sizes s{1, 70, 8, 49};
  const int64_t c = s.c();
  for (const DType dtype : {kFloat, kHalf}) {
    Values qkv = random_values(s.rows() * 3 * c, 1, dtype), dout = random_values(s.rows() * c, 2, dtype);
    for_each_device([&](Kernels& k) {
      OnDevice qkv_(k, dtype, {s.b, s.t, 3 * c}, qkv), dout_(k, dtype, {s.b, s.t, c}, dout);
      OnDevice out(k, dtype, {s.b, s.t, c}), logsumexp(k, kFloat, {s.b, s.heads, s.t});
      OnDevice dqkv(k, dtype, {s.b, s.t, 3 * c});
      const auto run = [&] {
        k.attention_forward(out, logsumexp, qkv_, 8);
        k.attention_backward(dqkv, dout_, qkv_, out, logsumexp, 8);
        return std::array{out.get(), logsumexp.get(), dqkv.get()};
      };
      const auto expected = run();
      const auto break_head_3 = [&](OnDevice& tensor, Values values) {
        for (size_t i = 0; i < values.size(); ++i)
          if (static_cast<int64_t>(i) % c / s.size == 3) values[i] = std::nan("");
        tensor.set(values);
      };
      break_head_3(qkv_, qkv);
      break_head_3(dout_, dout);
      const auto got = run();
      for (const size_t result : {0, 1, 2})
        for (size_t i = 0; i < got[result].size(); ++i) {
          const int64_t place = static_cast<int64_t>(i),
                        head = result == 1 ? place / s.t : place % c / s.size;
          REQUIRE((head == 3 ? std::isnan(got[result][i]) : got[result][i] == expected[result][i]));
        }
    });
  }
}

TEST_CASE("attention: decoding with caches gives the rows of the whole sequence") {
  for (const int64_t size : {int64_t{9}, int64_t{49}, int64_t{64}})
    for (const DType dtype : {kFloat, kHalf}) {
      const Sizes s{1, 83, 2, size};
      const int64_t c = s.c(), longest = 90;
      const Values qkv = random_values(s.rows() * 3 * c, 1, dtype);
      const Reference expected = attention(qkv, s);
      for (const std::vector<int64_t>& blocks :
           {std::vector<int64_t>(83, 1), {83}, {40, 1, 1, 1, 40}, {2, 3, 4, 5, 6, 7, 56}, {4, 79}})
        for_each_device([&](Kernels& k) {
          const OnDevice qkv_(k, dtype, {s.t, 3 * c}, qkv);
          OnDevice out(k, dtype, {s.t, c}), keys(k, dtype, {longest, c}), values(k, dtype, {longest, c});
          int64_t position = 0;
          for (const int64_t m : blocks) {
            k.attention_cached(out.tensor().row_range(position, m), keys, values,
                               qkv_.tensor().row_range(position, m), position_at(k, position), 2);
            position += m;
          }
          CHECK(relative_error(out.get(), expected.out) < tolerance(dtype, k));
          const Values k_ = keys.get(), v_ = values.get();
          for (int64_t i = 0; i < longest; ++i)
            for (int64_t j = 0; j < c; ++j) {
              if (i >= s.t) {  // not reached: must not be touched
                REQUIRE(std::isnan(k_[i * c + j]));
                REQUIRE(std::isnan(v_[i * c + j]));
              } else if (k_[i * c + j] != qkv[i * 3 * c + c + j] ||
                         v_[i * c + j] != qkv[i * 3 * c + 2 * c + j]) {
                FAIL("the caches do not hold the keys and values");
              }
            }
        });
    }
}

TEST_CASE("attention: decoding with caches of another type than the rows") {
  const Sizes s{1, 6, 2, 9};
  const int64_t c = s.c();
  for (const auto& types : {std::pair{kFloat, kHalf}, {kHalf, kFloat}}) {
    const DType cache = types.second, rows = types.first;
    const Values qkv = random_values(s.rows() * 3 * c, 1, rows);
    Values cached = qkv;
    for (size_t i = 0; i < cached.size(); ++i)
      if (static_cast<int64_t>(i) % (3 * c) >= c) cached[i] = round_to(cache, cached[i]);
    const Reference expected = attention(cached, s);
    for_each_device([&](Kernels& k) {
      const OnDevice qkv_(k, rows, {s.t, 3 * c}, qkv);
      OnDevice out(k, rows, {s.t, c}), keys(k, cache, {s.t, c}), values(k, cache, {s.t, c});
      k.attention_cached(out, keys, values, qkv_, position_at(k, 0), 2);
      CHECK(relative_error(out.get(), expected.out) < tolerance(rows, k));
    });
  }
}

TEST_CASE("attention: decoding far into the caches, heads of any size and alignment") {
  for (const auto& shape : {std::pair{8, 49}, {8, 127}, {2, 80}, {1, 128}, {3, 7}})
    for (const DType dtype : {kFloat, kHalf}) {
      const int heads = shape.first, size = shape.second;
      const Sizes s{1, 260, heads, size};
      CAPTURE(s.size);
      const int64_t c = s.c(), longest = 300;
      const Values qkv = random_values(s.rows() * 3 * c, 1, dtype);
      const Reference expected = attention(qkv, s);
      for_each_device([&](Kernels& k) {
        const OnDevice qkv_(k, dtype, {s.t, 3 * c}, qkv);
        for (const auto& block : {std::pair<int64_t, int64_t>{0, 1}, {125, 6}, {257, 3}}) {
          const int64_t position = block.first, m = block.second;
          Values keys(static_cast<size_t>(longest * c), std::nan("")), values = keys;
          for (int64_t i = 0; i < position * c; ++i) {
            keys[i] = qkv[i / c * 3 * c + c + i % c];
            values[i] = qkv[i / c * 3 * c + 2 * c + i % c];
          }
          OnDevice keys_(k, dtype, {longest, c}, keys), values_(k, dtype, {longest, c}, values);
          OnDevice out(k, dtype, {m, c});
          const auto decode = [&] {
            k.attention_cached(out, keys_, values_, qkv_.tensor().row_range(position, m),
                               position_at(k, position), heads);
            return out.get();
          };
          const Values all = decode();
          CHECK(relative_error(all, Values(expected.out.begin() + position * c,
                                           expected.out.begin() + (position + m) * c)) < tolerance(dtype, k));
          if (heads < 2 || position == 0) continue;
          // NaNs in the first and the last column of a head's key are NaNs in all its columns, and in no
          // others, though vectors hold elements of two heads.
          keys[size] = keys[2 * size - 1] = std::nan("");
          keys_.set(keys);
          const Values broken = decode();
          for (int64_t i = 0; i < m * c; ++i)
            REQUIRE((i % c / size == 1 ? std::isnan(broken[i]) : broken[i] == all[i]));
        }
      });
    }
}

TEST_CASE("attention: only the output is written, wherever it lies") {
  // Behind one element, rows of 392 columns do not begin at 16-byte boundaries; behind a row, they do.
  for (const int64_t heads : {2, 8})
    for (const int64_t shift : {int64_t{1}, heads * 49})
      for (const auto& types : {std::pair{kFloat, kFloat}, {kFloat, kHalf}, {kHalf, kHalf}}) {
        CAPTURE(heads);
        CAPTURE(shift);
        const Sizes s{1, 19, heads, 49};
        const int64_t c = s.c();
        const Values qkv = random_values(s.rows() * 3 * c, 1, types.first),
                     dout = random_values(s.rows() * c, 2, types.first);
        const Values expected = attention(qkv, s).out, gradient = attention_backward(dout, qkv, s);
        for_each_device([&](Kernels& k) {
          const OnDevice qkv_(k, types.first, {1, s.t, 3 * c}, qkv), dout_(k, types.first, {1, s.t, c}, dout);
          const OnDevice out(k, types.second, {s.t * c + 2 * shift}),
              logsumexp(k, kFloat, {heads * s.t + 2 * shift}),
              dqkv(k, types.second, {3 * s.t * c + 2 * shift});
          const auto inside = [&](const OnDevice& outer, const Shape& shape) {
            const Tensor& t = outer.tensor();
            return Tensor{static_cast<char*>(t.data) + shift * size_of(t.dtype), t.dtype, shape};
          };
          const auto result = [&](const OnDevice& outer) {
            const Values v = outer.get();
            const auto begin = v.begin() + shift, end = v.end() - shift;
            REQUIRE(std::all_of(v.begin(), begin, [](double x) { return std::isnan(x); }));
            REQUIRE(std::all_of(end, v.end(), [](double x) { return std::isnan(x); }));
            return Values(begin, end);
          };
          const Tensor out_ = inside(out, {1, s.t, c}), logsumexp_ = inside(logsumexp, {1, heads, s.t});
          k.attention_forward(out_, logsumexp_, qkv_, static_cast<int>(heads));
          k.attention_backward(inside(dqkv, {1, s.t, 3 * c}), dout_, qkv_, out_, logsumexp_,
                               static_cast<int>(heads));
          CHECK(relative_error(result(out), expected) < tolerance(types.second));
          for (const double x : result(logsumexp)) REQUIRE(std::isfinite(x));
          CHECK(relative_error(result(dqkv), gradient) < (types.second == kHalf ? 1e-2 : 2e-5));
        });
      }
}

TEST_CASE("attention: a sequence's bits do not depend on the batch around it") {
  const Sizes all{3, 77, 2, 49}, one{1, 77, 2, 49};
  const int64_t c = all.c();
  for (const DType dtype : {kFloat, kHalf}) {
    const Values qkv = random_values(all.rows() * 3 * c, 1, dtype),
                 dout = random_values(all.rows() * c, 2, dtype);
    const auto second = [](const Values& v) {
      const auto third = static_cast<std::ptrdiff_t>(v.size() / 3);
      return Values(v.begin() + third, v.begin() + 2 * third);
    };
    for_each_device([&](Kernels& k) {
      const auto run = [&](const Sizes& s, const Values& qkv_values, const Values& dout_values) {
        const OnDevice qkv_(k, dtype, {s.b, s.t, 3 * c}, qkv_values),
            dout_(k, dtype, {s.b, s.t, c}, dout_values);
        OnDevice out(k, dtype, {s.b, s.t, c}), logsumexp(k, kFloat, {s.b, s.heads, s.t});
        OnDevice dqkv(k, dtype, {s.b, s.t, 3 * c});
        k.attention_forward(out, logsumexp, qkv_, 2);
        k.attention_backward(dqkv, dout_, qkv_, out, logsumexp, 2);
        return std::array{out.get(), logsumexp.get(), dqkv.get()};
      };
      const auto together = run(all, qkv, dout), alone = run(one, second(qkv), second(dout));
      for (const size_t result : {0, 1, 2}) CHECK((second(together[result]) == alone[result]));
    });
  }
}

TEST_CASE("attention: the same bits at any number of threads") {
  const Sizes s{1, 300, 3, 49};
  const int64_t c = s.c();
  for (const DType dtype : {kFloat, kHalf}) {
    const Values qkv = random_values(s.rows() * 3 * c, 1, dtype),
                 dout = random_values(s.rows() * c, 2, dtype);
    check_same_bits_at_any_thread_count([&](Kernels& k) {
      const OnDevice qkv_(k, dtype, {s.b, s.t, 3 * c}, qkv), dout_(k, dtype, {s.b, s.t, c}, dout);
      OnDevice out(k, dtype, {s.b, s.t, c}), logsumexp(k, kFloat, {s.b, s.heads, s.t});
      OnDevice dqkv(k, dtype, {s.b, s.t, 3 * c});
      k.attention_forward(out, logsumexp, qkv_, 3);
      k.attention_backward(dqkv, dout_, qkv_, out, logsumexp, 3);
      OnDevice keys(k, dtype, {50, c}), values(k, dtype, {50, c}), decoded(k, dtype, {49, c});
      for (int64_t i = 0; i < 49; i += i == 0 ? 40 : 3)
        k.attention_cached(decoded.tensor().row_range(i, i == 0 ? 40 : 3), keys, values,
                           qkv_.tensor().row_range(i, i == 0 ? 40 : 3), position_at(k, i), 3);
      return std::vector{out.get(), logsumexp.get(), dqkv.get(), decoded.get()};
    });
  }
}

TEST_CASE("attention: shapes that do not fit are errors") {
  for_each_device([&](Kernels& k) {
    const OnDevice out(k, kFloat, {2, 5, 12}), qkv(k, kFloat, {2, 5, 36}), logsumexp(k, kFloat, {2, 3, 5});
    const OnDevice flat(k, kFloat, {10, 12}), short_(k, kFloat, {2, 4, 36}), half(k, kHalf, {2, 3, 5});
    CHECK_THROWS_AS(k.attention_forward(out, logsumexp, qkv, 5), Error);
    CHECK_THROWS_AS(k.attention_forward(out, logsumexp, qkv, 4), Error);
    CHECK_THROWS_AS(k.attention_forward(out, logsumexp, short_, 3), Error);
    CHECK_THROWS_AS(k.attention_forward(flat, logsumexp, qkv, 3), Error);
    CHECK_THROWS_AS(k.attention_forward(out, half, qkv, 3), Error);
    CHECK_THROWS_AS(k.attention_backward(short_, out, qkv, out, logsumexp, 3), Error);
    CHECK_THROWS_AS(k.attention_backward(qkv, short_, qkv, out, logsumexp, 3), Error);
    if (k.device().name() != "cpu") {
      const OnDevice wide(k, kFloat, {1, 2, 258}), wide_qkv(k, kFloat, {1, 2, 774}),
          two(k, kFloat, {1, 2, 2});
      const char* const what = ": heads of 129 columns; the GPU's kernels hold up to 128";
      CHECK(error_of([&] { k.attention_forward(wide, two, wide_qkv, 2); }) ==
            std::string("attention_forward") + what);
      CHECK(error_of([&] { k.attention_backward(wide_qkv, wide, wide_qkv, wide, two, 2); }) ==
            std::string("attention_backward") + what);
    }
    const OnDevice row(k, kFloat, {2, 12}), qkv_row(k, kFloat, {2, 36}), cache(k, kFloat, {8, 12});
    const OnDevice narrow(k, kFloat, {8, 11}), half_cache(k, kHalf, {8, 12});
    const OnDevice first = position_at(k, 0);
    for (const int64_t position : {7, -1}) {
      CHECK(error_of([&] {
              k.attention_cached(row, cache, cache, qkv_row, position_at(k, position), 3);
              k.device().synchronize();
            }) == fmt::format("attention_cached: position {} is outside caches of 8", position < 0 ? -1 : 8));
      for (const double x : row.get()) REQUIRE(std::isnan(x));  // nothing was written
      for (const double x : cache.get()) REQUIRE(std::isnan(x));
    }
    CHECK_THROWS_AS(k.attention_cached(row, cache, narrow, qkv_row, first, 3), Error);
    CHECK_THROWS_AS(k.attention_cached(row, cache, half_cache, qkv_row, first, 3), Error);
    CHECK_THROWS_AS(k.attention_cached(row, cache, cache, row, first, 3), Error);
    if (k.device().name() == "cpu") return;
    const OnDevice wide(k, kFloat, {1, 129}), wide_qkv(k, kFloat, {1, 387}), wide_cache(k, kFloat, {8, 129});
    CHECK_THROWS_AS(k.attention_cached(wide, wide_cache, wide_cache, wide_qkv, first, 1), Error);
  });
}
