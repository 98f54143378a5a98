// Matrix products of bf16 on AMX's tiles, as gemm.cpp does them on vectors: operands are packed into panels,
// here of whole tiles, and a micro-kernel keeps the sums of 2 x 2 tiles, 32 x 32 of C.
//
// No machine of ours has AMX: this code has run on emulated tiles only. What follows is derived from figures
// of a Sapphire Rapids (cycles and peaks of its tiles, a kernel of 2 x 2 tiles alone) and of Zen 5 (packing).
// - A step along K is 4 loads of 1 KB and 4 products: a load a product, the least with 8 registers (a single
//   tile needs 2 for 1). A product takes 16 cycles, a load 8, so from L1 the products decide: 83 % of the
//   peak. From L2 a step wants 4 KB in 64 cycles, all that L2 can give: 65 %. At K = 784 both panels come
//   from L2, at 196 from L1.
// - Packing a tile takes 55 cycles where K is contiguous, 60 to 95 where it is not. A tile of a serves n/16
//   products, one of b m/16: together 12 % more at m = 2048, n = 784; 40 % at n = 196.
// - C leaves the tiles through a buffer in L1: 200 cycles for 32 x 32, which took 2 K. 13 % more at K = 784,
//   50 % at 196, where the edges (208 for 196, and 224 along K) cost another 20 %.
// That makes at most 55 % of the peak for the published model's products, 40 % for a tiny model's. The
// prototype, on a busy machine, had 17 to 31 % and 8 to 14 %.
#include "kernels/cpu/gemm_amx.h"

#if defined(TOPOLM_AMX)

#include "kernels/cpu/tiles.h"

