// Reads R's data files (.rdb): just enough of R's serialisation to get vectors of strings out of them. A .rdb
// is blocks of [u32 big-endian: length when unpacked][zlib stream], one an object; an object is R's XDR
// format, versions 2 and 3 (R Internals, section 1.8, "Serialization Formats").
#pragma once

#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/error.h"
#include "engine/file.h"

namespace topolm {

using RStrings = std::vector<std::optional<std::string>>;  // nothing: NA

/// Big-endian numbers and bytes of a buffer, never beyond its end.
class BigEndianReader {
 public:
  BigEndianReader(std::string_view bytes, std::string name) : bytes_(bytes), name_(std::move(name)) {}

  std::string_view take(size_t n) {
    require(n <= bytes_.size(), "'{}' ends in the middle of a record; it may have been cut short", name_);
    const std::string_view taken = bytes_.substr(0, n);
    bytes_.remove_prefix(n);
    return taken;
  }
  uint32_t u32() {
    uint32_t value = 0;
    for (const char c : take(4)) value = value << 8 | static_cast<uint8_t>(c);
    return value;
  }
  size_t left() const { return bytes_.size(); }
  std::string_view rest() const { return bytes_; }
  const std::string& name() const { return name_; }

 private:
  std::string_view bytes_;
  std::string name_;
};

/// One string. Text in Latin-1 becomes UTF-8; text in an unmarked encoding is taken as it is.
inline std::optional<std::string> read_r_string(BigEndianReader& in) {
  constexpr uint32_t kCharsxp = 9, kLatin1 = 1 << 2;  // the encoding is in bits 12 and up
  const uint32_t flags = in.u32(), length = in.u32();
  require((flags & 0xFF) == kCharsxp, "'{}': an R object of type {} stands where a string was expected",
          in.name(), flags & 0xFF);
  if (length == 0xFFFFFFFF) return std::nullopt;
  const std::string_view bytes = in.take(length);
  if (!(flags >> 12 & kLatin1)) return std::string(bytes);
  std::string text;
  for (const char c : bytes) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte >= 0x80) text += static_cast<char>(0xC0 | byte >> 6);
    text += static_cast<char>(byte < 0x80 ? byte : 0x80 | (byte & 0x3F));
  }
  return text;
}

/// A serialised character vector. Throws Error, which begins with `name`, when it is anything else.
inline RStrings read_r_strings(std::string_view serialised, const std::string& name) {
  constexpr uint32_t kStrsxp = 16, kHasAttributes = 0x200;
  BigEndianReader in(serialised, name);
  require(in.take(2) == "X\n", "'{}' is not in R's XDR format", name);
  const uint32_t version = in.u32();
  require(version == 2 || version == 3, "'{}' is of version {}; only 2 and 3 are known", name, version);
  in.take(8);                           // the R that wrote it, the oldest R that can read it
  if (version == 3) in.take(in.u32());  // the native encoding's name
  const uint32_t flags = in.u32();
  require((flags & 0xFF) == kStrsxp, "'{}' holds an R object of type {}, not a vector of strings", name,
          flags & 0xFF);
  const uint32_t count = in.u32();
  // Every string takes at least 8 bytes: a wrong count is found before memory is asked for it.
  require(count <= in.left() / 8, "'{}' claims {} strings, more than it has room for", name, count);
  RStrings strings;
  strings.reserve(count);
  for (uint32_t i = 0; i < count; ++i) strings.push_back(read_r_string(in));
  // Attributes (names, class) follow the strings, and are not read.
  require((flags & kHasAttributes) || in.left() == 0, "'{}' has {} bytes after its last string", name,
          in.left());
  return strings;
}

/// The character vectors of a .rdb file, in the file's order. Throws Error when a block is broken.
inline std::vector<RStrings> read_rdb(const fs::path& path) {
  const std::string bytes = topolm::read_file(path);
  require(!bytes.empty(), "'{}' is empty", path.string());
  BigEndianReader in(bytes, path.string());
  std::vector<RStrings> vectors;
  while (in.left() > 0) {
    const uint32_t length = in.u32();
    require(length <= 1u << 28, "'{}' is not an R data file: a block claims {} bytes", path.string(), length);
    std::string block(length, '\0');
    z_stream stream{};
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(in.rest().data()));
    stream.avail_in = static_cast<uInt>(std::min<size_t>(in.left(), UINT32_MAX));
    stream.next_out = reinterpret_cast<Bytef*>(block.data());
    stream.avail_out = length;
    require(inflateInit(&stream) == Z_OK, "cannot start zlib to read '{}'", path.string());
    const int status = inflate(&stream, Z_FINISH);
    inflateEnd(&stream);
    require(status == Z_STREAM_END && stream.total_out == length,
            "'{}': block {} does not unpack to its {} bytes; the file is damaged or not an R data file",
            path.string(), vectors.size() + 1, length);
    in.take(stream.total_in);
    vectors.push_back(read_r_strings(block, path.string()));
  }
  return vectors;
}

}  // namespace topolm
