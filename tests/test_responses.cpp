// Responses of units to texts, against sums over the network's own tensors, and what is refused.
#include "tools/analysis/responses.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "engine/safetensors.h"
#include "tests/subject.h"
#include "tools/analysis/strongest.h"

using namespace topolm;

namespace {

using Rows = std::vector<std::vector<float>>;  // [sites][rows * units]

constexpr size_t kSites = 4, kUnits = 36;

/// Activations of sequences of one length, each row with a spatial loss as in training.
Rows run_by_hand(TopoLM& network, const std::vector<std::vector<int32_t>>& sequences) {
  std::vector<int32_t> tokens;
  for (const auto& s : sequences) tokens.insert(tokens.end(), s.begin(), s.end());
  network.set_batch(std::ssize(sequences), std::ssize(sequences[0]), tokens, tokens,
                    network.draw_neighborhoods(1, 2, 3));
  network.forward();
  Rows rows(kSites);
  for (size_t site = 0; site < kSites; ++site) {
    rows[site].resize(tokens.size() * kUnits);
    network.kernels().device().download(rows[site].data(), network.site(static_cast<int>(site)));
  }
  return rows;
}

/// The mean over rows [begin, end).
double mean_of(const Rows& rows, size_t site, size_t unit, size_t begin, size_t end) {
  double sum = 0;
  for (size_t row = begin; row < end; ++row) sum += rows[site][row * kUnits + unit];
  return sum / static_cast<double>(end - begin);
}

const std::vector<std::string> kTexts = {
    "the cat",
    "x",
    "the old house near the sea is never seen",
    "  the dog, the dog!",
    "Caf\xc3\xa9 \xe2\x82\xac\n",
    "she",
    "he has seen the cats and the cats have seen him",
    "old old old old",
    "sea",
    "a",
    "the house",
    "is the dog old",
    "the thirteenth text comes in a batch of its own",
};

/// What came of each sequence.
struct Traces {
  std::vector<std::vector<float>> activations, losses;
  bool operator==(const Traces&) const = default;
};

void fill(Subject& subject, const Tensor& t, float value) {
  const std::vector<float> values(static_cast<size_t>(t.elements()), value);
  subject.network().kernels().device().upload(t, values.data());
}

}  // namespace

TEST_CASE("responses: pooled activations are those of the network run by hand") {
  const TemporaryDirectory directory;
  const auto kernels = make_kernels({"cpu", 2, ""});
  for (const Tap tap : {Tap::pre, Tap::post}) {
    const fs::path checkpoint =
        write_subject(directory / (tap == Tap::pre ? "pre" : "post"), small_tokenizer(300), tap);
    Subject subject(*kernels, checkpoint.parent_path());  // a directory of checkpoints
    CHECK(subject.checkpoint() == checkpoint);
    const int32_t eot = subject.tokenizer().eot();
    REQUIRE(eot >= 256);
    std::vector<std::vector<int32_t>> sequences;
    for (const std::string& text : kTexts) {
      sequences.push_back(subject.encode(text));
      CHECK(subject.tokenizer().decode(sequences.back()) == text);  // nothing before it, nothing behind
    }

    const auto network = open_network(*kernels, checkpoint);
    const Responses mean = record_responses(subject, kTexts),
                    compat = record_responses(subject, kTexts, Pooling::compat),
                    last = record_responses(subject, kTexts, Pooling::last);
    REQUIRE(mean.texts == 13);
    REQUIRE(mean.sites == 4);
    REQUIRE(mean.units == 36);
    size_t longest = 0;  // of the first twelve
    for (size_t i = 0; i < 12; ++i) longest = std::max(longest, sequences[i].size());
    double padding_counts = 0;
    for (size_t i = 0; i < kTexts.size(); ++i) {
      const size_t n = sequences[i].size();
      std::vector<int32_t> padded = sequences[i];
      if (i < 12) padded.resize(longest, eot);
      const Rows rows = run_by_hand(*network, {padded});
      double worst = 0;
      for (size_t site = 0; site < kSites; ++site)
        for (size_t unit = 0; unit < kUnits; ++unit) {
          const auto at = [&](const Responses& r) {
            return double{r.of(static_cast<int64_t>(i), static_cast<int64_t>(site))[unit]};
          };
          worst = std::max(worst, std::abs(at(mean) - mean_of(rows, site, unit, 0, n)));
          worst = std::max(worst, std::abs(at(last) - mean_of(rows, site, unit, n - 1, n)));
          worst = std::max(worst, std::abs(at(compat) - mean_of(rows, site, unit, 0, padded.size())));
          padding_counts = std::max(padding_counts, std::abs(at(compat) - at(mean)));
        }
      CAPTURE(i);
      CHECK(worst < 1e-8);  // means of values around 0.1, rounded to floats
    }
    CHECK(padding_counts > 1e-3);
  }
}

