// Which devices there are, and how each is put together.
#include <algorithm>
#include <cstdlib>

#include "engine/error.h"
#include "kernels/cpu_device.h"
#include "kernels/cuda/timed_device.h"
#include "kernels/simt/simt_device.h"
#include "kernels/simt/simt_products.h"
#if defined(TOPOLM_CUDA)
#include "kernels/cuda/cublaslt.h"
#include "kernels/cuda/cuda_device.h"
#endif

namespace topolm {

namespace simt_kernels {
std::unique_ptr<Kernels> make_gpu_kernels(std::unique_ptr<GpuDevice> device,
                                          std::unique_ptr<MatrixProducts> products);
}
#if defined(TOPOLM_CUDA)
namespace cuda_kernels {
std::unique_ptr<Kernels> make_gpu_kernels(std::unique_ptr<GpuDevice> device,
                                          std::unique_ptr<MatrixProducts> products);
}
#endif

namespace {

/// What the kernels of a GPU are made from; no `make` where the name is not a GPU's.
struct GpuParts {
  std::unique_ptr<GpuDevice> device;
  std::unique_ptr<MatrixProducts> products;
  decltype(&simt_kernels::make_gpu_kernels) make = nullptr;
};

/// Whether a GPU's matrix products are done by the kernels of linear.cu even where there is a library.
bool own_products(const DeviceOptions& options) {
  const char* const wanted = std::getenv("TOPOLM_MATRIX_PRODUCTS");
  const std::string who = !options.products.empty() ? options.products : wanted ? wanted : "library";
  require(who == "own" || who == "library", "matrix products are by own kernels or by a library, not by '{}'",
          who);
  return who == "own";
}

#if defined(TOPOLM_CUDA)

GpuParts cuda_parts(const DeviceOptions& options) {
  if (const std::string why = why_no_cuda(); !why.empty())
    fail("--device cuda cannot be used: {}; see what nvidia-smi says, or choose --device cpu", why);
  auto device = std::make_unique<CudaDevice>();
  auto products = own_products(options) ? nullptr : make_cublaslt_products(*device);
  return {std::move(device), std::move(products), cuda_kernels::make_gpu_kernels};
}

#else

std::string why_no_cuda() { return "built without CUDA"; }

GpuParts cuda_parts(const DeviceOptions&) {
  fail(
      "--device cuda cannot be used: this program was built without CUDA; install NVIDIA's CUDA toolkit and "
      "run make again, or choose --device cpu");
}

#endif

GpuParts gpu_parts(const DeviceOptions& options) {
  if (options.name == "cuda" || (options.name == "auto" && why_no_cuda().empty())) return cuda_parts(options);
  if (options.name == "simt") {
#if defined(__x86_64__)
    require(__builtin_cpu_supports("fma"),
            "--device simt needs a processor with FMA, and this one has none; choose --device cpu");
#endif
    return {std::make_unique<SimtDevice>(options.threads),
            own_products(options) ? nullptr : make_simt_products(options), simt_kernels::make_gpu_kernels};
  }
  return {};
}

}  // namespace

std::vector<std::string> gpu_devices() {
  std::vector<std::string> devices = {"simt"};
  if (why_no_cuda().empty()) devices.push_back("cuda");
  return devices;
}

std::unique_ptr<Kernels> make_kernels(const DeviceOptions& options) {
  if (GpuParts gpu = gpu_parts(options); gpu.make)
    return gpu.make(std::move(gpu.device), std::move(gpu.products));
  require(options.name == "auto" || options.name == "cpu",
          "there is no device '{}'; choose auto, cpu, cuda or simt", options.name);
  auto kernels = make_cpu_kernels(options);
  if (options.name == "auto") static_cast<CpuDevice&>(kernels->device()).explain(why_no_cuda());
  return kernels;
}

std::unique_ptr<Kernels> make_timed_kernels(const DeviceOptions& options, LaunchTimes& times) {
  GpuParts gpu = gpu_parts(options);
  require(gpu.make != nullptr, "launches are timed on the devices cuda and simt, not on '{}'", options.name);
  if (gpu.products) gpu.products = make_timed_products(std::move(gpu.products), *gpu.device, times);
  return gpu.make(std::make_unique<TimedDevice>(std::move(gpu.device), times), std::move(gpu.products));
}

}  // namespace topolm
