#include "engine/random.h"

#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>

#include "engine/error.h"

namespace topolm {

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> c, std::array<uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * c[0], p1 = uint64_t{0xCD9E8D57} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k[0], static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k[1], static_cast<uint32_t>(p0)};
    k[0] += 0x9E3779B9;
    k[1] += 0xBB67AE85;
  }
  return c;
}

Random::Random(uint64_t seed, Purpose purpose, uint32_t a, uint32_t b)
    : key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
      counter_{0, static_cast<uint32_t>(purpose), a, b} {}

uint32_t Random::bits() {
  if (left_ == 0) {
    block_ = philox4x32(counter_, key_);
    ++counter_[0];
    left_ = 4;
  }
  return block_[4 - left_--];
}

double Random::uniform() { return bits() * 0x1p-32; }

double Random::normal() {
  if (has_spare_) {
    has_spare_ = false;
    return spare_;
  }
  const double radius = std::sqrt(-2 * std::log((bits() + 0.5) * 0x1p-32));
  const double angle = 2 * std::numbers::pi * uniform();
  spare_ = radius * std::sin(angle);
  has_spare_ = true;
  return radius * std::cos(angle);
}

uint64_t Random::below(uint64_t n) {
  require(n > 0, "cannot draw a number below 0");
  const uint64_t limit = UINT64_MAX - UINT64_MAX % n;  // whole multiples of n only
  for (;;) {
    const uint64_t high = bits(), x = high << 32 | bits();
    if (x < limit) return x % n;
  }
}

std::vector<int32_t> Random::permutation(int32_t n) { return draw(n, n); }

std::vector<int32_t> Random::draw(int32_t count, int32_t n) {
  require(count >= 0 && count <= n, "cannot draw {} distinct values out of {}", count, n);
  std::vector<int32_t> values(static_cast<size_t>(n));
  std::iota(values.begin(), values.end(), 0);
  for (int32_t i = 0; i < count; ++i)  // Fisher-Yates, stopped after `count`
    std::swap(values[i], values[i + static_cast<int32_t>(below(static_cast<uint64_t>(n - i)))]);
  values.resize(static_cast<size_t>(count));
  return values;
}

}  // namespace topolm
