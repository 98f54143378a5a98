#include "kernels/cuda/cublaslt.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <utility>

#include "engine/error.h"
#include "engine/profile.h"
#include "kernels/cuda/plan_cache.h"

namespace topolm {

namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;  // NVIDIA's advice for Hopper, the largest
constexpr int kCandidates = 16;                       // algorithms that are timed
constexpr int kRuns = 10;                             // of each, after one that does not count

/// The functions used here. Types and constants are the header's; they are the same in versions 12 and 13.
struct Library {
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtGetVersion) version;
  decltype(&cublasLtGetStatusString) status_string;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulDescCreate) description_create;
  decltype(&cublasLtMatmulDescDestroy) description_destroy;
  decltype(&cublasLtMatmulDescSetAttribute) description_set;
  decltype(&cublasLtMatrixLayoutCreate) layout_create;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&cublasLtMatmulAlgoCheck) algorithm_check;
  decltype(&cublasLtMatmulAlgoConfigGetAttribute) algorithm_get;
};

/// False where the library is not installed, or lacks a function. It is never unloaded.
bool load(Library& library) {
  void* shared = nullptr;
  for (const char* name : {"libcublasLt.so.13", TOPOLM_CUDA_HOME "/lib64/libcublasLt.so.13",
                           "libcublasLt.so.12", TOPOLM_CUDA_HOME "/lib64/libcublasLt.so.12"})
    if (!shared) shared = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (!shared) return false;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(shared, name));
    return function != nullptr;
  };
  return find(library.create, "cublasLtCreate") && find(library.destroy, "cublasLtDestroy") &&
         find(library.version, "cublasLtGetVersion") &&
         find(library.status_string, "cublasLtGetStatusString") && find(library.matmul, "cublasLtMatmul") &&
         find(library.description_create, "cublasLtMatmulDescCreate") &&
         find(library.description_destroy, "cublasLtMatmulDescDestroy") &&
         find(library.description_set, "cublasLtMatmulDescSetAttribute") &&
         find(library.layout_create, "cublasLtMatrixLayoutCreate") &&
         find(library.layout_destroy, "cublasLtMatrixLayoutDestroy") &&
         find(library.preference_create, "cublasLtMatmulPreferenceCreate") &&
         find(library.preference_destroy, "cublasLtMatmulPreferenceDestroy") &&
         find(library.preference_set, "cublasLtMatmulPreferenceSetAttribute") &&
         find(library.heuristic, "cublasLtMatmulAlgoGetHeuristic") &&
         find(library.algorithm_check, "cublasLtMatmulAlgoCheck") &&
         find(library.algorithm_get, "cublasLtMatmulAlgoConfigGetAttribute");
}

cudaDataType_t type_of(DType t) { return t == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F; }

/// The largest power of two, up to the 256 of an arena, that divides all three addresses.
int64_t alignment_of(const Tensor& a, const Tensor& b, const Tensor& c) {
  const auto bits = reinterpret_cast<uintptr_t>(a.data) | reinterpret_cast<uintptr_t>(b.data) |
                    reinterpret_cast<uintptr_t>(c.data) | uintptr_t{256};
  return static_cast<int64_t>(bits & -bits);
}

template <class T>
using Handle = std::unique_ptr<T, cublasStatus_t (*)(T*)>;
using Description = Handle<cublasLtMatmulDescOpaque_t>;
using Layout = Handle<cublasLtMatrixLayoutOpaque_t>;
using Preference = Handle<cublasLtMatmulPreferenceOpaque_t>;

class CublasLtProducts final : public MatrixProducts {
 public:
  CublasLtProducts(CudaDevice& device, const Library& library);
  ~CublasLtProducts() override;

