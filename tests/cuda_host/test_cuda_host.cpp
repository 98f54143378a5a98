// What kernels/cuda does on the host, run against a fake CUDA (fake_cuda.h): staging, errors, graphs, the
// choice of algorithms. It shows that the code does what it means to; not that CUDA does what the fake does.
#include <doctest/doctest.h>

#include <cstdlib>
#include <cstring>
#include <numeric>

#include "kernels/cuda/cublaslt.h"
#include "model/generator.h"
#include "model/trainer.h"
#include "tests/cuda_host/fake_cuda.h"
#include "tests/kernel_test.h"
#include "tests/temporary.h"

using namespace topolm;
using namespace topolm::test;

namespace {

/// The fake's state and a cache directory of its own for a test.
struct Fresh {
  TemporaryDirectory directory;
  Fresh() {
    fake::state = {};
    setenv("XDG_CACHE_HOME", fs::absolute(directory.path()).c_str(), 1);
  }
};

std::unique_ptr<Kernels> make_kernels_on_fake() { return make_kernels({"cuda", 1, ""}); }

/// The next call of a CUDA function fails.
void fail_next(const char* function) {
  fake::state.failing = function;
  fake::state.failure = cudaErrorUnknown;
}

}  // namespace

TEST_CASE("cuda host: why there is no GPU") {
  const Fresh fresh;
  CHECK(why_no_cuda() == "");
  fake::state.devices = 0;
  CHECK(why_no_cuda() == "no NVIDIA GPU");
  fake::state.driver_version = 0;
  CHECK(why_no_cuda() == "no CUDA driver");
  fake::state.driver_version = 12020;
  CHECK(why_no_cuda() == "the driver is for CUDA 12.2, this program for 13.0");
  fake::state = {};
  fake::state.major = 7;
  CHECK(why_no_cuda() == "Fake GPU has compute capability 7.0, 8.0 is needed");
}

TEST_CASE("cuda host: memory is zeroed, given back, and an error when there is not enough") {
  const Fresh fresh;
  CudaDevice device;
  CHECK(device.description() == "cuda: Fake GPU, 7 multiprocessors, 1 GB, compute capability 9.0");
  const size_t before = fake::state.free_bytes;
  void* const memory = device.allocate(1000, "a test");
  std::vector<float> values(250, 1);
  device.download(values.data(), {memory, DType::f32, {250}});
  CHECK(values == std::vector<float>(250, 0));
  device.release(memory);
  CHECK(fake::state.free_bytes == before);
  fake::state.free_bytes = size_t{5} << 20;
  CHECK(error_of([&] { device.allocate(size_t{7} << 20, "the weights"); }) ==
        "not enough GPU memory for the weights: 7 MB wanted, 5 MB of 1024 MB free; use --recompute "
        "when training, --dtype bf16, or a smaller --batch, --seq or --preset");
}

TEST_CASE("cuda host: uploads return at once, whatever becomes of the host's memory") {
  const Fresh fresh;
  CudaDevice device;
  Arena arena(device, "test");
  std::vector<Tensor> small(12);
  Tensor large;
  for (Tensor& t : small) arena.add(t, "small", DType::i32, {100});
  arena.add(large, "large", DType::i32, {20 << 18, 1});  // 20 staging blocks, of 16 that there are
  arena.commit();
  device.synchronize();
  fake::state.waits = 0;
  std::vector<int32_t> host(100);
  for (size_t i = 0; i < small.size(); ++i) {
    std::fill(host.begin(), host.end(), static_cast<int32_t>(i));
    device.upload(small[i], host.data());
  }
  CHECK(fake::state.waits == 0);
  std::vector<int32_t> many(static_cast<size_t>(large.elements())), back(many.size());
  std::iota(many.begin(), many.end(), 0);
  device.upload(large.row_range(1, large.rows() - 1), many.data());
  CHECK(fake::state.waits > 0);
  for (size_t i = 0; i < small.size(); ++i) {
    device.download(host.data(), small[i]);
    CHECK(host == std::vector<int32_t>(100, static_cast<int32_t>(i)));
  }
  device.download(back.data(), large);
  CHECK(back[0] == 0);
  CHECK(std::equal(back.begin() + 1, back.end(), many.begin()));
}

