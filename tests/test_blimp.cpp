// BLiMP: the files, and the scores of sentences against probabilities computed by hand.
#include "tools/analysis/blimp.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tests/subject.h"

using namespace topolm;

namespace {

// Sentences of ours in BLiMP's format.
const std::string kPairs =
    R"({"sentence_good": "The dogs near the cat are old.", "sentence_bad": "The dogs near the cat is old.", "field": "syntax", "linguistics_term": "agreement", "UID": "plural", "pairID": "0"}
{"sentence_good": "The cats see the sea.", "sentence_bad": "The cats sees the sea.", "field": "syntax", "linguistics_term": "agreement", "UID": "plural", "pairID": "1"}
{"sentence_good": "The dog sees a house.", "sentence_bad": "The dog see a house.", "field": "syntax", "linguistics_term": "agreement", "UID": "singular", "pairID": "2"}
{"sentence_good": "She has never seen the sea.", "sentence_bad": "She has ever seen the sea.", "field": "semantics", "linguistics_term": "npi", "UID": "ever", "pairID": "3"}
{"sentence_good": "No caf\u00e9 is ever old.", "sentence_bad": "Every caf\u00e9 is ever old.", "field": "semantics", "linguistics_term": "npi", "UID": "ever", "pairID": "4"}
{"sentence_good": "He sees himself near the house.", "sentence_bad": "He sees herself near the house.", "field": "syntax", "linguistics_term": "anaphor", "UID": "gender", "pairID": "5"}
)";

/// The sum of -ln p over all tokens of a row of ids but the first.
double score_by_hand(TopoLM& network, const std::vector<int32_t>& tokens) {
  network.set_batch(1, std::ssize(tokens), tokens, tokens);
  network.run_network();
  const std::vector<float> logits = network.logits();
  const auto vocabulary = static_cast<size_t>(network.config().vocab_size);
  double score = 0;
  for (size_t i = 0; i + 1 < tokens.size(); ++i) {
    const auto row = std::span(logits).subspan(i * vocabulary, vocabulary);
    double sum = 0;
    for (const float x : row) sum += std::exp(double{x});
    score += std::log(sum) - row[static_cast<size_t>(tokens[i + 1])];
  }
  return score;
}

/// Pairs of words in changing order, each with a UID of its own; good and bad ones of other lengths.
std::vector<MinimalPair> make_pairs(size_t count) {
  const std::array<std::string, 7> words = {"the ", "dog ", "sees ", "old ", "sea ", "near ", "x"};
  const auto sentence = [&](size_t i, size_t length) {
    std::string text = "The";
    for (size_t k = 0; k < length; ++k) text += " " + words[(i * 5 + k * (i % 4 + 1) + k * k) % words.size()];
    return text;
  };
  std::vector<MinimalPair> pairs;
  for (size_t i = 0; i < count; ++i)
    pairs.push_back(
        {sentence(i, 2 + i % 5), sentence(i + 1, 2 + (i + i / 7) % 5), std::to_string(i), "words"});
  return pairs;
}

int64_t verdict(const BlimpResult& result, size_t pair) {
  return result.by_uid.at(std::to_string(pair)).correct;
}

}  // namespace

TEST_CASE("blimp: a file, or all of a directory in order of their names") {
  const TemporaryDirectory directory;
  const std::vector<MinimalPair> pairs = load_blimp(directory.write("b.jsonl", kPairs));
  REQUIRE(pairs.size() == 6);
  CHECK(pairs[0].good == "The dogs near the cat are old.");
  CHECK(pairs[0].bad == "The dogs near the cat is old.");
  CHECK(pairs[2].uid == "singular");
  CHECK(pairs[3].phenomenon == "npi");
  CHECK(pairs[4].good == "No caf\xc3\xa9 is ever old.");

  const std::string first = kPairs.substr(0, kPairs.find('\n'));
  directory.write("a.jsonl", "\n" + first + "\r\n\r\n");
  directory.write("c.jsonl", first);  // no newline at its end
  directory.write("._b.jsonl", "what macOS leaves");
  directory.write("README.md", "and people");
  const std::vector<MinimalPair> all = load_blimp(directory.path());
  REQUIRE(all.size() == 8);
  CHECK(all[0].uid == "plural");
  CHECK(all[6].uid == "gender");
  CHECK(all[7].uid == "plural");
}

