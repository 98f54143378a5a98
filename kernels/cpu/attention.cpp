// Causal self-attention of whole sequences, forward and backward, without a T x T matrix.
#include "kernels/cpu/attention.h"

#include <cmath>

#include "engine/profile.h"
#include "kernels/attention_sizes.h"
#include "kernels/cpu/cpu_kernels.h"

namespace topolm::TOPOLM_ISA {

namespace {

constexpr int64_t kTaskQueries = 256;  // of one head: long sequences are spread over the threads

/// scores [kQueries, kBlock] of one block become probabilities relative to the running maximum; the sums and
/// `out` so far are rescaled to it. Row i sees visible + i keys of the block.
TOPOLM_INLINE void softmax_block(float* scores, float* maximum, vfloat* sum, float* out, int64_t ld,
                                 int64_t rows, int64_t visible, int64_t vectors) {
  const vfloat hidden = splat(-__builtin_inff());
  for (int64_t i = 0; i < rows; ++i) {
    float* const s = scores + i * kBlock;
    vfloat row[kBlock / kLanes], largest = hidden;
    for (int64_t v = 0; v < vectors; ++v) {
      const vint key = lane_indices() + splat(static_cast<int32_t>(v * kLanes));
      row[v] = key < static_cast<int32_t>(visible + i) ? load(s + v * kLanes) : hidden;
      largest = max(largest, row[v]);
    }
    const float before = maximum[i], now = reduce_max(max(largest, splat(before)));
    vfloat total{};
    for (int64_t v = 0; v < vectors; ++v) {
      const vfloat p = exp(row[v] - now);
      store(s + v * kLanes, p);
      total += p;
    }
    if (now != before) {
      const vfloat factor = exp(splat(before - now));
      sum[i] *= factor;
      for (int64_t j = 0; j < ld; j += kLanes) store(out + i * ld + j, factor * load(out + i * ld + j));
      maximum[i] = now;
    }
    sum[i] += total;
  }
}

}  // namespace

int64_t attend_scratch(int64_t queries, int64_t keys, int64_t size) {
  return (round_up(queries, kQueries) + round_up(keys, kBlock)) * size +
         (keys + kQueries) * round_up(size, kLanes) + kQueries * kBlock + kLanes;
}

void attend(const AttentionHead& head, float* scratch) {
  const int64_t size = head.size, ld = round_up(size, kLanes), keys = head.first_position + head.queries;
  float* const out = scratch;
  float* const scores = out + kQueries * ld;
  float* const values = scores + kQueries * kBlock;  // [keys][ld]
  float* const key_panels = values + keys * ld;      // [keys / kBlock][size][kBlock]
  float* const query_panels =
      key_panels + round_up(keys, kBlock) * size;  // [queries / kQueries][size][kQueries]
  gather_rows(values, ld, head.value, keys, size, 1);
  gather_panels<kBlock>(key_panels, head.key, keys, size, 1);
  gather_panels<kQueries>(query_panels, head.query, head.queries, size,
                          1 / std::sqrt(static_cast<float>(size)));

  for (int64_t q = 0; q < head.queries; q += kQueries) {
    const int64_t rows = min(kQueries, head.queries - q), seen = head.first_position + q + rows;
    float maximum[kQueries];
    vfloat sum[kQueries] = {};
    for (float& m : maximum) m = -__builtin_inff();
    for (int64_t i = 0; i < kQueries * ld; i += kLanes) store(out + i, vfloat{});
    for (int64_t k = 0; k < seen; k += kBlock) {
      const int64_t count = min(kBlock, seen - k), vectors = ceil_div(count, kLanes);
      multiply_rows<1, kQueries>(scores, kBlock, query_panels + q * size, key_panels + k * size, kBlock,
                                 vectors, size, false);
      softmax_block(scores, maximum, sum, out, ld, rows, head.first_position + q + 1 - k, vectors);
      multiply_rows<kBlock, 1>(out, ld, scores, values + k * ld, ld, ld / kLanes, count, true);
    }
    for (int64_t i = 0; i < rows; ++i) {
      const float total = reduce_add(sum[i]);
      scatter_rows(head.out.from(q + i, 0), out + i * ld, ld, 1, size, 1 / total);
      if (head.logsumexp) head.logsumexp[q + i] = maximum[i] + std::log(total);
    }
  }
}

void CpuKernels::attention_forward(const Tensor& out, const Tensor& logsumexp, const Tensor& qkv,
                                   int n_head) {
  const Range range("attention");
  const AttentionSizes sizes = check_attention("attention_forward", out, qkv, logsumexp, n_head);
  const int64_t t = sizes.length, c = sizes.width, size = sizes.head_size;
  float* const saved = logsumexp.f32();
  const Matrix out_rows = matrix(out), qkv_rows = matrix(qkv);
  const int64_t parts = ceil_div(t, kTaskQueries), part = ceil_div(t, parts);
  const int64_t floats = attend_scratch(part, t, size);
  pool_.parallel_for(sizes.batch * n_head * parts, [=, this](int64_t task, int thread) {
    const int64_t head = task / parts % n_head, sequence = task / parts / n_head;
    const int64_t begin = (parts - 1 - task % parts) * part;  // the longest first
    const int64_t row = sequence * t, col = head * size;
    attend({.out = out_rows.from(row + begin, col),
            .query = qkv_rows.from(row + begin, col),
            .key = qkv_rows.from(row, c + col),
            .value = qkv_rows.from(row, 2 * c + col),
            .logsumexp = saved + (sequence * n_head + head) * t + begin,
            .first_position = begin,
            .queries = min(part, t - begin),
            .size = size},
           workspace_.of_thread(thread, floats));
  });
}

// With P = softmax(S), S = scale Q K^T:  dV = P^T dO,  dP = dO V^T,  dS = P * (dP - rowsum(dO * O)),
// dQ = scale dS K,  dK = scale dS^T Q. The scale is applied to Q when it is gathered and to dQ when it is
// stored.
namespace {

struct BackwardHead {
  Matrix dquery, dkey, dvalue, dout, query, key, value, out;
  const float* logsumexp;
  int64_t length, size;
};

int64_t backward_scratch(int64_t length, int64_t size) {
  const int64_t rows = round_up(length, kBlock);
  return 4 * (rows * size + kLanes) + 4 * rows * round_up(size, kLanes) + rows +
         2 * kBlock * (round_up(size, kLanes) + kBlock);
}

/// For kQueries rows: scores become probabilities and `gradient`, which holds dP, becomes dS. Row i sees
/// visible + i keys of the block.
TOPOLM_INLINE void softmax_backward(float* scores, float* gradient, const float* logsumexp, const float* dot,
                                    int64_t rows, int64_t visible, int64_t vectors) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t v = 0; v < vectors; ++v) {
      float* const s = scores + i * kBlock + v * kLanes;
      float* const g = gradient + i * kBlock + v * kLanes;
      const vint key = lane_indices() + splat(static_cast<int32_t>(v * kLanes));
      const vfloat p = key < static_cast<int32_t>(visible + i) ? exp(load(s) - logsumexp[i]) : vfloat{};
      store(s, p);
      store(g, p * (load(g) - dot[i]));
    }
}

