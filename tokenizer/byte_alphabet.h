// GPT-2's way to write any bytes as readable text: each byte has a printable character (Radford et al.,
// 2019). The bytes that print as they are in Latin-1 stand for themselves; the 68 others (controls, space,
// DEL, soft hyphen, ...) are U+0100, U+0101, ... in order, so that a space is 'Ġ' and a newline 'Ċ'.
// Vocabulary files are written in it, and its order is the order of the first 256 ids.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace topolm {

/// The 256 bytes in the alphabet's order: '!'..'~', 0xA1..0xAC, 0xAE..0xFF, then the rest upwards.
const std::array<uint8_t, 256>& byte_order();

/// Bytes to the alphabet's UTF-8 text: " the" -> "Ġthe".
std::string to_byte_alphabet(std::string_view bytes);

/// The way back; nothing when `text` holds a character that stands for no byte, or is not UTF-8.
std::optional<std::string> from_byte_alphabet(std::string_view text);

}  // namespace topolm
