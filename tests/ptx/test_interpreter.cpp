// The interpreter against C++: every family of opcodes in small snippets; then what it must refuse.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "engine/error.h"
#include "tests/errors.h"
#include "tests/ptx/check.h"
#include "tests/ptx/interpreter.h"

using namespace topolm;
using namespace topolm::ptx;

namespace {

uint64_t bits(float x) { return std::bit_cast<uint32_t>(x); }
uint64_t bits(double x) { return std::bit_cast<uint64_t>(x); }
uint64_t bits(int32_t x) { return static_cast<uint32_t>(x); }
uint64_t bits(int64_t x) { return static_cast<uint64_t>(x); }

const float kInfinity = std::numeric_limits<float>::infinity(), kNan = std::nanf("");

/// Runs the body as a kernel of (out, in, n) in one block. It may use %out and %in, addresses of 8-byte
/// words; %n; %tid; %d %a %b %c, of which the last three hold in[0], in[1], in[2]; and %p %q. Line 1 is the
/// body's.
std::vector<uint64_t> run_body(const std::string& body, std::vector<uint64_t> in, uint32_t threads = 1,
                               size_t dynamic_shared = 0, size_t outputs = 0) {
  const std::string text =
      ".extern .shared .align 16 .b8 dynamic[]; .visible .entry snippet(.param .u64 p_out, .param .u64 p_in, "
      ".param .u32 p_n) .maxntid 64 { .reg .b64 %out, %in, %d, %a, %b, %c; .reg .b32 %n, %tid, %r<9>; "
      ".reg .b16 %h<9>; .reg .pred %p, %q; "
      "ld.param.u64 %out, [p_out]; ld.param.u64 %in, [p_in]; ld.param.u32 %n, [p_n]; mov.u32 %tid, %tid.x; "
      "ld.global.u64 %a, [%in]; ld.global.u64 %b, [%in+8]; ld.global.u64 %c, [%in+16]; " +
      body + " ret; }";
  in.resize(std::max<size_t>(in.size(), 3));
  std::vector<uint64_t> out(std::max<size_t>(threads, outputs));
  const auto kernel = decode(std::move(parse("snippet.ptx", text).at(0)));
  const auto memory_of = [](const std::vector<uint64_t>& v) {
    const auto begin = reinterpret_cast<uint64_t>(v.data());
    return Memory{begin, begin + 8 * v.size()};
  };
  std::vector<Memory> memory{memory_of(out), memory_of(in)};
  if (memory[1].begin < memory[0].begin) std::swap(memory[0], memory[1]);
  const uint64_t *const out_data = out.data(), *const in_data = in.data();
  const auto n = static_cast<uint32_t>(in.size());
  const Argument arguments[] = {{&out_data, 8, 8}, {&in_data, 8, 8}, {&n, 4, 4}};
  SimtDevice machine(1);
  ptx::run(*kernel, {"snippet", nullptr, nullptr, {{}, {threads}, dynamic_shared}, {}, arguments}, memory,
           [&](const Launch& launch) { machine.launch(launch); });
  return out;
}

/// What %d holds after `statements`.
uint64_t evaluate(const std::string& statements, std::vector<uint64_t> in) {
  return run_body(statements + " st.global.u64 [%out], %d;", std::move(in))[0];
}
/// An opcode with one, two or three sources.
uint64_t apply(const std::string& opcode, std::vector<uint64_t> in) {
  const char* const operands[] = {" %d, %a;", " %d, %a, %b;", " %d, %a, %b, %c;"};
  return evaluate(opcode + operands[in.size() - 1], in);
}
float apply_float(const std::string& opcode, std::vector<float> in) {
  std::vector<uint64_t> words;
  for (const float x : in) words.push_back(bits(x));
  return std::bit_cast<float>(static_cast<uint32_t>(apply(opcode, words)));
}
/// An opcode whose result is a predicate.
bool holds(const std::string& opcode, uint64_t a, uint64_t b) {
  return evaluate(opcode + " %p, %a, %b; selp.b64 %d, 1, 0, %p;", {a, b}) != 0;
}

}  // namespace

