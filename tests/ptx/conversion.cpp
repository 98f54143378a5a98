// mov and cvt: between registers, types and halves of registers.
#include <cmath>
#include <limits>

#include "kernels/cuda/gpu.h"
#include "tests/ptx/instruction.h"

namespace topolm::ptx {

namespace {

template <class T>
void move(Thread& t, const Instruction& i) {
  t.set(i.at[0], t.get<T>(i.at[1]));
}

/// mov.b64 %rd1, {%r1, %r2}: the first is the lowest.
template <class Part, int N>
void pack(Thread& t, const Instruction& i) {
  uint64_t whole = 0;
  for (uint32_t n = 0; n < N; ++n)
    whole |= uint64_t{t.get<Part>(t.operand(i, 1 + n))} << 8 * sizeof(Part) * n;
  t.set(i.at[0], whole);
}
template <class Part, int N>
void unpack(Thread& t, const Instruction& i) {
  const uint64_t whole = t.get<uint64_t>(t.operand(i, N));
  for (uint32_t n = 0; n < N; ++n) t.set(t.operand(i, n), static_cast<Part>(whole >> 8 * sizeof(Part) * n));
}

/// To the register's whole width: it may be wider than the type.
template <class To, class From>
void convert_integer(Thread& t, const Instruction& i) {
  const To value = static_cast<To>(t.get<From>(i.at[1]));
  if constexpr (std::is_signed_v<To>)
    t.set(i.at[0], int64_t{value});
  else
    t.set(i.at[0], value);
}

template <class To, class From>
void convert(Thread& t, const Instruction& i) {
  t.set(i.at[0], static_cast<To>(t.get<From>(i.at[1])));
}

constexpr auto kNearest = [](auto x) { return std::nearbyint(x); };  // even among equals
constexpr auto kTowardsZero = [](auto x) { return std::trunc(x); };
constexpr auto kDown = [](auto x) { return std::floor(x); };
constexpr auto kUp = [](auto x) { return std::ceil(x); };

template <class T, auto ROUND>
void round(Thread& t, const Instruction& i) {
  t.set(i.at[0], ROUND(t.get<T>(i.at[1])));
}

/// What does not fit becomes the nearest integer that does.
template <class To, class From, auto ROUND>
void round_to_integer(Thread& t, const Instruction& i) {
  using Limits = std::numeric_limits<To>;
  const From x = ROUND(t.get<From>(i.at[1]));
  To result;
  if (std::isnan(x))
    result =
        sizeof(To) < 8 && sizeof(From) < 8 ? To{0} : static_cast<To>(uint64_t{1} << (8 * sizeof(To) - 1));
  else if (x >= std::ldexp(From{1}, Limits::digits))
    result = Limits::max();
  else if (x < static_cast<From>(Limits::min()))
    result = Limits::min();
  else
    result = static_cast<To>(x);
  t.set(i.at[0], result);
}

void saturate(Thread& t, const Instruction& i) {
  const float x = t.get<float>(i.at[1]);
  t.set(i.at[0], x > 0 ? x < 1 ? x : 1.0f : 0.0f);  // a NaN becomes 0
}

void to_bf16(Thread& t, const Instruction& i) {
  t.set(i.at[0], simt_kernels::to_bf16(t.get<float>(i.at[1])).bits);
}
/// The first operand becomes the upper half.
void to_bf16x2(Thread& t, const Instruction& i) {
  const uint32_t upper = simt_kernels::to_bf16(t.get<float>(i.at[1])).bits;
  t.set(i.at[0], upper << 16 | simt_kernels::to_bf16(t.get<float>(i.at[2])).bits);
}
void from_bf16(Thread& t, const Instruction& i) {
  t.set(i.at[0], simt_kernels::to_float(bf16{t.get<uint16_t>(i.at[1])}));
}

void add_moves(Table& table) {
  for_types<uint16_t, int16_t, uint32_t, int32_t, float, uint64_t, int64_t, double>(
      [&]<class T>(const std::string& type) {
        table["mov." + type] = table["mov." + untyped(type)] = {move<T>, 2};
      });
  table["mov.pred"] = {move<uint8_t>, 2};
  // Packing and unpacking are told apart by the decoder, which sees where the braces are.
  table["mov.pack.b32"] = {pack<uint16_t, 2>, 3};
  table["mov.pack.b64"] = {pack<uint32_t, 2>, 3};
  table["mov.pack4.b64"] = {pack<uint16_t, 4>, 5};
  table["mov.unpack.b32"] = {unpack<uint16_t, 2>, 3};
  table["mov.unpack.b64"] = {unpack<uint32_t, 2>, 3};
  table["mov.unpack4.b64"] = {unpack<uint16_t, 4>, 5};
}

}  // namespace

void add_conversions(Table& table) {
  add_moves(table);
  for_types<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, uint64_t, int64_t>(
      [&]<class To>(const std::string& to) {
        for_types<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, uint64_t, int64_t>(
            [&]<class From>(const std::string& from) {
              table["cvt." + to + "." + from] = {convert_integer<To, From>, 2};
            });
        table["cvt.rn.f32." + to] = {convert<float, To>, 2};
        table["cvt.rn.f64." + to] = {convert<double, To>, 2};
        for_types<float, double>([&]<class From>(const std::string& from) {
          table["cvt.rni." + to + "." + from] = {round_to_integer<To, From, kNearest>, 2};
          table["cvt.rzi." + to + "." + from] = {round_to_integer<To, From, kTowardsZero>, 2};
          table["cvt.rmi." + to + "." + from] = {round_to_integer<To, From, kDown>, 2};
          table["cvt.rpi." + to + "." + from] = {round_to_integer<To, From, kUp>, 2};
        });
      });
  for_types<float, double>([&]<class T>(const std::string& type) {
    table["cvt.rni." + type + "." + type] = {round<T, kNearest>, 2};
    table["cvt.rzi." + type + "." + type] = {round<T, kTowardsZero>, 2};
    table["cvt.rmi." + type + "." + type] = {round<T, kDown>, 2};
    table["cvt.rpi." + type + "." + type] = {round<T, kUp>, 2};
  });
  table["cvt.f64.f32"] = {convert<double, float>, 2};
  table["cvt.rn.f32.f64"] = {convert<float, double>, 2};
  table["cvt.sat.f32.f32"] = {saturate, 2};
  table["cvt.rn.bf16.f32"] = {to_bf16, 2};
  table["cvt.rn.bf16x2.f32"] = {to_bf16x2, 3};
  table["cvt.f32.bf16"] = {from_bf16, 2};
}

}  // namespace topolm::ptx
