// tiktoken's rank files: lines of base64(token), space, rank, where the rank is both the token's id and its
// place in the order of merges. https://github.com/openai/tiktoken
#include <algorithm>
#include <charconv>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/error.h"
#include "tokenizer/tokenizer_files.h"

namespace topolm {

namespace {

constexpr size_t kMaxTokens = 65536;  // token files hold 16 bits; and what is larger is not cut as GPT-2 does

/// RFC 4648, section 4. Nothing when `text` is not whole groups of four with at most two '=' at the end.
std::optional<std::string> from_base64(std::string_view text) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  if (text.empty() || text.size() % 4 != 0) return std::nullopt;
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  std::string bytes;
  for (size_t group = 0; group < text.size(); group += 4) {
    uint32_t bits = 0;
    for (size_t i = group; i < group + 4; ++i) {
      const size_t digit = i < text.size() - padding ? kDigits.find(text[i]) : 0;
      if (digit == std::string_view::npos) return std::nullopt;
      bits = bits << 6 | static_cast<uint32_t>(digit);
    }
    for (const int shift : {16, 8, 0}) bytes += static_cast<char>(bits >> shift);
  }
  bytes.resize(bytes.size() - padding);
  return bytes;
}

using Ranks = std::unordered_map<std::string_view, int32_t>;

/// The two tokens that `token` is made of: what is left when its bytes are merged with earlier tokens only.
/// Nothing when they do not come down to two.
std::optional<std::pair<int32_t, int32_t>> halves(std::string_view token, int32_t rank, const Ranks& ranks) {
  const auto rank_of = [&](std::string_view part) {
    const auto found = ranks.find(part);
    return found == ranks.end() || found->second >= rank ? rank : found->second;
  };
  std::vector<std::string_view> parts;
  for (size_t i = 0; i < token.size(); ++i) parts.push_back(token.substr(i, 1));
  while (parts.size() > 2) {
    size_t best = 0;
    int32_t best_rank = rank;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const int32_t r = rank_of({parts[i].data(), parts[i].size() + parts[i + 1].size()});
      if (r < best_rank) {
        best_rank = r;
        best = i;
      }
    }
    if (best_rank == rank) return std::nullopt;
    parts[best] = {parts[best].data(), parts[best].size() + parts[best + 1].size()};
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
  const int32_t left = rank_of(parts[0]), right = rank_of(parts[1]);
  if (left == rank || right == rank) return std::nullopt;
  return std::pair{left, right};
}

std::vector<std::optional<std::string>> read_ranks(const fs::path& path) {
  std::vector<std::optional<std::string>> tokens;
  const std::string text = topolm::read_file(path);
  int64_t number = 1;
  for (size_t begin = 0; begin < text.size(); ++number) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    const size_t space = std::min(line.find(' '), line.size() - 1);
    const std::string_view digits = line.substr(space + 1);
    auto token = from_base64(line.substr(0, space));
    size_t rank = 0;
    const auto [stop, error] = std::from_chars(digits.data(), digits.data() + digits.size(), rank);
    require(token && error == std::errc() && stop == digits.data() + digits.size(),
            "'{}', line {}: this is not a tokenizer (neither JSON nor a base64 token with a rank)",
            path.string(), number);
    require(rank < kMaxTokens,
            "'{}' has rank {}; only vocabularies of at most {} tokens can be used, and larger ones of "
            "tiktoken cut "
            "text in another way than GPT-2",
            path.string(), rank, kMaxTokens);
    if (rank >= tokens.size()) tokens.resize(rank + 1);
    require(!tokens[rank], "'{}', line {}: rank {} is there twice", path.string(), number, rank);
    tokens[rank] = std::move(token);
  }
  require(!tokens.empty(), "'{}' is empty; a tokenizer is needed", path.string());
  return tokens;
}

}  // namespace

Tokenizer read_tiktoken(const fs::path& path) {
  std::vector<std::optional<std::string>> read = read_ranks(path);
  // r50k_base ends where <|endoftext|> follows; p50k_base leaves a hole for it.
  auto hole = std::find(read.begin(), read.end(), std::nullopt);
  if (hole == read.end()) hole = read.insert(read.end(), std::nullopt);
  const auto eot = static_cast<int32_t>(hole - read.begin());
  *hole = kEndOfText;

  std::vector<std::string> tokens;
  for (auto& token : read) {
    require(token.has_value(),
            "'{}': no token has rank {}, although the highest is {}; ranks must be contiguous", path.string(),
            tokens.size(), read.size() - 1);
    tokens.push_back(*std::move(token));
  }
  Ranks ranks;
  for (size_t id = 0; id < tokens.size(); ++id)
    if (static_cast<int32_t>(id) != eot) ranks.emplace(tokens[id], static_cast<int32_t>(id));
  std::vector<Merge> merges;
  for (int32_t id = 0; id < static_cast<int32_t>(tokens.size()); ++id) {
    if (tokens[id].size() == 1 || id == eot) continue;
    const auto parts = halves(tokens[id], id, ranks);
    require(parts.has_value(), "'{}': the token of rank {} cannot be merged from two tokens before it",
            path.string(), id);
    merges.push_back({parts->first, parts->second, id});
  }
  try {
    return Tokenizer(std::move(tokens), std::move(merges), {eot});
  } catch (const Error& e) {
    fail("'{}': {}", path.string(), e.what());
  }
}

}  // namespace topolm
