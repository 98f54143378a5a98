#include "tests/simt_bugs.h"

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/tensor_core.h"
#include "kernels/cuda/warp.h"

namespace topolm::test {

using namespace TOPOLM_GPU;

namespace {

constexpr int kThreads = 128;

DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }

// ---- one thread reads what another has not written yet, or has overwritten

template <bool BUG>
__global__ void missing_barrier(float* out, const float* in) {
  SHARED(float, s, [kThreads]);
  const int t = thread_index();
  s[t] = in[t];
  if (!BUG) __syncthreads();
  out[t] = s[kThreads - 1 - t];
}

// The second reduction writes its partial sums while a slow warp still reads those of the first.
template <bool BUG>
__global__ void reused_scratch(float* out, const float* in) {
  SHARED(float, partial, [kThreads / kWarp]);
  const int t = thread_index();
  const float mean = block_reduce<kThreads>(in[t], Add{}, 0.0f, partial) / kThreads;
  if (!BUG) __syncthreads();
  const float d = in[t] - mean;
  out[t] = d * rsqrtf(block_reduce<kThreads>(d * d, Add{}, 0.0f, partial) / kThreads);
}

// The copy of a tile is under way while a slow thread still reads the one before it in the same buffer.
template <bool BUG>
__global__ void overwriting_copy(float* out, const float* in) {
  constexpr int kTiles = 4, kTile = 4 * kThreads;
  SHARED(float, tile, [2][kTile]);
  const int t = thread_index();
  float sum = 0;
  copy_async_16(&tile[0][4 * t], in + 4 * t);
  copy_async_commit();
  for (int k = 0; k < kTiles; ++k) {
    if (k + 1 < kTiles) copy_async_16(&tile[(k + 1) % 2][4 * t], in + (k + 1) * kTile + 4 * t);
    copy_async_commit();
    copy_async_wait<1>();
    __syncthreads();
    sum += tile[k % 2][(4 * t + kTile / 2) % kTile];
    if (!BUG) __syncthreads();
  }
  out[t] = sum;
}

template <bool BUG>
__global__ void missing_copy_wait(float* out, const float* in) {
  SHARED(float, tile, [4 * kThreads]);
  const int t = thread_index();
  copy_async_16(&tile[4 * t], in + 4 * t);
  copy_async_commit();
  if (!BUG) copy_async_wait<0>();
  __syncthreads();
  out[t] = tile[(4 * t + kThreads) % (4 * kThreads)];
}

template <bool BUG>
__global__ void missing_syncwarp(float* out, const float* in) {
  SHARED(float, s, [kWarp]);
  const int t = thread_index();
  s[t] = in[t];
  if (!BUG) __syncwarp();
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const float other = t < offset ? s[t + offset] : 0.0f;
    if (!BUG) __syncwarp();
    if (t < offset) s[t] += other;
    if (!BUG) __syncwarp();
  }
  if (t == 0) out[0] = s[0];
}

// A shuffle makes lanes meet, but what they wrote may still be on its way.
template <bool BUG>
__global__ void shuffle_for_syncwarp(float* out, const float* in) {
  SHARED(float, s, [kWarp]);
  const int t = thread_index();
  s[t] = in[t];
  const float x = __shfl_xor_sync(kAllLanes, in[t], 1);
  if (!BUG) __syncwarp();
  out[t] = s[kWarp - 1 - t] + x;
}

// Needs two launches: no block may wait for another.
template <bool BUG>
__global__ void read_of_another_block(float* out, const float* in) {
  const int t = thread_index();
  if (blockIdx.x == 0)
    out[t] = in[t];
  else
    out[kThreads + t] = BUG ? out[t] : in[t];
}

template <bool BUG>
__global__ void missing_atomic(float* out, const float*) {
  SHARED(int, count, [1]);
  if (threadIdx.x == 0) count[0] = 0;
  __syncthreads();
  if (BUG)
    count[0] += 1;
  else
    atomicAdd(&count[0], 1);
  __syncthreads();
  if (threadIdx.x == 0) out[0] = static_cast<float>(count[0]);
}

// ---- memory that is not there, not written, not aligned

template <bool BUG>
__global__ void write_past_global(float* out, const float* in) {
  const int t = thread_index();
  out[t + BUG] = in[t];
  if (t == 0) out[0] = in[0];
}

template <bool BUG>
__global__ void read_past_global(float* out, const float* in) {
  const int t = thread_index();
  out[t] = in[kBugInputs - kThreads + t + BUG];
}

template <bool BUG>
__global__ void copy_past_global(float* out, const float* in) {
  SHARED(float, tile, [4 * kThreads]);
  const int t = thread_index();
  copy_async_16(&tile[4 * t], in + kBugInputs - 4 * kThreads + 4 * (t + BUG));
  copy_async_commit();
  copy_async_wait<0>();
  out[t] = tile[4 * t];
}

