// A hash table from a pair of tokens to the rank of their merge, filled once and then only asked. Encoding a
// new word is mostly this question; std::unordered_map would follow a pointer to another cache line for each.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

namespace topolm {

class PairTable {
 public:
  static constexpr int32_t kNone = -1;

  /// Room for `pairs` pairs, at most half full, so that a search ends after one or two steps.
  explicit PairTable(size_t pairs = 0) : slots_(std::bit_ceil(2 * pairs + 2)) {}

  /// Adds a pair; the first rank of a pair that is added twice stays.
  void add(int32_t left, int32_t right, int32_t rank) {
    Slot& slot = slots_[find(key_of(left, right))];
    if (slot.rank == kNone) slot = {key_of(left, right), rank};
  }

  /// The pair's rank, or kNone.
  int32_t rank(int32_t left, int32_t right) const { return slots_[find(key_of(left, right))].rank; }

 private:
  struct Slot {
    uint64_t key = 0;
    int32_t rank = kNone;
  };

  static uint64_t key_of(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }

  /// The slot that holds `key`, or the empty one where it would go (linear probing).
  size_t find(uint64_t key) const {
    // Multiplying by 2^64 / golden ratio spreads keys over the high bits (Knuth, volume 3, section 6.4).
    size_t i = key * 0x9E3779B97F4A7C15u >> 32 & (slots_.size() - 1);
    while (slots_[i].rank != kNone && slots_[i].key != key) i = (i + 1) & (slots_.size() - 1);
    return i;
  }

  std::vector<Slot> slots_;
};

}  // namespace topolm