  // BLAS is column-major: what is [rows, cols] to us is [cols, rows] to it, and y = x weight^T becomes
  // y^T = weight x^T.
  bool forward(const Tensor& y, const Tensor& x, const Tensor& weight) override {
    return multiply("linear", y.cols(), y.rows(), x.cols(), true, false, weight, x, y, false);
  }
  bool backward_input(const Tensor& dx, const Tensor& dy, const Tensor& weight) override {
    return multiply("linear_backward_input", dx.cols(), dx.rows(), dy.cols(), false, false, weight, dy, dx,
                    false);
  }
  bool backward_weight(const Tensor& dweight, const Tensor& dy, const Tensor& x) override {
    return multiply("linear_backward_weight", x.cols(), dy.cols(), x.rows(), false, true, x, dy, dweight,
                    true);
  }
  int64_t working_memory() const override { return kWorkspaceBytes; }
  std::string plans() const override;

 private:
  /// All that is made once for a product; without an algorithm where the library has none.
  struct Prepared {
    Description description;
    Layout a, b, c;
    std::optional<cublasLtMatmulAlgo_t> algorithm;
    MatrixPlan plan;
  };

  bool multiply(const char* operation, int64_t m, int64_t n, int64_t k, bool transpose_a, bool transpose_b,
                const Tensor& a, const Tensor& b, const Tensor& c, bool accumulate);
  Prepared prepare(const MatrixProduct& product, const Tensor& a, const Tensor& b, const Tensor& c);
  Layout layout(DType type, int64_t rows, int64_t cols) const;
  std::vector<cublasLtMatmulAlgo_t> candidates(const MatrixProduct& product, const Prepared& prepared) const;
  std::optional<MatrixPlan> fastest(const MatrixProduct& product, const Prepared& prepared, const Tensor& a,
                                    const Tensor& b, const Tensor& c);
  bool usable(const Prepared& prepared, const cublasLtMatmulAlgo_t& algorithm) const;
  cublasStatus_t run(const Prepared& prepared, const cublasLtMatmulAlgo_t& algorithm, const void* a,
                     const void* b, void* c, bool accumulate) const;
  template <class T>
  T config(const cublasLtMatmulAlgo_t& algorithm, cublasLtMatmulAlgoConfigAttributes_t attribute) const;
  void check(cublasStatus_t status, const char* call, const std::string& what = "") const {
    if (status == CUBLAS_STATUS_SUCCESS) return;
    fail("{}{}{}: {}", call, what.empty() ? "" : " for ", what, library_.status_string(status));
  }

  CudaDevice& device_;
  const Library library_;
  PlanCache cache_;
  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  cudaEvent_t start_ = nullptr, stop_ = nullptr;
  std::map<MatrixProduct, Prepared> prepared_;
};

CublasLtProducts::CublasLtProducts(CudaDevice& device, const Library& library)
    : device_(device),
      library_(library),
      cache_(PlanCache::directory(), device.model(), fmt::format("cublasLt {}", library.version())) {
  check(library_.create(&handle_), "cublasLtCreate");
  workspace_ = device_.allocate(kWorkspaceBytes, "the workspace of matrix products");
  check_cuda(cudaEventCreate(&start_), "cudaEventCreate");
  check_cuda(cudaEventCreate(&stop_), "cudaEventCreate");
  device_.add_detail(fmt::format("matrix products by cuBLASLt {}", library.version()));
  if (!cache_.note().empty()) device_.add_detail(cache_.note());
}

CublasLtProducts::~CublasLtProducts() {
  prepared_.clear();
  (void)cudaEventDestroy(start_);
  (void)cudaEventDestroy(stop_);
  device_.release(workspace_);
  (void)library_.destroy(handle_);
}

bool CublasLtProducts::multiply(const char* operation, int64_t m, int64_t n, int64_t k, bool transpose_a,
                                bool transpose_b, const Tensor& a, const Tensor& b, const Tensor& c,
                                bool accumulate) {
  if (m == 0 || n == 0 || k == 0 || a.dtype != b.dtype) return false;
  const MatrixProduct product{m,       n,       k,          transpose_a,          transpose_b,
                              a.dtype, c.dtype, accumulate, alignment_of(a, b, c)};
  auto found = prepared_.find(product);
  if (found == prepared_.end()) found = prepared_.emplace(product, prepare(product, a, b, c)).first;
  const Prepared& prepared = found->second;
  if (!prepared.algorithm) return false;
  const Range range(operation);
  check(run(prepared, *prepared.algorithm, a.data, b.data, c.data, accumulate), "cublasLtMatmul",
        product.str());
  return true;
}

