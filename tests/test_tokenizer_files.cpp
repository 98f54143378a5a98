#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/base64.h"
#include "tests/temporary.h"
#include "tokenizer/bpe_trainer.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/tokenizer_files.h"

using namespace topolm;
using nlohmann::json;

namespace {

constexpr int kHe = 256, kThe = 257, kEot = 258;  // ids in the small vocabulary below

/// The 256 bytes, "he", "the" and <|endoftext|>.
json small_vocab() {
  json vocab = json::object();
  for (int i = 0; i < 256; ++i)
    vocab[to_byte_alphabet(std::string(1, static_cast<char>(byte_order()[static_cast<size_t>(i)])))] = i;
  vocab["he"] = kHe;
  vocab["Ġhe"] = kThe;
  vocab["<|endoftext|>"] = kEot;
  return vocab;
}

const std::string kMerges = "#version: 0.2\nh e\nĠ he\n";

/// A tokenizer.json as Hugging Face writes it, for tests to spoil.
json small_tokenizer_json() {
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens",
           {{{"id", kEot},
             {"content", "<|endoftext|>"},
             {"single_word", false},
             {"lstrip", false},
             {"rstrip", false},
             {"normalized", false},
             {"special", true}}}},
          {"normalizer", nullptr},
          {"pre_tokenizer",
           {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", small_vocab()}, {"merges", {"h e", "Ġ he"}}}}};
}

/// The 256 bytes in GPT-2's order as a rank file.
std::string byte_ranks() {
  std::string lines;
  for (size_t i = 0; i < 256; ++i)
    lines += base64(std::string(1, static_cast<char>(byte_order()[i]))) + " " + std::to_string(i) + "\n";
  return lines;
}

void check_small(const Tokenizer& t) {
  CHECK(t.vocab_size() == 259);
  CHECK(t.eot() == kEot);
  CHECK(t.token(kThe) == " he");
  CHECK(t.merges() == std::vector<Merge>{{71, 68, kHe}, {220, kHe, kThe}});
  CHECK(t.encode("he he<|endoftext|>", Specials::recognise) == std::vector<int32_t>{kHe, kThe, kEot});
}

}  // namespace

TEST_CASE("tokenizer_files: a written tokenizer.json comes back the same, and is laid out as documented") {
  const std::string text =
      "the cat \"sat\" on the \\ mat\n\nthe c\xff\xfft sat 漢字 漢字 on the mat \x01\x01 \x01\x01";
  ThreadPool pool(1);
  const std::vector<std::string_view> documents = {text};
  const Tokenizer t = train_bpe(documents, 400, pool);
  const TemporaryDirectory directory;
  save_tokenizer(t, directory / "tokenizer.json");

  const Tokenizer back = load_tokenizer(directory.path());
  REQUIRE(back.vocab_size() == t.vocab_size());
  for (int32_t id = 0; id < t.vocab_size(); ++id) CHECK(back.token(id) == t.token(id));
  CHECK(back.merges() == t.merges());
  CHECK(back.specials() == t.specials());
  CHECK(back.eot() == t.eot());
  CHECK(back.encode(text) == t.encode(text));

  const json file = json::parse(read_file(directory / "tokenizer.json"));
  std::vector<std::string> keys;
  for (const auto& [key, value] : file.items()) keys.push_back(key);
  CHECK(keys == std::vector<std::string>{"added_tokens", "decoder", "model", "normalizer", "padding",
                                         "post_processor", "pre_tokenizer", "truncation", "version"});
  CHECK(file["version"] == "1.0");
  CHECK(
      file["pre_tokenizer"] ==
      json{{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}});
  CHECK(file["model"]["type"] == "BPE");
  CHECK(file["model"]["vocab"].size() == static_cast<size_t>(t.vocab_size()));
  CHECK(file["model"]["vocab"]["Ġ"] == 220);
  CHECK(file["added_tokens"][0]["content"] == "<|endoftext|>");
  CHECK(file["added_tokens"][0]["id"] == t.eot());

  save_tokenizer(back, directory / "again.json");
  CHECK(read_file(directory / "again.json") == read_file(directory / "tokenizer.json"));
}

TEST_CASE("tokenizer_files: tokenizer.json with merges as strings and as pairs") {
  const TemporaryDirectory directory;
  json file = small_tokenizer_json();
  check_small(load_tokenizer(directory.write("tokenizer.json", file.dump())));
  file["model"]["merges"] = json::array({json::array({"h", "e"}), json::array({"Ġ", "he"})});
  check_small(load_tokenizer(directory.write("other.json", file.dump())));
  check_small(load_tokenizer(directory.write("name_without_type", file.dump(2))));
  // The special token need not be in model.vocab as well, and the model's type may be left out (old files).
  file["model"]["vocab"].erase("<|endoftext|>");
  file["model"].erase("type");
  check_small(load_tokenizer(directory.write("old.json", file.dump())));
}

TEST_CASE("tokenizer_files: vocab.json with merges.txt, by directory and by either file, under both names") {
  for (const auto& [vocab, merges] : {std::pair{"vocab.json", "merges.txt"}, {"encoder.json", "vocab.bpe"}}) {
    const TemporaryDirectory directory;
    directory.write(vocab, small_vocab().dump());
    directory.write(merges, kMerges);
    check_small(load_tokenizer(directory.path()));
    check_small(load_tokenizer(directory / vocab));
    check_small(load_tokenizer(directory / merges));
    directory.write(merges, "h e\r\nĠ he\r\n\r\n");  // no version line, and lines of another system
    check_small(load_tokenizer(directory.path()));
  }
  json vocab = small_vocab();
  vocab.erase("<|endoftext|>");
  const TemporaryDirectory directory;
  directory.write("vocab.json", vocab.dump());
  directory.write("merges.txt", kMerges);
  CHECK(load_tokenizer(directory.path()).eot() == -1);
}

TEST_CASE("tokenizer_files: .tiktoken, whose merges follow from the ranks") {
  const TemporaryDirectory directory;
  const std::string ranks = byte_ranks() + base64("he") + " 256\n" + base64(" he") + " 257\n";
  check_small(load_tokenizer(directory.write("small.tiktoken", ranks)));
  check_small(load_tokenizer(directory.path()));
  check_small(load_tokenizer(directory.write("ranks", ranks)));
  // A hole is where <|endoftext|> goes, as in p50k_base.
  const Tokenizer t = load_tokenizer(
      directory.write("p50k.tiktoken", byte_ranks() + base64("he") + " 256\n" + base64("  ") + " 258\n"));
  CHECK(t.eot() == 257);
  CHECK(t.merges() == std::vector<Merge>{{71, 68, 256}, {220, 220, 258}});
}

TEST_CASE("tokenizer_files: a bad tokenizer.json is one sentence that names the file") {
  const TemporaryDirectory directory;
  const auto message = [&](const json& file) {
    directory.write("bad.json", file.dump());
    const std::string error = error_of([&] { load_tokenizer(directory / "bad.json"); });
    CHECK(contains(error, "bad.json"));
    CHECK_FALSE(contains(error, "\n"));
    return error;
  };
  // Each case: where to put what into a good file, and what the message says about it.
  struct Case {
    const char* pointer;
    json value;
    const char* says;
  };
  const std::vector<Case> cases = {
      {"/model/type", "WordPiece", "model.type is \"WordPiece\""},
      {"/model/vocab", json::array(), "has no model with vocab and merges"},
      {"/model/merges", "h e", "has no model with vocab and merges"},
      {"/model/dropout", 0.1, "model.dropout is 0.1"},
      {"/model/byte_fallback", true, "model.byte_fallback is true"},
      {"/model/ignore_merges", true, "model.ignore_merges is true"},
      {"/model/end_of_word_suffix", "</w>", "model.end_of_word_suffix"},
      {"/normalizer", {{"type", "NFC"}}, "normalizer is {\"type\":\"NFC\"}"},
      {"/pre_tokenizer", nullptr, "pre_tokenizer is null"},
      {"/pre_tokenizer/type", "Metaspace", "pre_tokenizer is \"Metaspace\""},
      {"/pre_tokenizer/add_prefix_space", true, "pre_tokenizer.add_prefix_space is true"},
      {"/pre_tokenizer/use_regex", false, "pre_tokenizer.use_regex is false"},
      {"/added_tokens/0/special", false, "special is false"},
      {"/added_tokens/0/lstrip", true, "lstrip is true"},
      {"/added_tokens/0/id", "x", "has id \"x\""},
      {"/added_tokens/0/content", 7, "an entry of added_tokens"},
      {"/added_tokens/0", "eot", "an entry of added_tokens"},
      {"/model/merges/0", "h zz", "needs the token 'zz', which is not in the vocabulary"},
      {"/model/merges/0", "h t", "needs the token 'ht'"},
      {"/model/merges/0", {"h", "e", "r"}, "not two tokens"},
      {"/model/merges/0", "he", "not two tokens"},
      {"/model/vocab/he", 300, "no token has id 256, although the highest is 300"},
      {"/model/vocab/he", 257, "id 257 belongs to two tokens"},
      {"/model/vocab/he", -1, "has id -1"},
      {"/model/vocab/he", 1e30, "has id 1e+30"},
      {"/model/vocab/he", 4000000000, "has id 4000000000"},
      {"/model/vocab/▁h", 259, "token '▁h' is not written in GPT-2's byte alphabet"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.pointer);
    json file = small_tokenizer_json();
    file[json::json_pointer(c.pointer)] = c.value;
    const std::string error = message(file);
    CAPTURE(error);
    CHECK(contains(error, c.says));
  }
  json file = small_tokenizer_json();
  file["model"]["vocab"].erase("a");
  CHECK(contains(message(file), "no token has id 64"));
  file["model"]["vocab"]["aa"] = 64;
  CHECK(contains(message(file), "no token stands for the byte 0x61"));
  file = small_tokenizer_json();
  file["added_tokens"].push_back(file["added_tokens"][0]);
  CHECK(contains(message(file), "id 258 belongs to two added tokens"));
  for (const json& foreign : {json(), json(3), json::array({1, 2}), json{{"a", 1}}, json{{"model", "gpt2"}}})
    CHECK(contains(message(foreign), "is not a tokenizer.json of a BPE model"));

  const std::string good = small_tokenizer_json().dump();
  for (const size_t cut : {size_t{0}, size_t{1}, good.size() / 3, good.size() - 1}) {
    directory.write("bad.json", good.substr(0, cut));
    CHECK(contains(error_of([&] { load_tokenizer(directory / "bad.json"); }), "bad.json' is not JSON"));
  }
}

TEST_CASE("tokenizer_files: bad pairs of files and bad directories") {
  const TemporaryDirectory directory;
  const auto message = [&](const fs::path& path) { return error_of([&] { load_tokenizer(path); }); };
  CHECK(contains(message(directory / "nothing"), "cannot open"));
  CHECK(contains(message(directory.path()), "holds no tokenizer; it needs tokenizer.json"));

  directory.write("vocab.json", small_vocab().dump());
  CHECK(contains(message(directory / "vocab.json"), "merges.txt': No such file"));
  directory.write("merges.txt", "#version: 0.2\nh e\nh\n");
  CHECK(contains(message(directory.path()), "merges.txt', line 3: 'h' is not two tokens"));
  directory.write("merges.txt", "h e\nhe s t\n");
  CHECK(contains(message(directory.path()), "line 2: 'he s t' is not two tokens"));
  directory.write("merges.txt", "h e\nq q\n");
  CHECK(contains(message(directory.path()), "needs the token 'qq', which is not in the vocabulary"));
  directory.write("merges.txt", kMerges);
  directory.write("vocab.json", "[1, 2]");
  CHECK(contains(message(directory.path()), "vocab.json' is not a vocabulary"));
  directory.write("vocab.json", small_tokenizer_json().dump());
  CHECK(contains(message(directory.path()), "vocab.json' is not a vocabulary"));
  directory.write("vocab.json", "{\"a\": 0, ");
  CHECK(contains(message(directory.path()), "vocab.json' is not JSON"));
}

TEST_CASE("tokenizer_files: bad rank files") {
  const TemporaryDirectory directory;
  const auto message = [&](const std::string& lines) {
    directory.write("bad.tiktoken", lines);
    return error_of([&] { load_tokenizer(directory / "bad.tiktoken"); });
  };
  CHECK(contains(message(""), "is empty"));
  for (const char* foreign :
       {"hello\n", "IQ== x\n", "IQ== 1 2\n", "IQ 1\n", "I*== 1\n", "IQ== -1\n", " 1\n", "IQ== \n"})
    CHECK(contains(message(foreign), "bad.tiktoken', line 1: this is not a tokenizer"));
  CHECK(contains(message("IQ== 0\nIg== 0\n"), "line 2: rank 0 is there twice"));
  CHECK(contains(message("IQ== 100255\n"), "has rank 100255; only vocabularies of at most 65536 tokens"));
  CHECK(contains(message(byte_ranks() + base64("he") + " 260\n"), "no token has rank 257"));
  CHECK(contains(message(byte_ranks() + base64("the") + " 256\n"),
                 "the token of rank 256 cannot be merged from two tokens before it"));
  CHECK(contains(message("IQ== 0\nIg== 1\n"), "no token stands for the byte 0x00"));
  directory.write("other.tiktoken", byte_ranks());
  CHECK(contains(error_of([&] { load_tokenizer(directory.path()); }), "holds 2 .tiktoken files"));
}

TEST_CASE("tokenizer_files: what cannot be written is an error") {
  ThreadPool pool(1);
  const Tokenizer t = train_bpe({}, 257, pool);
  CHECK(
      contains(error_of([&] { save_tokenizer(t, "/dev/full"); }), "cannot write '/dev/full': No space left"));
  CHECK(
      contains(error_of([&] { save_tokenizer(t, "build/no/such/place.json"); }), "build/no/such/place.json"));
}
