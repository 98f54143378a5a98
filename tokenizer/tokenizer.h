// Byte-level byte-pair encoding (Sennrich et al., 2016; on bytes: Radford et al., 2019). Text is cut into
// pieces (pretokenizer.h); each piece begins as its bytes, and as long as two neighbours have a merge, the
// pair with the earliest merge becomes one token. Every byte has a token, so any bytes can be encoded, and
// decoding gives back the same bytes.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/pair_table.h"

namespace topolm {

inline constexpr std::string_view kEndOfText = "<|endoftext|>";

/// Two tokens that become one. A list of merges is in order of rank: the earlier one is done first.
struct Merge {
  int32_t left, right, result;
  bool operator==(const Merge&) const = default;
};

/// Whether encode() turns the text of a special token into that token. Text from outside is encoded with
/// `ignore`, so that nobody can smuggle an end of text into it.
enum class Specials { ignore, recognise };

/// Immutable once built: one tokenizer serves any number of threads.
class Tokenizer {
 public:
  /// `tokens[id]` are the bytes of each token; `specials` the ids of tokens that stand for no text. Throws
  /// Error when one of the 256 bytes has no token, when an id is out of range, or when a merge's result is
  /// not its left and right.
  Tokenizer(std::vector<std::string> tokens, std::vector<Merge> merges, std::vector<int32_t> specials);

  /// The tokens of any bytes; valid UTF-8 or not. Where two specials begin at one place, the longer is taken.
  /// Takes O(n log n) for one piece of n bytes.
  std::vector<int32_t> encode(std::string_view text, Specials specials = Specials::ignore) const;

  /// The bytes of tokens, specials by their names. Throws Error when an id is not in the vocabulary. A cut
  /// through a multi-byte character gives broken UTF-8: what is shown to people should wait for the rest.
  std::string decode(std::span<const int32_t> ids) const;

  /// The bytes of one token. Throws Error when there is no such id.
  const std::string& token(int32_t id) const;

  int32_t vocab_size() const { return static_cast<int32_t>(tokens_.size()); }
  /// The id of <|endoftext|>, or -1 when there is none among the specials.
  int32_t eot() const { return eot_; }
  const std::vector<Merge>& merges() const { return merges_; }
  const std::vector<int32_t>& specials() const { return specials_; }

 private:
  class Encoder;

  std::vector<std::string> tokens_;
  std::vector<Merge> merges_;
  std::vector<int32_t> specials_;
  std::array<int32_t, 256> byte_tokens_{};
  PairTable ranks_;  // pair -> index into merges_
  int32_t eot_ = -1;
};

}  // namespace topolm
