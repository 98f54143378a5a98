// The program `tokenize`: what it writes (through build_corpus) and how it ends (through run_main and the
// program itself).
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/sha256.h"
#include "tests/programs.h"
#include "tests/temporary.h"
#include "tokenizer/bpe_trainer.h"
#include "tokenizer/corpus.h"
#include "tokenizer/tokenizer_files.h"
#include "tools/main.h"

using namespace topolm;
using nlohmann::json;

namespace {

std::string paragraphs(const std::string& name, int count) {
  std::string text;
  for (int i = 0; i < count; ++i)
    text +=
        fmt::format("{} says the {}th thing, and that is that.\nThen more of the same follows.\n\n", name, i);
  return text;
}

std::vector<int32_t> read_tokens(const fs::path& path) {
  const std::string bytes = read_file(path);
  std::vector<uint16_t> tokens(bytes.size() / 2);
  std::memcpy(tokens.data(), bytes.data(), tokens.size() * 2);
  return {tokens.begin(), tokens.end()};
}

std::string sha256_of(const fs::path& path) { return sha256(MappedFile(path).bytes()); }

Outcome run(const std::string& arguments, const std::string& before = "") {
  return run_program("tokenize", arguments, before);
}

}  // namespace

TEST_CASE("tokenize: the validation part begins at a paragraph, a line, or a character") {
  const auto cut = [](const std::string& text, double fraction) { return validation_begin(text, fraction); };
  CHECK(cut("anything", 0) == 8);
  CHECK(cut("", 0.5) == 0);
  CHECK(cut(std::string(100, 'a'), 0.1) == 90);

  // 1000 bytes, a tenth for validation: exactly 900, and anything from 890 to 910 is near.
  std::string text(1000, 'a');
  text[893] = text[894] = '\n';
  CHECK(cut(text, 0.1) == 895);  // after the blank line
  text[905] = '\n';
  CHECK(cut(text, 0.1) == 895);  // a paragraph is better than a line
  text[906] = '\n';
  CHECK(cut(text, 0.1) == 895);
  text[903] = text[904] = '\n';
  text[905] = text[906] = 'a';
  CHECK(cut(text, 0.1) == 895);  // both 5 away: the earlier
  text[893] = 'a';
  CHECK(cut(text, 0.1) == 905);
  text[904] = 'a';
  CHECK(cut(text, 0.1) == 904);  // lines only: 895 is 5 away, 904 is 4
  text[894] = text[903] = 'a';
  CHECK(cut(text, 0.1) == 900);
  text[880] = text[881] = '\n';
  CHECK(cut(text, 0.1) == 900);  // too far

  std::string wide;
  while (wide.size() < 999) wide += "漢";
  CHECK(cut(wide, 0.1) % 3 == 0);
}

TEST_CASE("tokenize: token files decode to the texts, and meta.json says what they are") {
  const TemporaryDirectory directory;
  const std::string one = paragraphs("One", 60), two = paragraphs("Zwei", 90);
  CorpusOptions options;
  options.texts = {directory.write("one.txt", one).string(), directory.write("two.txt", two).string()};
  options.directory = directory / "out";
  options.vocab_size = 320;
  ThreadPool pool(2);
  const CorpusReport report = build_corpus(options, pool);

  const Tokenizer t = load_tokenizer(options.directory);
  CHECK(t.vocab_size() == 320);
  const size_t cut_one = validation_begin(one, 0.1), cut_two = validation_begin(two, 0.1);
  const std::string end(kEndOfText);
  CHECK(t.decode(read_tokens(options.directory / "train.bin")) ==
        one.substr(0, cut_one) + end + two.substr(0, cut_two) + end);
  CHECK(t.decode(read_tokens(options.directory / "val.bin")) ==
        one.substr(cut_one) + end + two.substr(cut_two) + end);
  CHECK(read_tokens(options.directory / "val.bin").back() == t.eot());

  // The vocabulary is that of the train part alone.
  const std::vector<std::string_view> train = {std::string_view(one).substr(0, cut_one),
                                               std::string_view(two).substr(0, cut_two)};
  CHECK(t.merges() == train_bpe(train, 320, pool).merges());

  const json meta = json::parse(read_file(options.directory / "meta.json"));
  CHECK(meta["tokenizer"]["sha256"] == sha256_of(options.directory / "tokenizer.json"));
  CHECK(meta["vocab_size"] == 320);
  CHECK(meta["eot"] == 319);
  CHECK(meta["train"]["tokens"] == report.files[0].tokens);
  CHECK(meta["train"]["tokens"] == read_tokens(options.directory / "train.bin").size());
  CHECK(meta["train"]["sha256"] == sha256_of(options.directory / "train.bin"));
  CHECK(meta["val"]["tokens"] == read_tokens(options.directory / "val.bin").size());
  CHECK(meta["val"]["sha256"] == sha256_of(options.directory / "val.bin"));
  CHECK(meta["sources"][1]["path"] == options.texts[1]);
  CHECK(meta["sources"][1]["bytes"] == two.size());
  CHECK(meta["sources"][1]["sha256"] == sha256_of(options.texts[1]));
  CHECK(report.bytes == static_cast<int64_t>(one.size() + two.size()));
}

