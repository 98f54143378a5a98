#include "kernels/cpu/gemm.h"

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/gemm_amx.h"

namespace topolm::TOPOLM_ISA {

namespace {

// K is cut into equal blocks of at most this: every block costs another pass over C, a longer one a larger
// share of the L2 cache. The model's 196, 784 and 3136 come out as 196, 784 and 4 x 784.
constexpr int64_t kMaxDepth = 1024;
constexpr int64_t kSharedFloats = 2 << 20;  // of packed B at a time: 8 MB of the L3 cache
constexpr int64_t kTaskFloats = 96 << 10;   // of packed A in a task: 384 KB of the L2 cache
constexpr int64_t kTasks = 64;              // to aim at, so that 16 threads still share the work evenly
constexpr int64_t kPackDepth = 256;         // of a B panel packed by one task

/// One register tile of C, rows x cols of it valid: c = a b (+ addend, where not null; it may be c itself).
template <int V, class T>
__attribute__((noinline)) void compute_tile(T* c, int64_t ldc, const float* addend, int64_t ld_addend,
                                            const float* a, const float* b, int64_t depth, int64_t rows,
                                            int64_t cols) {
  for (int64_t i = 0; i < rows; ++i) __builtin_prefetch(c + i * ldc, 1);
  vfloat sums[kTileRows][V] = {};
  multiply_add<kTileRows, V, 1, kTileRows>(sums, a, b, V * kLanes, depth);
  if (rows == kTileRows && cols == V * kLanes) {
    TOPOLM_UNROLL
    for (int i = 0; i < kTileRows; ++i) {
      TOPOLM_UNROLL
      for (int v = 0; v < V; ++v) {
        if (addend) sums[i][v] += load(addend + i * ld_addend + v * kLanes);
        store(c + i * ldc + v * kLanes, sums[i][v]);
      }
    }
    return;
  }
  alignas(64) float tile[kTileRows][V * kLanes];
  TOPOLM_UNROLL
  for (int i = 0; i < kTileRows; ++i) {
    TOPOLM_UNROLL
    for (int v = 0; v < V; ++v) store(&tile[i][v * kLanes], sums[i][v]);
  }
  for (int64_t i = 0; i < rows; ++i)
    sweep(cols, [&](int64_t j, auto lanes) {
      vfloat sum = load(&tile[i][j], lanes);
      if (addend) sum += load(addend + i * ld_addend + j, lanes);
      store(c + i * ldc + j, sum, lanes);
    });
}

/// The last panel of B is one vector wide where that is enough: 196 = 6 * 32 + 4 columns cost 208, not 224.
TOPOLM_INLINE bool is_narrow(int64_t cols) { return cols <= kLanes; }

}  // namespace

void gemm(ThreadPool& pool, Workspace& workspace, const Matrix& c, const Matrix& a, const Matrix& b,
          int64_t m, int64_t n, int64_t k, bool accumulate) {
#if defined(TOPOLM_AMX)
  if (a.dtype == DType::bf16 && b.dtype == DType::bf16)
    return gemm_amx(pool, workspace, c, a, b, m, n, k, accumulate);
#endif
  const int64_t depth_max = ceil_div(k, ceil_div(k, kMaxDepth));
  const int64_t n_limit = max(kTileCols, kSharedFloats / depth_max / kTileCols * kTileCols);
  const int64_t n_max = ceil_div(ceil_div(n, ceil_div(n, n_limit)), kTileCols) * kTileCols;
  const int64_t row_panels = ceil_div(m, kTileRows);
  const int64_t panels_wanted = min(ceil_div(row_panels, kTasks), kTaskFloats / (depth_max * kTileRows));
  const int64_t task_panels = max(1, panels_wanted);

  // A bf16 C is rounded once: its sums over blocks of K wait in fp32.
  const bool sums_apart = c.dtype == DType::bf16 && depth_max < k;
  float* const packed_b = workspace.shared(n_max * depth_max + (sums_apart ? m * n_max : 0));
  float* const sums = packed_b + n_max * depth_max;

  for (int64_t j0 = 0; j0 < n; j0 += n_max)
    for (int64_t k0 = 0; k0 < k; k0 += depth_max) {
      const int64_t cols = min(n_max, n - j0), depth = min(depth_max, k - k0);
      const int64_t col_panels = ceil_div(cols, kTileCols), depth_chunks = ceil_div(depth, kPackDepth);
      const bool first = k0 == 0, last = k0 + depth == k;

      pool.parallel_for(col_panels * depth_chunks, [=](int64_t task, int) {
        const int64_t panel = task / depth_chunks, j = panel * kTileCols, width = min(kTileCols, cols - j);
        const int64_t k1 = task % depth_chunks * kPackDepth, count = min(kPackDepth, depth - k1);
        float* const out = packed_b + j * depth;
        with_elements(b.from(k0 + k1, j0 + j), [&](const auto* x) {
          if (is_narrow(width))
            pack_panel<kLanes>(out + k1 * kLanes, x, b.col_stride, b.row_stride, width, count);
          else
            pack_panel<kTileCols>(out + k1 * kTileCols, x, b.col_stride, b.row_stride, width, count);
        });
      });

      pool.parallel_for(ceil_div(row_panels, task_panels), [=, &workspace](int64_t task, int thread) {
        const int64_t begin = task * task_panels * kTileRows, end = min(m, begin + task_panels * kTileRows);
        float* const packed_a = workspace.of_thread(thread, task_panels * kTileRows * depth_max + kLanes);
        for (int64_t i = begin; i < end; i += kTileRows)
          with_elements(a.from(i, k0), [&](const auto* x) {
            pack_panel<kTileRows>(packed_a + (i - begin) * depth, x, a.row_stride, a.col_stride,
                                  min(kTileRows, end - i), depth);
          });
        for (int64_t j = 0; j < cols; j += kTileCols)
          for (int64_t i = begin; i < end; i += kTileRows) {
            const auto tile = [&](auto* to, int64_t ld, const float* addend, int64_t ld_addend) {
              const auto compute = is_narrow(cols - j) ? compute_tile<1, std::remove_pointer_t<decltype(to)>>
                                                       : compute_tile<2, std::remove_pointer_t<decltype(to)>>;
              compute(to, ld, addend, ld_addend, packed_a + (i - begin) * depth, packed_b + j * depth, depth,
                      min(kTileRows, end - i), min(kTileCols, cols - j));
            };
            float* const sum = sums_apart ? sums + i * n_max + j : nullptr;
            const float* const earlier = first ? nullptr : sum;
            if (sums_apart && !last)
              tile(sum, n_max, earlier, n_max);
            else
              with_elements(c.from(i, j0 + j), [&](auto* to) {
                if constexpr (std::is_same_v<decltype(to), float*>)
                  tile(to, c.row_stride, accumulate || !first ? to : nullptr, c.row_stride);
                else
                  tile(to, c.row_stride, earlier, n_max);
              });
          }
      });
    }
}

}  // namespace topolm::TOPOLM_ISA