namespace topolm::TOPOLM_ISA {

namespace {

constexpr int64_t kPanel = 2 * kTileSide;                // rows of a, or columns of b, in a panel
constexpr int64_t kTile = kTileBytes / int64_t{2};       // elements of a tile
constexpr int64_t kStep = kPanel * int64_t{kTileDepth};  // elements of a panel for one step along K

// Up to here all of K goes through the tiles at once, and C leaves them finished; beyond, K is cut into equal
// blocks of at most kBlockDepth, and C, or its sums, are passed over once a block. Measured (prototype): at
// K <= 4096 the whole is faster, at 50304, the gradient of the head's input, half as fast as blocks.
constexpr int64_t kWholeDepth = 4096, kBlockDepth = 1024;
constexpr int64_t kSharedElements = 4 << 20;    // of packed b at a time: 8 MB of the L3 cache
constexpr int64_t kTaskPanels = 4;              // of a: 4 x 64 bytes x K, 200 KB of the L2 cache at K = 784
constexpr int64_t kTasks = 16;                  // to aim at, so that 8 threads still share the work evenly
constexpr int64_t kTaskColumns = 8 * kPanel;    // at least, so that the packing of a pays
constexpr int64_t kPackDepth = 8 * kTileDepth;  // of a panel of b packed by one task

/// Packs a tile of an operand of which `lines` rows of a, or columns of b, and `depth` elements along K are
/// there; the rest are zeros. A tile's row holds a line (of a), or a pair along K of every line (of b). One
/// of the strides is 1; where it is the wrong one, words of two elements are transposed.
template <bool kPairs, bool kWhole>
__attribute__((noinline)) void pack_tile(bf16* out, const bf16* x, int64_t across, int64_t along,
                                         int64_t lines, int64_t depth) {
  vfloat rows[kTileSide];
  // By name: g++ 12 widens a vector in two halves. A mask known to be full costs nothing, another a third
  // more.
  if (along == 1) {
    const auto mask = static_cast<__mmask32>(kWhole || depth >= kTileDepth ? ~0u : (1u << depth) - 1);
    TOPOLM_UNROLL
    for (int i = 0; i < kTileSide; ++i) {
      const auto here = kWhole || i < lines ? mask : __mmask32{};
      rows[i] = bit_cast<vfloat>(_mm512_maskz_loadu_epi16(here, x + i * across));
    }
  } else {
    const auto mask = static_cast<__mmask16>(kWhole || lines >= kTileSide ? ~0u : (1u << lines) - 1);
    const auto words = [&](int64_t k) {
      const auto here = kWhole || k < depth ? mask : __mmask16{};
      return _mm512_maskz_cvtepu16_epi32(0xffff, _mm256_maskz_loadu_epi16(here, x + k * along));
    };
    TOPOLM_UNROLL
    for (int i = 0; i < kTileSide; ++i)
      rows[i] = bit_cast<vfloat>(bit_cast<vint>(words(2 * i)) | bit_cast<vint>(words(2 * i + 1)) << 16);
  }
  if ((along == 1) == kPairs) transpose(rows);
  TOPOLM_UNROLL
  for (int i = 0; i < kTileSide; ++i) __builtin_memcpy(out + i * kTileDepth, &rows[i], sizeof(vfloat));
}

/// The last panel is one tile wide where that is enough: 196 = 6 * 32 + 4 lines cost 208, not 224.
TOPOLM_INLINE int64_t tiles_across(int64_t lines) { return lines <= kTileSide ? 1 : 2; }

/// Packs a panel: for each step along K its one or two tiles, side by side.
template <bool kPairs>
__attribute__((noinline)) void pack_tiles(bf16* out, const Matrix& x, int64_t lines, int64_t depth) {
  const auto* const from = static_cast<const bf16*>(x.data);
  const int64_t across = kPairs ? x.col_stride : x.row_stride, along = kPairs ? x.row_stride : x.col_stride;
  for (int64_t k = 0; k < depth; k += kTileDepth)
    for (int64_t tile = 0; tile < tiles_across(lines); ++tile, out += kTile) {
      const int64_t line = tile * kTileSide, here = lines - line, deep = depth - k;
      const auto pack =
          here >= kTileSide && deep >= kTileDepth ? pack_tile<kPairs, true> : pack_tile<kPairs, false>;
      pack(out, from + line * across + k * along, across, along, here, deep);
    }
}

/// R x V tiles of C, rows x cols elements of them valid: c = a b (+ addend, where not null; it may be c
/// itself). On the way it asks for `ahead`, a quarter of the next panel of b, which the four panels of a task
/// make whole.
template <int R, int V, class T>
__attribute__((noinline)) void compute_tiles(T* c, int64_t ldc, const float* addend, int64_t ld_addend,
                                             const bf16* a, const bf16* b, const bf16* ahead, int64_t steps,
                                             int64_t rows, int64_t cols) {
  for (int64_t i = 0; i < rows; ++i) __builtin_prefetch(c + i * ldc, 1);
  zero_sums<R, V>();
  for (int64_t step = 0; step < steps; ++step) {
    TOPOLM_UNROLL
    for (int line = 0; line < kStep / kTaskPanels; line += 32) __builtin_prefetch(ahead + line, 0, 2);
    add_to_sums<R, V>(a, a + kTile, 64, b, b + kTile, 64);
    a += R * kTile;
    b += V * kTile;
    ahead += kStep / kTaskPanels;
  }
  alignas(64) float sums[R * kTileSide][V * kTileSide];
  store_sums<R, V>(&sums[0][0], sizeof sums[0]);
  for (int64_t i = 0; i < rows; ++i)
    sweep(cols, [&](int64_t j, auto lanes) {
      vfloat sum = load(&sums[i][j], lanes);
      if (addend) sum += load(addend + i * ld_addend + j, lanes);
      store(c + i * ldc + j, sum, lanes);
    });
}

}  // namespace

void gemm_amx(ThreadPool& pool, Workspace& workspace, const Matrix& c, const Matrix& a, const Matrix& b,
              int64_t m, int64_t n, int64_t k, bool accumulate, const Epilogue& epilogue) {
  const auto whole_tiles = [](int64_t depth) { return ceil_div(depth, kTileDepth) * kTileDepth; };
  const int64_t depth_max = whole_tiles(k <= kWholeDepth ? k : ceil_div(k, ceil_div(k, kBlockDepth)));
  const int64_t n_limit = max(kPanel, kSharedElements / depth_max / kPanel * kPanel);
  const int64_t n_max = ceil_div(ceil_div(n, ceil_div(n, n_limit)), kPanel) * kPanel;
  const int64_t row_panels = ceil_div(m, kPanel);

  // Tasks: columns are cut before rows are, because a panel of b is read once for each row panel of a task.
  const int64_t col_cuts = max(1, n_max / kTaskColumns);
  const int64_t task_panels = max(1, min(kTaskPanels, row_panels / ceil_div(kTasks, col_cuts)));
  const int64_t row_tasks = ceil_div(row_panels, task_panels);
  const int64_t task_cols = ceil_div(n_max, min(col_cuts, ceil_div(kTasks, row_tasks)) * kPanel) * kPanel;

  // A bf16 C is rounded once: its sums over blocks of K wait in fp32.
  const bool sums_apart = c.dtype == DType::bf16 && depth_max < k;
  float* const shared = workspace.shared(n_max * depth_max / 2 + (sums_apart ? m * n_max : 0));
  auto* const packed_b = reinterpret_cast<bf16*>(shared);
  float* const sums = shared + n_max * depth_max / 2;

  for (int64_t j0 = 0; j0 < n; j0 += n_max)
    for (int64_t k0 = 0; k0 < k; k0 += depth_max) {
      const int64_t cols = min(n_max, n - j0), depth = min(depth_max, k - k0), packed = whole_tiles(depth);
      const int64_t col_panels = ceil_div(cols, kPanel), depth_chunks = ceil_div(depth, kPackDepth);
      const bool first = k0 == 0, last = k0 + depth == k;

      pool.parallel_for(col_panels * depth_chunks, [=](int64_t task, int) {
        const int64_t j = task / depth_chunks * kPanel, k1 = task % depth_chunks * kPackDepth;
        const int64_t width = min(kPanel, cols - j);
        pack_tiles<true>(packed_b + j * packed + k1 * kTileSide * tiles_across(width),
                         b.from(k0 + k1, j0 + j), width, min(kPackDepth, depth - k1));
      });

      const int64_t col_tasks = ceil_div(cols, task_cols);
      pool.parallel_for(row_tasks * col_tasks, [=, &workspace](int64_t task, int thread) {
        const int64_t begin = task / col_tasks * task_panels * kPanel,
                      end = min(m, begin + task_panels * kPanel);
        const int64_t left = task % col_tasks * task_cols, right = min(cols, left + task_cols);
        auto* const packed_a =
            reinterpret_cast<bf16*>(workspace.of_thread(thread, task_panels * kPanel * depth_max / 2));
        for (int64_t i = begin; i < end; i += kPanel)
          pack_tiles<false>(packed_a + (i - begin) * packed, a.from(i, k0), min(kPanel, end - i), depth);

        const TileScope tiles;
        for (int64_t j = left; j < right; j += kPanel)
          for (int64_t i = begin; i < end; i += kPanel) {
            const int64_t height = min(kPanel, end - i), width = min(kPanel, right - j);
            const int64_t next = right - j >= 2 * kPanel ? j + kPanel : j;
            if (last && epilogue.beside.data) fetch_tile(epilogue.beside.from(i, j0 + j), height, width);
            const auto compute = [&](auto* to, int64_t ld, const float* addend, int64_t ld_addend) {
              using T = std::remove_pointer_t<decltype(to)>;
              const bool low = tiles_across(height) == 1, narrow = tiles_across(width) == 1;
              const auto kernel = low      ? narrow ? compute_tiles<1, 1, T> : compute_tiles<1, 2, T>
                                       : narrow ? compute_tiles<2, 1, T>
                                           : compute_tiles<2, 2, T>;
              kernel(to, ld, addend, ld_addend, packed_a + (i - begin) * packed, packed_b + j * packed,
                     packed_b + next * packed + (i - begin) / kPanel * (kPanel / kTaskPanels) * packed,
                     packed / kTileDepth, height, width);
            };
            float* const sum = sums_apart ? sums + i * n_max + j : nullptr;
            const float* const earlier = first ? nullptr : sum;
            if (sums_apart && !last)
              compute(sum, n_max, earlier, n_max);
            else
              with_elements(c.from(i, j0 + j), [&](auto* to) {
                if constexpr (std::is_same_v<decltype(to), float*>)
                  compute(to, c.row_stride, accumulate || !first ? to : nullptr, c.row_stride);
                else
                  compute(to, c.row_stride, earlier, n_max);
              });
            if (last && epilogue.run) epilogue.run(epilogue.context, i, j0 + j, height, width);
          }
      });
    }
}

}  // namespace topolm::TOPOLM_ISA

#endif
