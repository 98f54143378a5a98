// The optimizer step: one pass over all parameters, as fast as memory gives them.
#include <cmath>

#include "engine/profile.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/simd.h"

namespace topolm::TOPOLM_ISA {

namespace {

constexpr int64_t kChunk = 1 << 14;  // elements a task

/// What does not change from element to element; computed in double.
struct Coefficients {
  float keep_m, add_m, keep_v, add_v, keep_weight, step_size, v_correction, eps, gradient_scale;
};

Coefficients coefficients(const AdamWStep& s, float weight_decay, float gradient_scale) {
  const double b1 = s.beta1, b2 = s.beta2, t = static_cast<double>(s.step);
  return {s.beta1,
          static_cast<float>(1 - b1),
          s.beta2,
          static_cast<float>(1 - b2),
          static_cast<float>(1 - static_cast<double>(s.lr) * weight_decay),
          static_cast<float>(s.lr / (1 - std::pow(b1, t))),
          static_cast<float>(1 / std::sqrt(1 - std::pow(b2, t))),
          s.eps,
          gradient_scale};
}

TOPOLM_INLINE void update(float* weight, float* m, float* v, const float* gradient, bf16* copy, int64_t n,
                          const Coefficients& k) {
  sweep(n, [&](int64_t i, auto lanes) {
    const vfloat g = load(gradient + i, lanes) * k.gradient_scale;
    const vfloat mi = load(m + i, lanes) * k.keep_m + g * k.add_m;
    const vfloat vi = load(v + i, lanes) * k.keep_v + g * g * k.add_v;
    const vfloat step = mi * k.step_size / (sqrt(vi) * k.v_correction + k.eps);
    const vfloat w = load(weight + i, lanes) * k.keep_weight - step;
    store(m + i, mi, lanes);
    store(v + i, vi, lanes);
    store(weight + i, w, lanes);
    if (copy) store(copy + i, w, lanes);
  });
}

}  // namespace

void CpuKernels::adamw(std::span<const AdamWTensor> tensors, const Tensor& norm_and_scale,
                       const AdamWStep& step) {
  const Range range("adamw");
  check_shape("adamw", "norm_and_scale", norm_and_scale, {2});
  const float scale = norm_and_scale.f32()[1];
  int64_t tasks = 0;
  for (const AdamWTensor& t : tensors) {
    check_shape("adamw", "gradient", t.gradient, t.weight.shape);
    check_shape("adamw", "m", t.m, t.weight.shape);
    check_shape("adamw", "v", t.v, t.weight.shape);
    (void)t.weight.f32(), (void)t.gradient.f32(), (void)t.m.f32(), (void)t.v.f32();
    if (t.copy) check_shape("adamw", "copy", t.copy, t.weight.shape), (void)t.copy.bf16();
    tasks += ceil_div(t.weight.elements(), kChunk);
  }
  pool_.parallel_for(tasks, [=](int64_t task, int) {
    const AdamWTensor* t = tensors.data();  // the tensor that this task is a piece of: there are few, so look
    for (int64_t pieces; task >= (pieces = ceil_div(t->weight.elements(), kChunk)); ++t) task -= pieces;
    const int64_t begin = task * kChunk;
    update(t->weight.f32() + begin, t->m.f32() + begin, t->v.f32() + begin, t->gradient.f32() + begin,
           t->copy ? t->copy.bf16() + begin : nullptr, min(kChunk, t->weight.elements() - begin),
           coefficients(step, t->weight_decay, scale));
  });
}

}  // namespace topolm::TOPOLM_ISA
