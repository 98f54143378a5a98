// GPT-2's own vocabulary, which `make test` fetches: tools/fetch_gpt2_vocab.sh. The ids are those of OpenAI's
// tiktoken 1.0.22 (encode_ordinary of "gpt2"), the same as of the npm package gpt-3-encoder 1.1.4.
#include <doctest/doctest.h>

#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "engine/random.h"
#include "tests/base64.h"
#include "tests/temporary.h"
#include "tokenizer/tokenizer_files.h"

using namespace topolm;
using namespace std::string_view_literals;

namespace {

fs::path vocabulary_directory() {
  const char* place = std::getenv("TOPOLM_GPT2_VOCAB");
  const fs::path directory = place ? place : "build/gpt2";
  // A missing vocabulary must not look like a passed test.
  require(fs::exists(directory / "encoder.json"),
          "GPT-2's vocabulary is not in '{}'; run tools/fetch_gpt2_vocab.sh {} or set TOPOLM_GPT2_VOCAB",
          directory.string(), directory.string());
  return directory;
}

const Tokenizer& gpt2() {
  static const Tokenizer tokenizer = load_tokenizer(vocabulary_directory());
  return tokenizer;
}

}  // namespace

TEST_CASE("gpt2: the ids that OpenAI's tokenizer gives") {
  struct Example {
    std::string_view text;
    std::vector<int32_t> ids;
  };
  const std::vector<Example> examples = {
      {"Hello world", {15496, 995}},
      {"hello world", {31373, 995}},
      {"Hello, world!", {15496, 11, 995, 0}},
      {" This is an example sentence", {770, 318, 281, 1672, 6827}},
      {"don't we'll I'VE they're", {9099, 470, 356, 1183, 314, 6, 6089, 484, 821}},
      {"  two  spaces  ", {220, 734, 220, 9029, 220, 220}},
      {"tab\tand\r\nnewline\n\nend\n", {8658, 197, 392, 201, 198, 3605, 1370, 198, 198, 437, 198}},
      {"   ", {220, 220, 220}},
      {"\n \n", {198, 220, 198}},
      {"x² + ½ = Ⅷ", {87, 31185, 1343, 25208, 796, 2343, 227, 100}},
      {"1234567890 3.14", {10163, 2231, 30924, 3829, 513, 13, 1415}},
      {"naïve café", {2616, 38776, 40304}},
      {"漢字とかな交じり文",
       {162, 120, 95, 27764, 245, 30201, 27370, 26945, 12859, 97, 2515, 246, 28255, 23877, 229}},
      {"한국어", {47991, 250, 166, 113, 255, 168, 244, 112}},
      {"Привет, мир!", {140, 253, 21169, 18849, 38857, 16843, 20375, 11, 12466, 120, 18849, 21169, 0}},
      {"مرحبا", {25405, 26897, 148, 255, 39848, 12919}},
      {"😀👍🏽 ok", {47249, 222, 41840, 235, 8582, 237, 121, 12876}},
      {"a\u00a0b\u3000c\u2028d\u0085e", {64, 1849, 65, 5099, 222, 66, 447, 101, 67, 126, 227, 68}},
      {"<|endoftext|>", {27, 91, 437, 1659, 5239, 91, 29}},
      {"def f(x):\n    return x*x  # square\n",
       {4299, 277, 7, 87, 2599, 198, 220, 220, 220, 1441, 2124, 9, 87, 220, 1303, 6616, 198}},
      {"ſ'ſ 's'S", {129, 123, 6, 129, 123, 705, 82, 6, 50}},
      {"supercalifragilisticexpialidocious",
       {16668, 9948, 361, 22562, 346, 396, 501, 42372, 498, 312, 32346}},
      {"It is a truth universally acknowledged, that a single man",
       {1026, 318, 257, 3872, 26208, 10810, 11, 326, 257, 2060, 582}},
      {"\0\x01\x7f\ufeff"sv, {188, 189, 221, 171, 119, 123}},
      {"zero\u200bwidth", {22570, 9525, 10394}},
      {"e\u0301 \u0301", {68, 136, 223, 220, 136, 223}},
      {"''' '''", {7061, 6, 705, 7061}},
      {"(“quoted”)…—end", {7, 447, 250, 421, 5191, 447, 251, 8, 1399, 960, 437}},
  };
  for (const Example& example : examples) {
    CAPTURE(example.text);
    CHECK(gpt2().encode(example.text) == example.ids);
    CHECK(gpt2().decode(example.ids) == example.text);
  }
}

TEST_CASE("gpt2: its size and its special token") {
  CHECK(gpt2().vocab_size() == 50257);
  CHECK(gpt2().merges().size() == 50000);
  CHECK(gpt2().eot() == 50256);
  CHECK(gpt2().specials() == std::vector<int32_t>{50256});
  CHECK(gpt2().encode("hello world<|endoftext|>", Specials::recognise) ==
        std::vector<int32_t>{31373, 995, 50256});
  CHECK(gpt2().token(0) == "!");
  CHECK(gpt2().token(50255) == " gazed");
}

TEST_CASE("gpt2: any bytes come back, and every token encodes to something that decodes to it") {
  Random random(1, Random::Purpose::tests);
  for (int round = 0; round < 300; ++round) {
    std::string bytes;
    for (uint64_t n = random.below(100); n > 0; --n) bytes += static_cast<char>(random.below(256));
    CHECK(gpt2().decode(gpt2().encode(bytes)) == bytes);
  }
  for (int32_t id = 0; id < gpt2().vocab_size(); ++id) {
    const std::string& token = gpt2().token(id);
    if (gpt2().decode(gpt2().encode(token)) != token) FAIL("token ", id, " does not come back");
  }
}

TEST_CASE("gpt2: the same through tokenizer.json and through a rank file") {
  const TemporaryDirectory directory;
  save_tokenizer(gpt2(), directory / "tokenizer.json");
  const Tokenizer json = load_tokenizer(directory / "tokenizer.json");
  CHECK(json.merges() == gpt2().merges());
  CHECK(json.specials() == gpt2().specials());

  std::string ranks;  // the rank file of r50k_base leaves out the special
  for (int32_t id = 0; id < gpt2().eot(); ++id)
    ranks += base64(gpt2().token(id)) + " " + std::to_string(id) + "\n";
  const Tokenizer tiktoken = load_tokenizer(directory.write("r50k_base.tiktoken", ranks));
  CHECK(tiktoken.vocab_size() == 50257);
  CHECK(tiktoken.eot() == 50256);
  CHECK(tiktoken.merges() == gpt2().merges());  // exactly OpenAI's list, found again from the ranks alone
}