void attend_backward(const BackwardHead& head, float* scratch) {
  const int64_t n = head.length, size = head.size, ld = round_up(size, kLanes), vectors = ld / kLanes;
  const int64_t padded = round_up(n, kBlock), panels = padded * size + kLanes;
  const float scale = 1 / std::sqrt(static_cast<float>(size));
  float* const query_panels = scratch;
  float* const dout_panels = query_panels + panels;
  float* const key_panels = dout_panels + panels;
  float* const value_panels = key_panels + panels;
  float* const query = value_panels + panels;
  float* const dout = query + padded * ld;
  float* const key = dout + padded * ld;
  float* const dquery = key + padded * ld;
  float* const dkey = dquery + padded * ld;  // of one block of keys
  float* const dvalue = dkey + kBlock * ld;
  float* const scores = dvalue + kBlock * ld;
  float* const gradient = scores + kBlock * kBlock;
  float* const dot = gradient + kBlock * kBlock;

  gather_panels<kQueries>(query_panels, head.query, n, size, scale);
  gather_panels<kQueries>(dout_panels, head.dout, n, size, 1);
  gather_panels<kBlock>(key_panels, head.key, n, size, 1);
  gather_panels<kBlock>(value_panels, head.value, n, size, 1);
  gather_rows(query, ld, head.query, n, size, scale);
  gather_rows(key, ld, head.key, n, size, 1);
  gather_rows(dquery, ld, head.out, n, size, 1);  // borrowed for the dot products
  gather_rows(dout, ld, head.dout, n, size, 1);
  for (int64_t i = 0; i < n; ++i) {
    vfloat sum{};
    for (int64_t j = 0; j < ld; j += kLanes) sum += load(dout + i * ld + j) * load(dquery + i * ld + j);
    dot[i] = reduce_add(sum);
  }
  for (int64_t i = 0; i < padded * ld; i += kLanes) store(dquery + i, vfloat{});

  for (int64_t k = 0; k < n; k += kBlock) {
    const int64_t keys = min(kBlock, n - k);
    for (int64_t i = 0; i < kBlock * ld; i += kLanes) {
      store(dkey + i, vfloat{});
      store(dvalue + i, vfloat{});
    }
    for (int64_t q = k; q < n; q += kBlock) {
      const int64_t queries = min(kBlock, n - q);
      for (int64_t i = 0; i < queries; i += kQueries) {
        const int64_t seen = min(kBlock, q + i + kQueries - k), across = ceil_div(seen, kLanes);
        float *const s = scores + i * kBlock, *const g = gradient + i * kBlock;
        multiply_rows<1, kQueries>(s, kBlock, query_panels + (q + i) * size, key_panels + k * size, kBlock,
                                   across, size, false);
        multiply_rows<1, kQueries>(g, kBlock, dout_panels + (q + i) * size, value_panels + k * size, kBlock,
                                   across, size, false);
        softmax_backward(s, g, head.logsumexp + q + i, dot + q + i, min(kQueries, queries - i), q + i + 1 - k,
                         across);
        multiply_rows<kBlock, 1>(dquery + (q + i) * ld, ld, g, key + k * ld, ld, vectors, min(seen, keys),
                                 true);
      }
      for (int64_t j = 0; j < keys; j += kQueries) {
        const int64_t i = q == k ? j : 0;  // earlier queries do not see these keys
        multiply_rows<1, kBlock>(dvalue + j * ld, ld, scores + i * kBlock + j, dout + (q + i) * ld, ld,
                                 vectors, queries - i, true);
        multiply_rows<1, kBlock>(dkey + j * ld, ld, gradient + i * kBlock + j, query + (q + i) * ld, ld,
                                 vectors, queries - i, true);
      }
    }
    scatter_rows(head.dkey.from(k, 0), dkey, ld, keys, size, 1);
    scatter_rows(head.dvalue.from(k, 0), dvalue, ld, keys, size, 1);
  }
  scatter_rows(head.dquery, dquery, ld, n, size, scale);
}

}  // namespace