TEST_CASE("responses: what comes of a sequence does not depend on its batch, to the bit") {
  const TemporaryDirectory directory;
  const fs::path checkpoint = write_subject(directory / "model");
  const auto kernels = make_kernels({"cpu", 2, ""});
  // Of 5 tokens 103, so that a batch of 517 has 515 rows: 3 more than the head takes at a time. And of every
  // length, so that batches are padded and some end with a short sequence alone.
  std::vector<std::vector<int32_t>> sequences;
  const auto add = [&](size_t length) {
    std::vector<int32_t> s(length);
    for (size_t i = 0; i < length; ++i)
      s[i] = static_cast<int32_t>((sequences.size() * 31 + i * i * 7) % 320);
    sequences.push_back(s);
  };
  for (int i = 0; i < 103; ++i) add(5);
  for (size_t length = 1; length <= 64; ++length) add(length);
  for (const size_t length : {1, 2, 3}) add(length);

  const auto traces = [&](int64_t rows, std::optional<int64_t> in_order = {}) {
    Subject subject(*kernels, checkpoint, rows);
    fill(subject, subject.network().weights().fp32().ln_f, 300);  // losses that show the logits' last bits
    Traces o{std::vector<std::vector<float>>(sequences.size()),
             std::vector<std::vector<float>>(sequences.size())};
    const auto visit = [&](std::span<const Subject::Sequence> batch) {
      REQUIRE(!batch.empty());
      CHECK((std::ssize(batch) * batch[0].time <= rows || batch.size() == 1));
      std::vector<float> losses;
      if (batch[0].time > 1) {
        subject.network().evaluate();
        losses = subject.network().token_losses();
      }
      for (const Subject::Sequence& s : batch) {
        CHECK(s.time == batch[0].time);
        CHECK(s.tokens == std::ssize(sequences[s.index]));
        if (s.tokens > 1)
          o.losses[s.index].assign(losses.begin() + s.row, losses.begin() + s.row + s.tokens - 1);
      }
      for (int site = 0; site < static_cast<int>(kSites); ++site) {
        const std::vector<float> rows_of_site = subject.activations(site);
        for (const Subject::Sequence& s : batch) {
          const auto begin = rows_of_site.begin() + s.row * static_cast<int64_t>(kUnits);
          o.activations[s.index].insert(o.activations[s.index].end(), begin,
                                        begin + s.tokens * static_cast<int64_t>(kUnits));
        }
      }
    };
    subject.run(sequences, visit, in_order);
    return o;
  };
  const Traces alone = traces(1);
  for (size_t i = 0; i < sequences.size(); ++i) {
    CHECK(alone.activations[i].size() == kSites * kUnits * sequences[i].size());
    CHECK(alone.losses[i].size() == sequences[i].size() - 1);
  }
  CHECK(alone == traces(20));
  CHECK(alone == traces(517));
  CHECK(alone == traces(1 << 16));
  CHECK(alone == traces(300, 7));
}

