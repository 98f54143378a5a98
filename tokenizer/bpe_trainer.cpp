#include "tokenizer/bpe_trainer.h"

#include <algorithm>
#include <array>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/error.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/pretokenizer.h"

namespace topolm {

namespace {

constexpr size_t kPartBytes = 1 << 20;  // work for one thread; fixed, so that threads do not change the cuts
constexpr int64_t kMinCount = 2;

using WordCounts = std::unordered_map<std::string_view, int64_t>;  // keys point into the text

/// The text's different pieces and how often each occurs, in the order of their bytes.
std::vector<std::pair<std::string_view, int64_t>> count_words(std::span<const std::string_view> documents,
                                                              ThreadPool& pool) {
  std::vector<std::string_view> parts;
  for (const std::string_view document : documents)
    for (const std::string_view part : split_between_pieces(document, kPartBytes)) parts.push_back(part);

  // Sums of integers: in whichever order the threads add them up, they are the same.
  std::vector<WordCounts> of_thread(static_cast<size_t>(pool.threads()));
  pool.parallel_for(static_cast<int64_t>(parts.size()), [&](int64_t part, int thread) {
    for_each_piece(parts[part], [&](std::string_view piece) { ++of_thread[thread][piece]; });
  });
  WordCounts& total = of_thread[0];
  for (size_t t = 1; t < of_thread.size(); ++t) {
    for (const auto& [word, count] : of_thread[t]) total[word] += count;
    of_thread[t].clear();
  }
  std::vector<std::pair<std::string_view, int64_t>> words(total.begin(), total.end());
  std::sort(words.begin(), words.end());
  return words;
}

class Trainer {
 public:
  explicit Trainer(const std::vector<std::pair<std::string_view, int64_t>>& words) {
    std::array<int32_t, 256> id_of_byte{};
    for (const uint8_t byte : byte_order()) {
      id_of_byte[byte] = static_cast<int32_t>(tokens_.size());
      add_token(std::string(1, static_cast<char>(byte)));
    }
    words_.reserve(words.size());
    for (const auto& [text, count] : words) {
      Word& word = words_.emplace_back(Word{{}, count});
      for (const char c : text) word.ids.push_back(id_of_byte[static_cast<uint8_t>(c)]);
      for (size_t i = 0; i + 1 < word.ids.size(); ++i) add(word.ids[i], word.ids[i + 1], words_.size() - 1);
    }
    for (const auto& [pair, occurrences] : pairs_) heap_.push_back({occurrences.count, pair});
    std::make_heap(heap_.begin(), heap_.end());
    changed_.clear();
  }

  /// Learns the most frequent pair. False when no pair is frequent enough.
  bool learn_one() {
    while (!heap_.empty()) {
      std::pop_heap(heap_.begin(), heap_.end());
      const Candidate best = heap_.back();
      heap_.pop_back();
      const auto found = pairs_.find(best.pair);
      const int64_t count = found == pairs_.end() ? 0 : found->second.count;
      if (count != best.count) {  // out of date: rarer by now, or more frequent and pushed anew
        if (count < best.count) push({count, best.pair});
        continue;
      }
      if (count < kMinCount) return false;
      merge(best.pair);
      return true;
    }
    return false;
  }

  size_t tokens() const { return tokens_.size(); }

  Tokenizer finish() && {
    const auto eot = static_cast<int32_t>(tokens_.size());
    tokens_.emplace_back(kEndOfText);
    return Tokenizer(std::move(tokens_), std::move(merges_), {eot});
  }

 private:
  using Pair = std::pair<int32_t, int32_t>;
  struct PairHash {
    size_t operator()(Pair p) const {
      return (static_cast<uint64_t>(p.first) << 32 | static_cast<uint32_t>(p.second)) * 0x9E3779B97F4A7C15u;
    }
  };
  struct Word {
    std::vector<int32_t> ids;
    int64_t count;
  };
  struct Occurrences {
    int64_t count = 0;
    std::vector<size_t> words;  // words that hold the pair, or did; perhaps named twice
  };
  struct Candidate {
    int64_t count;
    Pair pair;
    bool operator<(const Candidate& other) const {  // on top of the heap: frequent, then small ids
      return count != other.count ? count < other.count : pair > other.pair;
    }
  };