TEST_CASE("blimp: a damaged file is one sentence with its line") {
  const TemporaryDirectory directory;
  const auto error = [&](const std::string& contents) {
    const fs::path path = directory.write("b.jsonl", contents);
    return error_of([&] { load_blimp(path); });
  };
  const std::string line = kPairs.substr(0, kPairs.find('\n') + 1), name = (directory / "b.jsonl").string();
  const auto damaged = [&](const std::string& from, const std::string& to) {
    std::string text = line;
    return error(line + "\n" + text.replace(text.find(from), from.size(), to));
  };
  CHECK(damaged("are", "\xff") ==
        "line 3 of '" + name + "' is not a JSON object in UTF-8; BLiMP's files have one a line");
  CHECK(contains(error(line + line.substr(0, 30)), "line 2 of"));
  CHECK(contains(error("[1, 2]\n"), "line 1 of '" + name + "' is not a JSON object"));
  for (const std::string field : {"sentence_good", "sentence_bad", "UID", "linguistics_term"})
    CHECK(contains(damaged("\"" + field + "\"", "\"other\""),
                   "line 3 of '" + name + "' has no text '" + field + "'"));
  CHECK(contains(damaged("\"plural\"", "7"), "has no text 'UID'"));
  CHECK(contains(damaged("The dogs near the cat are old.", ""), "has no text 'sentence_good'"));
  CHECK(contains(error(""), "has no minimal pairs"));
  CHECK(contains(error_of([&] { load_blimp(directory / "none"); }), "cannot open"));
  make_directories(directory / "empty");
  CHECK(contains(error_of([&] { load_blimp(directory / "empty"); }), "has no .jsonl files"));
}

TEST_CASE("blimp: verdicts are those of probabilities computed by hand") {
  const TemporaryDirectory directory;
  const fs::path checkpoint = write_subject(directory / "model");
  const auto kernels = make_kernels({"cpu", 2, ""});
  Subject subject(*kernels, checkpoint);
  const auto network = open_network(*kernels, checkpoint);

  std::vector<MinimalPair> pairs = load_blimp(directory.write("b.jsonl", kPairs));
  BlimpResult expected;
  for (const MinimalPair& pair : pairs) {
    const double good = score_by_hand(*network, subject.encode(pair.good)),
                 bad = score_by_hand(*network, subject.encode(pair.bad));
    REQUIRE(std::abs(good - bad) > 1e-3);  // no verdict hangs on rounding
    for (BlimpScore* s :
         {&expected.all, &expected.by_phenomenon[pair.phenomenon], &expected.by_uid[pair.uid]})
      ++s->pairs, s->correct += good < bad;
  }
  const auto check_same = [](const auto& a, const auto& b) {
    REQUIRE(a.size() == b.size());
    for (const auto& [name, score] : a) {
      CHECK(b.at(name).pairs == score.pairs);
      CHECK(b.at(name).correct == score.correct);
    }
  };
  const BlimpResult result = score_blimp(subject, pairs);
  CHECK(result.all.pairs == 6);
  CHECK(result.all.correct == expected.all.correct);
  check_same(expected.by_phenomenon, result.by_phenomenon);
  check_same(expected.by_uid, result.by_uid);
  CHECK(result.by_phenomenon.at("agreement").pairs == 3);
  CHECK(result.all.accuracy() == static_cast<double>(expected.all.correct) / 6);

  for (MinimalPair& pair : pairs) std::swap(pair.good, pair.bad);
  CHECK(score_blimp(subject, pairs).all.correct == 6 - expected.all.correct);
}

