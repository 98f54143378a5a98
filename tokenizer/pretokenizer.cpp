#include "tokenizer/pretokenizer.h"

#include <utf8proc.h>

#include <array>
#include <cstdint>

namespace topolm {

namespace {

enum class Kind : uint8_t { letter, number, space, other };

constexpr Kind ascii_kind(int c) {
  if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return Kind::letter;
  if (c >= '0' && c <= '9') return Kind::number;
  if (c == ' ' || (c >= '\t' && c <= '\r')) return Kind::space;
  return Kind::other;
}

// Almost all text is ASCII: a table of 128 bytes stays in the first-level cache.
constexpr auto kAsciiKinds = [] {
  std::array<Kind, 128> kinds{};
  for (int c = 0; c < 128; ++c) kinds[static_cast<size_t>(c)] = ascii_kind(c);
  return kinds;
}();

Kind unicode_kind(utf8proc_int32_t codepoint) {
  switch (utf8proc_category(codepoint)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return Kind::letter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return Kind::number;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return Kind::space;
    default:
      return codepoint == 0x85 ? Kind::space : Kind::other;  // NEL is a control and yet White_Space
  }
}

struct Character {
  Kind kind;
  size_t end;  // where the next one begins
};

Character character_at(std::string_view text, size_t at) {
  const auto byte = static_cast<unsigned char>(text[at]);
  if (byte < 128) return {kAsciiKinds[byte], at + 1};
  utf8proc_int32_t codepoint = 0;
  const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + at,
                                       static_cast<utf8proc_ssize_t>(text.size() - at), &codepoint);
  if (length <= 0) return {Kind::other, at + 1};
  return {unicode_kind(codepoint), at + static_cast<size_t>(length)};
}

/// The end of the run of characters of one kind that goes on at `at`.
size_t run_end(std::string_view text, size_t at, Kind kind) {
  while (at < text.size()) {
    const Character c = character_at(text, at);
    if (c.kind != kind) break;
    at = c.end;
  }
  return at;
}

/// The length of the contraction at `at`, where an apostrophe stands, or 0. Small letters only, as in GPT-2.
size_t contraction_length(std::string_view text, size_t at) {
  const std::string_view after = text.substr(at + 1, 2);
  if (after == "re" || after == "ve" || after == "ll") return 3;
  if (!after.empty() && (after[0] == 's' || after[0] == 't' || after[0] == 'm' || after[0] == 'd')) return 2;
  return 0;
}

/// \s+(?!\S)|\s+ : a run of white space leaves its last character to the word that follows it, unless it is
/// that one character (a lone newline, say, which no word takes).
size_t space_end(std::string_view text, size_t begin) {
  size_t last = begin, end = begin;
  while (end < text.size()) {
    const Character c = character_at(text, end);
    if (c.kind != Kind::space) return last == begin ? end : last;
    last = end;
    end = c.end;
  }
  return end;
}

}  // namespace

size_t piece_end(std::string_view text, size_t begin) {
  if (text[begin] == '\'') {
    if (const size_t length = contraction_length(text, begin)) return begin + length;
  }
  Character c = character_at(text, begin);
  if (text[begin] == ' ' && c.end < text.size()) {
    const Character next = character_at(text, c.end);
    if (next.kind != Kind::space) c = next;  // " ?": one plain space belongs to the word after it
  }
  return c.kind == Kind::space ? space_end(text, begin) : run_end(text, c.end, c.kind);
}

std::vector<std::string_view> split_between_pieces(std::string_view text, size_t bytes) {
  // No piece holds a non-space followed by a space, and what comes before such a place never depends on what
  // comes after it. Only ASCII is looked at: enough places, and no character can be cut in two.
  const auto is = [&](size_t at, bool space) {
    const auto byte = static_cast<unsigned char>(text[at]);
    return byte < 128 && (kAsciiKinds[byte] == Kind::space) == space;
  };
  std::vector<std::string_view> parts;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = text.size() - begin <= bytes ? text.size() : begin + (bytes > 0 ? bytes : 1);
    while (end < text.size() && !(is(end, true) && is(end - 1, false))) ++end;
    parts.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  return parts;
}

}  // namespace topolm
