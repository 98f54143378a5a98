// The units of any neighborhood, each once: what both passes of the spatial loss work on. Neighborhoods
// overlap (five of 81 units on a sheet of 14 x 14 have 154 units and 17 300 pairs of them, not 405 and
// 32 800), and a pair is needed where its units share a neighborhood. So units are ordered by the
// neighborhoods they are in, and what a tile of neighbors in that order needs is a few runs of others.
#pragma once

#include <type_traits>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/simd.h"

namespace topolm::TOPOLM_ISA {

struct Units {
  int64_t count;
  int32_t* column;      // [count]: of x
  int32_t* slot;        // [c]: the inverse; count where a column is in no neighborhood
  int32_t* members;     // [k, n]: the members' slots
  uint64_t* neighbors;  // [count]: bit q % 64 is set for a unit of neighborhood q

  /// Whether units i and j may share a neighborhood: they do where there are no more than 64.
  TOPOLM_INLINE bool share(int64_t i, uint64_t others) const { return (neighbors[i] & others) != 0; }
  TOPOLM_INLINE uint64_t neighborhoods(int64_t begin, int64_t end) const {
    uint64_t all = 0;
    for (int64_t i = begin; i < end; ++i) all |= neighbors[i];
    return all;
  }
};

/// The place of x in the reflected Gray code: neighbors in that order differ in one neighborhood.
TOPOLM_INLINE uint64_t gray_rank(uint64_t x) {
  for (int shift = 1; shift < 64; shift *= 2) x ^= x >> shift;
  return x;
}

/// Floats of memory that find_units needs.
TOPOLM_INLINE int64_t units_size(const Tensor& members, int64_t c) {
  return 2 * (c + min(c, members.elements())) + c + 2 * min(c, members.elements()) + members.elements();
}

TOPOLM_INLINE Units find_units(float* memory, const Tensor& members, int64_t c) {
  const int64_t k = members.rows(), n = members.cols(), most = min(c, k * n);
  const int32_t* const member = members.i32();
  auto* const of_column = reinterpret_cast<uint64_t*>(memory);
  Units u{};
  u.neighbors = of_column + c;
  u.slot = reinterpret_cast<int32_t*>(u.neighbors + most);
  u.column = u.slot + c;
  int32_t* other = u.column + most;
  u.members = other + most;

  for (int64_t j = 0; j < c; ++j) of_column[j] = 0;
  for (int64_t i = 0; i < k * n; ++i) of_column[member[i]] |= uint64_t{1} << (i / n % 64);
  for (int32_t j = 0; j < c; ++j)
    if (of_column[j]) u.column[u.count++] = j;
  int32_t* sorted = u.column;  // by the bits of the rank, from the lowest: few, and each keeps the order
  for (int64_t bit = 0; bit < min(k, 64); ++bit) {
    int64_t to = 0;
    for (const uint64_t value : {0, 1})
      for (int64_t i = 0; i < u.count; ++i)
        if ((gray_rank(of_column[sorted[i]]) >> bit & 1) == value) other[to++] = sorted[i];
    int32_t* const swapped = sorted;
    sorted = other, other = swapped;
  }
  u.column = sorted;
  for (int64_t j = 0; j < c; ++j) u.slot[j] = static_cast<int32_t>(u.count);
  for (int32_t i = 0; i < u.count; ++i) {
    u.slot[u.column[i]] = i;
    u.neighbors[i] = of_column[u.column[i]];
  }
  for (int64_t i = 0; i < k * n; ++i) u.members[i] = u.slot[member[i]];
  return u;
}

/// Calls f(begin, size) for pieces of [begin, end) of at most `most`, which differ by at most 1: a small
/// remainder would leave most of the multipliers idle.
template <class F>
TOPOLM_INLINE void pieces(int64_t begin, int64_t end, int64_t most, F&& f) {
  const int64_t count = ceil_div(end - begin, most);
  for (int64_t p = 0; p < count; ++p) {
    const int64_t from = begin + (end - begin) * p / count, to = begin + (end - begin) * (p + 1) / count;
    f(from, to - from);
  }
}

/// Shapes and indices of both passes.
TOPOLM_INLINE void check_spatial_loss(const char* operation, const char* what, const Tensor& x,
                                      const Tensor& mean, const Tensor& gradient, const Tensor& members) {
  const int64_t k = members.rows(), n = members.cols();
  check_shape(operation, "members", members, {k, n});
  check_shape(operation, "mean", mean, {x.cols()});
  check_shape(operation, "gradient", gradient, {k, n, n});
  check_indices(what, members, 0, x.cols(), "the units");
}

}  // namespace topolm::TOPOLM_ISA
