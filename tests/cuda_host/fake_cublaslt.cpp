// libcublasLt.so.13 of the tests: column-major products in double. It offers algorithms 1 to 5: the second is
// the fastest that may be taken, the third would be faster but adds up in place, the fourth fails when it
// runs, the fifth does not fit the workspace.
#include <cublasLt.h>

#include <bit>
#include <cmath>

#include "tests/cuda_host/fake_cuda.h"

namespace {

constexpr double kMilliseconds[] = {0, 3, 2, 1, 1, 1};

struct Matrix {
  cublasLtMatrixLayoutOpaque_t layout;  // [0] type, [1] rows, [2] columns
  const void* data;
  bool transposed;
  double at(uint64_t i, uint64_t j) const {
    const uint64_t index = transposed ? i * layout.data[1] + j : j * layout.data[1] + i;
    if (layout.data[0] == CUDA_R_32F) return static_cast<const float*>(data)[index];
    return std::bit_cast<float>(uint32_t{static_cast<const uint16_t*>(data)[index]} << 16);
  }
};

struct Product {
  Matrix a, b, c;
  void* d;
  float beta;
  uint64_t k, algorithm;
};

uint16_t to_bf16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

void run(void* argument) {
  const Product& p = *static_cast<const Product*>(argument);  // a graph runs it again: never freed
  fake_state()->clock += kMilliseconds[p.algorithm];
  for (uint64_t j = 0; j < p.c.layout.data[2]; ++j)
    for (uint64_t i = 0; i < p.c.layout.data[1]; ++i) {
      double sum = p.beta == 0 ? 0 : p.c.at(i, j);
      for (uint64_t k = 0; k < p.k; ++k) sum += p.a.at(i, k) * p.b.at(k, j);
      const uint64_t index = j * p.c.layout.data[1] + i;
      if (p.c.layout.data[0] == CUDA_R_32F)
        static_cast<float*>(p.d)[index] = static_cast<float>(sum);
      else
        static_cast<uint16_t*>(p.d)[index] = to_bf16(static_cast<float>(sum));
    }
}

}  // namespace

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) { return *handle = nullptr, CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtDestroy(cublasLtHandle_t) { return CUBLAS_STATUS_SUCCESS; }
size_t cublasLtGetVersion() { return 130100; }
const char* cublasLtGetStatusString(cublasStatus_t) { return "it failed"; }

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* d, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  *d = new cublasLtMatmulDescOpaque_t{};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) { return delete d, CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d,
                                              cublasLtMatmulDescAttributes_t attribute, const void* value,
                                              size_t) {
  d->data[attribute] = *static_cast<const cublasOperation_t*>(value) == CUBLAS_OP_T;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* l, cudaDataType type, uint64_t rows,
                                          uint64_t cols, int64_t ld) {
  if (ld != static_cast<int64_t>(rows)) return CUBLAS_STATUS_INVALID_VALUE;
  *l = new cublasLtMatrixLayoutOpaque_t{{static_cast<uint64_t>(type), rows, cols}};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) {
  return delete l, CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* p) {
  return *p = new cublasLtMatmulPreferenceOpaque_t{}, CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) {
  return delete p, CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t,
                                                    cublasLtMatmulPreferenceAttributes_t, const void*,
                                                    size_t) {
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t, int,
                                              cublasLtMatmulHeuristicResult_t results[], int* count) {
  ++fake_state()->heuristics;
  if (a->data[0] == CUDA_R_32F && d->data[0] == CUDA_R_16BF) return CUBLAS_STATUS_NOT_SUPPORTED;
  for (uint64_t id = 1; id <= 5; ++id) results[id - 1] = {{{id}}, 0, CUBLAS_STATUS_SUCCESS, 1, {}};
  *count = 5;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t,
                                       cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                       const cublasLtMatmulAlgo_t* algorithm,
                                       cublasLtMatmulHeuristicResult_t* result) {
  if (algorithm->data[0] > 5) return CUBLAS_STATUS_INVALID_VALUE;
  result->workspaceSize = algorithm->data[0] == 5 ? size_t{1} << 40 : 0;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t* algorithm,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute,
                                                    void* value, size_t size, size_t* written) {
  if (size != 4) return CUBLAS_STATUS_INVALID_VALUE;
  const auto id = static_cast<int32_t>(algorithm->data[0]);
  int32_t& out = *static_cast<int32_t*>(value);
  *written = 4;
  if (attribute == CUBLASLT_ALGO_CONFIG_ID) out = id;
  if (attribute == CUBLASLT_ALGO_CONFIG_TILE_ID) out = 10 * id;
  if (attribute == CUBLASLT_ALGO_CONFIG_SPLITK_NUM) out = id;
  if (attribute == CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME)
    out = id == 3   ? CUBLASLT_REDUCTION_SCHEME_INPLACE
          : id == 2 ? CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE
                    : CUBLASLT_REDUCTION_SCHEME_NONE;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t description, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                              cublasLtMatrixLayout_t c_layout, void* d, cublasLtMatrixLayout_t,
                              const cublasLtMatmulAlgo_t* algorithm, void*, size_t, cudaStream_t) {
  ++fake_state()->products;
  if (algorithm->data[0] == 4 || *static_cast<const float*>(alpha) != 1) return CUBLAS_STATUS_NOT_SUPPORTED;
  const bool ta = description->data[CUBLASLT_MATMUL_DESC_TRANSA],
             tb = description->data[CUBLASLT_MATMUL_DESC_TRANSB];
  const uint64_t k = a_layout->data[ta ? 1 : 2];
  if (k != b_layout->data[tb ? 2 : 1] || c_layout->data[1] != a_layout->data[ta ? 2 : 1] ||
      c_layout->data[2] != b_layout->data[tb ? 1 : 2])
    return CUBLAS_STATUS_INVALID_VALUE;
  fake_enqueue(run, new Product{{*a_layout, a, ta},
                                {*b_layout, b, tb},
                                {*c_layout, c, false},
                                d,
                                *static_cast<const float*>(beta),
                                k,
                                algorithm->data[0]});
  return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
