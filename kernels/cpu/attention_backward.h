// What the gradient of attention is made of, on vectors and on tiles.
#pragma once

#include "kernels/cpu/attention.h"

namespace topolm::TOPOLM_ISA {

struct BackwardHead {
  Matrix dquery, dkey, dvalue, dout, query, key, value, out;
  const float* logsumexp;
  int64_t length, size;
};

/// Scores of one vector of keys become probabilities and `gradient`, which holds dP, becomes dS, as operands
/// of Product; `lines` gets dS along the keys. Rows up to `diagonal` + kLanes see keys up to row - diagonal.
template <class Product>
TOPOLM_INLINE void softmax_backward(float* scores, float* gradient, float* lines, const float* level,
                                    const float* dot, int64_t begin, int64_t rows, int64_t diagonal,
                                    float scale) {
  constexpr int kNumbers = Product::kNumbers, kLine = kTokens / kNumbers;
  const auto add = [&]<int N>(std::integral_constant<int, N>, int64_t r, auto shown)
      __attribute__((always_inline)) {
    vfloat p[N], g[N];
    TOPOLM_UNROLL
    for (int i = 0; i < N; ++i) {
      const int64_t row = r + i;
      p[i] = exp2_of_negative(load(scores + row * kTokens) * scale - level[row]);
      g[i] = shown(row, p[i] * (load(gradient + row * kTokens) - dot[row]));
      p[i] = shown(row, p[i]);
    }
    TOPOLM_UNROLL
    for (int i = 0; i < N; i += kNumbers) {
      store(scores + (r + i) / kNumbers * kTokens, Product::across(p + i));
      store(gradient + (r + i) / kNumbers * kTokens, Product::across(g + i));
      if constexpr (kNumbers > 1) Product::store_along(lines + (r + i) * kLine, kLine, g + i);
    }
  };
  constexpr std::integral_constant<int, 4> kFour;  // side by side, for the latency of an exponential
  constexpr std::integral_constant<int, kNumbers> kOne;
  const auto masked = [&](int64_t row, vfloat x) {
    const vint visible = lane_indices() <= static_cast<int32_t>(row - diagonal);
    return row < rows ? (visible ? x : vfloat{}) : vfloat{};
  };
  for (int64_t r = 0; r < begin; ++r)
    for (int64_t i = 0; i < kLanes / kNumbers; ++i) lines[r * kLine + i] = 0;
  int64_t r = begin;
  for (; r < min(rows, diagonal + kLanes); r += kOne) add(kOne, r, masked);
  for (; r + kFour <= rows; r += kFour) add(kFour, r, [](int64_t, vfloat x) { return x; });
  for (; r < rows; r += kOne) add(kOne, r, masked);
}

/// rowsum(dO * O), and logsumexp in base 2, of queries [begin, end).
TOPOLM_INLINE void row_levels(const BackwardHead& head, int64_t begin, int64_t end, float* dot,
                              float* level) {
  with_elements(head.out, [&](const auto* out) {
    with_elements(head.dout, [&](const auto* dout) {
      for (int64_t i = begin; i < end; ++i) {
        vfloat sum{};
        sweep(head.size, [&](int64_t j, auto lanes) {
          sum += load(out + i * head.out.row_stride + j, lanes) *
                 load(dout + i * head.dout.row_stride + j, lanes);
        });
        dot[i] = reduce_add(sum);
        level[i] = head.logsumexp[i] * kLog2E;
      }
    });
  });
}

#if defined(TOPOLM_AMX)
/// Floats of scratch that attend_backward_tiles() needs.
int64_t attend_backward_tiles_scratch(int64_t length, int64_t size);

/// The gradient of a head whose tensors are all bf16.
void attend_backward_tiles(const BackwardHead& head, float* scratch);
#endif

}  // namespace topolm::TOPOLM_ISA
