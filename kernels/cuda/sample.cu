// Drawing a token on the device, so that a recorded decode step needs no host. One block is enough: a pass
// over 50304 logits moves 200 KB, which stay in L2, beside the hundreds of MB of weights of a decoded token.
//
// Everything is an integer (kernels/sampling.h): sums are exact in any order, so histograms by atomic
// additions give the same token every time. top_k and top_p are one operation, select: the element at which a
// running sum, from the most likely token down, reaches a goal. It is found digit by digit from histograms;
// no list is sorted. The draw is another running sum, over ids.
#include <cfloat>

#include "kernels/cuda/gpu_kernels.h"
#include "kernels/cuda/warp.h"
#include "kernels/sampling.h"

namespace topolm::TOPOLM_GPU {

constexpr int kThreads = 1024, kWarps = kThreads / kWarp;
constexpr int kDigitBits = 10,
              kBins = 1 << kDigitBits;  // a bin for each thread, and 32 for each lane of a warp
constexpr int kIdBits = 17;
constexpr int64_t kMaxLogits = int64_t{1} << kIdBits;
constexpr int kTile = kMaxLogits / kBins;  // ids of one bin of the draw

/// A total order: by the upper bits, then lower ids first.
DEVICE uint64_t ranked(uint32_t upper, int id) {
  return uint64_t{upper} << kIdBits | static_cast<uint64_t>(kMaxLogits - 1 - id);
}
DEVICE int id_of(uint64_t rank) { return static_cast<int>(kMaxLogits - 1 - (rank & (kMaxLogits - 1))); }

/// Unsigned integers in the order of floats; the zeros are equal, a NaN is above all.
DEVICE uint32_t ordered(float x) {
  if (x != x) return 0xffffffffu;
  const uint32_t bits = __float_as_uint(x + 0.0f);  // -0 + 0 is 0
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
DEVICE float from_ordered(uint32_t o) { return __uint_as_float(o >> 31 ? o & 0x7fffffffu : ~o); }

/// Sums of kBins bins and which of them reaches a goal, in shared memory.
struct Histogram {
  // A 64-bit sum in two halves: shared memory adds 32 bits in hardware, 64 bits by trying until it succeeds.
  unsigned low[kBins], high[kBins];
  int found;
  uint64_t left;

  DEVICE void set(int bin, uint64_t sum) {
    low[bin] = static_cast<unsigned>(sum);
    high[bin] = static_cast<unsigned>(sum >> 32);
  }
  DEVICE uint64_t get(int bin) const { return uint64_t{high[bin]} << 32 | low[bin]; }
  DEVICE void add(int bin, uint64_t x) {
    const auto lower = static_cast<unsigned>(x);
    auto upper = static_cast<unsigned>(x >> 32);
    if (lower != 0 && atomicAdd(&low[bin], lower) + lower < lower) ++upper;  // the carry
    if (upper != 0) atomicAdd(&high[bin], upper);
  }
};

/// The sum over this lane and those before it.
DEVICE uint64_t running_sum(uint64_t x) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  UNROLL for (int offset = 1; offset < kWarp; offset *= 2) {
    const uint64_t before = __shfl_up_sync(kAllLanes, x, offset);
    if (lane >= offset) x += before;
  }
  return x;
}

/// found = the first bin at which the running sum over bins reaches goal(total), at least 1 and at most the
/// total; left = what of the goal is left for that bin. All threads must come; the bins are free again after.
template <class Goal>
DEVICE void find(Histogram& h, Goal goal) {
  __syncthreads();
  if (threadIdx.x < kWarp) {
    const int lane = static_cast<int>(threadIdx.x);
    uint64_t mine = 0;
    for (int i = 0; i < kBins / kWarp; ++i)
      mine += h.get(lane * (kBins / kWarp) + (i + lane) % (kBins / kWarp));  // each lane in another bank
    uint64_t sum = running_sum(mine);
    uint64_t wanted = goal(__shfl_sync(kAllLanes, sum, kWarp - 1));
    const int part = __ffs(static_cast<int>(__ballot_sync(kAllLanes, sum >= wanted))) - 1;
    wanted -= __shfl_sync(kAllLanes, sum - mine, part);

    const int bin = part * (kBins / kWarp) + lane;
    mine = h.get(bin);
    sum = running_sum(mine);
    const int last = __ffs(static_cast<int>(__ballot_sync(kAllLanes, sum >= wanted))) - 1;
    if (lane == last) h.found = bin, h.left = wanted - (sum - mine);
  }
  __syncthreads();
}

/// The largest of all threads' x. shared [kWarps].
DEVICE uint64_t largest_of_block(uint64_t x, uint64_t* shared) {
  UNROLL for (int offset = kWarp / 2; offset > 0; offset /= 2) x =
      max(x, __shfl_xor_sync(kAllLanes, x, offset));
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = x;
  __syncthreads();
  for (int i = 0; i < kWarps; ++i) x = max(x, shared[i]);
  return x;
}

/// The rank of the element at which the running sum of weight(i), i < n, from the highest rank(i) down,
/// reaches goal(total). Ranks are distinct.
template <class Rank, class Weight, class Goal>
DEVICE uint64_t select(Histogram& h, int n, Rank rank, Weight weight, Goal goal) {
  constexpr int kTop = 4 * kDigitBits;  // the highest of five digits: probabilities have 30 bits, ids 17
  uint64_t prefix = 0, left = 0;
  for (int shift = kTop; shift >= 0; shift -= kDigitBits) {
    h.set(static_cast<int>(threadIdx.x), 0);
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) {
      const uint64_t digits = rank(i) >> shift;
      if (digits >> kDigitBits == prefix) h.add(kBins - 1 - static_cast<int>(digits % kBins), weight(i));
    }
    find(h, [=](uint64_t total) { return shift == kTop ? goal(total) : left; });
    prefix = prefix << kDigitBits | static_cast<uint64_t>(kBins - 1 - h.found);
    left = h.left;
  }
  return prefix;
}

