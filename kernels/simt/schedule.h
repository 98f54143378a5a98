// In which order the threads of a block run, and its blocks. CUDA promises nothing, so a kernel must give the
// same bits under every schedule.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>

namespace topolm::simt {

enum class Order {
  forward,
  reverse,
  random,    // uniform: fair, so no thread gets far ahead of the others
  priority,  // random priorities, whole warps together, drawn anew at every barrier: one warp may run far
             // ahead, which is what finds a missing barrier after a read
};

struct Settings {
  Order order = Order::forward;
  uint64_t seed = 1;
};

/// "priority:7", an order and perhaps a seed. Throws Error for anything else.
Settings parse_settings(const std::string& text);
/// $TOPOLM_SIMT, or the default.
Settings settings_from_environment();

constexpr int kMaxThreads = 1024;  // of a block

/// Random bits (splitmix64, Steele, Lea and Flood 2014).
class RandomBits {
 public:
  explicit RandomBits(uint64_t state = 0) : state_(state) {}
  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }
  uint32_t below(uint32_t n) { return static_cast<uint32_t>((next() >> 32) * n >> 32); }

 private:
  uint64_t state_;
};

/// A stream of its own for each (seed, launch, block).
inline RandomBits random_bits(uint64_t seed, uint64_t launch, uint64_t block) {
  return RandomBits(RandomBits(RandomBits(seed).next() + launch).next() + block);
}

/// The threads of one block that can run.
class Schedule {
 public:
  void begin(Order order, RandomBits random) {
    order_ = order, random_ = random;
    head_ = count_ = 0;
  }

  /// All threads can run: at the start and after a barrier.
  void add_all(int threads) {
    if (order_ == Order::priority) draw_priorities(threads);
    for (int i = 0; i < threads; ++i) add(order_ == Order::reverse ? threads - 1 - i : i);
  }

  /// The lanes in `mask` of the warp that begins with thread `first` can run.
  void add_lanes(int first, uint32_t mask) {
    if (order_ == Order::reverse) {
      for (int lane = 31; lane >= 0; --lane)
        if (mask >> lane & 1) add(first + lane);
    } else {
      for (; mask; mask &= mask - 1) add(first + __builtin_ctz(mask));
    }
  }

  /// The thread that runs next; -1 when none can.
  int take() {
    if (count_ == 0) return -1;
    if (order_ == Order::priority) {
      std::pop_heap(ready_.data(), ready_.data() + count_, Less{this});
      return ready_[--count_];
    }
    if (order_ == Order::random) std::swap(at(0), at(random_.below(count_)));
    const int thread = at(0);
    ++head_, --count_;
    return thread;
  }

  RandomBits& random() { return random_; }

 private:
  struct Less {
    const Schedule* schedule;
    bool operator()(int a, int b) const {
      return schedule->priority_[static_cast<size_t>(a)] < schedule->priority_[static_cast<size_t>(b)];
    }
  };

  /// The i-th of a ring; with priorities it never turns, and is a heap.
  uint16_t& at(uint32_t i) { return ready_[(head_ + i) % kMaxThreads]; }

  void add(int thread) {
    at(count_++) = static_cast<uint16_t>(thread);
    if (order_ == Order::priority) std::push_heap(ready_.data(), ready_.data() + count_, Less{this});
  }

  void draw_priorities(int threads) {
    uint32_t warp = 0;
    for (int i = 0; i < threads; ++i) {
      const uint64_t bits = random_.next();
      if (i % 32 == 0) warp = static_cast<uint32_t>(bits >> 48) << 16;
      priority_[static_cast<size_t>(i)] = warp | (bits & 0xffff);
    }
  }

  Order order_ = Order::forward;
  RandomBits random_;
  uint32_t head_ = 0, count_ = 0;
  std::array<uint16_t, kMaxThreads> ready_{};  // no thread is in it twice
  std::array<uint32_t, kMaxThreads> priority_{};
};

}  // namespace topolm::simt