TEST_CASE("ptx: integers") {
  const std::vector<int32_t> values{
      0, 1, -1, 7, -13, 1 << 20, std::numeric_limits<int32_t>::max(), std::numeric_limits<int32_t>::min()};
  for (const int32_t x : values)
    for (const int32_t y : values) {
      CAPTURE(x);
      CAPTURE(y);
      const uint64_t a = bits(x), b = bits(y);
      const auto ux = static_cast<uint32_t>(x), uy = static_cast<uint32_t>(y);
      CHECK(apply("add.s32", {a, b}) == uint32_t{ux + uy});
      CHECK(apply("sub.u32", {a, b}) == uint32_t{ux - uy});
      CHECK(apply("mul.lo.s32", {a, b}) == uint32_t{ux * uy});
      CHECK(apply("mul.hi.s32", {a, b}) == bits(static_cast<int32_t>(int64_t{x} * y >> 32)));
      CHECK(apply("mul.hi.u32", {a, b}) == uint64_t{ux} * uy >> 32);
      CHECK(apply("mul.wide.s32", {a, b}) == bits(int64_t{x} * y));
      CHECK(apply("mul.wide.u32", {a, b}) == uint64_t{ux} * uy);
      CHECK(apply("mad.lo.s32", {a, b, 5}) == uint32_t{ux * uy + 5});
      CHECK(apply("mad.wide.s32", {a, b, bits(int64_t{-3})}) == bits(int64_t{x} * y - 3));
      CHECK(apply("min.s32", {a, b}) == bits(std::min(x, y)));
      CHECK(apply("max.u32", {a, b}) == std::max(ux, uy));
      CHECK(apply("mul.lo.s64", {a, b}) == uint64_t{ux} * uy);
      if (y == 0) continue;
      CHECK(apply("div.s32", {a, b}) == bits(static_cast<int32_t>(int64_t{x} / y)));
      CHECK(apply("rem.s32", {a, b}) == bits(static_cast<int32_t>(int64_t{x} % y)));
      CHECK(apply("div.u32", {a, b}) == ux / uy);
      CHECK(apply("rem.u64", {a, b}) == ux % uy);
    }
  const int64_t big = std::numeric_limits<int64_t>::min() + 5;
  CHECK(apply("mul.hi.u64", {uint64_t{1} << 63, 6}) == 3);
  CHECK(apply("mul.hi.s64", {bits(int64_t{-1}), 6}) == bits(int64_t{-1}));
  CHECK(apply("div.s64", {bits(big), 10}) == bits(big / 10));
  CHECK(apply("neg.s32", {5}) == bits(int32_t{-5}));
  CHECK(apply("abs.s32", {bits(int32_t{-5})}) == 5);
  CHECK(apply("neg.s64", {5}) == bits(int64_t{-5}));
  CHECK(apply("mul.lo.u16", {0xffff, 0xffff}) == 1);
  CHECK(apply("mul.wide.u16", {0xffff, 0xffff}) == 0xfffe0001);
  CHECK(evaluate("add.s64 %d, %a, -1;", {0}) == ~uint64_t{0});
  CHECK(evaluate("add.s32 %d, %a, -1;", {0}) == 0xffffffff);
}

