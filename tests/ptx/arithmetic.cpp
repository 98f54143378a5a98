// Arithmetic, comparisons and bits: the PTX ISA's chapters 9.7.1 to 9.7.8.
#include <bit>
#include <cmath>

#include "kernels/cuda/math.h"
#include "tests/ptx/instruction.h"

namespace topolm::ptx {

namespace {

template <class T, auto F>
void unary(Thread& t, const Instruction& i) {
  t.set(i.at[0], static_cast<T>(F(t.get<T>(i.at[1]))));
}
template <class T, auto F>
void binary(Thread& t, const Instruction& i) {
  t.set(i.at[0], static_cast<T>(F(t.get<T>(i.at[1]), t.get<T>(i.at[2]))));
}
template <class T, auto F>
void ternary(Thread& t, const Instruction& i) {
  t.set(i.at[0], static_cast<T>(F(t.get<T>(i.at[1]), t.get<T>(i.at[2]), t.get<T>(i.at[3]))));
}

__extension__ using Unsigned128 = unsigned __int128;
__extension__ using Signed128 = __int128;
template <class T>
struct Twice;
template <>
struct Twice<uint16_t> : std::type_identity<uint32_t> {};
template <>
struct Twice<int16_t> : std::type_identity<int32_t> {};
template <>
struct Twice<uint32_t> : std::type_identity<uint64_t> {};
template <>
struct Twice<int32_t> : std::type_identity<int64_t> {};
template <>
struct Twice<uint64_t> : std::type_identity<Unsigned128> {};
template <>
struct Twice<int64_t> : std::type_identity<Signed128> {};
template <class T>
using Wide = typename Twice<T>::type;

template <class T>
constexpr int kBits = 8 * sizeof(T);

// ---- integers

constexpr auto kAdd = [](auto a, auto b) { return a + b; };
constexpr auto kSubtract = [](auto a, auto b) { return a - b; };
constexpr auto kNegate = [](auto a) { return 0u - a; };
// Unsigned: two 16-bit integers would be multiplied as int, which can overflow.
constexpr auto kMultiply = [](auto a, auto b) { return (0u + a) * b; };
constexpr auto kMultiplyAdd = [](auto a, auto b, auto c) { return (0u + a) * b + c; };
constexpr auto kMultiplyHigh = [](auto a, auto b) {
  return static_cast<Wide<decltype(a)>>(a) * b >> kBits<decltype(a)>;
};
constexpr auto kAbsolute = [](auto a) {
  using U = std::make_unsigned_t<decltype(a)>;
  return a < 0 ? 0u - static_cast<U>(a) : static_cast<U>(a);
};
// PTX leaves a division by zero open; here it gives all ones. The quotient that overflows wraps.
constexpr auto kDivide = [](auto a, auto b) {
  using T = decltype(a);
  if (b == 0) return static_cast<T>(~T{0});
  if (std::is_signed_v<T> && b == static_cast<T>(-1))
    return static_cast<T>(0u - static_cast<std::make_unsigned_t<T>>(a));
  return static_cast<T>(a / b);
};
constexpr auto kRemainder = [](auto a, auto b) {
  using T = decltype(a);
  if (b == 0) return a;
  if (std::is_signed_v<T> && b == static_cast<T>(-1)) return T{0};
  return static_cast<T>(a % b);
};
constexpr auto kMin = [](auto a, auto b) { return b < a ? b : a; };
constexpr auto kMax = [](auto a, auto b) { return a < b ? b : a; };

template <class T>
void multiply_wide(Thread& t, const Instruction& i) {
  t.set(i.at[0], static_cast<Wide<T>>(static_cast<Wide<T>>(t.get<T>(i.at[1])) * t.get<T>(i.at[2])));
}
template <class T>
void multiply_add_wide(Thread& t, const Instruction& i) {
  using U = std::make_unsigned_t<Wide<T>>;
  const auto product = static_cast<Wide<T>>(static_cast<Wide<T>>(t.get<T>(i.at[1])) * t.get<T>(i.at[2]));
  t.set(i.at[0], static_cast<U>(static_cast<U>(product) + t.get<U>(i.at[3])));
}

void add_integers(Table& table) {
  for_types<uint16_t, int16_t, uint32_t, int32_t, uint64_t, int64_t>([&]<class T>(const std::string& type) {
    using U = std::make_unsigned_t<T>;
    table["add." + type] = {binary<U, kAdd>, 3};
    table["sub." + type] = {binary<U, kSubtract>, 3};
    table["mul.lo." + type] = {binary<U, kMultiply>, 3};
    table["mul.hi." + type] = {binary<T, kMultiplyHigh>, 3};
    table["mad.lo." + type] = {ternary<U, kMultiplyAdd>, 4};
    table["div." + type] = {binary<T, kDivide>, 3};
    table["rem." + type] = {binary<T, kRemainder>, 3};
    table["min." + type] = {binary<T, kMin>, 3};
    table["max." + type] = {binary<T, kMax>, 3};
    if constexpr (sizeof(T) < 8) {
      table["mul.wide." + type] = {multiply_wide<T>, 3};
      table["mad.wide." + type] = {multiply_add_wide<T>, 4};
    }
    if constexpr (std::is_signed_v<T>) {
      table["neg." + type] = {unary<U, kNegate>, 2};
      table["abs." + type] = {unary<T, kAbsolute>, 2};
    }
  });
}

// ---- floating point

constexpr auto kFloatMultiply = [](auto a, auto b) { return a * b; };
constexpr auto kFloatDivide = [](auto a, auto b) { return a / b; };
constexpr auto kFma = [](auto a, auto b, auto c) { return std::fma(a, b, c); };
constexpr auto kSquareRoot = [](auto a) { return std::sqrt(a); };
constexpr auto kReciprocal = [](auto a) { return 1 / a; };
constexpr auto kFloatNegate = [](auto a) { return -a; };
constexpr auto kFloatAbsolute = [](auto a) { return std::fabs(a); };
/// The sign of a on b.
constexpr auto kCopySign = [](auto a, auto b) { return std::copysign(b, a); };
// The number wins over a NaN, and +0 is larger than -0.
constexpr auto kFloatMin = [](auto a, auto b) {
  if (std::isnan(a)) return b;
  if (std::isnan(b)) return a;
  return a < b || (a == b && std::signbit(a)) ? a : b;
};
constexpr auto kFloatMax = [](auto a, auto b) {
  if (std::isnan(a)) return b;
  if (std::isnan(b)) return a;
  return a > b || (a == b && !std::signbit(a)) ? a : b;
};

// The approximate instructions, computed as their twins in kernels/cuda/math.h compute them.
constexpr auto kExp2 = [](float x) { return simt_kernels::exp2_fast(x); };
constexpr auto kLog2 = [](float x) { return simt_kernels::log2_fast(x); };
constexpr auto kReciprocalFast = [](float x) { return simt_kernels::reciprocal_fast(x); };
constexpr auto kReciprocalRoot = [](float x) { return rsqrtf(x); };

void add_floats(Table& table) {
  for_types<float, double>([&]<class T>(const std::string& type) {
    for (const std::string rounding : {"", "rn."}) {
      table["add." + rounding + type] = {binary<T, kAdd>, 3};
      table["sub." + rounding + type] = {binary<T, kSubtract>, 3};
      table["mul." + rounding + type] = {binary<T, kFloatMultiply>, 3};
    }
    table["div.rn." + type] = {binary<T, kFloatDivide>, 3};
    table["fma.rn." + type] = {ternary<T, kFma>, 4};
    table["sqrt.rn." + type] = {unary<T, kSquareRoot>, 2};
    table["rcp.rn." + type] = {unary<T, kReciprocal>, 2};
    table["neg." + type] = {unary<T, kFloatNegate>, 2};
    table["abs." + type] = {unary<T, kFloatAbsolute>, 2};
    table["min." + type] = {binary<T, kFloatMin>, 3};
    table["max." + type] = {binary<T, kFloatMax>, 3};
    table["copysign." + type] = {binary<T, kCopySign>, 3};
  });
  table["ex2.approx.ftz.f32"] = {unary<float, kExp2>, 2};
  table["lg2.approx.ftz.f32"] = {unary<float, kLog2>, 2};
  table["rcp.approx.ftz.f32"] = {unary<float, kReciprocalFast>, 2};
  table["rsqrt.approx.f32"] = {unary<float, kReciprocalRoot>, 2};
}

// ---- comparison and choice

template <class T, auto F>
void compare(Thread& t, const Instruction& i) {
  t.set(i.at[0], static_cast<bool>(F(t.get<T>(i.at[1]), t.get<T>(i.at[2]))));
}

template <class T>
void select(Thread& t, const Instruction& i) {
  t.set(i.at[0], t.get<T>(t.holds(i.at[3]) ? i.at[1] : i.at[2]));
}

constexpr auto kEqual = [](auto a, auto b) { return a == b; };
constexpr auto kNotEqual = [](auto a, auto b) { return a != b; };
constexpr auto kLess = [](auto a, auto b) { return a < b; };
constexpr auto kLessOrEqual = [](auto a, auto b) { return a <= b; };
constexpr auto kGreater = [](auto a, auto b) { return a > b; };
constexpr auto kGreaterOrEqual = [](auto a, auto b) { return a >= b; };
constexpr auto kUnordered = [](auto a, auto b) { return std::isunordered(a, b); };
constexpr auto kOrdered = [](auto a, auto b) { return !std::isunordered(a, b); };
// Of floats, ne is false where one is a NaN; the comparisons ending in u are true there.
constexpr auto kOrderedNotEqual = [](auto a, auto b) { return a < b || a > b; };
constexpr auto kUnorderedEqual = [](auto a, auto b) { return !(a < b || a > b); };
constexpr auto kNotGreaterOrEqual = [](auto a, auto b) { return !(a >= b); };
constexpr auto kNotGreater = [](auto a, auto b) { return !(a > b); };
constexpr auto kNotLessOrEqual = [](auto a, auto b) { return !(a <= b); };
constexpr auto kNotLess = [](auto a, auto b) { return !(a < b); };

void add_choices(Table& table) {
  for_types<uint16_t, int16_t, uint32_t, int32_t, uint64_t, int64_t>([&]<class T>(const std::string& type) {
    table["setp.eq." + type] = table["setp.eq." + untyped(type)] = {compare<T, kEqual>, 3};
    table["setp.ne." + type] = table["setp.ne." + untyped(type)] = {compare<T, kNotEqual>, 3};
    table["setp.lt." + type] = {compare<T, kLess>, 3};
    table["setp.le." + type] = {compare<T, kLessOrEqual>, 3};
    table["setp.gt." + type] = {compare<T, kGreater>, 3};
    table["setp.ge." + type] = {compare<T, kGreaterOrEqual>, 3};
    if (std::is_unsigned_v<T>) {
      table["setp.lo." + type] = {compare<T, kLess>, 3};
      table["setp.ls." + type] = {compare<T, kLessOrEqual>, 3};
      table["setp.hi." + type] = {compare<T, kGreater>, 3};
      table["setp.hs." + type] = {compare<T, kGreaterOrEqual>, 3};
    }
    table["selp." + type] = table["selp." + untyped(type)] = {select<T>, 4};
  });
  for_types<float, double>([&]<class T>(const std::string& type) {
    table["setp.eq." + type] = {compare<T, kEqual>, 3};
    table["setp.ne." + type] = {compare<T, kOrderedNotEqual>, 3};
    table["setp.lt." + type] = {compare<T, kLess>, 3};
    table["setp.le." + type] = {compare<T, kLessOrEqual>, 3};
    table["setp.gt." + type] = {compare<T, kGreater>, 3};
    table["setp.ge." + type] = {compare<T, kGreaterOrEqual>, 3};
    table["setp.equ." + type] = {compare<T, kUnorderedEqual>, 3};
    table["setp.neu." + type] = {compare<T, kNotEqual>, 3};
    table["setp.ltu." + type] = {compare<T, kNotGreaterOrEqual>, 3};
    table["setp.leu." + type] = {compare<T, kNotGreater>, 3};
    table["setp.gtu." + type] = {compare<T, kNotLessOrEqual>, 3};
    table["setp.geu." + type] = {compare<T, kNotLess>, 3};
    table["setp.num." + type] = {compare<T, kOrdered>, 3};
    table["setp.nan." + type] = {compare<T, kUnordered>, 3};
    table["selp." + type] = {select<T>, 4};
  });
}

// ---- bits

constexpr auto kAnd = [](auto a, auto b) { return a & b; };
constexpr auto kOr = [](auto a, auto b) { return a | b; };
constexpr auto kXor = [](auto a, auto b) { return a ^ b; };
constexpr auto kNot = [](auto a) { return ~a; };
constexpr auto kNotPredicate = [](uint8_t a) { return a ^ 1; };

// Shifts by the width or more give zeros, or copies of the sign.
template <class T>
void shift_left(Thread& t, const Instruction& i) {
  const uint32_t n = t.get<uint32_t>(i.at[2]);
  t.set(i.at[0], static_cast<T>(n < kBits<T> ? t.get<T>(i.at[1]) << n : 0));
}
template <class T>
void shift_right(Thread& t, const Instruction& i) {
  const uint32_t n = t.get<uint32_t>(i.at[2]), last = kBits<T> - 1;
  const T a = t.get<T>(i.at[1]);
  t.set(i.at[0], static_cast<T>(n <= last ? a >> n : std::is_signed_v<T> ? a >> last : 0));
}

/// shf: the word that lies n bits into the pair b:a, counted from the left or from the right.
template <bool LEFT, bool WRAP>
void funnel_shift(Thread& t, const Instruction& i) {
  const uint32_t c = t.get<uint32_t>(i.at[3]), n = WRAP ? c % 32 : c < 32 ? c : 32;
  const uint64_t pair = uint64_t{t.get<uint32_t>(i.at[2])} << 32 | t.get<uint32_t>(i.at[1]);
  t.set(i.at[0], static_cast<uint32_t>(LEFT ? n == 0 ? pair >> 32 : pair >> (32 - n) : pair >> n));
}

/// Each nibble of the selector names a byte of b:a; its highest bit asks for copies of that byte's sign.
constexpr auto kPermute = [](uint32_t a, uint32_t b, uint32_t selector) {
  uint32_t result = 0;
  for (int n = 0; n < 4; ++n) {
    const uint32_t s = selector >> 4 * n;
    uint32_t byte = static_cast<uint32_t>((uint64_t{b} << 32 | a) >> 8 * (s & 7)) & 0xff;
    if (s & 8) byte = byte & 0x80 ? 0xff : 0;
    result |= byte << 8 * n;
  }
  return result;
};

/// Of a field that reaches over the end, the missing bits are the sign's.
template <class T>
void extract_bits(Thread& t, const Instruction& i) {
  using U = std::make_unsigned_t<T>;
  const U a = t.get<U>(i.at[1]);
  const int position = t.get<uint8_t>(i.at[2]), length = t.get<uint8_t>(i.at[3]), last = kBits<T> - 1;
  const int top = position + length - 1;
  const U sign = std::is_signed_v<T> && length > 0 ? a >> (top < last ? top : last) & 1 : 0;
  U result = 0;
  for (int n = 0; n <= last; ++n)
    result |= (n < length && position + n <= last ? a >> (position + n) & 1 : sign) << n;
  t.set(i.at[0], result);
}

template <class T>
void insert_bits(Thread& t, const Instruction& i) {
  const T a = t.get<T>(i.at[1]);
  const int position = t.get<uint8_t>(i.at[3]), length = t.get<uint8_t>(t.operand(i, 4));
  T result = t.get<T>(i.at[2]);
  for (int n = 0; n < length && position + n < kBits<T>; ++n)
    result = (result & ~(T{1} << (position + n))) | (a >> n & 1) << (position + n);
  t.set(i.at[0], result);
}

/// Any function of three bits, given as its table of eight values.
void logic3(Thread& t, const Instruction& i) {
  const uint32_t a = t.get<uint32_t>(i.at[1]), b = t.get<uint32_t>(i.at[2]), c = t.get<uint32_t>(i.at[3]);
  const uint32_t values = t.get<uint32_t>(t.operand(i, 4));
  uint32_t result = 0;
  for (uint32_t n = 0; n < 8; ++n)
    if (values >> n & 1) result |= (n & 4 ? a : ~a) & (n & 2 ? b : ~b) & (n & 1 ? c : ~c);
  t.set(i.at[0], result);
}

template <class T, auto F>
void count(Thread& t, const Instruction& i) {
  t.set(i.at[0], static_cast<uint32_t>(F(t.get<T>(i.at[1]))));
}
constexpr auto kPopulation = [](auto a) { return std::popcount(a); };
constexpr auto kLeadingZeros = [](auto a) { return std::countl_zero(a); };
constexpr auto kHighestBit = [](auto a) { return std::bit_width(a) - 1; };  // all ones where there is none
constexpr auto kShiftToHighestBit = [](auto a) { return a == 0 ? -1 : std::countl_zero(a); };
constexpr auto kReverse = [](auto a) {
  decltype(a) result = 0;
  for (int n = 0; n < kBits<decltype(a)>; ++n) result = static_cast<decltype(a)>(result << 1 | (a >> n & 1));
  return result;
};

void add_bits(Table& table) {
  for_types<uint16_t, uint32_t, uint64_t>([&]<class T>(const std::string& type) {
    const std::string bits = untyped(type), s = "s" + type.substr(1);
    table["and." + bits] = {binary<T, kAnd>, 3};
    table["or." + bits] = {binary<T, kOr>, 3};
    table["xor." + bits] = {binary<T, kXor>, 3};
    table["not." + bits] = {unary<T, kNot>, 2};
    table["shl." + bits] = {shift_left<T>, 3};
    table["shr." + bits] = table["shr." + type] = {shift_right<T>, 3};
    table["shr." + s] = {shift_right<std::make_signed_t<T>>, 3};
    if constexpr (sizeof(T) >= 4) {
      table["bfe." + type] = {extract_bits<T>, 4};
      table["bfe." + s] = {extract_bits<std::make_signed_t<T>>, 4};
      table["bfi." + bits] = {insert_bits<T>, 5};
      table["popc." + bits] = {count<T, kPopulation>, 2};
      table["clz." + bits] = {count<T, kLeadingZeros>, 2};
      table["bfind." + type] = {count<T, kHighestBit>, 2};
      table["bfind.shiftamt." + type] = {count<T, kShiftToHighestBit>, 2};
      table["brev." + bits] = {unary<T, kReverse>, 2};
    }
  });
  table["and.pred"] = {binary<uint8_t, kAnd>, 3};
  table["or.pred"] = {binary<uint8_t, kOr>, 3};
  table["xor.pred"] = {binary<uint8_t, kXor>, 3};
  table["not.pred"] = {unary<uint8_t, kNotPredicate>, 2};
  table["shf.l.wrap.b32"] = {funnel_shift<true, true>, 4};
  table["shf.l.clamp.b32"] = {funnel_shift<true, false>, 4};
  table["shf.r.wrap.b32"] = {funnel_shift<false, true>, 4};
  table["shf.r.clamp.b32"] = {funnel_shift<false, false>, 4};
  table["prmt.b32"] = {ternary<uint32_t, kPermute>, 4};
  table["lop3.b32"] = {logic3, 5};
}

}  // namespace

void add_arithmetic(Table& table) {
  add_integers(table);
  add_floats(table);
  add_choices(table);
  add_bits(table);
}

}  // namespace topolm::ptx