TEST_CASE("cuda host: errors name the call, and the kernel") {
  const Fresh fresh;
  const auto kernels = make_kernels_on_fake();
  const OnDevice out(*kernels, DType::f32, {40});
  const auto error_when = [&](const char* function, auto&& action) {
    fail_next(function);
    return error_of(action);
  };
  CHECK(
      error_when("cudaLaunchKernel", [&] { kernels->fill(out, 1); }) ==
      "cudaLaunchKernel: it failed (cudaErrorOfTheTest); launching fill_kernel with 1 x 1 x 1 blocks of 256 "
      "x 1 x 1 threads and 0 bytes");
  kernels->fill(out, 1);
  CHECK(
      error_when("cudaStreamSynchronize", [&] { kernels->device().synchronize(); }) ==
      "cudaStreamSynchronize: it failed (cudaErrorOfTheTest); the last kernel launched was fill_kernel, the "
      "one that failed may be an earlier one: compute-sanitizer says which");
  CHECK(error_when("cudaMalloc", [&] { kernels->device().allocate(1, "x"); }) ==
        "cudaMalloc: it failed (cudaErrorOfTheTest)");
  CHECK(contains(error_when("cudaSetDevice", [] { CudaDevice(); }), "cudaSetDevice: it failed"));
}

TEST_CASE("cuda host: a kernel's fault is thrown once, by the next wait") {
  const Fresh fresh;
  CudaDevice device;
  FaultRecord fault{};
  fault.earliest = (255ull - Fault::attention_cached_position) << 56 | FaultRecord::kLastIndex << 32 | 9;
  fault.limit[Fault::attention_cached_position] = 8;
  static_assert(sizeof fault % 4 == 0);
  device.upload({device.fault(), DType::i32, {sizeof fault / 4}}, &fault);
  CHECK(contains(error_of([&] { device.synchronize(); }), "position 9 is outside caches of 8"));
  CHECK(error_of([&] { device.synchronize(); }) == "");
}

TEST_CASE("cuda host: what is issued again is captured the second time and launched from then on") {
  const Fresh fresh;
  const auto kernels = make_kernels_on_fake();
  Device& device = kernels->device();
  const OnDevice x(*kernels, DType::f32, {40}, Values(40, 1)), sum(*kernels, DType::f32, {40}, Values(40));
  std::unique_ptr<Recording> recording;
  int issued = 0;
  const auto run = [&](float scale) {
    device.replay(recording, {std::bit_cast<int32_t>(scale)}, [&] {
      ++issued;
      kernels->add_scaled(sum, x, scale);
      kernels->add_scaled(sum, x, scale);
    });
  };
  for (int i = 0; i < 5; ++i) run(1);
  CHECK(issued == 2);
  CHECK(fake::state.captures == 1);
  CHECK(fake::state.graph_launches == 4);
  CHECK(sum.get() == Values(40, 10));
  for (int i = 0; i < 3; ++i) run(0.5);  // another key: issued, captured, launched
  CHECK(issued == 4);
  CHECK(sum.get() == Values(40, 13));

  // Scratch has moved: what was captured points to where it was.
  static_cast<fake::Device&>(device).scratch(1 << 20);
  for (int i = 0; i < 3; ++i) run(0.5);
  CHECK(issued == 6);
  CHECK(fake::state.captures == 3);
  CHECK(sum.get() == Values(40, 16));
}

TEST_CASE("cuda host: while capturing, what cannot be captured is an error, and the next try starts afresh") {
  const Fresh fresh;
  const auto kernels = make_kernels_on_fake();
  auto& device = static_cast<fake::Device&>(kernels->device());
  const OnDevice x(*kernels, DType::f32, {4}, Values(4, 1));
  float host[4];
  const auto refused = [&](const std::function<void()>& action) {
    std::unique_ptr<Recording> recording;
    bool second = false;
    const auto issue = [&] {
      kernels->add_scaled(x, x, 1);
      if (std::exchange(second, true)) action();
    };
    device.replay(recording, {}, issue);
    const std::string error = error_of([&] { device.replay(recording, {}, issue); });
    const Values before = x.get();  // nothing is being captured any more
    device.replay(recording, {}, [&] { kernels->add_scaled(x, x, 1); });
    CHECK(x.get()[0] == 2 * before[0]);
    return error;
  };
  CHECK(contains(refused([&] { device.synchronize(); }), "waiting while a CUDA graph is being captured"));
  CHECK(contains(refused([&] { device.upload(x, host); }), "uploading while"));
  CHECK(contains(refused([&] { device.download(host, x); }), "downloading while"));
  CHECK(contains(refused([&] { device.scratch(size_t{1} << 22); }), "growing scratch while"));
}

