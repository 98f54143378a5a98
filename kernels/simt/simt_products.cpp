#include "kernels/simt/simt_products.h"

#include "kernels/cpu_device.h"

namespace topolm {

namespace {

class CpuProducts final : public MatrixProducts {
 public:
  explicit CpuProducts(const DeviceOptions& options) : cpu_(make_cpu_kernels({"cpu", options.threads, ""})) {}
  bool forward(const Tensor& y, const Tensor& x, const Tensor& weight) override {
    cpu_->linear_forward(y, x, weight);
    return true;
  }
  bool backward_input(const Tensor& dx, const Tensor& dy, const Tensor& weight) override {
    cpu_->linear_backward_input(dx, dy, weight);
    return true;
  }
  bool backward_weight(const Tensor& dweight, const Tensor& dy, const Tensor& x) override {
    cpu_->linear_backward_weight(dweight, dy, x);
    return true;
  }
  int64_t working_memory() const override { return cpu_->working_memory(); }

 private:
  std::unique_ptr<Kernels> cpu_;
};

}  // namespace

std::unique_ptr<MatrixProducts> make_simt_products(const DeviceOptions& options) {
  return std::make_unique<CpuProducts>(options);
}

}  // namespace topolm
