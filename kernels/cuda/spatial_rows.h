// Centred activations as the tensor cores want them: what the forward and the backward of the spatial loss
// share.
//
// bf16 keeps 8 bits of a number, too few for correlations: 2^-9 of the activations would be lost even where x
// is bf16 itself, for its deviations from the mean are not. So each centred activation v is two bf16: high is
// v rounded, low is v - high rounded, and |v - high - low| <= 2^-17 |v|. A product of two such numbers is
// four products of the tensor cores. Without low*low, which has one sign on a diagonal, the worst gradient of
// the tests is off by 1.3e-5 instead of 7e-6 (fp32 arithmetic: 3e-7 .. 1e-6). Both halves share one 32-bit
// word, high above low, as wide as the fp32 that it replaces.
#pragma once

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/tensor_core.h"

namespace topolm::TOPOLM_GPU {

constexpr int kTileRows = 16;              // the depth of an mma
constexpr int kPanel = 32;                 // members that a warp takes at a time
constexpr size_t kSharedLimit = 99 << 10;  // bytes of dynamic shared memory that every architecture has

DEVICE uint32_t split(float v) {
  const bf16 high = to_bf16(v);
  return uint32_t{high.bits} << 16 | to_bf16(v - to_float(high)).bits;
}

/// Two numbers in one word of a fragment: once their high and once their low halves.
struct HighLow {
  uint32_t high, low;
};
DEVICE HighLow pair(uint32_t a, uint32_t b) { return {a >> 16 | (b & 0xffff0000u), (a & 0xffffu) | b << 16}; }

/// c += a b for split a and b; the small products first.
DEVICE void mma_split(float (&c)[4], const uint32_t (&a_high)[4], const uint32_t (&a_low)[4],
                      const uint32_t (&b_high)[2], const uint32_t (&b_low)[2]) {
  mma_m16n8k16(c, a_low, b_low);
  mma_m16n8k16(c, a_low, b_high);
  mma_m16n8k16(c, a_high, b_low);
  mma_m16n8k16(c, a_high, b_high);
}

/// 32-bit words from one copied row to the next: an odd number of vectors of 16 bytes, so that 8 rows at one
/// column lie in different banks.
template <class T>
int row_stride(int64_t c) {
  return static_cast<int>((c * static_cast<int64_t>(sizeof(T)) / 16 | 1) * 4);
}

/// Copies `count` <= kTileRows rows of x [., c] to shared memory, 16 bytes at a time, a warp a row.
/// copy_async_wait<0>() and a barrier must follow.
template <class T>
DEVICE void start_copy(uint32_t* copy, int stride, const T* x, int count, int c) {
  constexpr int kVector = 16 / sizeof(T);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warps = static_cast<int>(blockDim.x) / kWarp;
  for (int row = static_cast<int>(threadIdx.x) / kWarp; row < count; row += warps)
    for (int j = lane; j < c / kVector; j += kWarp)
      copy_async_16(copy + row * stride + 4 * j, x + int64_t{row} * c + kVector * j);
  copy_async_commit();
}

/// Element e of a vector of 16 bytes.
template <class T>
DEVICE float element(const Vector<uint32_t, 4>& raw, int e) {
  if constexpr (sizeof(T) == 4) return __uint_as_float(raw.at[e]);
  return __uint_as_float(e % 2 ? raw.at[e / 2] & 0xffff0000u : raw.at[e / 2] << 16);
}

/// A tile of kTileRows rows of split x - mean, rows past `count` being 0: words in shared memory, column by
/// column, so that one load fetches several rows of a unit. Where a tile and the copy it is made from do not
/// fit in shared memory, or rows cannot be copied 16 bytes at a time: x itself, each word made when fetched.
template <class T, bool STAGED>
struct CentredRows {
  uint32_t* words;
  const T* x;
  const float* mean;
  int c, count;

  /// Where a column begins. Neighbours lie in different halves of the banks, and so do those at a distance of
  /// one vector, which fill() stores together.
  DEVICE static int place(int column) {
    if constexpr (STAGED) return (column ^ (column >> 2 & 1) ^ (column >> 3 & 1)) * kTileRows;
    return column;
  }

  /// N rows of the unit at `place`.
  template <int N>
  DEVICE Vector<uint32_t, N> fetch(int place, int row) const {
    if constexpr (STAGED) {
      return load_vector<N>(words + place + row);
    } else {
      Vector<uint32_t, N> out;
      UNROLL for (int e = 0; e < N; ++e) {
        out.at[e] = row + e < count ? split(to_float(x[(row + e) * c + place]) - mean[place]) : 0;
      }
      return out;
    }
  }

  /// Makes the words from copied rows; half a warp's lanes have a vector of each row. A barrier must follow.
  DEVICE void fill(const uint32_t* copy, int stride) const {
    constexpr int kVector = 16 / sizeof(T);
    const int thread = static_cast<int>(threadIdx.x), row = thread % kTileRows;
    const int step = static_cast<int>(blockDim.x) / kTileRows * kVector;
    for (int j = thread / kTileRows * kVector; j < c; j += step) {
      const Vector<uint32_t, 4> raw =
          load_vector<4>(copy + row * stride + j * static_cast<int>(sizeof(T)) / 4);
      UNROLL for (int e = 0; e < kVector; ++e) {
        words[place(j + e) + row] = row < count ? split(element<T>(raw, e) - mean[j + e]) : 0;
      }
    }
  }
};

/// Bytes of dynamic shared memory of a tile and a copy of rows of COPY; 0 where x (and dx) must be read in
/// place.
template <class T, class COPY>
size_t staging_bytes(const void* x, const void* dx, int64_t c) {
  const bool vectors = c * static_cast<int64_t>(sizeof(T)) % 16 == 0 &&
                       (reinterpret_cast<uintptr_t>(x) | reinterpret_cast<uintptr_t>(dx)) % 16 == 0;
  const size_t bytes = 4 * kTileRows * static_cast<size_t>(c + row_stride<COPY>(c));
  return vectors && bytes <= kSharedLimit ? bytes : 0;
}

/// The column of member i; 0 after telling the host where it is none of the c.
DEVICE int column_of(const int32_t* members, int64_t i, int c, FaultRecord* fault, Fault::Kind kind) {
  const int32_t column = members[i];
  if (column >= 0 && column < c) return column;
  report(fault, kind, column, i, c);
  return 0;
}

}  // namespace topolm::TOPOLM_GPU
