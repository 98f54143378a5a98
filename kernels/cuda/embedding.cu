// Token and position embedding. A block owns a row, or a run of them, and its threads stride over the
// channels, N at a time: 4 (16 bytes) where C and the addresses allow, else 1.
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/gpu_kernels.h"

namespace topolm::TOPOLM_GPU {

constexpr int kMaxThreads = 256;

template <int N>
DEVICE void add(Vector<float, N>& sum, const Vector<float, N>& v) {
  UNROLL
  for (int i = 0; i < N; ++i) sum.at[i] += v.at[i];
}

namespace {

/// Rows and columns only: [B,T,C] and [N,C] are the same memory.
void check_rows(const char* operation, const char* name, const Tensor& t, int64_t rows, int64_t cols) {
  check_shape(operation, name, t.view({t.rows(), t.cols()}), {rows, cols});
}

/// Calls f with the number of channels a thread moves at a time, as a constant, and the threads that a row
/// keeps busy.
template <class F>
void with_layout(int64_t channels, std::initializer_list<Tensor> tensors, F&& f) {
  const auto call = [&](auto n) {
    f(n, Extent{static_cast<uint32_t>(
             std::min<int64_t>(kMaxThreads, ceil_div(ceil_div(channels, n()), kWarp) * kWarp))});
  };
  if (channels % 4 == 0 && in_vectors(4, tensors) > 0)
    call(std::integral_constant<int, 4>{});
  else
    call(std::integral_constant<int, 1>{});
}

}  // namespace

/// out[n,:] = wte[tokens[n],:] + wpe[position + n mod T,:], one block a row n. Where an index is out of range
/// the row becomes 0.
template <int N>
__global__ void __launch_bounds__(kMaxThreads)
    embedding_forward_kernel(float* out, const int32_t* tokens, const float* wte, const float* wpe,
                             const int32_t* position, int T, int C, int64_t vocabulary, int64_t context,
                             FaultRecord* fault) {
  const int n = static_cast<int>(blockIdx.x);
  const int64_t first = *position;
  const int32_t token = tokens[n];
  const bool token_fits = token >= 0 && token < vocabulary, fits = first >= 0 && first + T <= context;
  if (threadIdx.x == 0 && !token_fits) report(fault, Fault::embedding_forward_token, token, n, vocabulary);
  if (threadIdx.x == 0 && n == 0 && !fits)
    report(fault, Fault::embedding_forward_position, static_cast<int32_t>(first < 0 ? first : first + T - 1),
           0, context);
  const float* const e = wte + int64_t{token} * C;
  const float* const p = wpe + (first + n % T) * C;
  for (int c = static_cast<int>(threadIdx.x) * N; c < C; c += static_cast<int>(blockDim.x) * N) {
    Vector<float, N> sum{};
    if (token_fits && fits) {
      sum = load_vector<N>(e + c);
      add(sum, load_vector<N>(p + c));
    }
    store_vector(out + int64_t{n} * C + c, sum);
  }
}

void GpuKernels::embedding_forward(const Tensor& out, const Tensor& tokens, const Tensor& wte,
                                   const Tensor& wpe, const Tensor& position) {
  const Range range("embedding");
  const int64_t n = tokens.elements(), t = tokens.cols(), c = wte.cols();
  check_rows("embedding_forward", "out", out, n, c);
  check_rows("embedding_forward", "wpe", wpe, wpe.rows(), c);
  check_shape("embedding_forward", "position", position, {1});
  // The rows of wte are not counted: how many differ, only the tokens know.
  with_layout(c, {out, wte, wpe}, [&](auto vector, Extent threads) {
    constexpr int N = decltype(vector)::value;
    launch(KERNEL(embedding_forward_kernel<N>), {blocks_for(n, 1), threads},
           {.bytes = 4.0 * (n * c + t * c + n)}, out.f32(), tokens.i32(), wte.f32(), wpe.f32(),
           position.i32(), t, c, wte.rows(), wpe.rows(), device_->fault());
  });
}

// The gradient of wte is a sum over runs: `order` sorts the rows by token, so those of one token follow each
// other. Blocks take kChunk entries each, whatever the tokens, so that a frequent one does not keep a single
// block busy. A run belongs to the chunk where it starts, which adds it to dwte; what of it lies in later
// chunks is summed there, in `carried` [chunks, C], and added by a second kernel. All orders are fixed.

constexpr int kChunk = 64, kAhead = 4;  // entries a block, and loads under way at a time

/// dwte[token,:] += the sum of dout's rows for every run that starts in this chunk, up to the chunk's end;
/// carried[chunk,:] = the sum of the run that the chunk starts in the midst of, if it does.
template <int N>
__global__ void __launch_bounds__(kMaxThreads)
    embedding_backward_kernel(float* dwte, float* carried, const float* dout, const int32_t* tokens,
                              const int32_t* order, int64_t rows, int C, int64_t vocabulary,
                              FaultRecord* fault) {
  SHARED(int32_t, row, [kChunk]);
  SHARED(int32_t, token_and_before, [1 + kChunk]);
  const int32_t* const token = token_and_before + 1;  // token[-1] is that of the entry before the chunk
  const int64_t begin = int64_t{blockIdx.x} * kChunk;
  const int size = static_cast<int>(min(int64_t{kChunk}, rows - begin));
  for (int i = static_cast<int>(threadIdx.x); i <= size; i += static_cast<int>(blockDim.x)) {
    const int32_t r = begin + i == 0 ? 0 : order[begin + i - 1];
    token_and_before[i] = tokens[r];
    if (i > 0) row[i - 1] = r;
  }
  __syncthreads();
  const auto starts = [&](int i) { return begin + i == 0 || token[i] != token[i - 1]; };
  const auto fits = [&](int i) { return token[i] >= 0 && token[i] < vocabulary; };
  for (int i = static_cast<int>(threadIdx.x); i < size; i += static_cast<int>(blockDim.x))
    if (starts(i) && !fits(i)) report(fault, Fault::embedding_backward_token, token[i], row[i], vocabulary);

  for (int c = static_cast<int>(threadIdx.x) * N; c < C; c += static_cast<int>(blockDim.x) * N) {
    Vector<float, N> sum{};
    bool carry = !starts(0);
    for (int next = 0; next < size; next += kAhead) {
      Vector<float, N> ahead[kAhead];
      UNROLL
      for (int a = 0; a < kAhead; ++a)
        ahead[a] = load_vector<N>(dout + int64_t{row[min(next + a, size - 1)]} * C + c);
      UNROLL
      for (int a = 0; a < kAhead; ++a) {
        const int i = next + a;
        if (i >= size) continue;
        add(sum, ahead[a]);
        if (i + 1 < size && !starts(i + 1)) continue;
        if (carry) {
          store_vector(carried + int64_t{blockIdx.x} * C + c, sum);
        } else if (fits(i)) {
          float* const to = dwte + int64_t{token[i]} * C + c;
          add(sum, load_vector<N>(to));
          store_vector(to, sum);
        }
        sum = {};
        carry = false;
      }
    }
  }
}

/// dwte[token,:] += what was carried of the last run of this chunk, in the order of the chunks. Blocks whose
/// last run does not start in them, or ends in them, have nothing to do.
template <int N>
__global__ void __launch_bounds__(kMaxThreads)
    embedding_backward_carried_kernel(float* dwte, const float* carried, const int32_t* tokens,
                                      const int32_t* order, int64_t rows, int C, int64_t vocabulary) {
  const int64_t chunk = blockIdx.x, chunks = (rows + kChunk - 1) / kChunk;
  const auto token_at = [&](int64_t entry) { return tokens[order[entry]]; };
  const int64_t last = min(rows, (chunk + 1) * kChunk) - 1;
  const int32_t token = token_at(last);
  const bool starts_here = chunk == 0 || token_at(chunk * kChunk - 1) != token;
  if (token < 0 || token >= vocabulary || !starts_here) return;
  // The chunks that begin with this token follow each other: `end` is behind the last of them.
  int64_t end = chunk + 1;
  for (int64_t beyond = chunks; end < beyond;) {
    const int64_t middle = end + (beyond - end) / 2;
    if (token_at(middle * kChunk) == token)
      end = middle + 1;
    else
      beyond = middle;
  }
  if (end == chunk + 1) return;
  for (int c = static_cast<int>(threadIdx.x) * N; c < C; c += static_cast<int>(blockDim.x) * N) {
    float* const to = dwte + int64_t{token} * C + c;
    Vector<float, N> sum = load_vector<N>(to);
    for (int64_t i = chunk + 1; i < end; ++i) add(sum, load_vector<N>(carried + i * C + c));
    store_vector(to, sum);
  }
}

/// dwpe[t,:] += the sum over b of dout[b,t,:], one block a position t.
template <int N>
__global__ void __launch_bounds__(kMaxThreads)
    embedding_backward_position_kernel(float* dwpe, const float* dout, int64_t B, int64_t T, int C) {
  const int64_t t = blockIdx.x;
  for (int c = static_cast<int>(threadIdx.x) * N; c < C; c += static_cast<int>(blockDim.x) * N) {
    Vector<float, N> sum = load_vector<N>(dwpe + t * C + c);
    for (int64_t b = 0; b < B; ++b) add(sum, load_vector<N>(dout + (b * T + t) * C + c));
    store_vector(dwpe + t * C + c, sum);
  }
}

void GpuKernels::embedding_backward(const Tensor& dwte, const Tensor& dwpe, const Tensor& dout,
                                    const Tensor& tokens, const Tensor& order) {
  const Range range("embedding_backward");
  const int64_t n = tokens.elements(), t = tokens.cols(), c = dwte.cols(), chunks = ceil_div(n, kChunk);
  check_rows("embedding_backward", "dout", dout, n, c);
  check_shape("embedding_backward", "dwpe", dwpe, {std::max(dwpe.rows(), t), c});
  check_shape("embedding_backward", "order", order.view({order.elements()}), {n});
  auto* const carried = static_cast<float*>(device_->scratch(static_cast<size_t>(4 * chunks * c)));
  // Again the rows of dwte are not counted, nor what is carried.
  with_layout(c, {dout, dwte, dwpe}, [&](auto vector, Extent threads) {
    constexpr int N = decltype(vector)::value;
    launch(KERNEL(embedding_backward_kernel<N>), {blocks_for(chunks, 1), threads},
           {.bytes = 4.0 * (n * c + 2 * n), .flops = 1.0 * n * c}, dwte.f32(), carried, dout.f32(),
           tokens.i32(), order.i32(), n, c, dwte.rows(), device_->fault());
    launch(KERNEL(embedding_backward_carried_kernel<N>), {blocks_for(chunks, 1), threads},
           {.bytes = 4.0 * 4 * chunks}, dwte.f32(), carried, tokens.i32(), order.i32(), n, c, dwte.rows());
    launch(KERNEL(embedding_backward_position_kernel<N>), {blocks_for(t, 1), threads},
           {.bytes = 4.0 * (n * c + 2 * t * c), .flops = 1.0 * n * c}, dwpe.f32(), dout.f32(), n / t, t, c);
  });
}

}  // namespace topolm::TOPOLM_GPU
