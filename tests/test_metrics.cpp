#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <nlohmann/json.hpp>

#include "engine/error.h"
#include "engine/metrics.h"
#include "tests/temporary.h"

using namespace topolm;

namespace {

using Row = std::vector<std::optional<double>>;

void write_rows(const fs::path& directory, int64_t first, int64_t last, std::optional<int64_t> resume = {}) {
  MetricsLog log(directory, {"step", "loss"}, resume);
  for (int64_t step = first; step <= last; ++step)
    log.row(Row{static_cast<double>(step), 1.0 / static_cast<double>(step)});
}

void append(const fs::path& path, const std::string& text) { write_file(path, read_file(path) + text); }

}  // namespace

TEST_CASE("metrics: csv and jsonl hold the same rows") {
  const TemporaryDirectory directory;
  MetricsLog log(directory.path(), {"step", "loss", "val_loss", "tokens"});
  log.row(Row{1, 8.25, std::nullopt, 123456789012});
  // Rows are on disk before the log is closed.
  CHECK(read_file(directory / "metrics.csv") == "step,loss,val_loss,tokens\n1,8.25,,123456789012\n");
  log.row(Row{2, -std::nan(""), std::numeric_limits<double>::infinity(), -0.0});
  CHECK(read_file(directory / "metrics.csv") ==
        "step,loss,val_loss,tokens\n1,8.25,,123456789012\n2,nan,inf,0\n");
  CHECK(read_file(directory / "metrics.jsonl") ==
        "{\"step\":1,\"loss\":8.25,\"val_loss\":null,\"tokens\":123456789012}\n"
        "{\"step\":2,\"loss\":null,\"val_loss\":null,\"tokens\":0}\n");
  CHECK_THROWS_AS(log.row(Row{3, 1}), Error);
}

TEST_CASE("metrics: numbers read back as they were, and are JSON") {
  for (const double v :
       {0.0, 1.0, -7.0, 0.1, 1.0 / 3, 1e-300, 1e300, 5e-324, 9007199254740993.0, 1e20, 6e-4}) {
    CHECK(std::strtod(shortest(v).c_str(), nullptr) == v);
    CHECK(nlohmann::json::parse(shortest(v)).get<double>() == v);
  }
  for (const float v : {0.1f, 3.14159274f, 1e-40f, 16777217.5f, 1e-8f})
    CHECK(std::strtof(shortest(v).c_str(), nullptr) == v);
  CHECK(shortest(0.1f) == "0.1");
  CHECK(shortest(1000000) == "1000000");
}

TEST_CASE("metrics: a new run starts afresh, a resumed one keeps the rows of steps already done") {
  const TemporaryDirectory whole, resumed;
  write_rows(whole.path(), 1, 12);
  write_rows(resumed.path(), 1, 9);
  const auto same = [&] {
    return read_file(whole / "metrics.csv") == read_file(resumed / "metrics.csv") &&
           read_file(whole / "metrics.jsonl") == read_file(resumed / "metrics.jsonl");
  };
  write_rows(resumed.path(), 7, 12, 6);  // steps 7 to 9 ran after the checkpoint of step 6
  CHECK(same());
  write_rows(resumed.path(), 13, 12, 12);  // nothing to cut, nothing to add
  CHECK(same());
  write_rows(resumed.path(), 1, 12, 0);
  CHECK(same());
  write_rows(resumed.path(), 1, 12);
  CHECK(same());
}

TEST_CASE("metrics: a resumed run survives whatever a kill left behind") {
  const TemporaryDirectory whole, torn;
  write_rows(whole.path(), 1, 12);
  const auto resume_and_compare = [&](int64_t done) {
    write_rows(torn.path(), done + 1, 12, done);
    CHECK(read_file(whole / "metrics.csv") == read_file(torn / "metrics.csv"));
    CHECK(read_file(whole / "metrics.jsonl") == read_file(torn / "metrics.jsonl"));
  };
  const std::string csv = read_file(whole / "metrics.csv"), jsonl = read_file(whole / "metrics.jsonl");
  for (const char* tail : {"8", "8,0.1", "1", ",", "\n", "garbage\n"}) {
    CAPTURE(tail);
    write_rows(torn.path(), 1, 7);
    append(torn / "metrics.csv", tail);
    append(torn / "metrics.jsonl", "{\"step\":8,\"lo");
    resume_and_compare(7);
  }
  append(torn / "metrics.csv", std::string(100, '\0') + "\n");  // what ext4 leaves after a power cut
  resume_and_compare(12);
  for (size_t cut = 0; cut < 15; ++cut) {  // killed while writing the header and the first row
    write_file(torn / "metrics.csv", csv.substr(0, cut));
    write_file(torn / "metrics.jsonl", jsonl.substr(0, cut));
    resume_and_compare(0);
  }
  fs::remove(torn / "metrics.csv");
  fs::remove(torn / "metrics.jsonl");
  resume_and_compare(0);
}

TEST_CASE("metrics: other columns, a full disk and a missing directory are errors") {
  const TemporaryDirectory directory;
  write_rows(directory.path(), 1, 3);
  CHECK_THROWS_WITH_AS(MetricsLog(directory.path(), {"step", "ppl"}, 3),
                       doctest::Contains("has the columns 'step,loss', this run has 'step,ppl'"), Error);
  CHECK_THROWS_AS(MetricsLog(directory / "missing", {"step"}), Error);

  const TemporaryDirectory full;
  fs::create_symlink("/dev/full", full / "metrics.csv");
  CHECK_THROWS_WITH_AS(write_rows(full.path(), 1, 1), doctest::Contains("No space left on device"), Error);
}
