// bench runs, its table adds up, and its JSON has what scripts read.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "engine/parallel.h"
#include "kernels/ceiling.h"
#include "tests/programs.h"
#include "tests/temporary.h"

using namespace topolm;

namespace {

const TemporaryDirectory& directory() {
  static const TemporaryDirectory d;
  return d;
}

/// Runs ./bench on the smallest model, as short as can be, and reads what it writes.
nlohmann::json bench(const std::string& flags, std::string& output) {
  const fs::path file = directory() / "bench.json";
  const Outcome result = run_program(
      "bench", "--preset nano --steps 2 --seconds 0 --tokens 4 --json " + file.string() + " " + flags);
  output = result.output;
  CAPTURE(result.output);
  REQUIRE(result.status == 0);
  return nlohmann::json::parse(read_file(file));
}

double number(const nlohmann::json& j, const char* field) { return j.at(field).get<double>(); }

}  // namespace

TEST_CASE("bench: a short run prints its tables and writes its JSON") {
  std::string output;
  const auto json = bench("--threads 1,2 --dtype fp32,bf16", output);
  CAPTURE(output);
  for (const char* word : {"multiply-add bf16", "read L1", "update", "nano fp32, 1 thread",
                           "nano bf16, 2 threads", "spatial loss", "optimizer", "tokens/s",
                           "linear_backward_weight", "of the floor", "weighted by their FLOPs", "int8"})
    CHECK(contains(output, word));

  REQUIRE(json.at("ceilings").size() == 2);
  for (const auto& c : json.at("ceilings")) {
    for (const char* field : {"read_bytes_per_second", "copy_bytes_per_second", "triad_bytes_per_second",
                              "update_bytes_per_second"})
      CHECK(number(c, field) > 0);
    for (const char* field : {"multiply_add_flops_per_second", "matrix_flops_per_second"})
      for (const char* dtype : {"fp32", "bf16"}) CHECK(number(c.at(field), dtype) > 0);
    for (const auto& cache : c.at("caches")) {
      CHECK(number(cache, "footprint_bytes") > 0);
      CHECK(number(cache, "read_bytes_per_second") > 0);
    }
  }
  REQUIRE(json.at("steps").size() == 4);
  for (const auto& step : json.at("steps")) {
    CHECK(step.at("preset") == "nano");
    CHECK(step.at("seconds").size() == 2);
    for (const char* field :
         {"median_ms", "tokens_per_second", "flops_per_second", "peak_memory_bytes", "task_loss",
          "spatial_loss", "percent_of_matrix_speed", "percent_of_multiply_add"})
      CHECK(number(step, field) > 0);
    double percent = 0;
    for (const auto& o : step.at("operations")) {
      CAPTURE(o.dump());
      CHECK(number(o, "percent") >= 0);
      // Were an operation's range renamed, its time would silently turn up in the rest.
      CHECK(number(o, "ms") > 0);
      percent += number(o, "percent");
    }
    CHECK(percent == doctest::Approx(100));
    CHECK(step.at("operations").back().at("name") == "rest");
  }
  REQUIRE(json.at("decoding").size() == 6);  // fp32, bf16 and int8, each with 1 and 2 threads
  for (const auto& d : json.at("decoding"))
    for (const char* field : {"tokens_per_second", "prefill_tokens_per_second", "bytes_per_token",
                              "percent_of_read_bandwidth", "peak_memory_bytes"})
      CHECK(number(d, field) > 0);
}

