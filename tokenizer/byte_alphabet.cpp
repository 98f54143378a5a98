#include "tokenizer/byte_alphabet.h"

#include <utf8proc.h>

namespace topolm {

namespace {

constexpr bool prints_as_itself(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Alphabet {
  std::array<uint8_t, 256> order{};
  std::array<uint16_t, 256> codepoint_of{};
  std::array<int16_t, 256 + 68> byte_of{};  // by codepoint; -1: no byte

  constexpr Alphabet() {
    byte_of.fill(-1);
    size_t known = 0;
    uint16_t next = 256;
    for (const bool printable : {true, false}) {
      for (int byte = 0; byte < 256; ++byte) {
        if (prints_as_itself(byte) != printable) continue;
        const uint16_t codepoint = printable ? static_cast<uint16_t>(byte) : next++;
        order[known++] = static_cast<uint8_t>(byte);
        codepoint_of[static_cast<size_t>(byte)] = codepoint;
        byte_of[codepoint] = static_cast<int16_t>(byte);
      }
    }
  }
};

constexpr Alphabet kAlphabet;

}  // namespace

const std::array<uint8_t, 256>& byte_order() { return kAlphabet.order; }

std::string to_byte_alphabet(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) {
    const uint16_t codepoint = kAlphabet.codepoint_of[static_cast<uint8_t>(c)];
    if (codepoint < 0x80) {
      text += static_cast<char>(codepoint);
    } else {  // U+0080 to U+07FF: two bytes
      text += static_cast<char>(0xC0 | codepoint >> 6);
      text += static_cast<char>(0x80 | (codepoint & 0x3F));
    }
  }
  return text;
}

std::optional<std::string> from_byte_alphabet(std::string_view text) {
  std::string bytes;
  for (size_t at = 0; at < text.size();) {
    utf8proc_int32_t codepoint = -1;
    const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + at,
                                         static_cast<utf8proc_ssize_t>(text.size() - at), &codepoint);
    if (length <= 0 || codepoint >= static_cast<int>(kAlphabet.byte_of.size())) return std::nullopt;
    const int16_t byte = kAlphabet.byte_of[static_cast<size_t>(codepoint)];
    if (byte < 0) return std::nullopt;
    bytes += static_cast<char>(byte);
    at += static_cast<size_t>(length);
  }
  return bytes;
}

}  // namespace topolm
