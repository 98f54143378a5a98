// The report program: its tables, numbers and picture of models without any training, and what it refuses.
#include <doctest/doctest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "model/trainer.h"
#include "tests/programs.h"
#include "tests/temporary.h"

using namespace topolm;

namespace {

/// A checkpoint of a new nano model on a sheet of `rows` rows.
std::string write_model(const fs::path& out, int rows = 6, uint64_t seed = 1) {
  ModelConfig config = model_preset("nano");
  config.vocab_size = 64;
  config.topography.rows = rows, config.topography.cols = config.n_embd / rows;
  config.topography.radius = 2;
  TrainConfig train = train_preset("nano");
  train.seed = seed, train.batch = 1, train.seq = 8;
  const auto kernels = make_kernels();
  Trainer trainer(*kernels, config, train, make_sheets(config, "random", seed));
  return trainer.save(out, {{"path", "some.bin"}}, R"({"model": "none"})", 1).string();
}

std::string write_tokens(const TemporaryDirectory& directory, const std::string& name, int count,
                         int vocabulary) {
  std::string bytes;
  for (int i = 0; i < count; ++i) bytes += {static_cast<char>(i * i % vocabulary), '\0'};
  return directory.write(name, bytes).string();
}

}  // namespace

TEST_CASE("report: two models side by side; what cannot be compared is one sentence and status 1") {
  const TemporaryDirectory directory;
  write_model(directory / "a", 6, 1);
  write_model(directory / "b", 6, 2);
  directory.write("a/metrics.csv",
                  "step,task_loss,spatial_loss,val_task_loss\n1,4.2,0.5,\n2,4.1,0.4,4.15\n3,4");
  const std::string data = write_tokens(directory, "val.bin", 700, 61), png = directory / "out/report.png";
  const std::string flags = " --rows 100 --threads 1 --data " + data + " --out " + png;
  const std::string a = " A=" + (directory / "a").string(), b = " B=" + (directory / "b").string();

  Outcome o = run_program("report", a + b + flags);
  CAPTURE(o.output);
  REQUIRE(o.status == 0);
  for (const char* part : {"validation loss", "mean spatial loss", "distance 1, 60 pairs a site", "picture"})
    CHECK(contains(o.output, part));
  CHECK(!contains(o.output, "nan"));
  const auto json = nlohmann::json::parse(read_file(directory / "out/report.json"));
  REQUIRE(json["models"].size() == 2);
  CHECK(json["tokens"].get<int>() <= 100);
  for (const auto& model : json["models"]) {
    CHECK(model["validation_loss"].get<double>() == doctest::Approx(std::log(64)).epsilon(0.05));
    CHECK(model["spatial_loss"].get<double>() == doctest::Approx(0.5).epsilon(0.2));
    for (const auto& site : model["sites"]) CHECK(site["by_distance"].size() == 7);  // the diagonal of 6x6
  }
  if (fs::exists(png)) CHECK(read_file(png).starts_with("\x89PNG"));  // there is none without cairo

  // A context longer than the data, one model, one token a window.
  CHECK(run_program("report", a + " --threads 1 --data " + data + " --out " + png).status == 0);
  CHECK(run_program("report", a + " --rows 1 --threads 1 --data " + data + " --out " + png).status == 0);

  const auto refuses = [&](const std::string& arguments, const std::string& sentence, int status = 1) {
    const Outcome outcome = run_program("report", arguments);
    CAPTURE(outcome.output);
    CHECK(outcome.status == status);
    CHECK(contains(outcome.output, sentence));
  };
  refuses(" C=" + (directory / "c").string() + flags, "there is no model in");
  refuses(" nameless" + flags, "is not NAME=DIR");
  refuses(a + " --data " + (directory / "none.bin").string(), "none.bin");
  refuses(flags, "is required", 2);
  const std::string other = write_tokens(directory, "other.bin", 700, 101);
  refuses(a + " --data " + other, "token id");
  const std::string wide = write_model(directory / "wide", 4);
  refuses(a + " wide=" + wide + flags, "only models of one shape");
  directory.write("tokenizer.json", "{}");
  refuses(a + flags, "was not written with the tokenizer");
}
