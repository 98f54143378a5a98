#include "tokenizer/tokenizer.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "engine/error.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/pretokenizer.h"

namespace topolm {

Tokenizer::Tokenizer(std::vector<std::string> tokens, std::vector<Merge> merges,
                     std::vector<int32_t> specials)
    : tokens_(std::move(tokens)), merges_(std::move(merges)), specials_(std::move(specials)) {
  std::sort(specials_.begin(), specials_.end());
  for (const int32_t id : specials_) {
    require(!token(id).empty(), "the special token {} has an empty name", id);
    if (token(id) == kEndOfText) eot_ = id;
  }
  byte_tokens_.fill(-1);
  for (int32_t id = vocab_size() - 1; id >= 0; --id) {
    const bool special = std::binary_search(specials_.begin(), specials_.end(), id);
    if (tokens_[id].size() == 1 && !special) byte_tokens_[static_cast<uint8_t>(tokens_[id][0])] = id;
  }
  for (int byte = 0; byte < 256; ++byte)
    require(byte_tokens_[byte] >= 0,
            "no token stands for the byte 0x{:02x}; a byte-level vocabulary has all 256", byte);
  ranks_ = PairTable(merges_.size());
  for (size_t rank = 0; rank < merges_.size(); ++rank) {
    const auto [left, right, result] = merges_[rank];
    if (token(result) != token(left) + token(right))
      fail("merge {}: '{}' is not '{}' and '{}'", rank, to_byte_alphabet(token(result)),
           to_byte_alphabet(token(left)), to_byte_alphabet(token(right)));
    ranks_.add(left, right, static_cast<int32_t>(rank));
  }
}

const std::string& Tokenizer::token(int32_t id) const {
  require(id >= 0 && id < vocab_size(), "token {} is not in the vocabulary, which has {} tokens (0 to {})",
          id, vocab_size(), vocab_size() - 1);
  return tokens_[id];
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string text;
  for (const int32_t id : ids) text += token(id);
  return text;
}

/// The state of one encode(): the tokens so far, and where in them the words met before lie. Most words of a
/// text are repeats, so most of the work is copying.
class Tokenizer::Encoder {
 public:
  explicit Encoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  void encode(std::string_view text) {
    for_each_piece(text, [this](std::string_view piece) { encode_piece(piece); });
  }
  void append(int32_t id) { ids_.push_back(id); }
  std::vector<int32_t> take() { return std::move(ids_); }

 private:
  static constexpr size_t kMaxWords = 1 << 18;  // bounds the memory; rarer words are simply encoded again

  struct Words {
    size_t begin, count;  // in ids_
  };
  struct Symbol {
    int32_t id;  // -1: merged into its left neighbour
    int64_t previous, next;
  };
  struct Candidate {
    int32_t rank;
    int64_t at;  // the left symbol
    // For a min-heap: the earliest merge first, then the leftmost place.
    bool operator<(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };

  void encode_piece(std::string_view piece) {
    if (const auto known = words_.find(piece); known != words_.end()) {
      for (size_t i = 0; i < known->second.count; ++i) {
        const int32_t id = ids_[known->second.begin + i];  // a copy: push_back may move what it refers to
        ids_.push_back(id);
      }
      return;
    }
    const size_t begin = ids_.size();
    merge(piece);
    if (words_.size() < kMaxWords) words_.emplace(piece, Words{begin, ids_.size() - begin});
  }

  /// Merges on a linked list of symbols with a heap of candidates: n log n, where looking for the best pair
  /// again after every merge would take n^2 and hang on a megabyte without spaces.
  void merge(std::string_view piece) {
    const auto n = static_cast<int64_t>(piece.size());
    symbols_.clear();
    candidates_.clear();
    for (int64_t i = 0; i < n; ++i)
      symbols_.push_back(
          {tokenizer_.byte_tokens_[static_cast<uint8_t>(piece[i])], i - 1, i + 1 < n ? i + 1 : -1});
    for (int64_t i = 0; i < n; ++i) consider(i);
    while (!candidates_.empty()) {
      std::pop_heap(candidates_.begin(), candidates_.end());
      const Candidate best = candidates_.back();
      candidates_.pop_back();
      const Merge& m = tokenizer_.merges_[best.rank];
      Symbol& left = symbols_[best.at];
      if (left.id != m.left || left.next < 0 || symbols_[left.next].id != m.right) continue;  // out of date
      Symbol& right = symbols_[left.next];
      left.id = m.result;
      left.next = right.next;
      right.id = -1;
      if (left.next >= 0) symbols_[left.next].previous = best.at;
      consider(left.previous);
      consider(best.at);
    }
    for (int64_t i = 0; i >= 0; i = symbols_[i].next) ids_.push_back(symbols_[i].id);
  }

  /// Remembers that symbol `at` could merge with the next one, if there is such a merge.
  void consider(int64_t at) {
    if (at < 0 || symbols_[at].next < 0) return;
    const int32_t rank = tokenizer_.ranks_.rank(symbols_[at].id, symbols_[symbols_[at].next].id);
    if (rank == PairTable::kNone) return;
    candidates_.push_back({rank, at});
    std::push_heap(candidates_.begin(), candidates_.end());
  }

  const Tokenizer& tokenizer_;
  std::vector<int32_t> ids_;
  std::unordered_map<std::string_view, Words> words_;  // keys point into the text
  std::vector<Symbol> symbols_;
  std::vector<Candidate> candidates_;
};

std::vector<int32_t> Tokenizer::encode(std::string_view text, Specials specials) const {
  Encoder encoder(*this);
  std::vector<std::pair<int32_t, size_t>> next;  // each special and where it comes next
  if (specials == Specials::recognise)
    for (const int32_t id : specials_) next.emplace_back(id, text.find(tokens_[id]));
  for (size_t at = 0; at < text.size();) {
    size_t found = std::string_view::npos;
    int32_t special = -1;
    for (auto& [id, place] : next) {
      if (place < at) place = text.find(tokens_[id], at);
      const bool longer = special >= 0 && place == found && tokens_[id].size() > tokens_[special].size();
      if (place < found || longer) {
        found = place;
        special = id;
      }
    }
    encoder.encode(text.substr(at, found == std::string_view::npos ? found : found - at));
    if (special < 0) break;
    encoder.append(special);
    at = found + tokens_[special].size();
  }
  return encoder.take();
}

}  // namespace topolm
