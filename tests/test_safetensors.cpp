#include <doctest/doctest.h>

#include <cstring>
#include <fstream>

#include "engine/error.h"
#include "engine/safetensors.h"
#include "tests/temporary.h"

using namespace topolm;

namespace {

/// A file's text from a header as written, padded by nothing, and `data` bytes of data.
std::string file_of(const std::string& header, size_t data) {
  const uint64_t length = header.size();
  std::string text(8, '\0');
  std::memcpy(text.data(), &length, 8);
  return text + header + std::string(data, 'x');
}

/// What opening a file of these bytes complains about; "" if nothing.
std::string complaint(const fs::path& path, const std::string& text) {
  // Thousands of files: neither write_file, which waits for the disk, nor truncation, on which ext4 does.
  fs::remove(path);
  std::ofstream(path, std::ios::binary) << text;
  try {
    const SafetensorsFile file(path);
    for (const HostTensor& t : file.tensors()) {  // what was accepted can be read to its last byte
      std::string copy(static_cast<size_t>(t.bytes()), '\0');
      std::memcpy(copy.data(), t.data, copy.size());
    }
    return "";
  } catch (const Error& e) {
    CHECK(std::string_view(e.what()).find(path.string()) != std::string_view::npos);
    return e.what();
  }
}

const std::vector<float> kFloats = {1.5f, -2, 3, 4, 5, 6};
const std::vector<uint16_t> kHalves = {1, 2, 3};
const std::vector<int32_t> kIntegers = {7, -8};

void write_sample(const fs::path& path) {
  const std::vector<HostTensor> tensors = {{"z.weight", DType::bf16, {3}, kHalves.data()},
                                           {"a.weight", DType::f32, {2, 3}, kFloats.data()},
                                           {"positions", DType::i32, {2, 1}, kIntegers.data()},
                                           {"nothing", DType::f32, {0, 5}, nullptr}};
  write_safetensors(path, tensors, {{"format", "pt"}, {"note", "with \"quotes\""}});
}

}  // namespace

TEST_CASE("safetensors: what is written is read, in the order given") {
  const TemporaryDirectory directory;
  const fs::path path = directory / "model.safetensors";
  write_sample(path);
  const SafetensorsFile file(path);
  REQUIRE(file.tensors().size() == 4);
  CHECK(file.tensors()[0].name == "z.weight");
  CHECK(file.tensors()[1].name == "a.weight");
  CHECK(file.metadata().at("note") == "with \"quotes\"");
  CHECK(file.metadata().size() == 2);

  const HostTensor& a = file.get("a.weight");
  CHECK(a.dtype == DType::f32);
  CHECK(a.shape == Shape{2, 3});
  CHECK(std::memcmp(a.data, kFloats.data(), 24) == 0);
  CHECK(reinterpret_cast<uintptr_t>(a.data) % 4 == 0);  // although an odd number of bf16 was given first
  CHECK(std::memcmp(file.get("z.weight").data, kHalves.data(), 6) == 0);
  CHECK(std::memcmp(file.get("positions").data, kIntegers.data(), 8) == 0);
  CHECK(file.get("nothing").bytes() == 0);
  CHECK(file.contains("nothing"));
  CHECK_FALSE(file.contains("lm_head.weight"));
  CHECK_THROWS_WITH_AS(file.get("lm_head.weight"),
                       ("'" + path.string() +
                        "' has no tensor 'lm_head.weight'; it has z.weight, a.weight, positions, nothing")
                           .c_str(),
                       Error);
}

TEST_CASE("safetensors: scalars, no tensors, and names given twice") {
  const TemporaryDirectory directory;
  const HostTensor scalar{"s", DType::f32, {}, kFloats.data()};
  write_safetensors(directory / "s", std::vector{scalar});
  CHECK(SafetensorsFile(directory / "s").get("s").bytes() == 4);
  write_safetensors(directory / "none", {});
  CHECK(SafetensorsFile(directory / "none").tensors().empty());
  CHECK_THROWS_AS(write_safetensors(directory / "twice", std::vector{scalar, scalar}), Error);
  CHECK_FALSE(fs::exists(directory / "twice"));
  write_safetensors(directory / "latin1", {}, {{"path", "caf\xe9"}});
  CHECK(SafetensorsFile(directory / "latin1").metadata().at("path") == "caf\xef\xbf\xbd");
}

