// Random numbers as a function of what they are for, never of when or where they are drawn: Philox4x32-10
// (Salmon et al., SC 2011) keyed by the seed, counted by (purpose, step, index). The same at any thread count
// and across stop and resume.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace topolm {

/// One stream of random numbers. Streams with different (seed, purpose, a, b) are independent.
class Random {
 public:
  /// What the numbers are for; part of the counter, so that no two uses share a stream.
  enum class Purpose : uint32_t {
    weights = 1,
    positions,
    batches,
    neighborhoods,
    sampling,
    tests,
    // of measuring: golden numbers depend on these
    shuffles = 32,  // of a map's cells
    places,         // of units, new ones
    regions,        // of units to touch
    controls,       // of as many others
  };

  Random(uint64_t seed, Purpose purpose, uint32_t a = 0, uint32_t b = 0);

  uint32_t bits();
  double uniform();            // [0, 1), 32 bits of it
  double normal();             // N(0, 1), Box-Muller
  uint64_t below(uint64_t n);  // uniform in [0, n), without bias
  std::vector<int32_t> permutation(int32_t n);
  /// `count` distinct values of [0, n), in the order drawn.
  std::vector<int32_t> draw(int32_t count, int32_t n);

 private:
  std::array<uint32_t, 2> key_;
  std::array<uint32_t, 4> counter_;
  std::array<uint32_t, 4> block_{};
  int left_ = 0;
  double spare_ = 0;
  bool has_spare_ = false;
};

/// The Philox4x32-10 block function: exposed for its known-answer test.
std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

}  // namespace topolm
