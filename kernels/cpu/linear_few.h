// Linear layers of the few rows that decoding has.
#pragma once

#include "engine/parallel.h"
#include "engine/tensor.h"
#include "kernels/cpu_device.h"

namespace topolm::TOPOLM_ISA {

constexpr int64_t kFewRows = 4;  // up to here the weight is streamed once, unpacked

/// y = scale * (x weight^T) for at most kFewRows rows; y and x fp32 or bf16, weight also int8, arithmetic in
/// fp32; scale [OUT] may be null. Shapes are the caller's business. What a row becomes does not depend on the
/// others.
void linear_few_rows(ThreadPool& pool, Workspace& workspace, const Tensor& y, const Tensor& x,
                     const Tensor& weight, const float* scale = nullptr);

}  // namespace topolm::TOPOLM_ISA
