// infer with --lesion, --drive, --control and --atlas, as a user would run it.
#include <doctest/doctest.h>

#include <utility>

#include "tests/programs.h"
#include "tests/small_atlas.h"
#include "tests/temporary.h"

using namespace topolm;

namespace {

/// A small trained model, and what infer says with it.
struct Ward {
  TemporaryDirectory directory;
  Ward() {
    // What comes next depends on more than the last word: to continue it takes the whole network.
    const char* words[] = {"the", "cat", "sees",  "the", "dog", "and",
                           "the", "dog", "hears", "the", "old", "cat"};
    std::string text;
    for (size_t i = 0; i < 9000; ++i) text += std::string(words[i % 12]) + " ";
    directory.write("text.txt", text);
    directory.write("atlas.json", test::atlas_json().dump());
    for (const auto& [program, arguments] :
         {std::pair{"tokenize", path("text.txt") + " -o " + path("data") + " --vocab-size 270"},
          std::pair{"train_topolm", path("data/train.bin") +
                                        " --preset nano --seq 32 --steps 80 --lr 1e-2 --threads 2 --out " +
                                        path("model")}}) {
      const Outcome made = run_program(program, arguments);
      REQUIRE_MESSAGE(made.status == 0, made.output);
    }
  }
  std::string path(const std::string& name) const { return (directory / name).string(); }
  Outcome infer(const std::string& flags, const std::string& redirect = "") const {
    return run_program(
        "infer", "'the cat' --tokens 24 --temperature 0 --model " + path("model") + " " + flags + redirect);
  }
  /// Standard output: the text alone.
  std::string text(const std::string& flags) const {
    const Outcome said = infer(flags, " 2>/dev/null");
    CHECK(said.status == 0);
    return said.output;
  }
  void refuses(const std::string& flags, const std::string& part, int status = 1) const {
    const Outcome said = infer(flags);
    CAPTURE(flags);
    CAPTURE(said.output);
    CHECK(said.status == status);
    const size_t begin = said.output.find("error: ");
    REQUIRE(begin != std::string::npos);
    CHECK(contains(said.output, part));
    CHECK(said.output.find('\n', begin) == said.output.size() - 1);
  }
};

}  // namespace

TEST_CASE("infer: --lesion, --drive and --control change what is said, always alike, and say what they did") {
  const Ward ward;
  const std::string healthy = ward.text(""), atlas = " --atlas " + ward.path("atlas.json");
  const std::string lesion = "--lesion 'h.0.mlp:disk(2,3,2.5)'", all = "--lesion all:all";
  CHECK(ward.text(lesion) != healthy);
  CHECK(ward.text(lesion + " --threads 2") == ward.text(lesion + " --threads 1"));
  CHECK(ward.text(all) != healthy);
  CHECK(ward.text("--lesion 'all:top(0)'" + atlas) == healthy);
  CHECK(ward.text("--drive 'all:all*1'") == healthy);
  CHECK(ward.text("--drive 'all:all*0'") == ward.text(all));
  CHECK(ward.text("--drive 'h.1.mlp:all*-8'") != healthy);
  CHECK(ward.text("--drive 'all:all*4' --drive 'all:all*0.25'") == healthy);
  CHECK(ward.text("--lesion h.0.attn:all --lesion h.0.mlp:all --lesion h.1.attn:all --lesion h.1.mlp:all") ==
        ward.text(all));
  CHECK(ward.text(lesion + " --dtype bf16") != ward.text("--dtype bf16"));

  const auto says = [&](const std::string& flags, const std::string& line) {
    const Outcome said = ward.infer(flags);
    CAPTURE(said.output);
    CHECK(said.status == 0);
    CHECK(contains(said.output, line + "\n"));
  };
  says("--lesion 'h.0.mlp:disk(2,3,1)' --lesion 'h.0.mlp:disk(2,4,1)'",
       "[lesion: 8 of 144 units: h.0.mlp 8]");
  const Outcome both = ward.infer(
      "--lesion 'h.0.mlp:cluster(2)' --drive 'all:top(6)*2.5' --drive 'h.0.attn:units(7)*-1'" + atlas);
  CAPTURE(both.output);
  CHECK(contains(both.output,
                 "[lesion: 2 of 144 units: h.0.mlp 2]\n"
                 "[drive*2.5: 6 of 144 units: h.0.attn 1, h.0.mlp 1, h.1.attn 2, h.1.mlp 2]\n"
                 "[drive*-1: 1 of 144 units: h.0.attn 1]\n"));
  says("--lesion 'all:top(1)' --atlas-model control" + atlas, "[lesion: 1 of 144 units: h.0.attn 1]");

  const std::string half = "--lesion 'h.1.mlp:disk(2,2,2.2)' --lesion 'h.0.attn:disk(2,2,2.2)'";
  says(half + " --control 7", "[lesion, control of seed 7: 26 of 144 units: h.0.attn 13, h.1.mlp 13]");
  CHECK(ward.text(half + " --control 7") == ward.text(half + " --control 7"));
}

TEST_CASE("infer: what is wrong with a lesion or drive is one sentence") {
  const Ward ward;
  const std::string atlas = " --atlas " + ward.path("atlas.json");
  ward.refuses("--lesion h.9.mlp:all", "region 'h.9.mlp:all': there is no site h.9.mlp");
  ward.refuses("--lesion 'h.0.mlp:disk(12,9,4)'", "the disk covers no unit");
  ward.refuses("--lesion 'h.0.mlp:cluster(2)'", "cluster(2) needs --atlas atlas.json, as ./atlas writes it");
  ward.refuses("--lesion 'h.0.mlp:all*2'", "a lesion has no gain; say --drive 'h.0.mlp:all*2'");
  ward.refuses("--drive h.0.mlp:all", "--drive 'h.0.mlp:all' needs a gain, as in --drive 'h.0.mlp:all*2'");
  ward.refuses("--drive 'h.0.mlp:all*much'", "its gain 'much' is not a number");
  ward.refuses("--control 7", "--control 7 needs a --lesion or --drive");
  ward.refuses("--lesion h.0.mlp:all --control 7",
               "needs 36 units outside of the region, but it leaves only 0");
  ward.refuses("--lesion 'h.0.mlp:top(2)' --atlas " + ward.path("text.txt"), "damaged or not an atlas");
  ward.refuses("--lesion 'h.0.mlp:top(2)' --atlas " + ward.path("no.json"), "no.json");
  ward.refuses("--lesion 'h.0.mlp:top(2)' --atlas-model mine" + atlas, "has no model 'mine'");
  ward.refuses("--lesion 'h.0.mlp:top(2)' --atlas-model mine", "--atlas-model", 2);
  ward.refuses("--lesion h.0.mlp:all --control x", "--control", 2);
  ward.refuses("--lesion", "--lesion", 2);
  ward.refuses("--drive 'h.1.mlp:all*3e38'", "not finite; its weights are damaged or driven too far");
}
