// The Atlas page as a file: the data in it cannot end its script, and a blob holds what was put in. What the
// page does in a browser is tested in tests/page.
#include <doctest/doctest.h>
#include <zlib.h>

#include <limits>

#include "tests/base64.h"
#include "tests/errors.h"
#include "tools/atlas/page.h"

using namespace topolm;

namespace {

/// What a blob of `bytes` bytes holds.
std::string unpack(const std::string& blob, size_t bytes) {
  std::string packed;
  for (size_t i = 0; i < blob.size(); i += 4) {
    constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t bits = 0;
    for (size_t k = 0; k < 4; ++k) bits = bits << 6 | static_cast<uint32_t>(kDigits.find(blob[i + k]) & 63);
    for (size_t k = 0; k < 3; ++k)
      if (blob[i + k + 1] != '=') packed += static_cast<char>(bits >> (16 - 8 * k) & 255);
  }
  REQUIRE(base64(packed) == blob);
  std::string out(bytes + 1, '\0');
  uLongf size = out.size();
  REQUIRE(uncompress(reinterpret_cast<Bytef*>(out.data()), &size,
                     reinterpret_cast<const Bytef*>(packed.data()), packed.size()) == Z_OK);
  out.resize(size);
  return out;
}

template <typename T>
void check_blob(const std::vector<T>& values) {
  std::string little_endian;
  for (const T v : values)
    for (size_t i = 0; i < sizeof(T); ++i)
      little_endian += static_cast<char>(static_cast<std::make_unsigned_t<T>>(v) >> 8 * i & 255);
  CHECK(unpack(blob(std::span<const T>(values)), little_endian.size()) == little_endian);
}

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++n;
  return n;
}

}  // namespace

TEST_CASE("page: a blob holds its integers, little-endian, at every length of base64's last group") {
  for (size_t n = 0; n < 40; ++n) {
    std::vector<int16_t> values(n);
    for (size_t i = 0; i < n; ++i) values[i] = static_cast<int16_t>(i * i * 7919);
    check_blob(values);
  }
  check_blob<int8_t>({0, 1, -1, 127, -128});
  check_blob<uint8_t>({0, 1, 255});
  check_blob<int16_t>({std::numeric_limits<int16_t>::min(), -1, 0, std::numeric_limits<int16_t>::max()});
  check_blob<uint16_t>({0, 0x1234, 0xffff});
}

TEST_CASE("page: a blob of a map that repeats is small") {
  CHECK(blob(std::vector<int16_t>(18816, 0)).size() < 200);
}

TEST_CASE("page: all its parts are in it, and data stay data") {
  const std::string empty = atlas_page(nlohmann::json::object());
  CHECK(empty.starts_with("<!doctype html>"));
  for (const char* part :
       {"--paper:", "class Model", "function sparkline", "class Sheet", "function unitPanel",
        "function watchPointer", "function saveCsv", "function readAddress"})
    CHECK(contains(empty, part));
  CHECK(!contains(empty, "{{"));
  CHECK(count(empty, "http:") + count(empty, "https:") == 1);  // the name of SVG: nothing is fetched

  const std::string evil =
      "</script><script>alert(1)</script><!-- {{main.js}} \xff caf\xc3\xa9 \xe2\x80\xa8 $& \\ \"";
  const std::string page = atlas_page({{"tokens", {evil}}});
  CHECK(count(page, "</script") == count(empty, "</script"));
  CHECK(count(page, "<!--") == count(empty, "<!--"));
  CHECK(count(page, "class Model") == 1);

  const size_t from = page.find('>', page.find("id=\"atlas-data\"")) + 1;
  const std::string text = page.substr(from, page.find("</script>", from) - from);
  for (const char c : text) REQUIRE(static_cast<unsigned char>(c) < 128);
  const auto json = nlohmann::json::parse(text);
  std::string expected = evil;
  expected.replace(expected.find('\xff'), 1, "\xef\xbf\xbd");
  CHECK(json["tokens"][0] == expected);
}