  void push(Candidate c) {
    if (c.count < kMinCount) return;
    heap_.push_back(c);
    std::push_heap(heap_.begin(), heap_.end());
  }

  /// Two different pairs may spell the same bytes ("a"+"bc", "ab"+"c"): they share one token.
  int32_t add_token(std::string bytes) {
    const auto [entry, is_new] = id_of_.try_emplace(bytes, static_cast<int32_t>(tokens_.size()));
    if (is_new) tokens_.push_back(std::move(bytes));
    return entry->second;
  }

  void add(int32_t left, int32_t right, size_t word) {
    Occurrences& pair = pairs_[{left, right}];
    pair.count += words_[word].count;
    if (pair.words.empty() || pair.words.back() != word) pair.words.push_back(word);
    changed_.push_back({left, right});
  }

  void remove(int32_t left, int32_t right, size_t word) {
    pairs_.at({left, right}).count -= words_[word].count;
  }

  void merge(Pair pair) {
    const auto [left, right] = pair;
    const int32_t result = add_token(tokens_[left] + tokens_[right]);
    // A shared token can bring back a pair that was merged before; its merge then has its rank already.
    const Merge merge{left, right, result};
    const bool spelt_before = static_cast<size_t>(result) + 1 < tokens_.size();
    if (!spelt_before || std::find(merges_.begin(), merges_.end(), merge) == merges_.end())
      merges_.push_back(merge);
    const std::vector<size_t> words = std::move(pairs_.at(pair).words);
    changed_.clear();
    for (const size_t w : words) merge_in_word(w, left, right, result);
    pairs_.erase(pair);  // no occurrence is left; a count that overlaps ("aaa") left behind goes with it
    std::sort(changed_.begin(), changed_.end());
    changed_.erase(std::unique(changed_.begin(), changed_.end()), changed_.end());
    for (const Pair& p : changed_) {
      if (const auto found = pairs_.find(p); found != pairs_.end()) push({found->second.count, p});
    }
  }

  /// Replaces the pair in one word, left to right, and keeps the counts of the pairs around it.
  void merge_in_word(size_t w, int32_t left, int32_t right, int32_t result) {
    std::vector<int32_t>& ids = words_[w].ids;
    size_t out = 0;
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] != left || i + 1 == ids.size() || ids[i + 1] != right) {
        ids[out++] = ids[i];
        continue;
      }
      if (out > 0) {
        remove(ids[out - 1], left, w);
        add(ids[out - 1], result, w);
      }
      if (i + 2 < ids.size()) {
        remove(right, ids[i + 2], w);
        add(result, ids[i + 2], w);
      }
      ids[out++] = result;
      ++i;
    }
    ids.resize(out);
  }

  std::vector<std::string> tokens_;
  std::unordered_map<std::string, int32_t> id_of_;
  std::vector<Merge> merges_;
  std::vector<Word> words_;
  std::unordered_map<Pair, Occurrences, PairHash> pairs_;
  std::vector<Candidate> heap_;
  std::vector<Pair> changed_;  // pairs that this merge made more frequent
};

}  // namespace

Tokenizer train_bpe(std::span<const std::string_view> documents, int32_t vocab_size, ThreadPool& pool) {
  require(vocab_size >= kMinVocabSize,
          "a vocabulary of {} tokens is too small; the 256 bytes and {} already make {}", vocab_size,
          kEndOfText, kMinVocabSize);
  Trainer trainer(count_words(documents, pool));
  while (trainer.tokens() + 1 < static_cast<size_t>(vocab_size) && trainer.learn_one()) {
  }
  return std::move(trainer).finish();
}

}  // namespace topolm
