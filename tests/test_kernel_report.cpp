// The device that only records, and the report made from what it recorded and what ptxas said.
#include <doctest/doctest.h>

#include <set>

#include "kernels/cuda/dry_device.h"
#include "model/optimizer.h"
#include "tests/programs.h"
#include "tests/temporary.h"

using namespace topolm;

TEST_CASE("dry device: a training step is recorded, and its matrix products add up") {
  LaunchLog log;
  const auto kernels = make_dry_kernels(log);
  const ModelConfig c = model_preset("base");
  const TrainConfig train = train_preset("base");
  const int64_t rows = int64_t{train.batch} * train.seq, width = c.n_embd;
  TopoLM model(*kernels, c, make_sheets(c, "random", 1), train.batch, train.seq, DType::bf16, true);
  Optimizer optimizer(model, train);
  const std::vector<int32_t> tokens(static_cast<size_t>(rows));
  model.set_batch(train.batch, train.seq, tokens, tokens, model.draw_neighborhoods(1, 0, 0));
  model.zero_gradients();
  model.forward_backward();
  optimizer.update(1e-3, 1);
  double products = 0;
  std::set<std::string> names;
  for (const LaunchRecord& r : log) {
    CAPTURE(r.kernel);
    CHECK(r.work.bytes > 0);
    CHECK(r.grid.threads.x * r.grid.threads.y * r.grid.threads.z <= 1024);
    CHECK(r.grid.shared <= 99 << 10);
    const std::string name = r.kernel.substr(0, r.kernel.find('<'));
    names.insert(name);
    if (name == "product_kernel") products += r.work.flops;
  }
  const int64_t matrices = c.n_layer * 12 * width * width + c.vocab_size * width;
  CHECK(products == doctest::Approx(6.0 * static_cast<double>(rows * matrices)).epsilon(1e-12));
  for (const char* name : {"add_parts_kernel", "attention_forward_kernel", "adamw_kernel"})
    CHECK(names.contains(name));
}

TEST_CASE("kernel-report: ptxas's numbers and the launches in one table; local memory fails") {
  const TemporaryDirectory directory;
  const std::string product =
      "_ZN6topolm12cuda_kernels14product_kernelINS_4bf16ES2_LNS0_6LayoutE0ELS3_0ELb1EEEvPT0_PKT_S8_llllbb";
  const auto log = [&](const std::string& name, int spilled) {
    const std::string text = fmt::format(
        "ptxas info    : 0 bytes gmem\n"
        "ptxas info    : Compiling entry function '{0}' for 'sm_90'\n"
        "ptxas info    : Function properties for {0}\n"
        "    {1} bytes stack frame, {1} bytes spill stores, {2} bytes spill loads\n"
        "ptxas info    : Used 128 registers, used 1 barriers, {1} bytes cumulative stack size, 46080 bytes "
        "smem\n",
        product, spilled, 2 * spilled);
    return directory.write(name, text).string();
  };
  const std::string out = directory / "report.md";
  Outcome o = run_program("kernel_report", "--ptxas " + log("good.ptxas", 0) + " --out " + out);
  CAPTURE(o.output);
  CHECK(o.status == 0);
  const std::string report = read_file(out);
  CAPTURE(report);
  // 128 registers a thread and 46 KB a block: two blocks of 256 threads on 64 K registers, of 2048 threads.
  CHECK(report.find("| 256 | 0 | 128 / 0 / 0 / 46080 / 25 % |") != std::string::npos);
  CHECK(report.find("`product_kernel<bf16, bf16, ") != std::string::npos);

  o = run_program("kernel_report", "--ptxas " + log("bad.ptxas", 8) + " --out " + out);
  CHECK(o.status == 1);
  CHECK(o.output.find("on sm_90: 24 bytes spilled, 8 bytes of local memory") != std::string::npos);
  CHECK(run_program("kernel_report", "--ptxas " + out + " --out " + out).status == 1);
}
