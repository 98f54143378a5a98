#include <doctest/doctest.h>

#include <algorithm>
#include <set>
#include <vector>

#include "engine/data_loader.h"
#include "engine/error.h"
#include "tests/temporary.h"

using namespace topolm;

namespace {

/// A stream whose token i is i, so that a token tells where it came from.
TokenFile counting(const TemporaryDirectory& directory, int64_t count) {
  std::string bytes;
  for (int64_t i = 0; i < count; ++i) bytes += {static_cast<char>(i), static_cast<char>(i >> 8)};
  write_file(directory / "counting.bin", bytes);
  return TokenFile(directory / "counting.bin");
}

using Ids = std::vector<int32_t>;

}  // namespace

TEST_CASE("data loader: a batch is a function of (seed, step, micro step)") {
  const TemporaryDirectory directory;
  const DataLoader loader(counting(directory, 1000), 4, 8, 42);
  const auto tokens_of = [](const DataLoader& l, int64_t step, int64_t micro_step) {
    Ids tokens(32), targets(32);
    l.batch(step, micro_step, tokens, targets);
    for (size_t i = 0; i < 32; ++i) CHECK(targets[i] == tokens[i] + 1);
    for (size_t i = 0; i < 32; ++i) CHECK(tokens[i] == tokens[i / 8 * 8] + static_cast<int32_t>(i % 8));
    return tokens;
  };
  std::set<Ids> seen;
  for (int64_t step = 0; step < 5; ++step)
    for (int64_t micro = 0; micro < 3; ++micro) seen.insert(tokens_of(loader, step, micro));
  CHECK(seen.size() == 15);
  CHECK(tokens_of(loader, 3, 1) == tokens_of(loader, 3, 1));
  CHECK(tokens_of(DataLoader(counting(directory, 1000), 4, 8, 42), 3, 1) == tokens_of(loader, 3, 1));
  CHECK(tokens_of(DataLoader(counting(directory, 1000), 4, 8, 43), 3, 1) != tokens_of(loader, 3, 1));
  Ids small(8);
  CHECK_THROWS_AS(loader.batch(0, 0, small, small), Error);
  Ids whole(32);
  CHECK_THROWS_AS(loader.batch(int64_t{1} << 32, 0, whole, whole), Error);
}

TEST_CASE("data loader: every start, the first and the last included, is as likely") {
  const TemporaryDirectory directory;
  const DataLoader loader(counting(directory, 14), 100, 4, 1);  // starts 0 to 9
  std::vector<int> counts(10);
  Ids tokens(400), targets(400);
  for (int64_t step = 0; step < 100; ++step) {
    loader.batch(step, 0, tokens, targets);
    for (size_t row = 0; row < 400; row += 4) ++counts.at(static_cast<size_t>(tokens[row]));
    CHECK(*std::ranges::max_element(targets) <= 13);
  }
  for (const int count : counts) CHECK(std::abs(count - 1000) < 150);  // 5 standard deviations
}

TEST_CASE("data loader: exactly one sequence fits; a shorter stream is refused with a remedy") {
  const TemporaryDirectory directory;
  const DataLoader loader(counting(directory, 9), 1, 8, 7);
  Ids tokens(8), targets(8);
  loader.batch(5, 0, tokens, targets);
  CHECK(tokens[0] == 0);
  CHECK(targets[7] == 8);
  CHECK_THROWS_WITH_AS(
      DataLoader(counting(directory, 40), 1, 64, 7),
      doctest::Contains("has 40 tokens, a sequence of 64 needs 65: use --seq 32 or more data"), Error);
  CHECK_THROWS_WITH_AS(DataLoader(counting(directory, 1), 1, 64, 7), doctest::Contains("use more data"),
                       Error);
  CHECK_THROWS_AS(DataLoader(counting(directory, 40), 0, 8, 7), Error);
}

TEST_CASE("data loader: evaluation predicts every token but the first exactly once") {
  const TemporaryDirectory directory;
  for (const int64_t size : {2, 3, 4, 5, 12, 13, 14, 24, 25, 26, 100}) {
    CAPTURE(size);
    const EvalLoader loader(counting(directory, size), 3, 4);
    Ids tokens(12), targets(12), predicted;
    for (int64_t i = 0; i < loader.batches(); ++i) {
      int64_t counted = 0;
      const int64_t returned = loader.batch(i, tokens, targets);
      for (size_t j = 0; j < 12; ++j) {
        if (targets[j] < 0) {
          CHECK(targets[j] == -1);
          CHECK(tokens[j] == 0);
          continue;
        }
        CHECK(targets[j] == tokens[j] + 1);
        predicted.push_back(targets[j]);
        ++counted;
      }
      CHECK(returned == counted);
      CHECK(counted > 0);  // no batch of padding alone: its mean would be 0/0
    }
    Ids expected;
    for (int32_t t = 1; t < size; ++t) expected.push_back(t);
    CHECK(predicted == expected);
    CHECK_THROWS_AS(loader.batch(loader.batches(), tokens, targets), Error);
  }
  CHECK_THROWS_AS(EvalLoader(counting(directory, 1), 3, 4), Error);
}