TEST_CASE("tokenize: without validation there is no val.bin, not even an old one") {
  const TemporaryDirectory directory;
  CorpusOptions options;
  options.texts = {directory.write("text", paragraphs("A", 40)).string()};
  options.directory = directory / "out";
  options.vocab_size = 300;
  ThreadPool pool(1);
  build_corpus(options, pool);
  CHECK(fs::exists(options.directory / "val.bin"));
  options.validation = 0;
  CHECK(build_corpus(options, pool).files.size() == 1);
  CHECK_FALSE(fs::exists(options.directory / "val.bin"));
  CHECK_FALSE(json::parse(read_file(options.directory / "meta.json")).contains("val"));
  CHECK(load_tokenizer(options.directory).decode(read_tokens(options.directory / "train.bin")) ==
        paragraphs("A", 40) + std::string(kEndOfText));
}

TEST_CASE("tokenize: the same bytes at any number of threads, and with the tokenizer it wrote") {
  const TemporaryDirectory directory;
  CorpusOptions options;
  options.texts = {directory.write("text", paragraphs("Many threads", 40000)).string()};
  options.vocab_size = 500;
  std::vector<std::string> digests;
  for (const int threads : {1, 2, 3, 8}) {
    options.directory = directory / ("out" + std::to_string(threads));
    ThreadPool pool(threads);
    build_corpus(options, pool);
    digests.push_back(sha256_of(options.directory / "train.bin") + sha256_of(options.directory / "val.bin") +
                      sha256_of(options.directory / "tokenizer.json"));
    CHECK(digests.back() == digests.front());
  }
  options.tokenizer = (directory / "out1").string();
  options.directory = directory / "again";
  ThreadPool pool(2);
  build_corpus(options, pool);
  CHECK(sha256_of(options.directory / "train.bin") == sha256_of(directory / "out1/train.bin"));
}

TEST_CASE("tokenize: what cannot be done is one clear sentence") {
  const TemporaryDirectory directory;
  ThreadPool pool(1);
  CorpusOptions options;
  options.directory = directory / "out";
  const auto message = [&] { return error_of([&] { build_corpus(options, pool); }); };
  CHECK(message() == "there is no text; name at least one file");
  options.texts = {(directory / "nothing.txt").string()};
  CHECK(contains(message(), "nothing.txt': No such file"));
  options.texts = {directory.path().string()};
  CHECK(contains(message(), "is not a regular file"));
  options.texts = {directory.write("empty.txt", "").string()};
  CHECK(contains(message(), "empty.txt' is empty"));
  options.texts = {directory.write("tiny.txt", "ab").string()};
  CHECK(contains(message(), "tiny.txt' has 2 bytes, too few to keep 0.1 of it"));
  options.texts = {directory.write("text.txt", paragraphs("B", 30)).string()};
  options.directory = directory / "empty.txt";
  CHECK(contains(message(), "cannot create the directory"));

  options.directory = directory / "full";
  make_directories(options.directory);
  fs::create_symlink("/dev/full", options.directory / "train.bin");
  CHECK(contains(message(), "train.bin': No space left on device"));

  options.directory = directory / "out";
  ThreadPool one(1);
  const Tokenizer t = train_bpe({}, 257, one);
  std::vector<std::string> tokens;
  for (int32_t id = 0; id < 256; ++id) tokens.push_back(t.token(id));
  save_tokenizer(Tokenizer(tokens, {}, {}), directory / "no_end.json");
  options.tokenizer = (directory / "no_end.json").string();
  CHECK(contains(message(), "no_end.json' has no special token <|endoftext|>"));
  tokens.push_back(std::string(kEndOfText));
  while (tokens.size() <= 65536) tokens.push_back(fmt::format("word{}", tokens.size()));
  save_tokenizer(Tokenizer(tokens, {}, {256}), directory / "large.json");
  options.tokenizer = (directory / "large.json").string();
  CHECK(contains(message(), "large.json' has 65537 tokens; token files hold 16 bits"));
}

