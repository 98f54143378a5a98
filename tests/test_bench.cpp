// bench runs, its table adds up, and its JSON has what scripts read.
#include <doctest/doctest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "kernels/ceiling.h"
#include "tests/programs.h"
#include "tests/temporary.h"

using namespace topolm;

TEST_CASE("bench: a short run prints its tables and writes its JSON") {
  const TemporaryDirectory directory;
  const fs::path file = directory / "bench.json";
  const Outcome result =
      run_program("bench", "--preset nano --steps 2 --seconds 0 --threads 1,2 --json " + file.string());
  CAPTURE(result.output);
  REQUIRE(result.status == 0);
  for (const char* word : {"multiply-add", "triad", "nano fp32, 1 thread", "nano bf16, 2 threads",
                           "spatial loss", "optimizer", "tokens/s"})
    CHECK(contains(result.output, word));

  const auto json = nlohmann::json::parse(read_file(file));
  REQUIRE(json.at("ceilings").size() == 2);
  for (const auto& c : json.at("ceilings")) {
    for (const char* field : {"multiply_add_flops_per_second", "read_bytes_per_second",
                              "copy_bytes_per_second", "triad_bytes_per_second"})
      CHECK(c.at(field).get<double>() > 0);
    for (const char* dtype : {"fp32", "bf16"})
      CHECK(c.at("matrix_flops_per_second").at(dtype).get<double>() > 0);
  }
  REQUIRE(json.at("steps").size() == 4);
  for (const auto& step : json.at("steps")) {
    CHECK(step.at("preset") == "nano");
    CHECK(step.at("seconds").size() == 2);
    for (const char* field :
         {"median_ms", "tokens_per_second", "flops_per_second", "peak_memory_bytes", "task_loss",
          "spatial_loss", "percent_of_matrix_speed", "percent_of_multiply_add"})
      CHECK(step.at(field).get<double>() > 0);
    double percent = 0;
    for (const auto& o : step.at("operations")) {
      CAPTURE(o.dump());
      CHECK(o.at("percent").get<double>() >= 0);
      // Were an operation's range renamed, its time would silently turn up in the rest.
      CHECK(o.at("ms").get<double>() > 0);
      percent += o.at("percent").get<double>();
    }
    CHECK(percent == doctest::Approx(100));
    CHECK(step.at("operations").back().at("name") == "rest");
  }
}

TEST_CASE("bench: wrong words are refused before anything is measured") {
  for (const auto& [flags, part] :
       {std::pair{"--preset huge", "there is no preset 'huge'"}, {"--dtype fp8", "'fp8' is not one of"}}) {
    const Outcome result = run_program("bench", flags);
    CHECK(result.status == 1);
    CHECK(contains(result.output, part));
    CHECK(!contains(result.output, "machine"));
  }
  CHECK(run_program("bench", "--steps 0").status == 2);
}

TEST_CASE("ceilings: every instruction set measures something finite") {
  for (const auto& isa : cpu_instruction_sets()) {
    CAPTURE(isa);
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const double speed = measure_multiply_add_speed({"cpu", 2, isa}, dtype, 0);
      CHECK(std::isfinite(speed));
      CHECK(speed > 1e8);
    }
  }
}

TEST_CASE("bench: the PyTorch that we race is the same model") {
  const std::string python = "/usr/bin/python3";
  const std::string find = "import importlib.util as u, sys; sys.exit(u.find_spec('torch') is None)";
  if (shell(python + " -c \"" + find + "\"").status != 0) {
    MESSAGE("not checked: there is no PyTorch here (apt install python3-torch)");
    return;
  }
  const Outcome result = shell(python + " tools/peer/topolm_torch.py --check-golden tests/golden");
  CAPTURE(result.output);
  CHECK(result.status == 0);
  CHECK(contains(result.output, "tiny_pre step 2"));
}
