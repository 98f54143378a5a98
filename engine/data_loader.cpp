#include "engine/data_loader.h"

#include <algorithm>
#include <bit>

#include "engine/error.h"
#include "engine/random.h"
#include "engine/tensor.h"

namespace topolm {

namespace {

constexpr int32_t kIgnored = -1;

void check_sizes(int64_t batch, int64_t time) {
  require(batch > 0 && time > 0,
          "a batch of {} sequences of {} tokens is not possible; both must be positive", batch, time);
}

void check_spans(int64_t elements, std::span<int32_t> tokens, std::span<int32_t> targets) {
  const auto n = static_cast<size_t>(elements);
  require(tokens.size() == n && targets.size() == n, "a batch of {} tokens was asked into {} and {}", n,
          tokens.size(), targets.size());
}

}  // namespace

DataLoader::DataLoader(TokenFile data, int64_t batch, int64_t time, uint64_t seed)
    : data_(std::move(data)), batch_(batch), time_(time), seed_(seed) {
  check_sizes(batch, time);
  const int64_t n = data_.size();
  require(n >= 2, "'{}' has {} tokens, too few to predict one from another; use more data",
          data_.path().string(), n);
  require(n > time, "'{}' has {} tokens, a sequence of {} needs {}: use --seq {} or more data",
          data_.path().string(), n, time, time + 1, std::bit_floor(static_cast<uint64_t>(n - 1)));
}

void DataLoader::batch(int64_t step, int64_t micro_step, std::span<int32_t> tokens,
                       std::span<int32_t> targets) const {
  check_spans(batch_ * time_, tokens, targets);
  // Narrowing in silence would repeat the batches of long ago.
  require(step >= 0 && step <= UINT32_MAX && micro_step >= 0 && micro_step <= UINT32_MAX,
          "there are no batches for step {}, micro step {}; both are 32 bits", step, micro_step);
  Random random(seed_, Random::Purpose::batches, static_cast<uint32_t>(step),
                static_cast<uint32_t>(micro_step));
  const auto starts = static_cast<uint64_t>(data_.size() - time_);  // the last one's last target is the end
  const auto time = static_cast<size_t>(time_);
  for (size_t row = 0; row < tokens.size(); row += time) {
    const auto start = static_cast<int64_t>(random.below(starts));
    data_.read(start, tokens.subspan(row, time));
    data_.read(start + 1, targets.subspan(row, time));
  }
}

EvalLoader::EvalLoader(TokenFile data, int64_t batch, int64_t time)
    : data_(std::move(data)), batch_(batch), time_(time) {
  check_sizes(batch, time);
  require(data_.size() >= 2, "'{}' leaves {} tokens for validation, at least 2 are needed; use more data",
          data_.path().string(), data_.size());
}

int64_t EvalLoader::batches() const { return ceil_div(ceil_div(data_.size() - 1, time_), batch_); }

int64_t EvalLoader::batch(int64_t i, std::span<int32_t> tokens, std::span<int32_t> targets) const {
  check_spans(batch_ * time_, tokens, targets);
  require(i >= 0 && i < batches(), "there is no evaluation batch {} of {}", i, batches());
  // Windows follow each other without gaps, so a whole batch is one run of the stream.
  const int64_t start = i * batch_ * time_;
  const int64_t count = std::min(batch_ * time_, data_.size() - 1 - start);
  const auto filled = static_cast<size_t>(count);
  data_.read(start, tokens.first(filled));
  data_.read(start + 1, targets.first(filled));
  std::ranges::fill(tokens.subspan(filled), 0);
  std::ranges::fill(targets.subspan(filled), kIgnored);
  return count;
}

}  // namespace topolm
