// Which devices there are, and how each is put together.
#include <algorithm>
#include <cstdlib>

#include "engine/error.h"
#include "kernels/cpu_device.h"
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

namespace {

/// Whether a GPU's matrix products are done by the kernels of linear.cu even where there is a library.
bool own_products(const DeviceOptions& options) {
  const char* const wanted = std::getenv("TOPOLM_MATRIX_PRODUCTS");
  const std::string who = !options.products.empty() ? options.products : wanted ? wanted : "library";
  require(who == "own" || who == "library", "matrix products are by own kernels or by a library, not by '{}'",
          who);
  return who == "own";
}

}  // namespace

#if defined(TOPOLM_CUDA)

namespace cuda_kernels {
std::unique_ptr<Kernels> make_gpu_kernels(std::unique_ptr<GpuDevice> device,
                                          std::unique_ptr<MatrixProducts> products);
}

namespace {

std::unique_ptr<Kernels> make_cuda_kernels(const DeviceOptions& options) {
  if (const std::string why = why_no_cuda(); !why.empty())
    fail("--device cuda cannot be used: {}; see what nvidia-smi says, or choose --device cpu", why);
  auto device = std::make_unique<CudaDevice>();
  auto products = own_products(options) ? nullptr : make_cublaslt_products(*device);
  return cuda_kernels::make_gpu_kernels(std::move(device), std::move(products));
}

}  // namespace

#else

namespace {

std::string why_no_cuda() { return "built without CUDA"; }

std::unique_ptr<Kernels> make_cuda_kernels(const DeviceOptions&) {
  fail(
      "--device cuda cannot be used: this program was built without CUDA; install NVIDIA's CUDA toolkit and "
      "run make again, or choose --device cpu");
}

}  // namespace

#endif

std::vector<std::string> gpu_devices() {
  std::vector<std::string> devices = {"simt"};
  if (why_no_cuda().empty()) devices.push_back("cuda");
  return devices;
}

std::unique_ptr<Kernels> make_kernels(const DeviceOptions& options) {
  if (options.name == "auto") {
    const std::string why = why_no_cuda();
    if (why.empty()) return make_cuda_kernels(options);
    auto kernels = make_cpu_kernels(options);
    static_cast<CpuDevice&>(kernels->device()).explain(why);
    return kernels;
  }
  if (options.name == "cpu") return make_cpu_kernels(options);
  if (options.name == "cuda") return make_cuda_kernels(options);
  if (options.name == "simt")
    return simt_kernels::make_gpu_kernels(std::make_unique<SimtDevice>(options.threads),
                                          own_products(options) ? nullptr : make_simt_products(options));
  fail("there is no device '{}'; choose auto, cpu, cuda or simt", options.name);
}

}  // namespace topolm
