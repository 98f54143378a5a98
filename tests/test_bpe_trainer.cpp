#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "engine/random.h"
#include "tests/temporary.h"
#include "tokenizer/bpe_trainer.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/pretokenizer.h"

using namespace topolm;

namespace {

Tokenizer train(std::string_view text, int32_t vocab_size, int threads = 1) {
  ThreadPool pool(threads);
  const std::vector<std::string_view> documents = {text};
  return train_bpe(documents, vocab_size, pool);
}

std::vector<std::string> learnt(const Tokenizer& t) {
  std::vector<std::string> tokens;
  for (const Merge& m : t.merges()) tokens.push_back(t.token(m.result));
  return tokens;
}

/// The definition, without cleverness: count every pair of the whole text again after each merge.
std::vector<std::string> train_slowly(std::string_view text, size_t merges) {
  std::vector<std::string> tokens;
  for (const uint8_t byte : byte_order()) tokens.emplace_back(1, static_cast<char>(byte));
  const auto id_of = [&](const std::string& token) {
    return static_cast<int32_t>(std::find(tokens.begin(), tokens.end(), token) - tokens.begin());
  };
  std::vector<std::vector<int32_t>> words;
  for_each_piece(text, [&](std::string_view piece) {
    words.emplace_back();
    for (const char c : piece) words.back().push_back(id_of(std::string(1, c)));
  });
  std::vector<std::string> result;
  while (result.size() < merges) {
    std::map<std::pair<int32_t, int32_t>, int64_t> counts;  // in order of ids: the first of the best wins
    for (const auto& w : words)
      for (size_t i = 0; i + 1 < w.size(); ++i) ++counts[{w[i], w[i + 1]}];
    std::pair<int32_t, int32_t> best;
    int64_t best_count = 1;
    for (const auto& [pair, count] : counts) {
      if (count > best_count) {
        best = pair;
        best_count = count;
      }
    }
    if (best_count < 2) break;
    const std::string bytes = tokens[best.first] + tokens[best.second];
    const int32_t id = id_of(bytes);
    if (id == static_cast<int32_t>(tokens.size())) tokens.push_back(bytes);
    result.push_back(bytes);
    for (auto& w : words) {
      std::vector<int32_t> out;
      for (size_t i = 0; i < w.size(); ++i) {
        const bool here = i + 1 < w.size() && w[i] == best.first && w[i + 1] == best.second;
        out.push_back(here ? id : w[i]);
        i += here ? 1 : 0;
      }
      w = out;
    }
  }
  return result;
}

/// Words over a small alphabet, so that pairs overlap, tie and spell the same bytes in two ways.
std::string random_words(uint64_t seed, int words, uint64_t letters) {
  Random random(seed, Random::Purpose::tests);
  std::string text;
  for (int w = 0; w < words; ++w) {
    for (uint64_t n = 1 + random.below(9); n > 0; --n) text += static_cast<char>('a' + random.below(letters));
    text += random.below(4) == 0 ? '\n' : ' ';
  }
  return text;
}

}  // namespace

TEST_CASE("bpe_trainer: worked out by hand") {
  // Pieces: "hug" x3, " hug" x2, " pug" x2. "ug" 7 times, then "hug" 5, then three pairs twice each:
  // (" ", hug), (" ", "p"), ("p", "ug"). 'p' (id 79) is a smaller left id than ' ' (220).
  const Tokenizer t = train("hug\nhug hug pug\nhug hug pug", 1000);
  CHECK(learnt(t) == std::vector<std::string>{"ug", "hug", "pug", " hug", " pug"});
  CHECK(t.vocab_size() == 256 + 5 + 1);
  CHECK(t.token(0) == "!");
  CHECK(t.token(220) == " ");
  CHECK(t.token(256) == "ug");
  CHECK(t.eot() == t.vocab_size() - 1);
  CHECK(t.token(t.eot()) == kEndOfText);
}

TEST_CASE("bpe_trainer: equals the definition on random text") {
  for (uint64_t seed = 0; seed < 12; ++seed) {
    const std::string text = random_words(seed, 150, 1 + seed % 4);
    CAPTURE(seed);
    const std::vector<std::string> fast = learnt(train(text, 340));
    const std::vector<std::string> slow = train_slowly(text, 1000);
    // Repeated merges of shared tokens are left out of ours; compare up to the first, and the rest as a set.
    CHECK(fast.size() <= slow.size());
    const size_t same = static_cast<size_t>(
        std::mismatch(fast.begin(), fast.end(), slow.begin(), slow.end()).first - fast.begin());
    CHECK(same == fast.size());
  }
}

TEST_CASE("bpe_trainer: the same vocabulary at any number of threads and in any order of documents") {
  std::string text;
  for (uint64_t seed = 0; text.size() < 5 << 20; ++seed) text += random_words(seed % 50, 20000, 20);
  const Tokenizer one = train(text, 600, 1);
  CHECK(one.vocab_size() == 600);
  for (const int threads : {2, 3, 8}) CHECK(train(text, 600, threads).merges() == one.merges());

  const std::vector<std::string_view> forward = {"low lower lowest", "new newer newest"};
  const std::vector<std::string_view> backward = {forward[1], forward[0]};
  ThreadPool pool(2);
  CHECK(train_bpe(forward, 300, pool).merges() == train_bpe(backward, 300, pool).merges());
}

TEST_CASE("bpe_trainer: too little text gives a smaller vocabulary, too small a size an error") {
  CHECK(train("", 4096).vocab_size() == 257);
  CHECK(train("abcdefg", 4096).vocab_size() == 257);  // no pair occurs twice
  CHECK(train("abab", 257).merges().empty());
  CHECK(error_of([] { train("abab", 256); }) ==
        "a vocabulary of 256 tokens is too small; the 256 bytes and <|endoftext|> already make 257");
}

TEST_CASE("bpe_trainer: what it learnt is what encoding uses") {
  const std::string text = random_words(99, 2000, 6);
  const Tokenizer t = train(text, 500);
  CHECK(t.vocab_size() == 500);
  const std::vector<int32_t> ids = t.encode(text);
  CHECK(t.decode(ids) == text);
  CHECK(ids.size() < text.size() / 2);
}
