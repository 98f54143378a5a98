// Tensor cores and asynchronous copies: the inline PTX of the kernels, each beside its twin for the CPU
// (kernels/simt/tensor_core.h). Fragments are laid out as the PTX ISA documents them. With g = lane / 4 and
// t = lane % 4, of an m16n8k16 product of bf16:
//   A [16,16]  a[0]: row g, columns 2t 2t+1;  a[1]: row g+8;  a[2], a[3]: the same rows, columns 2t+8 2t+9
//   B [16,8]   b[0]: rows 2t 2t+1, column g;  b[1]: rows 2t+8 2t+9
//   C [16,8]   c[0] c[1]: row g, columns 2t 2t+1;  c[2] c[3]: row g+8
// Two bf16 share a register, the lower index in its lower half. All 32 lanes must take part.
#pragma once

#include "kernels/cuda/gpu.h"
#if !defined(__CUDACC__)
#include "kernels/simt/tensor_core.h"
#endif

namespace topolm::TOPOLM_GPU {

#if defined(__CUDACC__)
DEVICE uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }
#endif

/// c += a b, m16n8k16.
DEVICE void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2] WITH_CALLER) {
#if defined(__CUDACC__)
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  simt::mma<16>(SIMT_SITE_OF("mma.m16n8k16", caller), c, a, b);
#endif
}

/// c += a b, m16n8k8: half the depth; A's registers are a[0], a[1] and B's is b.
DEVICE void mma_m16n8k8(float (&c)[4], const uint32_t (&a)[2], uint32_t b WITH_CALLER) {
#if defined(__CUDACC__)
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(b));
#else
  const uint32_t as[4] = {a[0], a[1], 0, 0}, bs[2] = {b, 0};
  simt::mma<8>(SIMT_SITE_OF("mma.m16n8k8", caller), c, as, bs);
#endif
}

/// Loads N (1, 2, 4) 8x8 matrices of 16-bit elements from shared memory. Lane i gives the address of row i %
/// 8 of matrix i / 8 (lanes past 8 N: any valid address), 16-byte aligned. Lane i gets elements (i/4, 2(i%4))
/// and (i/4, 2(i%4)+1) of each; of the transposed matrix with TRANSPOSE.
template <int N, bool TRANSPOSE = false>
DEVICE void ldmatrix(uint32_t (&r)[N], const void* row WITH_CALLER) {
#if defined(__CUDACC__)
  const uint32_t p = shared_address(row);
  if constexpr (N == 4 && !TRANSPOSE)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(p)
                 : "memory");
  else if constexpr (N == 4)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(p)
                 : "memory");
  else if constexpr (N == 2 && !TRANSPOSE)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(p)
                 : "memory");
  else if constexpr (N == 2)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(p)
                 : "memory");
  else if constexpr (!TRANSPOSE)
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r[0]) : "r"(p) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                 : "=r"(r[0])
                 : "r"(p)
                 : "memory");
#else
  simt::ldmatrix<N, TRANSPOSE>(SIMT_SITE_OF("ldmatrix", caller), r, row);
#endif
}

/// Starts copying 16 bytes from global to shared memory, both 16-byte aligned; only the first `bytes` are
/// read, the rest becomes 0.
DEVICE void copy_async_16(void* shared, const void* global, int bytes = 16 WITH_CALLER) {
#if defined(__CUDACC__)
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
               "r"(bytes)
               : "memory");
#else
  simt::copy_async(SIMT_SITE_OF("cp.async", caller), shared, global, 16, bytes);
#endif
}

/// The same for 4 bytes: 4-byte aligned, and 0 where `bytes` is 0.
DEVICE void copy_async_4(void* shared, const void* global, int bytes = 4 WITH_CALLER) {
#if defined(__CUDACC__)
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)), "l"(global),
               "r"(bytes)
               : "memory");
#else
  simt::copy_async(SIMT_SITE_OF("cp.async", caller), shared, global, 4, bytes);
#endif
}

/// Makes the copies started since the last commit a group.
DEVICE void copy_async_commit() {
#if defined(__CUDACC__)
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  simt::copy_async_commit();
#endif
}

/// Waits until at most the N newest groups of this thread are under way. Others need a barrier besides.
template <int N>
DEVICE void copy_async_wait() {
#if defined(__CUDACC__)
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#else
  simt::copy_async_wait(N);
#endif
}

/// Two floats as bf16 in one register, `low` in the lower half.
DEVICE uint32_t pack_bf16(float low, float high) {
#if defined(__CUDACC__)
  uint32_t pair;  // one instruction instead of two conversions and a shuffle of bytes
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return static_cast<uint32_t>(to_bf16(low).bits) | static_cast<uint32_t>(to_bf16(high).bits) << 16;
#endif
}

}  // namespace topolm::TOPOLM_GPU
