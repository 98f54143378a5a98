#include <doctest/doctest.h>

#include <fstream>
#include <vector>

#include "engine/error.h"
#include "engine/random.h"
#include "engine/safetensors.h"
#include "engine/token_file.h"
#include "tests/temporary.h"

using namespace topolm;

namespace {

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

std::string llmc_header(int32_t magic, int32_t version, int32_t count) {
  std::vector<int32_t> header(256);
  header[0] = magic, header[1] = version, header[2] = count;
  return bytes_of(header);
}

/// Random tokens of a vocabulary, the low ones more often, as in real data.
std::vector<uint16_t> random_tokens(int64_t count, uint32_t vocabulary, uint32_t seed) {
  Random random(seed, Random::Purpose::tests);
  std::vector<uint16_t> tokens;
  for (int64_t i = 0; i < count; ++i)
    tokens.push_back(static_cast<uint16_t>(random.uniform() * random.uniform() * vocabulary));
  return tokens;
}

std::string complaint(const fs::path& path, const std::string& contents) {
  fs::remove(path);
  std::ofstream(path, std::ios::binary) << contents;  // write_file would wait for the disk
  try {
    const TokenFile file(path);
    return "";
  } catch (const Error& e) {
    CHECK(std::string_view(e.what()).starts_with("'" + path.string() + "'"));
    return e.what();
  }
}

bool has(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("token file: both formats are told apart by looking and read alike") {
  const TemporaryDirectory directory;
  const std::vector<uint16_t> tokens = {5, 0, 50256, 65535, 7};
  write_file(directory / "raw.bin", bytes_of(tokens));
  write_file(directory / "shard.bin", llmc_header(20240520, 1, 5) + bytes_of(tokens));
  for (const char* name : {"raw.bin", "shard.bin"}) {
    CAPTURE(name);
    const TokenFile file(directory / name);
    CHECK(file.format() == (name[0] == 'r' ? "raw uint16" : "llm.c shard"));
    CHECK(file.size() == 5);
    CHECK(file[3] == 65535);
    CHECK(file.max_token() == 65535);
    std::vector<int32_t> out(3);
    file.read(2, out);
    CHECK(out == std::vector<int32_t>{50256, 65535, 7});
    CHECK_THROWS_AS(file.read(3, out), Error);
    CHECK_THROWS_AS(file.read(-1, out), Error);
  }
}

TEST_CASE("token file: a slice is a stream of its own and outlives the whole") {
  const TemporaryDirectory directory;
  write_file(directory / "t", bytes_of(std::vector<uint16_t>{9, 1, 2, 3, 8}));
  const TokenFile slice = [&] {
    const TokenFile whole(directory / "t");
    CHECK(whole.max_token() == 9);
    return whole.slice(1, 3);
  }();
  CHECK(slice.size() == 3);
  CHECK(slice[0] == 1);
  CHECK(slice.max_token() == 3);
  CHECK(slice.slice(1, 2)[1] == 3);
  CHECK(slice.slice(3, 0).max_token() == -1);
  std::vector<int32_t> out(4);
  CHECK_THROWS_AS(slice.read(0, out), Error);
  CHECK_THROWS_AS(slice.slice(2, 2), Error);
}

TEST_CASE("token file: offsets pass 2^31 tokens") {
  const TemporaryDirectory directory;
  const fs::path path = directory / "sparse.bin";
  write_file(path, bytes_of(std::vector<uint16_t>{1, 2}));
  const int64_t tokens = (int64_t{1} << 31) + 10;
  std::error_code error;
  fs::resize_file(path, static_cast<uint64_t>(2 * tokens), error);  // a hole takes no space
  if (error) return;                                                // on a file system without holes
  const TokenFile file(path);
  CHECK(file.size() == tokens);
  std::vector<int32_t> out(2, -1);
  file.read(tokens - 2, out);
  CHECK(out == std::vector<int32_t>{0, 0});
}

TEST_CASE("token file: what is not tokens is named") {
  const TemporaryDirectory directory;
  const fs::path path = directory / "x.bin";
  CHECK_THROWS_WITH_AS(TokenFile{directory / "missing"},
                       doctest::Contains("missing': No such file or directory; check the path"), Error);
  CHECK(has(complaint(path, ""), "is empty; run ./tokenize"));
  CHECK(has(complaint(path, "abc"), "has 3 bytes, an odd number"));

  const std::string four(8, '\1');
  CHECK(has(complaint(path, llmc_header(20240520, 2, 4) + four), "version 2"));
  CHECK(has(complaint(path, llmc_header(20240520, 1, 5) + four), "truncated: its header promises 5 tokens"));
  CHECK(has(complaint(path, llmc_header(20240520, 1, 3) + four), "damaged: its header promises 3 tokens"));
  CHECK(has(complaint(path, llmc_header(20240520, 1, 4) + four + "x"), "damaged"));
  CHECK(has(complaint(path, llmc_header(20240520, 1, -1) + four), "truncated"));
  CHECK(has(complaint(path, llmc_header(20240520, 1, 0)), "without tokens"));
  CHECK(has(complaint(path, llmc_header(20240520, 1, 4).substr(0, 100)), "header of 1024 bytes"));
  CHECK(has(complaint(path, llmc_header(20240801, 7, 2) + four), "32-bit tokens"));
  CHECK(has(complaint(path, llmc_header(20240326, 5, 4) + four), "llm.c checkpoint"));

  const std::string zeros(64, '\0');
  CHECK(has(complaint(path, "PK\x03\x04" + zeros), "zip archive"));
  CHECK(has(complaint(path, "\x1f\x8b\x08" + zeros), "gzip"));
  CHECK(has(complaint(path, "\x93NUMPY\x01" + zeros), ".npy"));
  write_safetensors(path, {}, {{"format", "pt"}});
  CHECK(has(complaint(path, read_file(path)), "a safetensors file"));
  CHECK(has(complaint(path, "[1, 2, 3, 4, 5, 6, 7]"), "looks like JSON"));
  CHECK(has(complaint(path, "\n {\"text\": \"once upon a time\"}"), "looks like JSON"));
}

TEST_CASE("token file: text is recognised, tokens are never taken for text") {
  const TemporaryDirectory directory;
  const fs::path path = directory / "x.bin";
  const std::string english = "Once upon a time, there was a little girl named Lily.\n";
  std::string text, greek;
  while (text.size() < 10000) text += english, greek += "Μια φορά κι έναν καιρό ήταν — ένα κορίτσι.\n";
  CHECK(has(complaint(path, english), "looks like text; run ./tokenize first"));
  CHECK(has(complaint(path, text), "looks like text"));
  for (int cut = 0; cut < 4; ++cut)  // wherever the 4 KB cut a character
    CHECK(has(complaint(path, std::string(static_cast<size_t>(cut), 'x') + greek), "looks like text"));

  for (const uint32_t vocabulary : {2u, 128u, 256u, 257u, 4096u, 8192u, 32000u, 50257u, 65536u})
    for (const int64_t count : {8, 100, 5000}) {
      CAPTURE(vocabulary);
      for (uint32_t seed = 0; seed < 5; ++seed)
        CHECK(complaint(path, bytes_of(random_tokens(count, vocabulary, seed))) == "");
    }
  CHECK(complaint(path, std::string(5000, ' ')) == "");      // 2500 times token 8224
  std::vector<uint16_t> as_bytes(text.begin(), text.end());  // byte-level tokens of the same text
  CHECK(complaint(path, bytes_of(as_bytes)) == "");
}
