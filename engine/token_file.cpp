#include "engine/token_file.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>

#include "engine/error.h"

namespace topolm {

namespace {

static_assert(std::endian::native == std::endian::little, "the formats are little-endian");

// llm.c's files begin with such dates. As two uint16 tokens each would be (55000 or more, 308), which the
// largest vocabulary in use with bare files, GPT-2's 50257, does not have: no bare file is mistaken for one.
constexpr int32_t kShardMagic = 20240520;
constexpr int32_t kShardVersion = 1;
constexpr size_t kShardHeader = 256 * sizeof(int32_t);

struct Magic {
  int32_t number;
  const char* what;
};
constexpr Magic kOtherLlmc[] = {
    {20240326, "a llm.c checkpoint"},      {20240327, "a llm.c debug state"},
    {20240328, "a llm.c tokenizer"},       {20240522, "a llm.c multiple-choice evaluation set"},
    {20240527, "a llm.c optimizer state"}, {20240801, "a llm.c shard of 32-bit tokens (Llama 3)"},
};

struct Signature {
  std::string_view bytes;
  const char* what;
};
constexpr Signature kForeign[] = {
    {"PK\x03\x04", "a zip archive (.npz, or a PyTorch checkpoint)"},
    {{"\x80\x02\x8a\nl\xfc\x9c\x46\xf9 j\xa8P\x19", 14}, "an old PyTorch checkpoint"},
    {"\x1f\x8b\x08", "a gzip archive (unpack it)"},
    {"\x93NUMPY", "a NumPy .npy array (write it with .astype('<u2').tofile())"},
    {"PAR1", "a Parquet table"},
    {"GGUF", "a GGUF model"},
};

std::string_view view(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

int32_t int32_at(std::string_view bytes, size_t index) {
  int32_t value;
  std::memcpy(&value, bytes.data() + index * sizeof value, sizeof value);
  return value;
}

bool is_safetensors(std::string_view bytes) {
  if (bytes.size() < 10 || bytes.substr(8, 2) != "{\"") return false;
  uint64_t header;
  std::memcpy(&header, bytes.data(), 8);
  return header <= bytes.size() - 8;
}

/// The length of the UTF-8 sequence that `text` begins with; 0 if it is not one, or is cut off.
size_t utf8_length(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  const size_t n = lead < 0x80   ? 1
                   : lead < 0xc2 ? 0
                   : lead < 0xe0 ? 2
                   : lead < 0xf0 ? 3
                   : lead < 0xf5 ? 4
                                 : 0;
  if (n > text.size()) return 0;
  for (size_t i = 1; i < n; ++i)
    if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80) return 0;
  return n;
}

/// Whether the first 4 KB are what a person could have typed. Tokens are not: the high bytes of a vocabulary
/// below 8192 are control characters, and those of a larger one are so most of the time.
bool is_text(std::string_view bytes) {
  const std::string_view head = bytes.substr(0, 4096);
  if (head.size() < 16) return false;
  size_t odd = 0, spaces = 0;
  for (size_t i = 0; i < head.size();) {
    const char c = head[i];
    const bool space = c == ' ' || c == '\n' || c == '\r' || c == '\t';
    const bool control = (static_cast<unsigned char>(c) < 0x20 && !space) || c == 0x7f;
    const size_t length = utf8_length(head.substr(i));
    if (length == 0 && head.size() - i < 4) break;  // a character that goes on behind the 4 KB
    spaces += space;
    odd += control || length == 0;
    i += std::max<size_t>(length, 1);
  }
  return spaces > 0 && spaces < head.size() && odd * 50 <= head.size();
}

/// Says what a file that holds no tokens holds instead; returns if it may be tokens.
void reject_foreign(const std::string& path, std::string_view bytes) {
  const auto reject = [&](const char* what) {
    fail("'{}' holds no tokens but {}; give a file that ./tokenize wrote", path, what);
  };
  for (const auto& [signature, what] : kForeign)
    if (bytes.starts_with(signature)) reject(what);
  for (const auto& [magic, what] : kOtherLlmc)
    if (bytes.size() >= 4 && int32_at(bytes, 0) == magic) reject(what);
  if (is_safetensors(bytes)) reject("a safetensors file");
  if (!is_text(bytes)) return;
  const size_t first = bytes.find_first_not_of(" \t\r\n\xef\xbb\xbf");
  const bool json = first != bytes.npos && (bytes[first] == '{' || bytes[first] == '[');
  fail("'{}' looks like {}; run ./tokenize first", path, json ? "JSON" : "text");
}

/// The tokens behind llm.c's header, which must match the file's size.
std::string_view shard_tokens(const std::string& path, std::string_view bytes) {
  require(bytes.size() >= kShardHeader,
          "'{}' is truncated: a llm.c shard has a header of {} bytes; copy it again", path, kShardHeader);
  const int32_t version = int32_at(bytes, 1), count = int32_at(bytes, 2);
  require(version == kShardVersion,
          "'{}' is a llm.c shard of version {}; only version {} (uint16 tokens) is read", path, version,
          kShardVersion);
  const std::string_view tokens = bytes.substr(kShardHeader);
  require(count >= 0 && tokens.size() == 2 * static_cast<size_t>(count),
          "'{}' is {}: its header promises {} tokens, the file holds {}; copy it again", path,
          count >= 0 && tokens.size() > 2 * static_cast<size_t>(count) ? "damaged" : "truncated", count,
          tokens.size() / 2);
  return tokens;
}

}  // namespace

TokenFile::TokenFile(const fs::path& path)
    : file_(std::make_shared<MappedFile>(path)), format_("raw uint16") {
  const std::string name = path.string();
  std::string_view bytes = view(file_->bytes());
  require(!bytes.empty(), "'{}' is empty; run ./tokenize to make it", name);
  if (bytes.size() >= 4 && int32_at(bytes, 0) == kShardMagic) {
    format_ = "llm.c shard";
    bytes = shard_tokens(name, bytes);
    require(!bytes.empty(), "'{}' is a llm.c shard without tokens; make it again", name);
  } else {
    reject_foreign(name, bytes);
    require(
        bytes.size() % 2 == 0,
        "'{}' has {} bytes, an odd number, but tokens are 16 bits each: it is truncated or holds something "
        "else; copy it again",
        name, bytes.size());
  }
  // The mapping begins on a page and llm.c's header is even, so the tokens are aligned.
  tokens_ = {reinterpret_cast<const uint16_t*>(bytes.data()), bytes.size() / 2};
}

void TokenFile::read(int64_t offset, std::span<int32_t> out) const {
  const auto count = static_cast<int64_t>(out.size());
  require(offset >= 0 && offset <= size() && count <= size() - offset,
          "cannot read {} tokens at {} of '{}', which has {}", count, offset, path().string(), size());
  std::copy_n(tokens_.begin() + offset, count, out.begin());
}

TokenFile TokenFile::slice(int64_t begin, int64_t count) const {
  require(begin >= 0 && begin <= size() && count >= 0 && count <= size() - begin,
          "cannot take {} tokens at {} of '{}', which has {}", count, begin, path().string(), size());
  TokenFile part = *this;
  part.tokens_ = tokens_.subspan(static_cast<size_t>(begin), static_cast<size_t>(count));
  part.max_token_.reset();
  return part;
}

int32_t TokenFile::max_token() const {
  if (!max_token_) max_token_ = tokens_.empty() ? -1 : int32_t{*std::ranges::max_element(tokens_)};
  return *max_token_;
}

}  // namespace topolm
