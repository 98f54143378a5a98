// ptx_check: the kernels' tests, with every launch run from its source and from the PTX of every
// architecture.
//   ptx_check [--arch "80 90"] [doctest's flags]     $TOPOLM_PTX is where the PTX lies: ptx/ beside the
//   program
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <fmt/core.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>

#include "engine/error.h"
#include "kernels/kernels.h"
#include "kernels/simt/simt_products.h"
#include "tests/ptx/check.h"

namespace topolm {

namespace simt_kernels {
std::unique_ptr<Kernels> make_gpu_kernels(std::unique_ptr<GpuDevice> device,
                                          std::unique_ptr<MatrixProducts> products);
}

// In place of kernels/devices.cpp: a simt that checks.
std::vector<std::string> gpu_devices() { return {"simt"}; }
std::unique_ptr<Kernels> make_kernels(const DeviceOptions& options) {
  require(options.products.empty() || options.products == "own", "matrix products by '{}' are not checked",
          options.products);
  auto device = std::make_unique<ptx::PtxDevice>(options.threads, ptx::architectures(),
                                                 [](const std::string& what) { FAIL_CHECK(what); });
  return simt_kernels::make_gpu_kernels(std::move(device),
                                        options.products == "own" ? nullptr : make_simt_products(options));
}

}  // namespace topolm

using namespace topolm;

// Last, see main().
TEST_SUITE("~") {
  TEST_CASE("every kernel was launched on every architecture") {
    for (const auto& architecture : ptx::architectures())
      for (const auto& [symbol, kernel] : architecture.kernels)
        if (!architecture.launched.count(symbol))
          FAIL_CHECK(architecture.name << ": no test launches " << ptx::demangled(symbol));
  }
}

namespace {

/// A line an architecture, before doctest's own summary.
struct Summary : doctest::IReporter {
  explicit Summary(const doctest::ContextOptions&) {}
  void test_run_end(const doctest::TestRunStats&) override {
    for (const auto& a : ptx::architectures())
      fmt::print("{:<12} {:>3} of {} kernels run, {} launches, {:.1f} million instructions, {} differences\n",
                 a.name, a.launched.size(), a.kernels.size(), a.launches,
                 static_cast<double>(a.instructions) * 1e-6, a.differences);
    std::fflush(stdout);
  }
  void report_query(const doctest::QueryData&) override {}
  void test_run_start() override {}
  void test_case_start(const doctest::TestCaseData&) override {}
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void test_case_end(const doctest::CurrentTestCaseStats&) override {}
  void test_case_exception(const doctest::TestCaseException&) override {}
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData&) override {}
  void log_message(const doctest::MessageData&) override {}
  void test_case_skipped(const doctest::TestCaseData&) override {}
};
REGISTER_LISTENER("ptx", 1, Summary);

}  // namespace

int main(int argc, char** argv) {
  try {
    std::string only;
    for (int i = 1; i + 1 < argc; ++i)
      if (std::strcmp(argv[i], "--arch") == 0) only = argv[i + 1];
    const char* const root = std::getenv("TOPOLM_PTX");
    ptx::architectures() = ptx::load_architectures(
        root ? root : (std::filesystem::path(argv[0]).parent_path() / "ptx").string(), only);
    setenv("TOPOLM_DEVICE", "simt", 1);
    doctest::Context context(argc, argv);
    context.setOption("order-by", "suite");  // the suite named last runs last
    return context.run();
  } catch (const std::exception& e) {
    fmt::print(stderr, "error: {}\n", e.what());
    return 1;
  }
}