TEST_CASE("ptx: floating point") {
  const std::vector<float> values{0, -0.0f, 1, -2.5f, 3e-39f, 1e20f, kInfinity, -kInfinity, kNan};
  const auto same = [](float a, float b) { return bits(a) == bits(b) || (std::isnan(a) && std::isnan(b)); };
  for (const float x : values)
    for (const float y : values) {
      CAPTURE(x);
      CAPTURE(y);
      CHECK(same(apply_float("add.f32", {x, y}), x + y));
      CHECK(same(apply_float("sub.rn.f32", {x, y}), x - y));
      CHECK(same(apply_float("mul.f32", {x, y}), x * y));
      CHECK(same(apply_float("div.rn.f32", {x, y}), x / y));
      CHECK(same(apply_float("fma.rn.f32", {x, y, 0.1f}), std::fma(x, y, 0.1f)));
      const bool less = x<y, equal = x == y, greater = x> y, unordered = std::isunordered(x, y);
      const auto compare = [&](const char* how) {
        return holds(std::string("setp.") + how + ".f32", bits(x), bits(y));
      };
      CHECK(compare("eq") == equal);
      CHECK(compare("ne") == (less || greater));
      CHECK(compare("lt") == less);
      CHECK(compare("le") == (less || equal));
      CHECK(compare("gt") == greater);
      CHECK(compare("ge") == (greater || equal));
      CHECK(compare("equ") == (equal || unordered));
      CHECK(compare("neu") == !equal);
      CHECK(compare("ltu") == (less || unordered));
      CHECK(compare("leu") == !greater);
      CHECK(compare("gtu") == (greater || unordered));
      CHECK(compare("geu") == !less);
      CHECK(compare("num") == !unordered);
      CHECK(compare("nan") == unordered);
      const float smaller = std::isnan(x)     ? y
                            : std::isnan(y)   ? x
                            : less            ? x
                            : greater         ? y
                            : std::signbit(x) ? x
                                              : y;
      CHECK(same(apply_float("min.f32", {x, y}), smaller));
      CHECK(same(apply_float("max.f32", {x, y}), -apply_float("min.f32", {-x, -y})));
    }
  CHECK(apply_float("sqrt.rn.f32", {2}) == std::sqrt(2.0f));
  CHECK(apply_float("rcp.rn.f32", {3}) == 1.0f / 3.0f);
  CHECK(apply_float("rsqrt.approx.f32", {3}) == 1.0f / std::sqrt(3.0f));
  CHECK(apply_float("ex2.approx.ftz.f32", {-1.5f}) == std::exp2(-1.5f));
  CHECK(apply_float("ex2.approx.ftz.f32", {-127}) == 0);
  CHECK(apply_float("lg2.approx.ftz.f32", {10}) == std::log2(10.0f));
  CHECK(apply_float("neg.f32", {1}) == -1);
  CHECK(apply_float("abs.f32", {-1}) == 1);
  CHECK(apply_float("copysign.f32", {-1, 3}) == -3);
  CHECK(apply("fma.rn.f64", {bits(0.1), bits(0.2), bits(0.3)}) == bits(std::fma(0.1, 0.2, 0.3)));
  CHECK(apply("div.rn.f64", {bits(1.0), bits(3.0)}) == bits(1.0 / 3.0));
  CHECK(apply("sqrt.rn.f64", {bits(3.0)}) == bits(std::sqrt(3.0)));
  CHECK(holds("setp.gt.f64", bits(2.0), bits(1.0)));
  CHECK(evaluate("add.f32 %d, %a, 0f3F800000;", {bits(1.0f)}) == bits(2.0f));
  CHECK(evaluate("add.f64 %d, %a, 0d3FF0000000000000;", {bits(1.0)}) == bits(2.0));
}

TEST_CASE("ptx: predicates and choices") {
  CHECK(holds("setp.lt.s32", bits(int32_t{-1}), 0));
  CHECK_FALSE(holds("setp.lt.u32", bits(int32_t{-1}), 0));
  CHECK(holds("setp.hi.u32", 5, 4));
  CHECK(holds("setp.ne.b32", uint64_t{1} << 32 | 5, 4));
  CHECK(holds("setp.eq.s16", 0x10005, 5));
  for (const bool a : {false, true})
    for (const bool b : {false, true}) {
      const std::vector<uint64_t> in{a, b};
      const std::string both = "setp.ne.u64 %p, %a, 0; setp.ne.u64 %q, %b, 0; ",
                        result = " selp.b64 %d, 1, 0, %p;";
      CHECK(evaluate(both + "and.pred %p, %p, %q;" + result, in) == (a && b));
      CHECK(evaluate(both + "xor.pred %p, %p, %q;" + result, in) == (a != b));
      CHECK(evaluate(both + "not.pred %p, %p;" + result, in) == !a);
      CHECK(evaluate(both + "setp.eq.or.u64 %p, %b, 1, !%p;" + result, in) == (b || !a));
      CHECK(evaluate(both + "setp.eq.and.u64 %p, %b, 1, %p;" + result, in) == (b && a));
      CHECK(evaluate(both + "mov.u64 %d, 5; @%p mov.u64 %d, 6; @!%q mov.u64 %d, 7;", in) == (!b  ? 7u
                                                                                             : a ? 6u
                                                                                                 : 5u));
    }
}