TEST_CASE("safetensors: every kind of damage has its sentence") {
  const TemporaryDirectory directory;
  const fs::path path = directory / "x.safetensors";
  const auto damage = [&](const std::string& header, size_t data, const std::string& expected) {
    CAPTURE(header);
    const std::string got = complaint(path, file_of(header, data));
    CHECK_MESSAGE(got.find(expected) != std::string::npos, got);
  };
  const auto tensor = [](const std::string& name, const std::string& dtype, const std::string& shape,
                         const std::string& offsets) {
    return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
           ",\"data_offsets\":" + offsets + "}";
  };
  const std::string a = tensor("a", "F32", "[2]", "[0,8]");
  CHECK(complaint(path, file_of("{" + a + "}", 8)) == "");
  damage("{" + a + "}", 7, "is truncated: 'a' ends at byte 8");
  damage("{" + a + "}", 9, "1 bytes after its last tensor");
  damage("{" + a + "," + a + "}", 8, "two tensors named 'a'");
  damage("{" + a + "," + tensor("b", "I32", "[1]", "[4,8]") + "}", 8, "overlaps the tensor that ends at 8");
  damage("{" + a + "," + tensor("b", "I32", "[1]", "[12,16]") + "}", 16, "leaves a hole from 8");
  damage("{" + tensor("a", "F64", "[1]", "[0,8]") + "}", 8, "'a' of dtype F64");
  damage("{" + tensor("a", "F32", "[3]", "[0,8]") + "}", 8, "needs 12 bytes and has 8");
  damage("{" + tensor("a", "F32", "[2]", "[8,0]") + "}", 8, "data_offsets of 'a' are [8,0]");
  damage("{" + tensor("a", "F32", "[2]", "[0]") + "}", 8, "data_offsets of 'a' are [0]");
  damage("{" + tensor("a", "F32", "[2]", "[0,18446744073709551615]") + "}", 8, "18446744073709551615");
  damage("{" + tensor("a", "F32", "[-2]", "[0,8]") + "}", 8, "-2 where a count belongs");
  damage("{" + tensor("a", "F32", "[2.0]", "[0,8]") + "}", 8, "2.0 where a count belongs");
  damage("{" + tensor("a", "F32", "[1,1,1,1,2]", "[0,8]") + "}", 8, "5 dimensions");
  damage("{" + tensor("a", "F32", "[4294967296,4294967296]", "[0,8]") + "}", 8, "overflows");
  damage("{\"a\":{\"dtype\":\"F32\"}}", 8, "lacks a dtype, shape or data_offsets");
  damage("{\"a\":7}", 8, "lacks a dtype");
  damage("{\"__metadata__\":{\"n\":1}}", 0, "not a string");
  damage("{" + a, 8, "not JSON");
  damage("[]", 0, "does not begin with '{'");

  CHECK(complaint(path, "").find("it has 0 bytes") != std::string::npos);
  CHECK(complaint(path, file_of("{" + a + "}", 0).substr(0, 20))
            .find("header wants 54 bytes, the file has 20") != std::string::npos);
  CHECK(complaint(path, "just some text").find("not a safetensors file") != std::string::npos);
}

TEST_CASE("safetensors: any flipped byte and any cut gives an Error or a readable file, never a crash") {
  const TemporaryDirectory directory;
  write_sample(directory / "whole");
  const std::string whole = read_file(directory / "whole");
  const fs::path path = directory / "broken";
  for (size_t length = 0; length < whole.size(); ++length)
    CHECK(complaint(path, whole.substr(0, length)) != "");

  uint64_t header;
  std::memcpy(&header, whole.data(), 8);
  for (size_t i = 0; i < 8 + header; ++i) {
    for (const int flip : {0x01, 0x02, 0x20, 0x80, 0xff}) {
      std::string broken = whole;
      broken[i] = static_cast<char>(broken[i] ^ flip);
      complaint(path, broken);
    }
  }
}