TEST_CASE("cuda host: cuBLASLt's products are those of the CPU, in every dtype and direction") {
  const Fresh fresh;
  const auto cpu = make_kernels({"cpu", 1, ""}), gpu = make_kernels_on_fake();
  CHECK(contains(gpu->device().description(), "matrix products by cuBLASLt 130100"));
  const int64_t rows = 13, in = 7, out = 18;
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const DType result : {DType::f32, dtype}) {
      const auto products = [&](Kernels& k) {
        const OnDevice x(k, dtype, {rows, in}, random_values(rows * in, 1, dtype));
        const OnDevice w(k, dtype, {out, in}, random_values(out * in, 2, dtype));
        const OnDevice dy(k, dtype, {rows, out}, random_values(rows * out, 3, dtype));
        const OnDevice y(k, result, {rows, out}), dx(k, result, {rows, in});
        const OnDevice dw(k, DType::f32, {out, in}, random_values(out * in, 4));
        for (int i = 0; i < 2; ++i) {
          k.linear_forward(y, x, w);
          k.linear_backward_input(dx, dy, w);
          k.linear_backward_weight(dw, dy, x);  // added twice, and not once more when it was timed
        }
        return std::vector<Values>{y.get(), dx.get(), dw.get()};
      };
      const auto got = products(*gpu), expected = products(*cpu);
      for (size_t i = 0; i < got.size(); ++i)
        CHECK(relative_error(got[i], expected[i]) < (result == DType::bf16 && i < 2 ? 1e-2 : 1e-6));
    }
}

TEST_CASE("cuda host: the fastest reproducible algorithm is timed once, remembered, and logged") {
  const Fresh fresh;
  const auto product = [](Kernels& k) {
    const OnDevice x(k, DType::f32, {30, 4}), w(k, DType::f32, {5, 4}), y(k, DType::f32, {30, 5});
    k.linear_forward(y, x, w);
    k.device().synchronize();
  };
  std::string chosen;
  for (int run = 0; run < 2; ++run) {
    const auto kernels = make_kernels_on_fake();
    CHECK(kernels->matrix_plans().find("product") == std::string::npos);
    product(*kernels);
    product(*kernels);
    chosen = kernels->matrix_plans();
    CHECK(contains(chosen, "\"product\": \"5x30x4 TN fp32 to fp32, aligned to 256\""));
    CHECK(contains(chosen, "\"id\": 2,"));  // not the third, which adds up in place
    CHECK(contains(chosen, "\"milliseconds\": 2.0"));
    CHECK(fake::state.heuristics == 1);  // the second run remembers
  }
  const fs::path file = fresh.directory / "topolm/Fake_GPU-cublasLt_130100.json";
  CHECK(read_file(file) == chosen);

  // An algorithm that this library does not know is timed again.
  std::string foreign = chosen;
  foreign.replace(foreign.find("0000000000000002"), 16, "00000000000000ff");
  write_file(file, foreign);
  product(*make_kernels_on_fake());
  CHECK(fake::state.heuristics == 2);
  CHECK(read_file(file) == chosen);
  write_file(file, "{");
  CHECK(contains(make_kernels_on_fake()->device().description(), "json' is ignored: "));

  // What the library has no algorithm for is declined, and nobody asks again.
  CudaDevice device;
  const auto products = make_cublaslt_products(device);
  const int before = fake::state.heuristics;
  void* const memory = device.allocate(1000, "a test");
  const Tensor x{memory, DType::f32, {3, 4}}, w{memory, DType::f32, {5, 4}}, y{memory, DType::bf16, {3, 5}};
  CHECK_FALSE(products->forward(y, x, w));
  CHECK_FALSE(products->forward(y, x, w));
  CHECK(fake::state.heuristics == before + 1);
  CHECK_FALSE(products->forward(y, x, {memory, DType::bf16, {5, 4}}));
  device.release(memory);
}

