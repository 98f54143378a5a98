// The softmax between the two products of attention, on vectors and on tiles.
#pragma once

#include "kernels/cpu/attention.h"

namespace topolm::TOPOLM_ISA {

/// The running softmax of kTokens queries, in the lanes; base 2.
struct Softmax {
  vfloat maximum[kTileVectors], sum[kTileVectors] = {};
  vfloat factor[kTileVectors];  // to the maximum before the last block

  TOPOLM_INLINE Softmax() {
    for (vfloat& m : maximum) m = splat(-__builtin_inff());
  }

  /// The first `rows` keys of a block, for the queries of one vector: scores become probabilities relative to
  /// the maximum, as operands of Product. A query sees its keys up to row `diagonal` + its lane.
  template <class Product>
  TOPOLM_INLINE void add(float* scores, int v, int64_t rows, int64_t diagonal, float scale) {
    const int64_t seen_by_all = max(0, min(rows, diagonal + 1));
    const auto visible = [&](int64_t r) { return lane_indices() >= static_cast<int32_t>(r - diagonal); };
    scores += v * kLanes;
    vfloat largest[2] = {splat(-__builtin_inff()), splat(-__builtin_inff())};
    int64_t r = 0;
    for (; r + 2 <= seen_by_all; r += 2) {
      largest[0] = max(load(scores + r * kTokens), largest[0]);
      largest[1] = max(load(scores + (r + 1) * kTokens), largest[1]);
    }
    for (; r < rows; ++r) largest[0] = max(visible(r) ? load(scores + r * kTokens) : largest[0], largest[0]);
    const vfloat before = maximum[v], now = max(max(largest[0], largest[1]) * scale, before);
    vfloat total{};
    // Several rows side by side, for the latency of an exponential: 3.7 cycles each instead of 4.7.
    const auto keep = [&]<int N>(std::integral_constant<int, N>, int64_t row, auto shown)
        __attribute__((always_inline)) {
      vfloat p[N];
      TOPOLM_UNROLL
      for (int i = 0; i < N; ++i) {
        p[i] = exp2_of_negative(load(scores + (row + i) * kTokens) * scale - now);
        p[i] = shown(row + i, p[i]);
      }
      TOPOLM_UNROLL
      for (int i = 0; i < N; i += Product::kNumbers) {
        store(scores + (row + i) / Product::kNumbers * kTokens, Product::across(p + i));
        for (int n = 0; n < Product::kNumbers; ++n) total += p[i + n];
      }
    };
    constexpr std::integral_constant<int, 4> kFour;
    constexpr std::integral_constant<int, Product::kNumbers> kOne;
    for (r = 0; r + 4 <= seen_by_all; r += 4) keep(kFour, r, [](int64_t, vfloat p) { return p; });
    for (; r < rows; r += kOne)
      keep(kOne, r,
           [&](int64_t row, vfloat p) { return row < rows ? (visible(row) ? p : vfloat{}) : vfloat{}; });
    factor[v] = exp2_of_negative(before - now);
    sum[v] = sum[v] * factor[v] + total;
    maximum[v] = now;
  }

  /// The head's outputs and logsumexp of the queries from q on, from their sums [size][kTokens].
  template <class Product>
  TOPOLM_INLINE void finish(const AttentionHead& head, int64_t q, int64_t queries, const float* sums) const {
    vfloat inverse[kTileVectors] = {};
    for (int64_t v = 0; v * kLanes < queries; ++v) {
      inverse[v] = 1.0f / sum[v];
      if (!head.logsumexp) continue;
      const vfloat lse = kLn2 * (maximum[v] + log2(sum[v]));
      store(head.logsumexp + q + v * kLanes, lse,
            Partial{static_cast<int>(min(kLanes, queries - v * kLanes))});
    }
    scatter_panel<Product>(head.out.from(q, 0), sums, queries, head.size, inverse);
  }
};

}  // namespace topolm::TOPOLM_ISA
