#include <doctest/doctest.h>

#include <string>

#include "tests/temporary.h"
#include "tools/rdata.h"

using namespace topolm;
using namespace std::string_literals;

namespace {

std::string u32(uint32_t value) {
  std::string bytes;
  for (const int shift : {24, 16, 8, 0}) bytes += static_cast<char>(value >> shift);
  return bytes;
}

constexpr uint32_t kUtf8 = 1 << 15, kLatin1 = 1 << 14;  // the encoding's bits, from bit 12 on

std::string r_string(const std::string& text, uint32_t encoding = kUtf8) {
  return u32(9 | encoding) + u32(static_cast<uint32_t>(text.size())) + text;
}

std::string header(uint32_t version) {
  return "X\n" + u32(version) + u32(0x030500) + u32(0x020300) + (version == 3 ? u32(5) + "UTF-8" : "");
}

std::string vector_of(uint32_t count, const std::string& strings, uint32_t version = 3) {
  return header(version) + u32(16) + u32(count) + strings;
}

std::string block(const std::string& object) {
  uLongf size = compressBound(object.size());
  std::string packed(size, '\0');
  REQUIRE(compress(reinterpret_cast<Bytef*>(packed.data()), &size,
                   reinterpret_cast<const Bytef*>(object.data()), object.size()) == Z_OK);
  packed.resize(size);
  return u32(static_cast<uint32_t>(object.size())) + packed;
}

}  // namespace

TEST_CASE("extract_novels: blocks of strings, with every encoding and NA") {
  const TemporaryDirectory directory;
  const std::string strings = r_string("EMMA", 1 << 18) + r_string("caf\xe9", kLatin1) + r_string("café") +
                              r_string("") + u32(9) + u32(0xFFFFFFFF);
  const fs::path path =
      directory.write("a.rdb", block(vector_of(5, strings)) + block(vector_of(1, r_string("B"), 2)));
  const std::vector<RStrings> vectors = read_rdb(path);
  REQUIRE(vectors.size() == 2);
  CHECK(vectors[0] == RStrings{"EMMA", "café", "café", "", std::nullopt});
  CHECK(vectors[1] == RStrings{"B"});
}

TEST_CASE("extract_novels: a damaged file is an error, wherever it is cut or changed") {
  const TemporaryDirectory directory;
  const std::string object = vector_of(2, r_string("EMMA") + r_string("By Jane Austen"));
  for (size_t cut = 0; cut < object.size(); ++cut) {
    CAPTURE(cut);
    CHECK_THROWS_AS(read_r_strings(std::string_view(object).substr(0, cut), "x"), Error);
  }
  const std::string file = block(object);
  for (size_t cut = 0; cut < file.size(); ++cut) {
    CAPTURE(cut);
    CHECK_THROWS_AS(read_rdb(directory.write("cut.rdb", file.substr(0, cut))), Error);
  }
  const auto message = [](const std::string& o) { return error_of([&] { read_r_strings(o, "x.rdb"); }); };
  CHECK(contains(message("A\n" + object.substr(2)), "'x.rdb' is not in R's XDR format"));
  CHECK(contains(message(header(4) + u32(16) + u32(0)), "is of version 4"));
  CHECK(contains(message(header(3) + u32(13) + u32(1) + u32(7)), "of type 13, not a vector of strings"));
  CHECK(contains(message(vector_of(0xFFFFFFFF, r_string("a"))), "claims 4294967295 strings"));
  CHECK(contains(message(vector_of(1, u32(10) + u32(1) + "a")), "type 10 stands where a string"));
  CHECK(contains(message(vector_of(1, u32(9) + u32(0x7FFFFFFF) + "a")), "ends in the middle"));
  CHECK(contains(message(object + "more"), "4 bytes after its last string"));
  CHECK(contains(
      error_of([&] { read_rdb(directory.write("text.rdb", "It is a truth universally acknowledged")); }),
      "is not an R data file"));
}
