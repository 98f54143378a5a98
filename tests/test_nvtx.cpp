// The ranges that a profiler sees, recorded by a library in its place (tests/nvtx). Only where the programs
// were built with NVTX's header.
#if defined(TOPOLM_NVTX)

#include <doctest/doctest.h>

#include <sstream>

#include "tests/programs.h"
#include "tests/temporary.h"

using namespace topolm;

namespace {

/// Runs a program under the recorder; the ranges it opened, one a line, without the domain.
std::string ranges(const TemporaryDirectory& directory, const std::string& name,
                   const std::string& arguments) {
  const std::string log = (directory / "ranges").string();
  const Outcome outcome =
      run_program(name, arguments,
                  "NVTX_INJECTION64_PATH=" + fs::absolute(TOPOLM_BUILD "/nvtx_recorder.so").string() +
                      // simt's other products are the CPU's, whose ranges would lie within simt's.
                      " TOPOLM_MATRIX_PRODUCTS=own TOPOLM_NVTX_LOG=" + log + " ");
  REQUIRE_MESSAGE(outcome.status == 0, outcome.output);
  std::istringstream lines(read_file(log));
  std::string all;
  for (std::string line; std::getline(lines, line);) {
    const size_t domain = line.find("topolm: ");
    REQUIRE_MESSAGE(domain != std::string::npos, line);
    all += line.erase(domain, sizeof "topolm: " - 1) + "\n";
  }
  return all;
}

/// The part of a tree from the line `root` to the next one that is no deeper.
std::string subtree(const std::string& tree, const std::string& root) {
  std::istringstream lines(tree);
  std::string part;
  for (std::string line; std::getline(lines, line);)
    if (!part.empty() ? line.starts_with(' ') : line == root)
      part += line + "\n";
    else if (!part.empty())
      break;
  return part;
}

/// A model of one layer: its step has one of everything.
const char* const kStep = R"(step 1 (1)
  fill
  fill
  forward
    embedding
    layernorm
    block 0 (0)
      linear
      attention
      linear
      layernorm
      site 0 (0)
        spatial_loss
        add_scaled
      linear
      gelu
      linear
      layernorm
      site 1 (1)
        spatial_loss
        add_scaled
  backward
    head
      linear
      cross_entropy
      linear_backward_weight
      linear_backward_input
      sum
      add_scaled
    fill
    layernorm_backward
    block 0 (0)
      restore
        layernorm
      site 1 (1)
        cast
        spatial_loss_backward
      linear_backward_weight
      linear_backward_input
      gelu_backward
      linear_backward_weight
      linear_backward_input
      layernorm_backward
      site 0 (0)
        cast
        spatial_loss_backward
      linear_backward_weight
      linear_backward_input
      attention_backward
      linear_backward_weight
      linear_backward_input
      layernorm_backward
    embedding_backward
  optimizer
    gradient_norm
    adamw
)";

/// The tree of a device that computes the GELU behind the product.
std::string with_fused_gelu(std::string tree) {
  for (const auto& [two, one] : {std::pair<std::string, std::string>{"linear\n      gelu\n", "linear_gelu\n"},
                                 {"linear_backward_input\n      gelu_backward\n", "linear_gelu_backward\n"}})
    tree.replace(tree.find(two), two.size(), one);
  return tree;
}

const char* const kToken = R"(token 9 (9)
  embedding
  layernorm
  block 0 (0)
    linear
    attention_cached
    linear
    layernorm
    linear
    gelu
    linear
    layernorm
  linear
)";

}  // namespace

TEST_CASE("nvtx: a profiler sees the tree of a training step and of a generated token") {
  const TemporaryDirectory directory;
  std::string text;
  for (int i = 0; i < 400; ++i) text += "the cat sees the old dog and the dog hears ";
  directory.write("text.txt", text);
  const std::string data = (directory / "data").string(), model = (directory / "model").string();
  REQUIRE(
      run_program("tokenize", (directory / "text.txt").string() + " -o " + data + " --vocab-size 258 --val 0")
          .status == 0);
  for (const std::string device : {"cpu", "simt"}) {
    CAPTURE(device);
    const std::string trained = ranges(
        directory, "train_topolm",
        data + "/train.bin --preset nano --n-layer 1 --batch 1 --seq 16 --steps 1 --overwrite --device " +
            device + " --out " + model);
    CHECK(subtree(trained, "step 1 (1)") == (device == "cpu" ? with_fused_gelu(kStep) : kStep));
    const std::string spoken =
        ranges(directory, "infer", "'the cat ' --tokens 4 --device " + device + " --model " + model);
    CHECK(contains(spoken, "prefill 0 (0)\n"));
    CHECK(subtree(spoken, "token 9 (9)") == kToken);
  }
}

#endif