TEST_CASE("ptx: bits") {
  const uint64_t a = 0x12345678, b = 0x9abcdef0;
  CHECK(apply("and.b32", {a, b}) == (a & b));
  CHECK(apply("or.b64", {a, b << 32}) == (a | b << 32));
  CHECK(apply("xor.b16", {0xffff, 0x0ff0}) == 0xf00f);
  CHECK(apply("not.b32", {a}) == (~a & 0xffffffff));
  CHECK(apply("shl.b32", {b, 4}) == 0xabcdef00);
  CHECK(apply("shl.b32", {b, 32}) == 0);
  CHECK(apply("shl.b64", {b, 36}) == b << 36);
  CHECK(apply("shr.u32", {b, 4}) == b >> 4);
  CHECK(apply("shr.s32", {b, 4}) == 0xf9abcdef);
  CHECK(apply("shr.s32", {b, 99}) == 0xffffffff);
  CHECK(apply("shr.u64", {b, 64}) == 0);
  CHECK(apply("shf.l.wrap.b32", {a, b, 8}) == 0xbcdef012);
  CHECK(apply("shf.l.wrap.b32", {a, b, 32}) == b);
  CHECK(apply("shf.r.wrap.b32", {a, b, 8}) == 0xf0123456);
  CHECK(apply("shf.r.clamp.b32", {a, b, 40}) == b);
  CHECK(apply("shf.l.clamp.b32", {a, b, 40}) == a);
  CHECK(apply("prmt.b32", {a, b, 0x7531}) == 0x9ade1256);
  CHECK(apply("prmt.b32", {a, b, 0x000f}) == 0x787878ff);
  CHECK(apply("bfe.u32", {b, 4, 8}) == 0xef);
  CHECK(apply("bfe.s32", {b, 4, 8}) == 0xffffffef);
  CHECK(apply("bfe.s32", {b, 28, 8}) == 0xfffffff9);
  CHECK(apply("bfe.u64", {b << 32, 60, 8}) == 9);
  CHECK(evaluate("bfi.b32 %d, %a, %b, 8, 4;", {0xf5, b}) == 0x9abcd5f0);
  CHECK(evaluate("bfi.b32 %d, %a, %b, 28, 8;", {0xf5, b}) == 0x5abcdef0);
  CHECK(evaluate("lop3.b32 %d, %a, %b, %c, 0xE8;", {a, b, 0xff00ff00}) ==
        ((a & b) | (a & 0xff00ff00) | (b & 0xff00ff00)));  // the majority
  CHECK(apply("popc.b32", {a}) == 13);
  CHECK(apply("popc.b64", {~uint64_t{0}}) == 64);
  CHECK(apply("clz.b32", {a}) == 3);
  CHECK(apply("clz.b32", {0}) == 32);
  CHECK(apply("brev.b32", {a}) == 0x1e6a2c48);
  CHECK(apply("bfind.u32", {a}) == 28);
  CHECK(apply("bfind.u32", {0}) == 0xffffffff);
  CHECK(apply("bfind.shiftamt.u32", {a}) == 3);
}