TEST_CASE("blimp: ties are wrong, a first token counts nothing, too long is refused") {
  const TemporaryDirectory directory;
  const auto kernels = make_kernels({"cpu", 1, ""});
  Subject subject(*kernels, write_subject(directory / "model"));
  for (const bool compat : {false, true}) {
    const auto accuracy = [&](const std::string& good, const std::string& bad) {
      return score_blimp(subject, {{good, bad, "u", "p"}}, compat).all.accuracy();
    };
    CHECK(accuracy("The sea.", "The sea.") == 0);
    CHECK(accuracy("#", "%") == 0);  // one token each: 0 against 0
    CHECK(accuracy("#", "%%") == 1);
    CHECK(accuracy("%%", "#") == 0);
    const std::string error = error_of([&] { accuracy("The sea.", std::string(65, '#')); });
    CHECK(contains(error, "has 65 tokens, more than the 64 of the context"));
  }
  CHECK(score_blimp(subject, {}).all.accuracy() == 0);
  const std::vector<float> bad(36, NAN);
  kernels->device().upload(subject.network().weights().fp32().ln_f, bad.data());
  CHECK(contains(error_of([&] { score_blimp(subject, make_pairs(3)); }), "is damaged"));
}

TEST_CASE("blimp: as the published code counts, padding decides") {
  const TemporaryDirectory directory;
  const fs::path checkpoint = write_subject(directory / "model");
  const auto kernels = make_kernels({"cpu", 2, ""});
  Subject subject(*kernels, checkpoint);
  const auto network = open_network(*kernels, checkpoint);
  const std::vector<MinimalPair> pairs = make_pairs(70);

  // Batches of 48 and 22, good and bad ones padded apart.
  std::vector<std::vector<int32_t>> good, bad;
  for (const MinimalPair& p : pairs)
    good.push_back(subject.encode(p.good)), bad.push_back(subject.encode(p.bad));
  for (auto* side : {&good, &bad})
    for (size_t begin = 0; begin < side->size(); begin += 48) {
      const auto batch = std::span(*side).subspan(begin, std::min<size_t>(48, side->size() - begin));
      size_t longest = 0;
      for (const auto& s : batch) longest = std::max(longest, s.size());
      for (auto& s : batch) s.resize(longest, subject.tokenizer().eot());
    }
  const BlimpResult compat = score_blimp(subject, pairs, true), masked = score_blimp(subject, pairs);
  int differ = 0, undecided = 0;
  for (size_t i = 0; i < pairs.size(); ++i) {
    const double g = score_by_hand(*network, good[i]), b = score_by_hand(*network, bad[i]);
    differ += verdict(compat, i) != verdict(masked, i);
    if (std::abs(g - b) < 1e-3)
      ++undecided;
    else
      CHECK(verdict(compat, i) == (g < b));
  }
  CHECK(undecided < 3);
  CHECK(differ > 0);
  CHECK(compat.all.correct > 5);
  CHECK(compat.all.correct < 65);
}

TEST_CASE("blimp: verdicts do not depend on the batches") {
  const TemporaryDirectory directory;
  const fs::path checkpoint = write_subject(directory / "model");
  const auto kernels = make_kernels({"cpu", 2, ""});
  const std::vector<MinimalPair> pairs = make_pairs(120);
  for (const bool compat : {false, true}) {
    Subject all_at_once(*kernels, checkpoint, 4096);
    const BlimpResult result = score_blimp(all_at_once, pairs, compat);
    CHECK(result.all.correct > 10);
    CHECK(result.all.correct < 110);
    for (const int64_t rows : {1, 50, 513}) {
      Subject subject(*kernels, checkpoint, rows);
      const BlimpResult other = score_blimp(subject, pairs, compat);
      for (size_t i = 0; i < pairs.size(); ++i) CHECK(verdict(other, i) == verdict(result, i));
    }
  }
}