TEST_CASE("responses: in order, sequences stay together however small the memory, and padding is text") {
  const TemporaryDirectory directory;
  const auto kernels = make_kernels({"cpu", 1, ""});
  Subject subject(*kernels, write_subject(directory / "model"), 20);
  const std::vector<std::vector<int32_t>> sequences = {
      {1, 2}, {3, 4, 5, 6, 7, 8, 9, 10, 11}, {12}, {13, 14}, {15}};
  std::vector<size_t> seen;
  subject.run(
      sequences,
      [&](std::span<const Subject::Sequence> batch) {
        subject.network().evaluate();
        const std::vector<float> losses = subject.network().token_losses();
        for (const Subject::Sequence& s : batch) {
          seen.push_back(s.index);
          CHECK(s.time == (s.index < 3 ? 9 : 2));
          for (int64_t i = 0; i < s.time; ++i)
            CHECK((losses[static_cast<size_t>(s.row + i)] > 0) == (i + 1 < s.time));
        }
      },
      3);
  CHECK(seen == std::vector<size_t>{0, 1, 2, 3, 4});
}

TEST_CASE("responses: .npy as NumPy reads it, and .safetensors with a tensor a site") {
  const TemporaryDirectory directory;
  Responses r{2, 4, 3, {}};
  for (int i = 0; i < 24; ++i) r.values.push_back(static_cast<float>(i) / 8);
  write_responses(directory / "r.npy", r);
  const std::string npy = read_file(directory / "r.npy");
  const std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 4, 3), }";
  REQUIRE(npy.size() == 128 + 24 * 4);
  CHECK(npy.substr(0, 10) == std::string("\x93NUMPY\x01\x00\x76\x00", 10));
  CHECK(npy.substr(10, 118) == header + std::string(117 - header.size(), ' ') + "\n");
  CHECK(std::memcmp(npy.data() + 128, r.values.data(), 24 * 4) == 0);
  CHECK(npy.substr(128 + 3 * 4, 4) == std::string("\0\0\xc0\x3e", 4));  // 0.375
  // A longer header, which fills its 64 bytes to the last.
  for (const int64_t texts : {int64_t{1000}, int64_t{123456789}}) {
    write_responses(directory / "r.npy", {texts, 0, 0, {}});
    CHECK(fs::file_size(directory / "r.npy") % 64 == 0);
    CHECK(read_file(directory / "r.npy").ends_with("\n"));
  }

  write_responses(directory / "r.safetensors", r);
  const SafetensorsFile file(directory / "r.safetensors");
  REQUIRE(file.tensors().size() == 4);
  for (int site = 0; site < 4; ++site) {
    const HostTensor& t = file.get(site_name(site));
    REQUIRE(t.shape == Shape{2, 3});
    for (int64_t text = 0; text < 2; ++text)
      CHECK(std::memcmp(static_cast<const char*>(t.data) + text * 12, r.of(text, site).data(), 12) == 0);
  }
  CHECK(error_of([&] { write_responses(directory / "r.csv", r); }) ==
        "'" + (directory / "r.csv").string() +
            "' says no format that responses are written in; end it with .npy or .safetensors");
  CHECK(contains(error_of([&] { write_responses(directory / "none/r.npy", r); }), "choose a writable place"));
}

