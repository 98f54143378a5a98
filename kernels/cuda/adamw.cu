// The optimizer step: all tensors in one launch. Their table travels as a kernel parameter, so nothing is
// copied to the device and a recorded launch holds it.
#include <cmath>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/gpu_kernels.h"

namespace topolm::TOPOLM_GPU {

constexpr int kThreads = 256, kVector = 4, kVectors = 4;   // vectors a thread
constexpr int64_t kChunk = kThreads * kVector * kVectors;  // elements a block
constexpr int kTableSize = 128;                            // more tensors take more launches

/// One tensor: blocks first_block .. of the launch. `in_vectors` elements are moved 4 at a time, the others
/// one by one. copy may be null.
struct AdamWEntry {
  float *weight, *m, *v;
  const float* gradient;
  bf16* copy;
  int64_t n, in_vectors;
  uint32_t first_block;
  float keep_weight;  // 1 - lr * weight_decay
};

struct AdamWTable {
  AdamWEntry at[kTableSize];
  int size;
};

/// What is the same for all elements; computed in double.
struct AdamWCoefficients {
  float keep_m, add_m, keep_v, add_v, step_size, v_correction, eps;
};

struct AdamWElement {
  float weight, m, v;
};

DEVICE AdamWElement adamw_update(AdamWElement e, float gradient, float keep_weight,
                                 const AdamWCoefficients& k) {
  e.m = fmaf(e.m, k.keep_m, gradient * k.add_m);
  e.v = fmaf(e.v, k.keep_v, gradient * gradient * k.add_v);
  const float step = e.m * k.step_size / fmaf(sqrtf(e.v), k.v_correction, k.eps);
  e.weight = fmaf(e.weight, keep_weight, -step);
  return e;
}

/// One step of AdamW on every tensor of the table, gradients scaled by norm_and_scale[1]. The table is
/// indexed at run time: __grid_constant__ keeps it in constant memory, where a copy would go to local memory.
__global__ void __launch_bounds__(kThreads)
    adamw_kernel(const __grid_constant__ AdamWTable table, const float* norm_and_scale, AdamWCoefficients k) {
  int low = 0;  // the last entry with first_block <= this block
  for (int high = table.size; high - low > 1;) {
    const int middle = (low + high) / 2;
    if (table.at[middle].first_block <= blockIdx.x)
      low = middle;
    else
      high = middle;
  }
  const AdamWEntry& t = table.at[low];
  const float scale = norm_and_scale[1];
  const int64_t chunk = int64_t{blockIdx.x - t.first_block} * kChunk;
  for (int j = 0; j < kVectors; ++j) {
    const int64_t begin = chunk + (j * kThreads + static_cast<int>(threadIdx.x)) * kVector;
    if (begin < t.in_vectors) {
      Vector<float, kVector> w = load_vector<kVector>(t.weight + begin),
                             m = load_vector<kVector>(t.m + begin), v = load_vector<kVector>(t.v + begin);
      const Vector<float, kVector> g = load_vector<kVector>(t.gradient + begin);
      Vector<bf16, kVector> copy;
      UNROLL
      for (int i = 0; i < kVector; ++i) {
        const AdamWElement e = adamw_update({w.at[i], m.at[i], v.at[i]}, g.at[i] * scale, t.keep_weight, k);
        w.at[i] = e.weight, m.at[i] = e.m, v.at[i] = e.v, copy.at[i] = to_bf16(e.weight);
      }
      store_vector(t.weight + begin, w);
      store_vector(t.m + begin, m);
      store_vector(t.v + begin, v);
      if (t.copy) store_vector(t.copy + begin, copy);
    } else {
      for (int64_t i = begin; i < min(t.n, begin + kVector); ++i) {
        const AdamWElement e =
            adamw_update({t.weight[i], t.m[i], t.v[i]}, t.gradient[i] * scale, t.keep_weight, k);
        t.weight[i] = e.weight, t.m[i] = e.m, t.v[i] = e.v;
        if (t.copy) t.copy[i] = to_bf16(e.weight);
      }
    }
  }
}

void GpuKernels::adamw(std::span<const AdamWTensor> tensors, const Tensor& norm_and_scale,
                       const AdamWStep& step) {
  const Range range("adamw");
  check_shape("adamw", "norm_and_scale", norm_and_scale, {2});
  const double b1 = step.beta1, b2 = step.beta2, t = static_cast<double>(step.step);
  const AdamWCoefficients k{step.beta1,
                            static_cast<float>(1 - b1),
                            step.beta2,
                            static_cast<float>(1 - b2),
                            static_cast<float>(step.lr / (1 - std::pow(b1, t))),
                            static_cast<float>(1 / std::sqrt(1 - std::pow(b2, t))),
                            step.eps};
  for (; !tensors.empty(); tensors = tensors.subspan(std::min<size_t>(kTableSize, tensors.size()))) {
    AdamWTable table{};
    int64_t blocks = 0;
    double elements = 0, bytes = 4;
    for (const AdamWTensor& a : tensors.first(std::min<size_t>(kTableSize, tensors.size()))) {
      for (const auto& [name, other] : {std::pair{"gradient", &a.gradient}, {"m", &a.m}, {"v", &a.v}})
        check_shape("adamw", name, *other, a.weight.shape);
      if (a.copy) check_shape("adamw", "copy", a.copy, a.weight.shape);
      const int64_t n = a.weight.elements();
      table.at[table.size++] = {a.weight.f32(),
                                a.m.f32(),
                                a.v.f32(),
                                a.gradient.f32(),
                                a.copy ? a.copy.bf16() : nullptr,
                                n,
                                in_vectors(kVector, {a.weight, a.m, a.v, a.gradient, a.copy}),
                                static_cast<uint32_t>(blocks),
                                static_cast<float>(1 - static_cast<double>(step.lr) * a.weight_decay)};
      blocks += ceil_div(n, kChunk);
      elements += static_cast<double>(n);
      bytes += static_cast<double>(n) * (a.copy ? 30 : 28);
    }
    launch(KERNEL(adamw_kernel), {blocks_for(blocks, 1), {kThreads}},
           {.bytes = bytes, .flops = 12 * elements}, table, norm_and_scale.f32(), k);
  }
}

}  // namespace topolm::TOPOLM_GPU