void CpuKernels::attention_backward(const Tensor& dqkv, const Tensor& dout, const Tensor& qkv,
                                    const Tensor& out, const Tensor& logsumexp, int n_head) {
  const Range range("attention_backward");
  const AttentionSizes sizes = check_attention("attention_backward", out, qkv, logsumexp, n_head);
  const int64_t t = sizes.length, c = sizes.width, size = sizes.head_size;
  check_shape("attention_backward", "dqkv", dqkv, qkv.shape);
  check_shape("attention_backward", "dout", dout, out.shape);
  const float* const saved = logsumexp.f32();
  const Matrix dqkv_rows = matrix(dqkv), dout_rows = matrix(dout), qkv_rows = matrix(qkv),
               out_rows = matrix(out);
  const int64_t floats = backward_scratch(t, size);
  pool_.parallel_for(sizes.batch * n_head, [=, this](int64_t task, int thread) {
    const int64_t row = task / n_head * t, col = task % n_head * size;
    attend_backward({.dquery = dqkv_rows.from(row, col),
                     .dkey = dqkv_rows.from(row, c + col),
                     .dvalue = dqkv_rows.from(row, 2 * c + col),
                     .dout = dout_rows.from(row, col),
                     .query = qkv_rows.from(row, col),
                     .key = qkv_rows.from(row, c + col),
                     .value = qkv_rows.from(row, 2 * c + col),
                     .out = out_rows.from(row, col),
                     .logsumexp = saved + task * t,
                     .length = t,
                     .size = size},
                    workspace_.of_thread(thread, floats));
  });
}

}  // namespace topolm::TOPOLM_ISA