TEST_CASE("bench: FLOPs, bytes and floors of operations are what they are by hand") {
  std::string output;
  const auto json = bench("--threads 2 --dtype fp32,bf16 --batch 3 --seq 7 --operations", output);
  REQUIRE(json.at("operations").size() == 2);
  CHECK(!json.contains("steps"));
  for (const auto& run : json.at("operations")) {
    const double size = run.at("dtype") == "bf16" ? 2 : 4, n = 21, c = 36, v = 512, layers = 2;
    const auto& ceilings = json.at("ceilings").at(0);
    const double peak = ceilings.at("multiply_add_flops_per_second").at(run.at("dtype").get<std::string>());
    double products = 0, together = 0, floors = 0;
    std::map<std::string, int> seen;
    for (const auto& o : run.at("step")) {
      CAPTURE(o.dump());
      const std::string name = o.at("name"), shape = o.at("shape");
      ++seen[name];
      CHECK(number(o, "median_ms") > 0);
      CHECK(number(o, "best_ms") <= number(o, "median_ms"));
      CHECK(number(o, "percent_of_floor") ==
            doctest::Approx(100 * number(o, "floor_ms") / number(o, "median_ms")));
      // No floor is lower than the arithmetic at the peak.
      const bool fp32 = o.at("dtype") == "fp32";
      const double arithmetic =
          number(o, "flops") /
          (fp32 ? ceilings.at("multiply_add_flops_per_second").at("fp32").get<double>() : peak);
      CHECK(number(o, "floor_ms") >= doctest::Approx(1e3 * arithmetic));
      CHECK(o.at("bound_by") == (number(o, "floor_ms") > 1.0001e3 * arithmetic ? "bytes" : "flops"));
      if (name == "linear_forward" || name == "linear_backward_input" || name == "linear_backward_weight")
        products += number(o, "calls") * number(o, "flops");
      if (!o.at("within_other").get<bool>()) {
        together += number(o, "calls") * number(o, "median_ms");
        floors += number(o, "calls") * number(o, "floor_ms");
      }
      if (shape == "c_fc 21: 36 -> 144" && name == "linear_forward") {
        CHECK(number(o, "flops") == 2 * n * c * 4 * c);
        CHECK(number(o, "bytes") == size * (n * c + n * 4 * c + 4 * c * c));
        CHECK(number(o, "calls") == layers);
      }
      if (shape == "c_fc 21: 36 -> 144" && name == "linear_backward_weight")
        CHECK(number(o, "bytes") == size * (n * c + n * 4 * c) + 4 * 2 * 4 * c * c);  // += reads and writes
      if (name == "attention_forward") CHECK(number(o, "flops") == 2 * 3 * 7 * (7 + 1) * c);
      if (name == "attention_backward") CHECK(number(o, "flops") == 5 * 3 * 7 * (7 + 1) * c);
      if (name == "gelu_backward") CHECK(number(o, "bytes") == 3 * size * n * 4 * c);
      // 3 neighborhoods of 9 units are less than the 36 units of the sheet.
      if (name == "spatial_loss_forward") CHECK(number(o, "flops") == n * 3 * 9 * 10);
      if (name == "spatial_loss_backward") CHECK(number(o, "flops") == n * 2 * 3 * 9 * 9);
      if (name == "adamw") CHECK(number(o, "bytes") == (size == 2 ? 30 : 28) * 52020 + 8);
    }
    // A model's 6 FLOPs a weight and token.
    CHECK(products == 6 * n * (layers * 12 * c * c + v * c));
    CHECK(number(run.at("step_together"), "ms") == doctest::Approx(together));
    CHECK(number(run.at("step_together"), "floor_ms") == doctest::Approx(floors));
    CHECK(number(run, "products_percent_of_peak") ==
          doctest::Approx(100 * number(run, "products_flops_per_second") / peak));
    for (const char* name :
         {"fill", "cast", "add_scaled", "embedding_forward", "embedding_backward", "layernorm_forward",
          "residual_layernorm_forward", "layernorm_backward", "linear_gelu_forward", "linear_gelu_backward",
          "gelu_forward", "attention_forward", "cross_entropy_forward", "cross_entropy_backward",
          "spatial_loss_forward", "sum", "sum_of_squares", "gradient_norm", "adamw"})
      CHECK(seen[name] == 1);
    CHECK(seen["linear_forward"] == 5);
    for (const auto& o : run.at("token")) ++seen[o.at("name")];
    CHECK(seen["attention_cached"] == 1);
    CHECK(seen["sample"] == 1);
    CHECK(seen[size == 2 ? "linear_int8_forward" : "quantize_rows"] >= 1);
  }
}

TEST_CASE("bench: weights of 8 bits cost a little, and what they cost is no noise") {
  std::string output;
  const auto json = bench("--threads 2 --decode", output);
  const auto& loss = json.at("weight_loss");
  CHECK(number(loss, "fp32") > 0.5);  // nats of a language with 1.04 a token
  CHECK(number(loss, "fp32") < 2);    // it was learnt
  CHECK(number(loss, "bf16_more") > 0);
  CHECK(number(loss, "int8_more") > number(loss, "bf16_more"));
  CHECK(number(loss, "int8_more") < 0.01);
  CHECK(loss.at("model") == "nano, 300 steps");
}

TEST_CASE("bench: tables as Markdown, another instruction set, a busy neighbor") {
  const auto sets = cpu_instruction_sets();
  const std::string isa = std::find(sets.begin(), sets.end(), "sse2") != sets.end() ? "sse2" : sets.front();
  std::string output;
  auto json = bench("--ceilings-only --threads 1 --markdown --isa " + isa, output);
  CAPTURE(output);
  CHECK(contains(output, ", " + isa + "; load"));
  CHECK(contains(output, "### Ceilings"));
  CHECK(contains(output, "|---|---:|---|"));
  CHECK(json.size() == 3);  // machine, load, ceilings

  // That it ends proves that no busy process outlives it: each of them holds the pipe open.
  json = bench("--threads 2 --dtype fp32 --busy 1 --rounds 2", output);
  const auto& busy = json.at("busy").at(0);
  CHECK(busy.at("ratios").size() == 2);
  CHECK(number(busy, "fair_share") == std::max(1.0, 3.0 / available_cpus()));
  CHECK(contains(output, "fair share"));
}

TEST_CASE("bench: wrong words are refused before anything is measured") {
  for (const auto& [flags, part] : {std::pair{"--preset huge", "there is no preset 'huge'"},
                                    {"--dtype fp8", "'fp8' is not one of"},
                                    {"--llmc /nowhere", "'/nowhere' has no train_gpt2.c"},
                                    {"--isa vax", "instruction set 'vax'"}}) {
    const Outcome result = run_program("bench", flags);
    CHECK(result.status == 1);
    CHECK(contains(result.output, part));
    CHECK(!contains(result.output, "eilings"));
  }
  CHECK(run_program("bench", "--steps 0").status == 2);
}

TEST_CASE("ceilings: every instruction set measures something finite") {
  for (const auto& isa : cpu_instruction_sets()) {
    CAPTURE(isa);
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const double speed = measure_multiply_add_speed({"cpu", 2, isa}, dtype, 0);
      CHECK(std::isfinite(speed));
      CHECK(speed > (isa == "amx_emulated" ? 1e5 : 1e8));
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