TEST_CASE("ptx: conversions and moves") {
  CHECK(apply("cvt.s64.s32", {bits(int32_t{-2})}) == bits(int64_t{-2}));
  CHECK(apply("cvt.u64.u32", {~uint64_t{0}}) == 0xffffffff);
  CHECK(apply("cvt.u32.u16", {0x12345678}) == 0x5678);
  CHECK(static_cast<uint32_t>(apply("cvt.s32.s8", {0x80})) == 0xffffff80);
  CHECK(apply("cvt.u16.u8", {0x180}) == 0x80);
  CHECK(apply("cvt.rn.f32.s32", {bits(int32_t{-16777217})}) == bits(-16777216.0f));
  CHECK(apply("cvt.rn.f32.u32", {0xffffffff}) == bits(4294967296.0f));
  CHECK(apply("cvt.rn.f64.s64", {bits(int64_t{-3})}) == bits(-3.0));
  const std::vector<std::pair<float, std::vector<int32_t>>> roundings{
      {2.5f, {2, 2, 2, 3}},
      {-2.5f, {-2, -2, -3, -2}},
      {1e10f, {INT32_MAX, INT32_MAX, INT32_MAX, INT32_MAX}},
      {-kInfinity, {INT32_MIN, INT32_MIN, INT32_MIN, INT32_MIN}},
      {kNan, {0, 0, 0, 0}}};
  for (const auto& rounding : roundings) {
    const float x = rounding.first;
    const std::vector<int32_t>& expected = rounding.second;
    CAPTURE(x);
    const char* const modes[] = {"rni", "rzi", "rmi", "rpi"};
    for (size_t m = 0; m < 4; ++m)
      CHECK(apply(std::string("cvt.") + modes[m] + ".s32.f32", {bits(x)}) == bits(expected[m]));
  }
  CHECK(apply("cvt.rzi.u32.f32", {bits(-1.0f)}) == 0);
  CHECK(apply("cvt.rzi.s64.f64", {bits(-1e9)}) == bits(int64_t{-1000000000}));
  CHECK(apply("cvt.rzi.s64.f32", {bits(kNan)}) == uint64_t{1} << 63);
  CHECK(apply_float("cvt.rmi.f32.f32", {-1.5f}) == -2);
  CHECK(apply_float("cvt.sat.f32.f32", {1.5f}) == 1);
  CHECK(apply_float("cvt.sat.f32.f32", {kNan}) == 0);
  CHECK(apply("cvt.f64.f32", {bits(0.1f)}) == bits(static_cast<double>(0.1f)));
  CHECK(apply("cvt.rn.f32.f64", {bits(0.1)}) == bits(0.1f));
  CHECK(apply("cvt.rn.bf16.f32", {0x3f808000}) == 0x3f80);  // to even
  CHECK(apply("cvt.rn.bf16.f32", {0x3f818000}) == 0x3f82);
  CHECK(apply("cvt.rn.bf16x2.f32", {bits(1.0f), bits(2.0f)}) == 0x3f804000);
  CHECK(apply("cvt.f32.bf16", {0x4000}) == bits(2.0f));
  CHECK(evaluate("mov.b64 {%r1, %r2}, %a; mov.b64 %d, {%r2, %r1};", {0x1234567800000009}) == 0x912345678);
  CHECK(evaluate("mov.b32 {%h1, %h2}, %a; mov.b32 %d, {%h2, %h1};", {0x12345678}) == 0x56781234);
  CHECK(evaluate("mov.b64 {%h1, %h2, %h3, %h4}, %a; mov.b64 %d, {%h4, %h3, %h2, %h1};",
                 {0x0001000200030004}) == 0x0004000300020001);
  CHECK(evaluate("mov.u32 %r1, -1; mov.b64 %d, {%r1, 0};", {}) == 0xffffffff);
  CHECK(evaluate("{ .reg .b64 %d; mov.u64 %d, 3; } mov.u64 %d, 4; { .reg .b64 %d; mov.u64 %d, 5; }", {}) ==
        4);
}

TEST_CASE("ptx: branches") {
  CHECK(evaluate("mov.u64 %d, 0; mov.u32 %r1, 0; $loop: add.s64 %d, %d, %a; add.s32 %r1, %r1, 1; "
                 "setp.lt.u32 %p, %r1, 10; @%p bra $loop;",
                 {7}) == 70);
  for (uint64_t n = 0; n < 2; ++n)
    CHECK(evaluate("$table: .branchtargets $first, $second; mov.u64 %d, 0; brx.idx %a, $table; "
                   "$first: mov.u64 %d, 5; bra.uni $end; $second: mov.u64 %d, 6; $end:",
                   {n}) == 5 + n);
  CHECK(error_of([] { evaluate("bra $nowhere;", {}); }) ==
        "snippet.ptx:1: there is no label $nowhere: 'bra $nowhere'");
}

