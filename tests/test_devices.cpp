// Which device is chosen, and what is said where there is none.
#include <doctest/doctest.h>

#include <algorithm>

#include "kernels/kernels.h"
#include "tests/errors.h"

using namespace topolm;

TEST_CASE("devices: cuda where there is a GPU; else the CPU says why, and asking for cuda is an error") {
  const auto gpus = gpu_devices();
  CHECK(std::count(gpus.begin(), gpus.end(), "simt") == 1);
  const std::string chosen = make_kernels({"auto", 1, ""})->device().description();
  if (std::count(gpus.begin(), gpus.end(), "cuda")) {
    CHECK(make_kernels({"cuda", 1, ""})->device().name() == "cuda");
    CHECK(chosen.starts_with("cuda: "));
    return;
  }
  const std::string refused = error_of([] { make_kernels({"cuda", 1, ""}); });
#if defined(TOPOLM_CUDA)
  const size_t reason = std::string("cpu (").size();
  REQUIRE(chosen.starts_with("cpu ("));
  const std::string why = chosen.substr(reason, chosen.find("): ") - reason);
  CHECK(why != "");
  CHECK(refused ==
        "--device cuda cannot be used: " + why + "; see what nvidia-smi says, or choose --device cpu");
#else
  CHECK(chosen.starts_with("cpu (built without CUDA): "));
  CHECK(
      refused ==
      "--device cuda cannot be used: this program was built without CUDA; install NVIDIA's CUDA toolkit and "
      "run make again, or choose --device cpu");
#endif
  CHECK(make_kernels({"cpu", 1, ""})->device().description().starts_with("cpu: "));
  CHECK(error_of([] {
          make_kernels({"tpu", 1, ""});
        }) == "there is no device 'tpu'; choose auto, cpu, cuda or simt");
}

TEST_CASE("devices: matrix products are somebody's") {
  CHECK(error_of([] {
          make_kernels({"simt", 1, "", "nobody"});
        }) == "matrix products are by own kernels or by a library, not by 'nobody'");
}
