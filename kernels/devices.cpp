// Which devices there are, and how each is put together.
#include <algorithm>
#include <cstdlib>

#include "engine/error.h"
#include "kernels/cpu_device.h"
#include "kernels/simt/simt_device.h"
#include "kernels/simt/simt_products.h"

namespace topolm {

namespace simt_kernels {
std::unique_ptr<Kernels> make_gpu_kernels(std::unique_ptr<GpuDevice> device,
                                          std::unique_ptr<MatrixProducts> products);
}

namespace {

bool own_products(const DeviceOptions& options) {
  const char* const wanted = std::getenv("TOPOLM_MATRIX_PRODUCTS");
  const std::string who = !options.products.empty() ? options.products : wanted ? wanted : "library";
  require(who == "own" || who == "library", "matrix products are by own kernels or by a library, not by '{}'",
          who);
  return who == "own";
}

}  // namespace

std::vector<std::string> gpu_devices() { return {"simt"}; }

std::unique_ptr<Kernels> make_kernels(const DeviceOptions& options) {
  if (options.name == "auto" || options.name == "cpu") return make_cpu_kernels(options);
  if (options.name == "simt")
    return simt_kernels::make_gpu_kernels(std::make_unique<SimtDevice>(options.threads),
                                          own_products(options) ? nullptr : make_simt_products(options));
  fail("there is no device '{}'; choose auto, cpu or simt", options.name);
}

}  // namespace topolm