// Through pointers: an index on the array itself would be UBSan's to see.
template <bool BUG>
__global__ void write_past_shared(float* out, const float* in) {
  SHARED(float, a, [kThreads]);
  SHARED(float, b, [kThreads]);
  const int t = thread_index();
  float* const p = a;
  p[t] = b[t] = in[t];
  __syncthreads();
  if (t == kThreads - 1) p[t + BUG] = 1;
  __syncthreads();
  out[t] = a[t] + b[t];
}

template <bool BUG>
__global__ void read_past_shared(float* out, const float* in) {
  SHARED(float, a, [kThreads]);
  SHARED(float, b, [kThreads]);
  const int t = thread_index();
  const float* const p = a;
  a[t] = b[t] = in[t];
  __syncthreads();
  out[t] = p[t + BUG] + b[t];
}

template <bool BUG>
__global__ void write_past_dynamic_shared(float* out, const float* in) {
  DYNAMIC_SHARED(float, s);
  const int t = thread_index();
  s[t + BUG] = in[t];
  __syncthreads();
  out[t] = s[kThreads - 1 - t + BUG];
}

template <bool BUG>
__global__ void unwritten_output(float* out, const float* in) {
  const int t = thread_index();
  if (!BUG || t < 100) out[t] = in[t];
}

template <bool BUG>
__global__ void uninitialised_shared(float* out, const float* in) {
  SHARED(float, s, [kThreads]);
  const int t = thread_index();
  if (!BUG || t < 100) s[t] = in[t];
  __syncthreads();
  out[t] = s[kThreads - 1 - t];
}

template <bool BUG>
__global__ void uninitialised_dynamic_shared(float* out, const float* in) {
  DYNAMIC_SHARED(float, s);
  const int t = thread_index();
  if (!BUG || t < 100) s[t] = in[t];
  __syncthreads();
  out[t] = s[kThreads - 1 - t];
}

template <bool BUG>
__global__ void misaligned_vector(float* out, const float* in) {
  const int t = thread_index();
  out[t] = load_vector<4>(in + 4 * t + BUG).at[3];
}

template <bool BUG>
__global__ void misaligned_copy(float* out, const float* in) {
  SHARED(float, tile, [4 * kThreads + 4]);
  const int t = thread_index();
  copy_async_16(&tile[4 * t + BUG], in + 4 * t);
  copy_async_commit();
  copy_async_wait<0>();
  out[t] = tile[4 * t + 1];
}

template <bool BUG>
__global__ void misaligned_ldmatrix(float* out, const float* in) {
  SHARED(float, rows, [8 * 4 + 4]);
  const int t = thread_index();
  rows[t] = in[t];
  __syncwarp();
  uint32_t r[1];
  ldmatrix(r, &rows[4 * (t % 8) + BUG]);
  out[t] = __uint_as_float(r[0]);
}

template <bool BUG>
__global__ void too_much_static_shared(float* out, const float* in) {
  SHARED(float, big, [BUG ? 12289 : 12288]);
  const int t = thread_index();
  big[t] = in[t];
  out[t] = big[t];
}

template <bool BUG>
__global__ void too_much_shared(float* out, const float* in) {
  DYNAMIC_SHARED(float, large);
  SHARED(float, small, [BUG ? kThreads + 1 : kThreads]);
  const int t = thread_index();
  large[t] = small[t] = in[t];
  out[t] = large[t] + small[t];
}

// ---- threads that do not meet

template <bool BUG>
__global__ void barrier_in_a_branch(float* out, const float* in) {
  SHARED(float, s, [kThreads]);
  const int t = thread_index();
  s[t] = in[t];
  if (!BUG || t < 64) __syncthreads();
  out[t] = s[t];
}

template <bool BUG>
__global__ void two_barriers(float* out, const float* in) {
  SHARED(float, s, [kThreads]);
  const int t = thread_index();
  s[t] = in[t];
  if (BUG && t % 2 == 0)
    __syncthreads();
  else
    __syncthreads();
  out[t] = s[kThreads - 1 - t];
}

template <bool BUG>
__global__ void early_return(float* out, const float* in) {
  SHARED(float, s, [kThreads]);
  const int t = thread_index();
  if (BUG && t >= 100) return;
  s[t] = in[t];
  __syncthreads();
  out[t] = s[t];
}

// The last thread waits for its warp, the others for the block: for ever.
template <bool BUG>
__global__ void wait_for_ever(float* out, const float* in) {
  const int t = thread_index();
  if (BUG && t == kThreads - 1) __syncwarp();
  __syncthreads();
  out[t] = in[t];
  __syncwarp();
}

template <bool BUG>
__global__ void shuffle_in_half_a_warp(float* out, const float* in) {
  const int t = thread_index();
  float x = in[t];
  if (!BUG || t < 16) x = __shfl_xor_sync(kAllLanes, x, 1);
  out[t] = x;
}

template <bool BUG>
__global__ void lane_outside_its_mask(float* out, const float* in) {
  const int t = thread_index();
  out[t] = __shfl_xor_sync(BUG ? 0x0000ffffu : kAllLanes, in[t], 1);
}