TEST_CASE("cuda host: training and decoding through graphs give the bits that issuing gives") {
  const Fresh fresh;
  std::vector<uint16_t> ids(3000);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<uint16_t>(i * i % 61);
  const TokenFile tokens(
      fresh.directory.write("tokens.bin", {reinterpret_cast<const char*>(ids.data()), ids.size() * 2}));
  ModelConfig config = model_preset("nano");
  config.vocab_size = 64, config.block_size = 16;
  TrainConfig train = train_preset("nano");
  train.steps = 5, train.batch = 2, train.seq = 9, train.accumulate = 2, train.warmup = 1;
  const DataLoader data(tokens, train.batch, train.seq, train.seed);

  struct Result {
    std::vector<double> losses;
    std::vector<int32_t> text;
    bool operator==(const Result&) const = default;
  };
  const auto run = [&](Kernels& kernels) {
    Result result;
    Trainer trainer(kernels, config, train, make_sheets(config, "random", 1));
    const EvalLoader validation(tokens.slice(0, 60), train.batch, train.seq);
    for (int step = 0; step < 5; ++step) {
      result.losses.push_back(trainer.step(data).losses.total(config.topography));
      if (step == 2) result.losses.push_back(trainer.evaluate(validation, 0).task);
    }
    Generator generator(kernels, trainer.save(fresh.directory / "model", {}, "", 1), DType::f32,
                        {.prefill = 4});
    Random random(1, Random::Purpose::tests);
    generator.append(std::vector<int32_t>{1, 2, 3, 4, 5, 6});
    for (int i = 0; i < 20; ++i) {
      result.text.push_back(generator.next({1, 0, 1, 0}, random.uniform(), 64));
      generator.append({&result.text.back(), 1});
    }
    return result;
  };
  const auto recorded = make_kernels_on_fake();
  const Result got = run(*recorded);
  CHECK(fake::state.captures == 2);
  // 10 micro-steps and 22 single tokens, less the first of each; the third and the 12th token past the
  // context of 16 are processed with the half that is kept.
  CHECK(fake::state.graph_launches == 9 + 19);

  // The same device without recordings.
  fake::state = {};
  const auto issued = make_kernels_on_fake();
  static_cast<fake::Device&>(issued->device()).record = false;
  const Result expected = run(*issued);
  CHECK(fake::state.captures == 0);
  CHECK(got == expected);
}

TEST_CASE("cuda host: a micro-step with other numbers is another recording") {
  const Fresh fresh;
  ModelConfig config = model_preset("nano");
  config.vocab_size = 64, config.block_size = 16;
  const auto gradient = [&](bool record) {
    const auto kernels = make_kernels_on_fake();
    static_cast<fake::Device&>(kernels->device()).record = record;
    TopoLM model(*kernels, config, make_sheets(config, "random", 1), 1, 9, DType::f32, true);
    model.weights().initialise(5);
    model.zero_gradients();
    std::vector<int32_t> tokens(9, 3), targets(9, 4);
    const auto run = [&](int64_t time, float scale) {
      for (int i = 0; i < 3; ++i) {
        model.set_batch(1, time, std::span(tokens).first(static_cast<size_t>(time)),
                        std::span(targets).first(static_cast<size_t>(time)),
                        model.draw_neighborhoods(1, i, 0));
        model.forward_backward(scale);
      }
    };
    run(9, 1);
    targets[2] = -1;
    run(9, 1);
    run(9, 0.5f);
    run(8, 0.5f);
    std::vector<float> values(static_cast<size_t>(model.gradient_vector().elements()));
    kernels->device().download(values.data(), model.gradient_vector());
    return values;
  };
  const auto recorded = gradient(true), issued = gradient(false);
  CHECK(fake::state.captures == 4);
  CHECK(std::memcmp(recorded.data(), issued.data(), issued.size() * sizeof(float)) == 0);
}
