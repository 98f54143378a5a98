// Matrix products of bf16 on tiles.
#pragma once

#include "kernels/cpu/gemm.h"

#if defined(TOPOLM_AMX)

namespace topolm::TOPOLM_ISA {

/// What gemm() does, for two bf16 operands.
void gemm_amx(ThreadPool& pool, Workspace& workspace, const Matrix& c, const Matrix& a, const Matrix& b,
              int64_t m, int64_t n, int64_t k, bool accumulate, const Epilogue& epilogue);

}  // namespace topolm::TOPOLM_ISA

#endif