TEST_CASE("ptx: memory of every kind") {
  const std::vector<uint64_t> in{0x8899aabbccddeeff, 2, 3, 4};
  CHECK(evaluate("ld.global.u8 %d, [%in+1];", in) == 0xee);
  CHECK(evaluate("ld.global.s8 %d, [%in+1];", in) == ~uint64_t{0x11});
  CHECK(evaluate("ld.global.nc.u16 %d, [%in+2];", in) == 0xccdd);
  CHECK(evaluate("ld.global.L1::no_allocate.s32 %d, [%in];", in) == 0xffffffffccddeeff);
  CHECK(evaluate("add.s64 %a, %in, 12; ld.b32 %d, [%a+-8];", in) == 0x8899aabb);
  CHECK(run_body("ld.global.v2.u64 {%a, %b}, [%in+16]; st.global.v2.u64 [%out], {%b, %a};", in, 1, 0, 2) ==
        std::vector<uint64_t>{4, 3});
  CHECK(
      run_body(
          "ld.global.nc.v4.u32 {%r1, %r2, %r3, %r4}, [%in]; st.global.u16 [%out+2], %r2; st.u8 [%out], %r1;",
          in) == std::vector<uint64_t>{0xaabb00ff});
  CHECK(
      evaluate(
          ".local .align 8 .b8 array[16]; mov.u64 %b, array; st.local.u64 [%b+8], %a; cvta.local.u64 %b, %b; "
          "ld.u64 %d, [%b+8];",
          in) == in[0]);
  CHECK(evaluate("mov.b64 %b, p_n; cvta.param.u64 %c, %b; ld.u32 %d, [%c]; ld.param.u32 %r1, [%b]; add.s32 "
                 "%d, %d, %r1;",
                 in) == 8);
  // Each thread writes its own word of a static or the dynamic array and reads its neighbour's.
  for (const std::string array : {"fixed", "dynamic"}) {
    const auto out = run_body(
        ".shared .align 8 .b8 other[24]; .shared .align 16 .b8 fixed[512]; mov.u64 %b, " + array +
            "; mul.wide.u32 %c, %tid, 8; add.s64 %b, %b, %c; cvt.u64.u32 %d, %tid; st.shared.u64 [%b], %d; "
            "bar.sync 0; xor.b64 %b, %b, 8; cvta.shared.u64 %b, %b; ld.u64 %d, [%b]; "
            "add.s64 %c, %out, %c; st.global.u64 [%c], %d;",
        in, 64, 512);
    for (uint64_t n = 0; n < out.size(); ++n) CHECK(out[n] == (n ^ 1));
  }
  const auto counted = run_body(
      "atom.global.add.u32 %r1, [%out], 2; red.global.max.s32 [%out+4], %tid; atom.relaxed.global.cas.b32 "
      "%r2, "
      "[%out+8], 0, 5; atom.global.exch.b64 %d, [%out+16], 9; atom.add.u64 %d, [%out+24], 1;",
      in, 64);
  CHECK(counted[0] == (uint64_t{63} << 32 | 128));
  CHECK(counted[1] == 5);
  CHECK(counted[2] == 9);
  CHECK(counted[3] == 64);
}

TEST_CASE("ptx: shuffles, votes and copies") {
  const std::string store = " mul.wide.u32 %c, %tid, 8; add.s64 %c, %out, %c; st.global.u64 [%c], %d;";
  const auto shuffled = [&](const std::string& statements) { return run_body(statements + store, {}, 32); };
  struct Case {
    const char *mode, *operands;
    int (*from)(int lane);
  };
  for (const Case& c :
       {Case{"bfly", "1, 31", [](int lane) { return lane ^ 1; }},
        Case{"idx", "3, 0x181f", [](int lane) { return (lane & ~7) + 3; }},
        Case{"down", "2, 31", [](int lane) { return lane + 2 < 32 ? lane + 2 : lane; }},
        Case{"down", "2, 0x181f", [](int lane) { return lane % 8 + 2 < 8 ? lane + 2 : lane; }},
        Case{"up", "4, 0", [](int lane) { return lane >= 4 ? lane - 4 : lane; }}}) {
    const auto out = shuffled(fmt::format("shfl.sync.{}.b32 %d, %tid, {}, -1;", c.mode, c.operands));
    for (int lane = 0; lane < 32; ++lane) CHECK(out[static_cast<size_t>(lane)] == bits(c.from(lane)));
  }
  const auto inside = shuffled("shfl.sync.down.b32 %r1|%p, %tid, 2, 31, -1; selp.b64 %d, 1, 0, %p;");
  for (uint64_t lane = 0; lane < 32; ++lane) CHECK(inside[lane] == (lane < 30));
  const std::string vote = "setp.lt.u32 %p, %tid, 5; vote.sync.";
  CHECK(shuffled(vote + "ballot.b32 %d, !%p, -1;")[7] == 0xffffffe0);
  CHECK(shuffled(vote + "any.pred %q, %p, -1; selp.b64 %d, 1, 0, %q;")[31] == 1);
  CHECK(shuffled(vote + "all.pred %q, %p, -1; selp.b64 %d, 1, 0, %q;")[0] == 0);
  CHECK(shuffled("bar.warp.sync -1; mov.u64 %d, 3;")[9] == 3);
  const auto copied = run_body(
      ".shared .align 16 .b8 fixed[16]; mov.u32 %r1, fixed; and.b64 %b, %in, -16; "
      "cp.async.cg.shared.global [%r1+0], [%b+16], 16, 12; cp.async.commit_group; "
      "cp.async.wait_group 0; ld.shared.v2.u64 {%a, %d}, [fixed]; and.b64 %d, %d, "
      "0xffffffff00000000; st.global.u64 [%out], %d;",
      std::vector<uint64_t>(8, ~uint64_t{0}));
  CHECK(copied[0] == 0);
}