cublasStatus_t CublasLtProducts::run(const Prepared& prepared, const cublasLtMatmulAlgo_t& algorithm,
                                     const void* a, const void* b, void* c, bool accumulate) const {
  const float alpha = 1, beta = accumulate ? 1 : 0;
  return library_.matmul(handle_, prepared.description.get(), &alpha, a, prepared.a.get(), b,
                         prepared.b.get(), &beta, c, prepared.c.get(), c, prepared.c.get(), &algorithm,
                         workspace_, kWorkspaceBytes, device_.stream());
}

CublasLtProducts::Prepared CublasLtProducts::prepare(const MatrixProduct& product, const Tensor& a,
                                                     const Tensor& b, const Tensor& c) {
  require(!device_.capturing(), "the product {} was not run before it was captured", product.str());
  // fp32 as such: TF32, or bf16 in three parts, would have to be asked for by name.
  cublasLtMatmulDesc_t description = nullptr;
  check(library_.description_create(&description, CUBLAS_COMPUTE_32F, CUDA_R_32F),
        "cublasLtMatmulDescCreate");
  const auto [m, n, k] = std::array{product.m, product.n, product.k};
  const bool ta = product.transpose_a, tb = product.transpose_b;
  Prepared prepared{{description, library_.description_destroy},
                    layout(product.operands, ta ? k : m, ta ? m : k),
                    layout(product.operands, tb ? n : k, tb ? k : n),
                    layout(product.result, m, n),
                    std::nullopt,
                    {}};
  const auto transpose = [&](cublasLtMatmulDescAttributes_t attribute, bool transposed) {
    const cublasOperation_t operation = transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    check(library_.description_set(description, attribute, &operation, sizeof operation),
          "cublasLtMatmulDescSetAttribute");
  };
  transpose(CUBLASLT_MATMUL_DESC_TRANSA, ta);
  transpose(CUBLASLT_MATMUL_DESC_TRANSB, tb);

  cublasLtMatmulAlgo_t algorithm;
  const auto take = [&](const MatrixPlan& plan) {
    std::copy(plan.algorithm.begin(), plan.algorithm.end(), algorithm.data);
    if (!usable(prepared, algorithm)) return false;
    prepared.algorithm = algorithm;
    prepared.plan = plan;
    return true;
  };
  if (const auto plan = cache_.find(product); plan && take(*plan)) return prepared;
  if (const auto plan = fastest(product, prepared, a, b, c); plan && take(*plan))
    cache_.remember(product, *plan);
  return prepared;
}

Layout CublasLtProducts::layout(DType type, int64_t rows, int64_t cols) const {
  cublasLtMatrixLayout_t made = nullptr;
  check(library_.layout_create(&made, type_of(type), static_cast<uint64_t>(rows), static_cast<uint64_t>(cols),
                               rows),
        "cublasLtMatrixLayoutCreate");
  return {made, library_.layout_destroy};
}

template <class T>
T CublasLtProducts::config(const cublasLtMatmulAlgo_t& algorithm,
                           cublasLtMatmulAlgoConfigAttributes_t attribute) const {
  T value{};
  size_t written = 0;
  check(library_.algorithm_get(&algorithm, attribute, &value, sizeof value, &written),
        "cublasLtMatmulAlgoConfigGetAttribute");
  return value;
}

/// Whether this GPU can run it in the workspace there is, always with the same bits: parts of a sum may only
/// be added from the workspace, in a step of their own.
bool CublasLtProducts::usable(const Prepared& prepared, const cublasLtMatmulAlgo_t& algorithm) const {
  cublasLtMatmulHeuristicResult_t result{};
  if (library_.algorithm_check(handle_, prepared.description.get(), prepared.a.get(), prepared.b.get(),
                               prepared.c.get(), prepared.c.get(), &algorithm,
                               &result) != CUBLAS_STATUS_SUCCESS)
    return false;
  const auto reduction = config<uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME);
  return result.workspaceSize <= kWorkspaceBytes &&
         (reduction == CUBLASLT_REDUCTION_SCHEME_NONE || reduction == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
}

