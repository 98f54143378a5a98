// A kernel that uses every wrapper of inline PTX, also those that no operation uses at present.
#include "tests/ptx/wrappers.h"

#include "kernels/cuda/math.h"
#include "kernels/cuda/tensor_core.h"

namespace topolm::TOPOLM_GPU {

/// in: 512 words, read as bf16 pairs and as floats; out: kWrapperOutputs words a lane. One warp.
__global__ void __launch_bounds__(kWarp) wrappers_kernel(uint32_t* out, const uint32_t* in) {
  using Row = Vector<uint32_t, 4>;
  SHARED(Row, rows, [4 * kWarp]);
  SHARED(uint32_t, words, [kWarp]);
  const int lane = static_cast<int>(threadIdx.x);
  for (int n = 0; n < 4; ++n) {
    // Of the last rows only a part is copied, the rest is zero.
    copy_async_16(&rows[n * kWarp + lane], in + 4 * (n * kWarp + lane), n == 3 ? lane % 5 * 4 : 16);
    copy_async_commit();
  }
  copy_async_4(&words[lane], in + lane, lane % 2 * 4);
  copy_async_commit();
  copy_async_wait<1>();
  copy_async_wait<0>();
  __syncthreads();

  uint32_t x4[4], x4_transposed[4], x2[2], x2_transposed[2], x1[1], x1_transposed[1];
  ldmatrix<4>(x4, &rows[lane]);
  ldmatrix<4, true>(x4_transposed, &rows[kWarp + lane]);
  ldmatrix<2>(x2, &rows[2 * kWarp + lane]);
  ldmatrix<2, true>(x2_transposed, &rows[3 * kWarp + lane]);
  ldmatrix<1>(x1, &rows[lane]);
  ldmatrix<1, true>(x1_transposed, &rows[kWarp + lane]);
  float c[4] = {1, 2, 3, 4}, d[4] = {};
  mma_m16n8k16(c, x4, x2);
  mma_m16n8k16(c, x4_transposed, x2_transposed);
  mma_m16n8k8(d, x2, x1[0]);
  mma_m16n8k8(d, x2_transposed, x1_transposed[0]);

  out += lane * kWrapperOutputs;
  for (int i = 0; i < 4; ++i) {
    *out++ = x4[i];
    *out++ = x4_transposed[i];
    *out++ = __float_as_uint(c[i]);
    *out++ = __float_as_uint(d[i]);
  }
  const float x = c[0], positive = 1e-3f + c[1] * c[1];
  *out++ = __float_as_uint(exp2_fast(x));
  *out++ = __float_as_uint(exp_fast(x));
  *out++ = __float_as_uint(log2_fast(positive));
  *out++ = __float_as_uint(log_fast(positive));
  *out++ = __float_as_uint(reciprocal_fast(positive));
  *out++ = __float_as_uint(rsqrtf(positive));
  *out++ = pack_bf16(c[2], c[3]);
  *out++ = words[lane ^ 1];
  *out++ = in[lane];
}

void launch_wrappers(GpuDevice& device, uint32_t* out, const uint32_t* in) {
  const Argument arguments[] = {{&out, sizeof out, alignof(void*)}, {&in, sizeof in, alignof(void*)}};
  Launch launch{
      "wrappers_kernel", reinterpret_cast<const void*>(wrappers_kernel), nullptr, {{1}, {kWarp}}, {},
      arguments};
#if !defined(__CUDACC__)
  launch.call = [](const void*, std::span<const Argument> a) {
    wrappers_kernel(*static_cast<uint32_t* const*>(a[0].value),
                    *static_cast<const uint32_t* const*>(a[1].value));
  };
#endif
  device.launch(launch);
}

}  // namespace topolm::TOPOLM_GPU