TEST_CASE("responses: what cannot be measured is one sentence") {
  const TemporaryDirectory directory;
  const auto kernels = make_kernels({"cpu", 1, ""});
  const auto opening = [&](const fs::path& path) { return error_of([&] { Subject(*kernels, path); }); };
  CHECK(contains(opening(directory / "nothing"), "there is no model in"));
  CHECK(contains(opening(write_subject(directory / "mute", "")), "has no tokenizer.json"));
  CHECK(contains(opening(write_subject(directory / "torn", "{\"model\": ")), "tokenizer.json"));
  const fs::path large = write_subject(directory / "large");
  std::string config = read_file(large / "config.json");
  config.replace(config.find("320"), 3, "270");
  write_file(large / "config.json", config);
  CHECK(contains(opening(large), "tokens, but the model knows 270"));

  const fs::path checkpoint = write_subject(directory / "model");
  Subject subject(*kernels, checkpoint);
  const auto encoding = [&](const std::string& text) { return error_of([&] { subject.encode(text); }); };
  CHECK(contains(encoding(""), "without a single character"));
  CHECK(encoding(std::string(64, '#')).empty());
  CHECK(contains(encoding(std::string(65, '#')), "has 65 tokens, more than the 64 of the context"));
  CHECK(contains(encoding("#" + std::string(65, '#')), "'" + std::string(60, '#') + "...' has 66 tokens"));
  std::string euros;
  for (int i = 0; i < 40; ++i) euros += "\xe2\x82\xac";
  CHECK(contains(encoding("#" + euros), "'#" + euros.substr(0, 57) + "...'"));  // cut between characters
  const std::vector<std::string> texts = {"the cat", ""};
  CHECK(contains(error_of([&] { record_responses(subject, texts); }), "without a single character"));

  const auto running = [&](std::vector<std::vector<int32_t>> sequences) {
    return error_of([&] { subject.run(sequences, [](std::span<const Subject::Sequence>) {}); });
  };
  CHECK(contains(running({{1}, {}}), "sequence 1 has 0 tokens"));
  CHECK(contains(running({std::vector<int32_t>(65, 1)}), "sequence 0 has 65 tokens"));
  CHECK(contains(running({{1, 320}}), "token 320 is not in the vocabulary"));
  CHECK(contains(running({{-1}}), "token -1 is not in the vocabulary"));
  CHECK(running({}).empty());

  fill(subject, subject.network().weights().fp32().h[1].ln_2, NAN);
  CHECK(contains(error_of([&] { record_responses(subject, std::span(texts).first(1)); }), "is damaged"));
  CHECK(contains(error_of([&] { find_strongest(subject, std::vector<int32_t>(9, 1)); }), "is damaged"));
}

TEST_CASE("responses: the strongest tokens of every unit, as sorting finds them") {
  const TemporaryDirectory directory;
  const fs::path checkpoint = write_subject(directory / "model");
  const auto kernels = make_kernels({"cpu", 2, ""});
  Subject subject(*kernels, checkpoint, 100);
  const auto network = open_network(*kernels, checkpoint);
  // Three windows; the second repeats the first, so all its activations are ties.
  std::vector<int32_t> text(150);
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<int32_t>(i % 64 * 37 % 320);
  for (size_t i = 128; i < text.size(); ++i) text[i] = static_cast<int32_t>(319 - i);
  const StrongestTokens strongest = find_strongest(subject, text, 7);
  CHECK(strongest.tokens == text);
  CHECK(strongest.k == 7);
  REQUIRE(strongest.positions.size() == kSites * kUnits * 7);
  REQUIRE(strongest.values.size() == kSites * kUnits * 7);

  Rows rows(kSites);
  for (size_t begin = 0; begin < text.size(); begin += 64) {
    const auto window = std::span(text).subspan(begin, std::min<size_t>(64, text.size() - begin));
    const Rows part = run_by_hand(*network, {{window.begin(), window.end()}});
    for (size_t site = 0; site < kSites; ++site)
      rows[site].insert(rows[site].end(), part[site].begin(), part[site].end());
  }
  std::vector<uint16_t> positions;
  std::vector<float> values;
  for (size_t site = 0; site < kSites; ++site)
    for (size_t unit = 0; unit < kUnits; ++unit) {
      std::vector<std::pair<float, size_t>> all;
      for (size_t i = 0; i < text.size(); ++i) all.emplace_back(-rows[site][i * kUnits + unit], i);
      std::sort(all.begin(), all.end());
      for (size_t i = 0; i < 7; ++i) {
        values.push_back(-all[i].first);
        positions.push_back(static_cast<uint16_t>(all[i].second));
      }
    }
  CHECK(strongest.positions == positions);
  CHECK(strongest.values == values);

  CHECK(find_strongest(subject, text).k == 5);
  CHECK(error_of([&] { find_strongest(subject, std::span(text).first(5), 5); }).empty());
  CHECK(contains(error_of([&] { find_strongest(subject, std::span(text).first(4), 5); }),
                 "a text of 4 tokens"));
  CHECK(contains(error_of([&] { find_strongest(subject, std::vector<int32_t>(65537, 1)); }),
                 "give 5 to 65536"));
  CHECK(contains(error_of([&] { find_strongest(subject, std::vector<int32_t>(9, 320)); }), "token 320"));
}