std::vector<cublasLtMatmulAlgo_t> CublasLtProducts::candidates(const MatrixProduct& product,
                                                               const Prepared& prepared) const {
  cublasLtMatmulPreference_t made = nullptr;
  check(library_.preference_create(&made), "cublasLtMatmulPreferenceCreate");
  const Preference preference(made, library_.preference_destroy);
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    check(library_.preference_set(made, attribute, &value, sizeof value),
          "cublasLtMatmulPreferenceSetAttribute");
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kWorkspaceBytes});
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  for (const auto attribute :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
    set(attribute, static_cast<uint32_t>(product.alignment));

  std::array<cublasLtMatmulHeuristicResult_t, kCandidates> results{};
  int count = 0;
  const cublasStatus_t status =
      library_.heuristic(handle_, prepared.description.get(), prepared.a.get(), prepared.b.get(),
                         prepared.c.get(), prepared.c.get(), made, kCandidates, results.data(), &count);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) return {};
  check(status, "cublasLtMatmulAlgoGetHeuristic", product.str());
  std::vector<cublasLtMatmulAlgo_t> usable_ones;
  for (int i = 0; i < count; ++i)
    if (results[i].state == CUBLAS_STATUS_SUCCESS && usable(prepared, results[i].algo))
      usable_ones.push_back(results[i].algo);
  return usable_ones;
}

/// Times every candidate on the operands themselves; nothing where there is none. A result that would be
/// added to is left alone meanwhile: it would grow with each run.
std::optional<MatrixPlan> CublasLtProducts::fastest(const MatrixProduct& product, const Prepared& prepared,
                                                    const Tensor& a, const Tensor& b, const Tensor& c) {
  std::optional<MatrixPlan> best;
  void* const result = product.accumulate
                           ? device_.allocate(static_cast<size_t>(c.bytes()), "timing " + product.str())
                           : c.data;
  for (const cublasLtMatmulAlgo_t& algorithm : candidates(product, prepared)) {
    const auto run_once = [&] {
      return run(prepared, algorithm, a.data, b.data, result, product.accumulate) == CUBLAS_STATUS_SUCCESS;
    };
    if (!run_once()) continue;
    check_cuda(cudaEventRecord(start_, device_.stream()), "cudaEventRecord");
    bool ran = true;
    for (int i = 0; i < kRuns; ++i) ran = run_once() && ran;
    check_cuda(cudaEventRecord(stop_, device_.stream()), "cudaEventRecord");
    check_cuda(cudaEventSynchronize(stop_), "cudaEventSynchronize", "timing " + product.str());
    float total = 0;
    check_cuda(cudaEventElapsedTime(&total, start_, stop_), "cudaEventElapsedTime");
    const double milliseconds = double{total} / kRuns;
    if (!ran || (best && milliseconds >= best->milliseconds)) continue;
    best = MatrixPlan{{},
                      config<int32_t>(algorithm, CUBLASLT_ALGO_CONFIG_ID),
                      config<uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_TILE_ID),
                      std::max(config<int32_t>(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM), 1),
                      milliseconds};
    std::copy(std::begin(algorithm.data), std::end(algorithm.data), best->algorithm.begin());
  }
  if (result != c.data) device_.release(result);
  return best;
}

std::string CublasLtProducts::plans() const {
  MatrixPlans plans;
  for (const auto& [product, prepared] : prepared_)
    if (prepared.algorithm) plans.emplace(product.str(), prepared.plan);
  return plans_to_json(device_.model(), fmt::format("cublasLt {}", library_.version()), plans);
}

}  // namespace

std::unique_ptr<MatrixProducts> make_cublaslt_products(CudaDevice& device) {
  Library library{};
  if (load(library)) return std::make_unique<CublasLtProducts>(device, library);
  device.add_detail("matrix products by its own kernels (no libcublasLt.so.13 or .12)");
  return nullptr;
}

}  // namespace topolm
