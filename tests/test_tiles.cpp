// The tiles that stand in for AMX's where a machine has none, against plain loops; and what runs on tiles.
#include <thread>

#include "tests/errors.h"
#include "tests/kernel_test.h"

#if defined(__x86_64__)
#include <xmmintrin.h>

// What the kernels' own files see: the tiles compiled for that instruction set are the ones tested.
#define TOPOLM_ISA amx_emulated
#define TOPOLM_AMX_EMULATED
#include "kernels/cpu/tiles.h"

using namespace topolm;
using namespace topolm::test;

namespace {

namespace tiles = topolm::amx_emulated::emulated;
using topolm::amx_emulated::TileConfig;
using topolm::amx_emulated::TileScope;

bool can_run(const std::string& isa) {
  const auto sets = cpu_instruction_sets();
  return std::find(sets.begin(), sets.end(), isa) != sets.end();
}

float flush(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x; }

float from_bf16(uint16_t half) {
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float x;
  std::memcpy(&x, &bits, 4);
  return flush(x);
}

/// A product of tiles: M rows of a, with pairs [M][K][2]; b [K][N][2]; sums [M][N].
struct Product {
  int rows, columns, pairs;
  std::vector<uint16_t> a, b;
  std::vector<float> sums;

  /// With exponents in [low, high], as they are in the bits of a float: 127 is that of 1.
  Product(int m, int n, int k, uint32_t low, uint32_t high, uint32_t stream)
      : rows(m), columns(n), pairs(k), a(m * k * 2), b(k * n * 2), sums(m * n) {
    Random random(7, Random::Purpose::tests, stream);
    const auto bits = [&] {
      const auto mantissa_and_sign = static_cast<uint32_t>(random.below(1u << 24));
      const auto exponent = low + static_cast<uint32_t>(random.below(high - low + 1));
      return (mantissa_and_sign >> 23) << 31 | exponent << 23 | (mantissa_and_sign & 0x7fffff);
    };
    for (auto& x : a) x = static_cast<uint16_t>(bits() >> 16);
    for (auto& x : b) x = static_cast<uint16_t>(bits() >> 16);
    for (auto& x : sums) {
      const uint32_t word = bits();
      std::memcpy(&x, &word, 4);
    }
  }

  TileConfig config() const {
    TileConfig config;
    const auto tile = [&](int t, int r, int bytes) {
      config.rows[t] = static_cast<uint8_t>(r);
      config.row_bytes[t] = static_cast<uint16_t>(bytes);
    };
    tile(0, rows, 4 * columns);
    tile(1, rows, 4 * pairs);
    tile(2, pairs, 4 * columns);
    return config;
  }

  std::vector<float> by_tiles() const {
    std::vector<float> result(sums.size());
    const TileScope scope(config());
    tiles::load(0, sums.data(), 4 * columns);
    tiles::load(1, a.data(), 4 * pairs);
    tiles::load(2, b.data(), 4 * columns);
    tiles::multiply_add(0, 1, 2);
    tiles::store(0, result.data(), 4 * columns);
    return result;
  }