template <bool BUG>
__global__ void mask_of_absent_lanes(float* out, const float* in) {  // 20 threads
  const int t = thread_index();
  out[t] = __shfl_xor_sync(BUG ? kAllLanes : 0x000fffffu, in[t], 1);
}

template <bool BUG>
__global__ void shuffle_from_outside_the_mask(float* out, const float* in) {
  const int t = thread_index();
  float x = in[t];
  if (t < 16) x = __shfl_sync(0x0000ffffu, x, BUG ? 20 : 12);
  out[t] = x;
}

template <bool BUG>
__global__ void two_reductions(float* out, const float* in) {
  const int t = thread_index();
  float x = in[t];
  if (BUG && t < 16)
    x = warp_sum(x);
  else
    x = warp_sum(x);
  out[t] = x;
}

#define BUG(kernel, grid, outputs, ...)                                      \
  PlantedBug {                                                               \
#kernel, kernel < true>, kernel < false>, grid, outputs, { __VA_ARGS__ } \
  }

constexpr Grid kBlock{{1}, {kThreads}, 0}, kTwoBlocks{{2}, {kThreads}, 0};
constexpr Grid kOneWarp{{1}, {kWarp}, 0}, kTwentyThreads{{1}, {20}, 0};
constexpr Grid kDynamic{{1}, {kThreads}, sizeof(float) * kThreads};
constexpr Grid kMuchDynamic{{1}, {kThreads}, (99 << 10) - sizeof(float) * kThreads};

const PlantedBug kBugs[] = {
    BUG(missing_barrier, kBlock, kThreads, .wrong_under = "frRp", .thread_report = "data race"),
    BUG(reused_scratch, kBlock, kThreads, .wrong_under = "p", .thread_report = "data race"),
    BUG(overwriting_copy, kBlock, kThreads, .wrong_under = "frRp", .thread_report = "data race"),
    BUG(missing_copy_wait, kBlock, kThreads, .wrong_under = "frRp"),
    BUG(missing_syncwarp, kOneWarp, 1, .wrong_under = "fRp", .thread_report = "data race"),
    BUG(shuffle_for_syncwarp, kOneWarp, kWarp, .thread_report = "data race"),
    BUG(read_of_another_block, kTwoBlocks, 2 * kThreads, .wrong_under = "rRp", .thread_report = "data race"),
    BUG(missing_atomic, kBlock, 1, .thread_report = "data race"),
    BUG(write_past_global, kBlock, kThreads, .address_report = "WRITE of size 4"),
    BUG(read_past_global, kBlock, kThreads, .address_report = "READ of size 4"),
    BUG(copy_past_global, kBlock, kThreads, .address_report = "READ of size 1"),
    BUG(write_past_shared, kBlock, kThreads, .address_report = "WRITE of size 4"),
    BUG(read_past_shared, kBlock, kThreads, .address_report = "READ of size 4"),
    BUG(write_past_dynamic_shared, kDynamic, kThreads, .address_report = "WRITE of size 4"),
    BUG(unwritten_output, kBlock, kThreads, .wrong_under = "frRp"),
    BUG(uninitialised_shared, kBlock, kThreads, .wrong_under = "frRp"),
    BUG(uninitialised_dynamic_shared, kDynamic, kThreads, .wrong_under = "frRp"),
    BUG(misaligned_vector, kBlock, kThreads, .address_report = "misaligned address"),
    BUG(misaligned_copy, kBlock, kThreads, .message = "is not a multiple of 16"),
    BUG(misaligned_ldmatrix, kOneWarp, kWarp, .message = "is not 16-byte aligned"),
    BUG(too_much_static_shared, kBlock, kThreads, .message = "of static shared memory; the limit is 49152"),
    BUG(too_much_shared, kMuchDynamic, kThreads, .message = "the limit is 101376"),
    BUG(barrier_in_a_branch, kBlock, kThreads, .message = "exited"),
    BUG(two_barriers, kBlock, kThreads, .message = "wait at different barriers"),
    BUG(early_return, kBlock, kThreads, .message = "exited"),
    BUG(wait_for_ever, kBlock, kThreads, .message = "wait for each other for ever"),
    BUG(shuffle_in_half_a_warp, kOneWarp, kWarp, .message = "exited"),
    BUG(lane_outside_its_mask, kOneWarp, kWarp, .message = "is not in its own mask"),
    BUG(mask_of_absent_lanes, kTwentyThreads, 20, .message = "never were"),
    BUG(shuffle_from_outside_the_mask, kOneWarp, kWarp, .wrong_under = "frRp"),
    BUG(two_reductions, kOneWarp, kWarp, .message = "in different operations"),
};

}  // namespace

std::span<const PlantedBug> planted_bugs() { return kBugs; }

void call_bug(const void* kernel, std::span<const Argument> arguments) {
  reinterpret_cast<BugKernel>(const_cast<void*>(kernel))(
      *static_cast<float* const*>(arguments[0].value), *static_cast<const float* const*>(arguments[1].value));
}

}  // namespace topolm::test