/// token [1] of logits [n], n <= kMaxLogits, as Sampling says. scale 0 stands for temperature 0; min_p is
/// rounded up to a float. probabilities [n] is scratch. One block.
__global__ void __launch_bounds__(kThreads)
    sample_kernel(int32_t* token, float* probabilities, const float* logits, const float* uniform, int n,
                  float scale, int top_k, double top_p, float min_p) {
  SHARED(Histogram, histogram, [1]);
  SHARED(uint64_t, shared, [kWarps]);
  Histogram& h = histogram[0];
  uint64_t best = 0;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads)
    best = max(best, ranked(ordered(logits[i]), i));
  best = largest_of_block(best, shared);
  const float top = from_ordered(static_cast<uint32_t>(best >> kIdBits));
  int id = id_of(best);
  if (!(fabsf(top) <= FLT_MAX)) {  // all threads agree, here and below
    id = -1;
  } else if (scale != 0) {
    for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads)
      probabilities[i] = relative_probability(logits[i], top, scale);
    __syncthreads();
    const auto rank = [=](int i) { return ranked(__float_as_uint(probabilities[i]), i); };
    uint64_t lowest = 0;  // the rank of the last token kept
    if (top_k > 0 && top_k < n)
      lowest = select(
          h, n, rank, [](int) { return uint64_t{1}; },
          [=](uint64_t) { return static_cast<uint64_t>(top_k); });
    const auto weight = [=](int i) {
      const float p = probabilities[i];
      return rank(i) >= lowest ? sampling_weight(p) : uint64_t{0};
    };
    if (top_p < 1)
      lowest = select(h, n, rank, weight, [=](uint64_t total) { return top_p_weight(total, top_p); });
    const auto kept = [=](int i) {
      const float p = i < n ? probabilities[i] : 0.0f;
      return i < n && rank(i) >= lowest && p >= min_p ? sampling_weight(p) : uint64_t{0};
    };

    // Each warp sums whole bins of kTile ids; then the bin that the draw falls into, id by id.
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    h.set(static_cast<int>(threadIdx.x), 0);
    __syncthreads();
    for (int bin = static_cast<int>(threadIdx.x) / kWarp; bin * kTile < n; bin += kWarps) {
      uint64_t sum = 0;
      for (int i = lane; i < kTile; i += kWarp) sum += kept(bin * kTile + i);
      sum = running_sum(sum);
      if (lane == kWarp - 1) h.set(bin, sum);
    }
    const double u = static_cast<double>(*uniform);
    find(h, [=](uint64_t total) { return drawn_weight(total, u); });
    const int first = h.found * kTile;
    const uint64_t left = h.left;
    h.set(static_cast<int>(threadIdx.x),
          threadIdx.x < kTile ? kept(first + static_cast<int>(threadIdx.x)) : uint64_t{0});
    find(h, [=](uint64_t) { return left; });
    id = first + h.found;
  }
  if (threadIdx.x == 0) *token = id;
}

void GpuKernels::sample(const Tensor& token, const Tensor& logits, const Tensor& uniform,
                        const Sampling& sampling) {
  const Range range("sample");
  check_shape("sample", "token", token, {1});
  check_shape("sample", "uniform", uniform, {1});
  const int64_t n = logits.elements();
  if (n > kMaxLogits)
    refuse("sample: %lld logits are more than %d", static_cast<long long>(n), static_cast<int>(kMaxLogits));
  auto min_p = static_cast<float>(sampling.min_p);
  if (min_p < sampling.min_p) min_p = std::nextafter(min_p, 2.0f);
  // The first pass, and the one that makes probabilities of logits.
  const Work work{.bytes = 8.0 * n, .flops = 17.0 * n};
  launch(KERNEL(sample_kernel), {{1}, {kThreads}}, work, token.i32(),
         device_->scratch(sizeof(float) * static_cast<size_t>(n)), logits.f32(), uniform.f32(), n,
         sampling.temperature == 0 ? 0.0f : sampling_scale(sampling.temperature), sampling.top_k,
         sampling.top_p, min_p);
}

}  // namespace topolm::TOPOLM_GPU
