#include "tests/errors.h"
#include "tests/kernel_test.h"

using namespace topolm;
using namespace topolm::test;

namespace {

Values random_tokens(int64_t n, int64_t vocabulary) {
  Values tokens = random_values(n, 10, DType::f32, 1000);
  for (double& t : tokens) t = std::fmod(std::abs(std::floor(t)), static_cast<double>(vocabulary));
  return tokens;
}

Values order_of(const Values& tokens) {
  const std::vector<int32_t> ids(tokens.begin(), tokens.end()), order = token_order(ids);
  return {order.begin(), order.end()};
}

}  // namespace

TEST_CASE("embedding: forward and backward against double precision") {
  // Many rows of one token; rows longer than a block of threads, moved 4 and 1 at a time.
  for (const auto& size : {std::array{1, 1, 36, 97},
                           {3, 7, 36, 97},
                           {2, 31, 196, 5},
                           {5, 1, 49, 3},
                           {2, 150, 36, 3},
                           {3, 130, 5, 2},
                           {1, 200, 4, 1},
                           {1, 65, 1036, 2},
                           {2, 3, 300, 4},
                           {2, 3, 301, 4}}) {
    const int64_t b = size[0], t = size[1], c = size[2], v = size[3], n = b * t, positions = t + 3;
    for (const int64_t position : {0, 3}) {
      const Values tokens = random_tokens(n, v), wte = random_values(v * c, 1),
                   wpe = random_values(positions * c, 2);
      const Values dout = random_values(n * c, 3), dwte0 = random_values(v * c, 4),
                   dwpe0 = random_values(positions * c, 5);
      Values out(static_cast<size_t>(n * c)), dwte = dwte0, dwpe = dwpe0;
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j < c; ++j) {
          const int64_t id = static_cast<int64_t>(tokens[i]);
          out[i * c + j] = wte[id * c + j] + wpe[(position + i % t) * c + j];
          dwte[id * c + j] += dout[i * c + j];
          dwpe[i % t * c + j] += dout[i * c + j];
        }
      for_each_device([&](Kernels& k) {
        OnDevice ids(k, DType::i32, {b, t}, tokens), o(k, DType::f32, {b, t, c});
        k.embedding_forward(o, ids, OnDevice(k, DType::f32, {v, c}, wte),
                            OnDevice(k, DType::f32, {positions, c}, wpe),
                            OnDevice(k, DType::i32, {1}, {static_cast<double>(position)}));
        CHECK(relative_error(o.get(), out) < 1e-7);
        OnDevice de(k, DType::f32, {v, c}, dwte0), dp(k, DType::f32, {positions, c}, dwpe0);
        k.embedding_backward(de, dp, OnDevice(k, DType::f32, {b, t, c}, dout), ids,
                             OnDevice(k, DType::i32, {n}, order_of(tokens)));
        CHECK(relative_error(de.get(), dwte) < 1e-6);
        CHECK(relative_error(dp.get(), dwpe) < 1e-6);
      });
    }
  }
}

TEST_CASE("embedding: token ids and positions are checked") {
  for_each_device([&](Kernels& k) {
    OnDevice out(k, DType::f32, {1, 6, 4}), wte(k, DType::f32, {97, 4}), wpe(k, DType::f32, {6, 4});
    OnDevice high(k, DType::i32, {1, 6}, {0, 1, 2, 3, 4, 97}),
        low(k, DType::i32, {1, 6}, {0, -1, 0, 0, 0, 0});
    OnDevice zero(k, DType::i32, {1}, {0}), one(k, DType::i32, {1}, {1}),
        order(k, DType::i32, {6}, {1, 0, 2, 3, 4, 5});
    const auto error_of_forward = [&](const Tensor& tokens, const Tensor& position) {
      return error_of([&] {
        k.embedding_forward(out, tokens, wte, wpe, position);
        k.device().synchronize();
      });
    };
    CHECK(error_of_forward(high, zero) ==
          "embedding_forward: token id 97 at position 5 is outside the vocabulary of 97");
    CHECK(error_of([&] {
            k.embedding_backward(wte, wpe, out, low, order);
            k.device().synchronize();
          }) == "embedding_backward: token id -1 at position 1 is outside the vocabulary of 97");
    OnDevice fine(k, DType::i32, {1, 6}, {0, 1, 2, 3, 4, 96});
    CHECK(error_of_forward(fine, one) == "embedding_forward: position 6 is outside the context of 6");
    CHECK(error_of_forward(fine, zero) == "");
    // An id out of range in more rows than a block takes.
    OnDevice many(k, DType::i32, {1, 200}, Values(200, 7)), gradient(k, DType::f32, {1, 200, 4}),
        few(k, DType::f32, {7, 4}), positions(k, DType::f32, {200, 4});
    CHECK(error_of([&] {
            k.embedding_backward(few, positions, gradient, many,
                                 OnDevice(k, DType::i32, {200}, order_of(Values(200, 7))));
            k.device().synchronize();
          }) == "embedding_backward: token id 7 at position 0 is outside the vocabulary of 7");
    if (k.device().name() != "cpu") return;  // which reads rows in the order it is given
    OnDevice dout(k, DType::f32, {1, 6, wte.tensor().cols()});
    CHECK(error_of([&] {
            k.embedding_backward(wte, wpe, dout, fine, OnDevice(k, DType::i32, {6}, {0, 1, 2, 6, 4, 5}));
          }) == "embedding_backward: row 6 at position 3 is outside the batch of 6");
  });
}

TEST_CASE("embedding: a GPU goes on without the rows whose ids are out of range") {
  for_each_device([&](Kernels& k) {
    if (k.device().name() == "cpu") return;  // it throws before it begins
    const Values ids = {0, 9, 1, -1, 1};
    OnDevice tokens(k, DType::i32, {1, 5}, ids), wte(k, DType::f32, {2, 1}, {10, 20}),
        wpe(k, DType::f32, {5, 1}, {1, 2, 3, 4, 5}), out(k, DType::f32, {1, 5, 1});
    k.embedding_forward(out, tokens, wte, wpe, OnDevice(k, DType::i32, {1}, {0}));
    // Of several the first, whichever block met its own first.
    CHECK(error_of([&] { k.device().synchronize(); }) ==
          "embedding_forward: token id 9 at position 1 is outside the vocabulary of 2");
    CHECK(out.get() == Values{11, 0, 23, 0, 25});
    k.embedding_backward(wte, wpe, OnDevice(k, DType::f32, {1, 5, 1}, {1, 2, 3, 4, 5}), tokens,
                         OnDevice(k, DType::i32, {5}, order_of(ids)));
    CHECK(error_of([&] { k.device().synchronize(); }) ==
          "embedding_backward: token id 9 at position 1 is outside the vocabulary of 2");
    CHECK(wte.get() == Values{11, 28});
  });
}

TEST_CASE("embedding: the same bits at any number of threads") {
  const int64_t n = 300, c = 36, v = 5;
  const Values tokens = random_tokens(n, v), dout = random_values(n * c, 3);
  check_same_bits_at_any_thread_count([&](Kernels& k) {
    OnDevice dwte(k, DType::f32, {v, c}, Values(static_cast<size_t>(v * c))),
        dwpe(k, DType::f32, {n, c}, Values(static_cast<size_t>(n * c)));
    k.embedding_backward(dwte, dwpe, OnDevice(k, DType::f32, {n, c}, dout),
                         OnDevice(k, DType::i32, {1, n}, tokens),
                         OnDevice(k, DType::i32, {n}, order_of(tokens)));
    return std::vector<Values>{dwte.get(), dwpe.get()};
  });
}