TEST_CASE("ptx: what is not known is refused with its line") {
  CHECK(error_of([] { evaluate("\n\n  tanh.approx.f32 %d, %a;", {}); }) ==
        "snippet.ptx:3: unknown opcode: 'tanh.approx.f32 %d, %a'");
  CHECK(error_of([] { evaluate("activemask.b32 %d;", {}); }) ==
        "snippet.ptx:1: unknown opcode: 'activemask.b32 %d'");
  CHECK(error_of([] { evaluate("add.sat.s32 %d, %a, %b;", {}); }) ==
        "snippet.ptx:1: unknown opcode: 'add.sat.s32 %d, %a, %b'");
  CHECK(error_of([] { evaluate("atom.global.add.f32 %d, [%out], %a;", {}); }) ==
        "snippet.ptx:1: unknown opcode: 'atom.global.add.f32 %d, [%out], %a'");
  CHECK(error_of([] { evaluate("add.s32 %d, %a;", {}); }) ==
        "snippet.ptx:1: 2 operands where 3 are known: 'add.s32 %d, %a'");
  CHECK(error_of([] { evaluate("add.s32 %d, %a, %nobody;", {}); }) ==
        "snippet.ptx:1: cannot read '%nobody' of 'add.s32 %d, %a, %nobody'");
  CHECK(error_of([] { parse("f.ptx", ".version 9.0\n.func (.param .b32 r) f() { ret; }"); }) ==
        "f.ptx:2: cannot read '.func (.param .b32 r) f()'");
  CHECK(error_of([] { run_body("", {}, 65); }) ==
        "snippet: 65 threads a block, but the kernel was compiled for 64");
}

TEST_CASE("ptx: an access outside of memory, or not aligned, is reported with its line") {
  const auto error = [](const std::string& body, size_t dynamic_shared = 0) {
    return error_of([&] { run_body(body, {1, 2, 3}, 1, dynamic_shared); });
  };
  const auto contains = [](const std::string& text, const std::string& part) {
    CAPTURE(text);
    CHECK(text.find(part) != std::string::npos);
  };
  contains(error("\n ld.global.u32 %r1, [%in+24];"), "snippet.ptx:2: 4 bytes at global address");
  contains(error("ld.global.u32 %r1, [%in+24];"),
           "outside of every allocation: 'ld.global.u32 %r1, [%in+24]'");
  contains(error("ld.global.v2.u64 {%a, %b}, [%in+16];"), "16 bytes");
  contains(error("st.global.u8 [%out+8], %a;"), "1 bytes at global address");
  contains(error("ld.global.u64 %a, [%in+4];"), "are not aligned");
  contains(error("atom.global.add.u32 %r1, [%in+24], 1;"), "outside of every allocation");
  contains(error(".shared .align 8 .b8 fixed[8]; ld.shared.u32 %r1, [fixed+8];"),
           "4 bytes at shared address");
  contains(error("st.shared.u32 [dynamic+64], 1;", 64), "outside of every array");
  contains(error("ld.param.u32 %r1, [p_n+4];"), "param address");
  CHECK(error("st.shared.u32 [dynamic+60], 1;", 64) == "");
}
