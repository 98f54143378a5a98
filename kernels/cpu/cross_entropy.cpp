// Softmax cross entropy; rows are independent. Three passes over a row that stays in the cache: the largest
// logit, the sum of exponentials, the gradient.
#include <cmath>

#include "engine/profile.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/simd.h"

namespace topolm::TOPOLM_ISA {

namespace {

constexpr int64_t kLogits = 1 << 14;  // a task: whole rows of about so many logits

int64_t check(const char* operation, const Tensor& losses, const Tensor& logits, const Tensor& targets) {
  check_shape(operation, "losses", losses.view({losses.elements()}), {logits.rows()});
  check_shape(operation, "targets", targets.view({targets.elements()}), {logits.rows()});
  return max(1, kLogits / logits.cols());  // rows a task
}

/// The sum of e^(x - largest) over a row; gives each of these vectors to sink(i, e, lanes). A NaN anywhere,
/// or a largest logit that is infinite, makes it NaN.
template <class T, class Sink>
TOPOLM_INLINE float sum_of_exponentials(const T* x, int64_t v, float* largest, Sink&& sink) {
  constexpr float kNone = -__builtin_inff();  // what the lanes past the row hold: never largest, e^x = 0
  const auto logits = [=](int64_t i, auto lanes) { return pad(load(x + i, lanes), kNone, lanes); };
  *largest = max_of(v, logits);
  return sum_of(v, [=, top = *largest](int64_t i, auto lanes) {
    const vfloat e = exp_of_negative(logits(i, lanes) - top);
    __builtin_prefetch(x + v + i);  // the next row
    sink(i, e, lanes);
    return e;
  });
}

/// -log of the target's probability.
TOPOLM_INLINE float loss(float sum, float largest, float target) {
  return static_cast<float>(std::log(static_cast<double>(sum)) + (static_cast<double>(largest) - target));
}

}  // namespace

void CpuKernels::cross_entropy_forward(const Tensor& losses, const Tensor& logits, const Tensor& targets) {
  const Range range("cross_entropy");
  const int64_t n = logits.rows(), v = logits.cols();
  const int64_t rows = check("cross_entropy_forward", losses, logits, targets);
  check_indices("cross_entropy_forward: target", targets, -1, v, "the vocabulary");
  const int32_t* const target = targets.i32();
  float* const out = losses.f32();
  with_type(logits, [&](auto* type) {
    const auto* const x = static_cast<decltype(type)>(logits.data);
    pool_.parallel_for(ceil_div(n, rows), [=](int64_t task, int) {
      for (int64_t i = task * rows; i < min(n, (task + 1) * rows); ++i) {
        out[i] = 0;
        if (target[i] < 0) continue;
        float largest;
        const float sum = sum_of_exponentials(x + i * v, v, &largest, [](int64_t, vfloat, auto) {});
        out[i] = loss(sum, largest, to_float(x[i * v + target[i]]));
      }
    });
  });
}

void CpuKernels::cross_entropy_backward(const Tensor& losses, const Tensor& logits, const Tensor& targets,
                                        float scale) {
  const Range range("cross_entropy");
  const int64_t n = logits.rows(), v = logits.cols();
  const int64_t rows = check("cross_entropy_backward", losses, logits, targets);
  check_indices("cross_entropy_backward: target", targets, -1, v, "the vocabulary");
  const int32_t* const target = targets.i32();
  float* const out = losses.f32();
  with_type(logits, [&](auto* type) {
    auto* const x = static_cast<decltype(type)>(logits.data);
    pool_.parallel_for(ceil_div(n, rows), [=, this](int64_t task, int thread) {
      float* const e = workspace_.of_thread(thread, v);  // fp32 whatever the logits are: rounded only once
      for (int64_t i = task * rows; i < min(n, (task + 1) * rows); ++i) {
        auto* const row = x + i * v;
        out[i] = 0;
        if (target[i] < 0) {
          sweep(v, [=](int64_t j, auto lanes) { store(row + j, vfloat{}, lanes); });
          continue;
        }
        float largest;
        const float sum = sum_of_exponentials(
            row, v, &largest, [=](int64_t j, vfloat ej, auto lanes) { store(e + j, ej, lanes); });
        out[i] = loss(sum, largest, to_float(row[target[i]]));
        const float factor = scale / sum;
        sweep(v, [=](int64_t j, auto lanes) { store(row + j, load(e + j, lanes) * factor, lanes); });
        store(row + target[i], splat(e[target[i]] * factor - scale), Partial{1});
      }
    });
  });
}

}  // namespace topolm::TOPOLM_ISA
