// Token and position embedding.
#include "engine/profile.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/simd.h"

namespace topolm::TOPOLM_ISA {

namespace {

constexpr int64_t kRows = 32;      // a task
constexpr int64_t kPositions = 8;  // a task of dwpe

/// Rows and columns only: [B,T,C] and [N,C] are the same memory.
void check_rows(const char* operation, const char* name, const Tensor& t, int64_t rows, int64_t cols) {
  check_shape(operation, name, t.view({t.rows(), t.cols()}), {rows, cols});
}

}  // namespace

void CpuKernels::embedding_forward(const Tensor& out, const Tensor& tokens, const Tensor& wte,
                                   const Tensor& wpe, const Tensor& position) {
  const Range range("embedding");
  const int64_t n = tokens.elements(), t = tokens.cols(), c = wte.cols();
  check_rows("embedding_forward", "out", out, n, c);
  check_rows("embedding_forward", "wpe", wpe, wpe.rows(), c);
  check_shape("embedding_forward", "position", position, {1});
  const int64_t first = *position.i32();
  if (first < 0 || first + t > wpe.rows())
    throw_if({Fault::embedding_forward_position, static_cast<int32_t>(first < 0 ? first : first + t - 1), 0,
              wpe.rows()});
  check_indices("embedding_forward: token id", tokens, 0, wte.rows(), "the vocabulary");
  float* const o = out.f32();
  const int32_t* const token = tokens.i32();
  const float *const we = wte.f32(), *const wp = wpe.f32() + first * c;
  pool_.parallel_for(ceil_div(n, kRows), [=](int64_t task, int) {
    for (int64_t i = task * kRows; i < min(n, (task + 1) * kRows); ++i) {
      const float *const e = we + token[i] * c, *const p = wp + i % t * c;
      sweep(c, [=](int64_t j, auto lanes) {
        store(o + i * c + j, load(e + j, lanes) + load(p + j, lanes), lanes);
      });
    }
  });
}

// Tokens repeat, so a row of a table is one task's, which adds up the rows of dout that belong to it, in
// ascending order. Those of a token lie together in `order`: a task has the tokens that begin in its part of
// it. tiny: 240 -> 124 us against tasks of some columns of all rows.
void CpuKernels::embedding_backward(const Tensor& dwte, const Tensor& dwpe, const Tensor& dout,
                                    const Tensor& tokens, const Tensor& order) {
  const Range range("embedding_backward");
  const int64_t n = tokens.elements(), t = tokens.cols(), c = dwte.cols();
  check_rows("embedding_backward", "dout", dout, n, c);
  check_shape("embedding_backward", "dwpe", dwpe, {max(dwpe.rows(), t), c});
  check_shape("embedding_backward", "order", order.view({order.elements()}), {n});
  check_indices("embedding_backward: token id", tokens, 0, dwte.rows(), "the vocabulary");
  check_indices("embedding_backward: row", order, 0, n, "the batch");
  const float* const d = dout.f32();
  const int32_t *const token = tokens.i32(), *const row = order.i32();
  float *const de = dwte.f32(), *const dp = dwpe.f32();
  const int64_t position_tasks = ceil_div(t, kPositions);
  pool_.parallel_for(position_tasks + ceil_div(n, kRows), [=](int64_t task, int) {
    const auto add = [=](float* to, const float* from) {
      sweep(c, [=](int64_t j, auto lanes) {
        store(to + j, load(to + j, lanes) + load(from + j, lanes), lanes);
      });
    };
    if (task < position_tasks) {
      for (int64_t p = task * kPositions; p < min(t, (task + 1) * kPositions); ++p)
        for (int64_t i = p; i < n; i += t) add(dp + p * c, d + i * c);
      return;
    }
    const auto first = [=](int64_t i) {  // from i on, where a token begins
      while (0 < i && i < n && token[row[i]] == token[row[i - 1]]) ++i;
      return min(i, n);
    };
    const int64_t begin = (task - position_tasks) * kRows, end = first(begin + kRows);
    for (int64_t i = first(begin); i < end; ++i) add(de + token[row[i]] * c, d + row[i] * c);
  });
}

}  // namespace topolm::TOPOLM_ISA