TEST_CASE("tokenize: main's exit status") {
  const auto status = [](std::vector<const char*> arguments, const std::function<void()>& body) {
    CLI::App app("a test", "test");
    int number = 0;
    app.add_option("--number", number);
    arguments.insert(arguments.begin(), "test");
    return run_main(app, static_cast<int>(arguments.size()), arguments.data(), body);
  };
  CHECK(status({"--number", "3"}, [] {}) == 0);
  CHECK(status({}, [] { fail("this message belongs to a test"); }) == 1);
  CHECK(status({}, [] { throw std::runtime_error("this message belongs to a test"); }) == 1);
  CHECK(status({}, [] { throw Interrupted("this message belongs to a test"); }) == 130);
  bool ran = false;
  CHECK(status({"--wrong"}, [&] { ran = true; }) == 2);
  CHECK(status({"--number", "many"}, [&] { ran = true; }) == 2);
  CHECK_FALSE(ran);
}

TEST_CASE("tokenize: the program itself") {
  const TemporaryDirectory directory;
  const std::string text = directory.write("text.txt", paragraphs("Program", 80)).string();
  const std::string out = " -o " + (directory / "out").string();

  Outcome o = run(text + out + " --vocab-size 300 --val 0.2 --threads 2");
  CAPTURE(o.output);
  CHECK(o.status == 0);
  CHECK(contains(o.output, "300 tokens, trained"));
  CHECK(contains(o.output, "bytes/token"));
  CHECK(contains(o.output, "MB/s"));
  CHECK(fs::exists(directory / "out/meta.json"));

  o = run("-" + out + " --val 0 --tokenizer " + out.substr(4), "cat " + text + " | ");
  CHECK(o.status == 0);
  CHECK(load_tokenizer(directory / "out").decode(read_tokens(directory / "out/train.bin")) ==
        paragraphs("Program", 80) + std::string(kEndOfText));

  o = run(text + out);  // 4096 tokens are more than this text has pairs for
  CHECK(o.status == 0);
  CHECK(contains(o.output, "not the 4096 asked for"));

  o = run("--help");
  CHECK(o.status == 0);
  for (const char* flag : {"--output", "--vocab-size", "--tokenizer", "--val", "--threads"})
    CHECK(contains(o.output, flag));

  for (const std::string& wrong :
       {std::string("--no-such-flag"), text, out, text + out + " --vocab-size 256",
        text + out + " --vocab-size 65537", text + out + " --val 1", text + out + " --val -0.1",
        text + out + " --threads x", text + out + " --vocab-size 300 --tokenizer " + text}) {
    o = run(wrong);
    CAPTURE(wrong);
    CHECK(o.status == 2);
    CHECK(contains(o.output, "error: "));
    CHECK(contains(o.output, "--help lists the flags"));
  }
  o = run("no_such_text" + out);
  CHECK(o.status == 1);
  CHECK(o.output == "error: cannot open 'no_such_text': No such file or directory; check the path\n");
  o = run(text + out + " --tokenizer " + text);
  CHECK(o.status == 1);
  CHECK(contains(o.output, "this is not a tokenizer"));
  CHECK(run(text + out + " >/dev/full").status == 1);
}
