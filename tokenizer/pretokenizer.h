// Cuts text into the pieces ("words") that byte-pair encoding never merges across. The rule is GPT-2's
// regular expression (Radford et al., 2019, encoder.py of the official release):
//
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//
// written by hand, because it needs one character of lookahead and no backtracking, and a regex engine does
// not take broken UTF-8. \s is Unicode's White_Space. Letters and numbers are those of the Unicode version of
// the installed utf8proc: a script younger than that is 'other' here and may be a letter to a newer engine,
// the only difference from tiktoken and Hugging Face that random tests found. A byte that is not part of
// valid UTF-8 is a character of its own, neither letter, number nor space, so that nothing is ever lost.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace topolm {

/// The end of the piece of `text` that begins at `begin` < text.size(). The pieces, end to end, are the text.
size_t piece_end(std::string_view text, size_t begin);

/// Calls fn(piece) for each piece in order.
template <class F>
void for_each_piece(std::string_view text, F&& fn) {
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = piece_end(text, begin);
    fn(text.substr(begin, end - begin));
    begin = end;
  }
}

/// Cuts text into parts of at least `bytes` (but for the last) whose pieces, one part after another, are the
/// pieces of the whole: this is what lets threads share the work without changing the result. Parts are
/// longer where the text has no white space.
std::vector<std::string_view> split_between_pieces(std::string_view text, size_t bytes);

}  // namespace topolm