  /// As the manual has it; or, not `apart`, with all of K in one sum, which it has not.
  std::vector<float> by_loops(bool apart = true) const {
    std::vector<float> result = sums;
    for (int m = 0; m < rows; ++m)
      for (int n = 0; n < columns; ++n) {
        float partial[2] = {};
        for (int k = 0; k < pairs; ++k)
          for (int i = 0; i < 2; ++i) {
            float& sum = partial[apart ? i : 0];
            sum = flush(std::fma(from_bf16(a[(m * pairs + k) * 2 + i]),
                                 from_bf16(b[(k * columns + n) * 2 + i]), sum));
          }
        float& c = result[m * columns + n];
        c = flush(flush(c) + flush(partial[0] + partial[1]));
      }
    return result;
  }
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

const std::string kBug = "; this is a bug of the kernel";

}  // namespace

TEST_CASE("tiles: a product has the bits of plain loops in the manual's order, for tiles of any size") {
  if (!can_run("amx_emulated")) return;
  constexpr int kSizes[][3] = {{16, 16, 16}, {1, 1, 1},   {5, 16, 3}, {16, 7, 16},
                               {3, 2, 11},   {9, 15, 13}, {8, 1, 16}};
  for (const auto& size : kSizes) {
    const int m = size[0], n = size[1], k = size[2];
    CAPTURE(m);
    CAPTURE(n);
    CAPTURE(k);
    const Product product(m, n, k, 120, 134, 1);
    CHECK(same_bits(product.by_tiles(), product.by_loops()));
  }
  const Product product(16, 16, 16, 120, 134, 2);
  CHECK_FALSE(same_bits(product.by_tiles(), product.by_loops(false)));
}

TEST_CASE("tiles: denormal operands, products and sums are zeros, whatever the thread's own rounding") {
  if (!can_run("amx_emulated")) return;
  const auto power = [](int exponent) { return std::ldexp(1.0f, exponent); };
  struct Case {
    float a, b, sum, expected;
  };
  const Case cases[] = {
      {power(-130), power(100), power(-30), power(-30)},     // a denormal; else the sum would double
      {power(100), -power(-127), power(-27), power(-27)},    // b denormal
      {power(-63), power(-63), power(-127), power(-126)},    // the sum denormal
      {power(-63), power(-63), -1.5f * power(-126), -0.0f},  // the result would be -2^-127
      {power(-64), power(-64), 0, 0},                        // the product would be 2^-128
      {power(-63), power(-64), power(-126), power(-126)}};   // the product would be 2^-127
  for (const Case& c : cases) {
    CAPTURE(&c - cases);
    const auto half = [](float x) {
      uint32_t bits;
      std::memcpy(&bits, &x, 4);
      return static_cast<uint16_t>(bits >> 16);
    };
    Product one(1, 1, 1, 127, 127, 3);
    one.a = {half(c.a), 0};
    one.b = {half(c.b), 0};
    one.sums = {c.sum};
    CHECK(same_bits(one.by_tiles(), {c.expected}));
    CHECK(same_bits(one.by_loops(), {c.expected}));
  }

  Product small(16, 16, 16, 57, 65, 4);  // sums that are denormal on the way, and some in the end
  small.sums.assign(small.sums.size(), 0);
  const auto expected = small.by_loops();
  const auto zeros = std::count(expected.begin(), expected.end(), 0.0f);
  CHECK(zeros > 16);
  CHECK(zeros < 240);
  const unsigned saved = _mm_getcsr();
  for (const unsigned settings :
       {0x1f80u, 0x7f80u, 0x3fbfu}) {  // as usual; towards zero; down, with all flags
    CAPTURE(settings);
    _mm_setcsr(settings);
    const auto got = small.by_tiles();
    const unsigned after = _mm_getcsr();
    _mm_setcsr(saved);
    CHECK(after == settings);
    CHECK(same_bits(got, expected));
  }
}

TEST_CASE("tiles: loads and stores touch a tile's rows and columns, no more") {
  if (!can_run("amx_emulated")) return;
  constexpr int kRows = 5, kBytes = 12, kStride = 20;
  TileConfig config;
  config.rows[3] = kRows;
  config.row_bytes[3] = kBytes;
  // Exactly as long as the last row needs, so that a sanitizer sees a read past it.
  std::vector<unsigned char> from((kRows - 1) * kStride + kBytes), to(from.size(), 0xaa);
  for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<unsigned char>(i + 1);
  const auto check = [&](auto&& expected) {
    for (size_t i = 0; i < to.size(); ++i) REQUIRE(to[i] == (i % kStride < kBytes ? expected(i) : 0xaa));
  };
  {
    const TileScope scope(config);
    tiles::store(3, to.data(), kStride);
    check([](size_t) { return 0; });  // configured tiles are zeros
    tiles::load(3, from.data(), kStride);
    tiles::store(3, to.data(), kStride);
    check([&](size_t i) { return from[i]; });
    tiles::zero(3);
    tiles::store(3, to.data(), kStride);
    check([](size_t) { return 0; });
    tiles::load(3, from.data(), kStride);
  }
  const TileScope scope(config);
  tiles::store(3, to.data(), kStride);
  check([](size_t) { return 0; });  // also after another scope
}

TEST_CASE("tiles: what a processor would fault is an error") {
  if (!can_run("amx_emulated")) return;
  const std::string unused =
      "emulated AMX: a tile is used before tiles are configured, or after their release" + kBug;
  CHECK(error_of([] { tiles::zero(0); }) == unused);
  {
    const TileScope scope;
    tiles::zero(0);
    CHECK(error_of([] { tiles::zero(8); }) == "emulated AMX: a tile's number is not in [0, 8)" + kBug);
    CHECK(error_of([] { tiles::zero(-1); }) == "emulated AMX: a tile's number is not in [0, 8)" + kBug);
    constexpr int kEqual[][3] = {{0, 0, 1}, {0, 1, 0}, {0, 1, 1}};
    for (const auto& t : kEqual)
      CHECK(contains(error_of([&] { tiles::multiply_add(t[0], t[1], t[2]); }), "three different ones"));
    std::string other;
    std::thread([&] { other = error_of([] { tiles::zero(0); }); }).join();
    CHECK(other == unused);  // tiles are a thread's own
  }
  CHECK(error_of([] { tiles::zero(0); }) == unused);

  const auto refusal = [](auto&& change) {
    TileConfig config = TileConfig::whole();
    change(config);
    return error_of([&] {
      const TileScope scope(config);
      tiles::multiply_add(0, 1, 2);
    });
  };
  using Config = TileConfig&;
  CHECK(refusal([](Config) {}) == "");
  CHECK(contains(refusal([](Config c) { c.palette = 2; }), "palette"));
  CHECK(contains(refusal([](Config c) { c.palette = 0; }), "before tiles are configured"));
  CHECK(contains(refusal([](Config c) { c.start_row = 1; }), "restart"));
  CHECK(contains(refusal([](Config c) { c.reserved[13] = 1; }), "reserved"));
  CHECK(contains(refusal([](Config c) { c.row_bytes[8] = 64; }), "reserved"));
  CHECK(contains(refusal([](Config c) { c.rows[15] = 1; }), "reserved"));
  CHECK(contains(refusal([](Config c) { c.rows[5] = 17; }), "more than 16 x 64"));
  CHECK(contains(refusal([](Config c) { c.row_bytes[5] = 65; }), "more than 16 x 64"));
  CHECK(contains(refusal([](Config c) { c.rows[5] = 0; }), "not both"));
  CHECK(contains(refusal([](Config c) { c.row_bytes[5] = 0; }), "not both"));
  CHECK(contains(refusal([](Config c) { c.rows[2] = c.row_bytes[2] = 0; }), "leaves out"));
  CHECK(contains(refusal([](Config c) { c.row_bytes[0] = c.row_bytes[2] = 62; }), "whole words"));
  CHECK(contains(refusal([](Config c) { c.row_bytes[0] = 60; }), "do not fit"));  // columns of b
  CHECK(contains(refusal([](Config c) { c.rows[2] = 15; }), "do not fit"));       // K
  CHECK(contains(refusal([](Config c) { c.rows[0] = 15; }), "do not fit"));       // rows of a
  CHECK(error_of([] { tiles::zero(0); }) == unused);  // a refused configuration configures nothing
}

TEST_CASE("tiles: products on them have the same bits at any number of threads, in one piece and in blocks") {
  // K of one block that is no multiple of a tile's; K of several blocks; rows and columns of several tasks,
  // with single tiles at the edges.
  for (const std::string isa : {"amx", "amx_emulated"}) {
    if (!can_run(isa)) continue;
    constexpr int64_t kSizes[][3] = {{613, 77, 555}, {101, 4300, 331}};
    for (const auto& size : kSizes) {
      const int64_t n = size[0], in = size[1], out = size[2];
      CAPTURE(n);
      const Values x = random_values(n * in, 1, DType::bf16),
                   weight = random_values(out * in, 2, DType::bf16);
      const Values dy = random_values(n * out, 3, DType::bf16), dweight0 = random_values(out * in, 4);
      check_same_bits_at_any_thread_count(
          [&](Kernels& k) {
            const OnDevice x_(k, DType::bf16, {n, in}, x), weight_(k, DType::bf16, {out, in}, weight);
            const OnDevice dy_(k, DType::bf16, {n, out}, dy);
            OnDevice y(k, DType::bf16, {n, out}), dx(k, DType::bf16, {n, in});
            OnDevice dweight(k, DType::f32, {out, in}, dweight0);
            k.linear_forward(y, x_, weight_);
            k.linear_backward_input(dx, dy_, weight_);
            k.linear_backward_weight(dweight, dy_, x_);
            return std::vector{y.get(), dx.get(), dweight.get()};
          },
          {{"cpu", 1, isa}});
    }
  }
}

TEST_CASE("tiles: only a processor's own are chosen unasked, and where it has none the set is refused") {
  const auto sets = cpu_instruction_sets();
  CHECK(sets.front() != "amx_emulated");
  CHECK(can_run("amx_emulated") == can_run("avx512"));
  if (can_run("amx")) {
    CHECK(sets.front() == "amx");
    return;
  }
  CHECK(error_of([] {
          make_kernels({"cpu", 1, "amx"});
        }) ==
        fmt::format("this machine cannot run the instruction set 'amx'; it has: {}", fmt::join(sets, ", ")));
}

#endif
