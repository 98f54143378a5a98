#include "kernels/cuda/timed_device.h"

namespace topolm {

namespace {

void add(LaunchTimes& times, const std::string& name, double seconds, const Work& work) {
  LaunchTime& t = times[name];
  ++t.launches;
  t.seconds += seconds;
  t.work.bytes += work.bytes;
  t.work.flops += work.flops;
}

class TimedProducts final : public MatrixProducts {
 public:
  TimedProducts(std::unique_ptr<MatrixProducts> products, GpuDevice& device, LaunchTimes& times)
      : products_(std::move(products)), device_(device), times_(times) {}

  bool forward(const Tensor& y, const Tensor& x, const Tensor& weight) override {
    return timed([&] { return products_->forward(y, x, weight); }, y, x, weight,
                 y.cols() * x.cols() * x.rows());
  }
  bool backward_input(const Tensor& dx, const Tensor& dy, const Tensor& weight) override {
    return timed([&] { return products_->backward_input(dx, dy, weight); }, dx, dy, weight,
                 dx.cols() * dy.cols() * dy.rows());
  }
  bool backward_weight(const Tensor& dweight, const Tensor& dy, const Tensor& x) override {
    return timed([&] { return products_->backward_weight(dweight, dy, x); }, dweight, dy, x,
                 x.cols() * dy.cols() * dy.rows());
  }
  int64_t working_memory() const override { return products_->working_memory(); }
  std::string plans() const override { return products_->plans(); }

 private:
  template <class F>
  bool timed(F&& f, const Tensor& out, const Tensor& a, const Tensor& b, int64_t multiply_adds) {
    bool done = false;
    const double seconds = device_.seconds([&] { done = f(); });
    if (done)
      add(times_, "linear (library)", seconds,
          {static_cast<double>(out.bytes() + a.bytes() + b.bytes()),
           2.0 * static_cast<double>(multiply_adds)});
    return done;
  }

  std::unique_ptr<MatrixProducts> products_;
  GpuDevice& device_;
  LaunchTimes& times_;
};

}  // namespace

void TimedDevice::launch(const Launch& launch) {
  const double seconds = device_->seconds([&] { device_->launch(launch); });
  const std::string kernel = launch.kernel;
  add(times_, kernel.substr(0, kernel.find('<')), seconds, launch.work);
}

std::unique_ptr<MatrixProducts> make_timed_products(std::unique_ptr<MatrixProducts> products,
                                                    GpuDevice& device, LaunchTimes& times) {
  return std::make_unique<TimedProducts>(std::move(products), device, times);
}

}  // namespace topolm
