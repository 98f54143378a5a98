#include "kernels/cpu/gemm.h"

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/gemm_amx.h"
#include "kernels/cpu/gemm_tile.h"

namespace topolm::TOPOLM_ISA {

namespace {

// K is cut into equal blocks of at most this: every block costs another pass over C, a longer one a larger
// share of the L2 cache. The model's 196, 784 and 3136 come out as 196, 784 and 4 x 784.
constexpr int64_t kMaxDepth = 1024;
constexpr int64_t kSharedFloats = 2 << 20;  // of packed B at a time: 8 MB of the L3 cache
constexpr int64_t kTaskFloats = 128 << 10;  // of an operand that a task packs: 512 KB of the L2 cache
constexpr int64_t kShares = 16;             // a task takes one of so many shares of the panels left: see Cut
constexpr int64_t kPackRows = 16;           // of memory, read together while packing across them
constexpr int64_t kAlias = 4096;            // bytes: rows so far apart compete for the same lines of the L1

// What one task packs: far along the rows of memory, or across some rows at their whole width.
constexpr int64_t kPackAlong = 256, kPackAcross = 4 * kPackRows, kPackPanels = 8;
constexpr int64_t kPackRowsOfA = 2 * kPackPanels * kTileRows;

/// Panels cut into tasks, large ones first: what is left for the end is small, so that the threads finish
/// together, whatever their number.
struct Cut {
  int64_t panels, largest;

  TOPOLM_INLINE int64_t next(int64_t begin) const {
    return begin + max(1, min(largest, ceil_div(panels - begin, kShares)));
  }
  TOPOLM_INLINE int64_t tasks() const {
    int64_t n = 0;
    for (int64_t begin = 0; begin < panels; begin = next(begin)) ++n;
    return n;
  }
  TOPOLM_INLINE int64_t begin(int64_t task) const {
    int64_t begin = 0;
    while (task-- > 0) begin = next(begin);
    return begin;
  }
};

enum class Side { a, b };  // an operand: with NEON panels of both are 8 wide, and only one's are narrowed

/// The last panel of B is one vector wide where that is enough: 196 = 6 * 32 + 4 columns cost 208, not 224.
TOPOLM_INLINE bool is_narrow(int64_t cols) { return cols <= kLanes; }

/// Packs the elements [begin, end) of `width` lines (the rows of x) in panels of W, `stride` floats apart,
/// which start with element 0. Lines that lie across memory are packed some elements of all panels at a time:
/// what one row of memory holds is then read together, also where rows are a power of two apart and compete
/// for the cache (a gradient of 4096 logits: 144 -> 193 GFLOP/s a thread). The next rows are fetched early,
/// unless they too would compete.
template <Side kSide, bool kPairs>
TOPOLM_INLINE void pack_panels(float* out, int64_t stride, const Matrix& x, int64_t width, int64_t begin,
                               int64_t end) {
  constexpr int W = kSide == Side::a ? kTileRows : kTileCols, kLine = packed_lines(W);
  const int64_t step = x.col_stride == 1 ? end - begin : kPackRows;
  const bool ahead = step < end - begin && x.col_stride * size_of(x.dtype) % kAlias != 0;
  for (int64_t k = begin; k < end; k += step)
    for (int64_t i = 0; i < width; i += W) {
      const int64_t depth = min(step, end - k), cell = kPairs ? k / 2 : k;
      float* const panel = out + i / W * stride;
      if (ahead)
        for (int64_t r = k + step; r < min(k + 2 * step, end); ++r) {
          const char* const p = static_cast<const char*>(x.from(i, r).data);
          for (int64_t b = 0; b < W * size_of(x.dtype); b += 64) __builtin_prefetch(p + b);
        }
      if (kSide == Side::b && is_narrow(width - i))
        pack_lines<kLanes, kPairs>(panel + cell * kLanes, x.from(i, k), width - i, depth);
      else
        pack_lines<kLine, kPairs>(panel + cell * kLine, x.from(i, k), min(W, width - i), depth);
    }
}

/// One product, of fp32 numbers or of pairs of bf16. The micro-kernel reaches 98 % of the peak from any cache
/// (Zen 5); what there is to lose is the packing, waiting for memory, and threads that wait for each other.
template <bool kPairs>
class Product {
 public:
  Product(ThreadPool& pool, Workspace& workspace, const Matrix& c, const Matrix& a, const Matrix& b,
          int64_t m, int64_t n, int64_t k, bool accumulate, const Epilogue& epilogue)
      : pool_(pool),
        workspace_(workspace),
        epilogue_(epilogue),
        c_(c),
        a_(a),
        b_(b),
        m_(m),
        n_(n),
        k_(k),
        accumulate_(accumulate) {
    depth_max_ = ceil_div(ceil_div(k, ceil_div(k, kMaxDepth)), kElements) * kElements;
    // A bf16 C is rounded once: its sums over blocks of K wait in fp32.
    sums_apart_ = c.dtype == DType::bf16 && depth_max_ < k;
    in_place_ = a.col_stride == 1 && (kPairs || a.dtype == DType::f32) &&
                a.row_stride * size_of(a.dtype) % kAlias != 0;
  }

  void run() {
    if (in_place_ && n_ > m_ && m_ * k_ <= kElements * kSharedFloats)
      by_columns();
    else
      by_rows();
  }

 private:
  static constexpr int64_t kElements = kPairs ? 2 : 1;  // of K in a cell

  /// The L3 holds a block of B, packed by all; tasks are rows of C, each with its part of A in the L2.
  void by_rows() {
    const int64_t cells_max = cells(depth_max_);
    const int64_t n_limit = max(kTileCols, kSharedFloats / cells_max / kTileCols * kTileCols);
    const int64_t n_max = ceil_div(ceil_div(n_, ceil_div(n_, n_limit)), kTileCols) * kTileCols;
    const Cut cut{ceil_div(m_, kTileRows), max(1, kTaskFloats / (cells_max * kTileRows))};
    const int64_t tasks = cut.tasks();
    // Rows of A that lie across memory are packed by all where a task has few panels, many at a time: of
    // those it would pack for itself each row of memory holds a line of the cache or two (tiny's weight
    // gradients: 1 to 4 % faster). Tasks of many panels rather have them in their own L2 (base's: 3 % slower
    // without).
    const int64_t a_floats = ceil_div(m_, kTileRows) * panel_floats();
    const bool together =
        a_.col_stride != 1 && cut.next(0) <= kPackPanels && a_floats + n_max * cells_max <= kSharedFloats;
    float* const packed_b =
        workspace_.shared(n_max * cells_max + (sums_apart_ ? m_ * n_max : 0) + (together ? a_floats : 0));
    float* const sums = sums_apart_ ? packed_b + n_max * cells_max : nullptr;
    float* const all_a = packed_b + n_max * cells_max + (sums_apart_ ? m_ * n_max : 0);

    for (int64_t j0 = 0; j0 < n_; j0 += n_max)
      for (int64_t k0 = 0; k0 < k_; k0 += depth_max_) {
        const int64_t cols = min(n_max, n_ - j0), depth = min(depth_max_, k_ - k0);
        const bool across = b_.row_stride != 1;
        const int64_t pack_depth = across ? kPackAcross : kPackAlong;
        const int64_t pack_cols = across ? kPackPanels * kTileCols : kTileCols;
        const int64_t parts = ceil_div(cols, pack_cols);
        const int64_t a_parts = together ? ceil_div(m_, kPackRowsOfA) : 0;
        const int64_t a_tasks = a_parts * ceil_div(depth, kPackAcross);
        pool_.parallel_for(a_tasks + parts * ceil_div(depth, pack_depth), [=, this](int64_t task, int) {
          if (task < a_tasks) {
            const int64_t i = task % a_parts * kPackRowsOfA, k1 = task / a_parts * kPackAcross;
            pack_panels<Side::a, kPairs>(all_a + i / kTileRows * panel_floats(), panel_floats(),
                                         a_.from(i, k0), min(kPackRowsOfA, m_ - i), k1,
                                         min(k1 + kPackAcross, depth));
            return;
          }
          task -= a_tasks;
          const int64_t j = task % parts * pack_cols, k1 = task / parts * pack_depth;
          pack_panels<Side::b, kPairs>(packed_b + j * cells(depth), cells(depth) * kTileCols,
                                       b_.from(k0, j0 + j).transposed(), min(pack_cols, cols - j), k1,
                                       min(k1 + pack_depth, depth));
        });
        pool_.parallel_for(tasks, [=, this](int64_t task, int thread) {
          const int64_t first = cut.begin(task);
          const int64_t begin = first * kTileRows, end = min(m_, cut.next(first) * kTileRows);
          const Block block{k0, depth, {sums, DType::f32, n_max, 1}, j0};
          float* const packed_a =
              together ? all_a + first * panel_floats() : pack_rows(thread, 0, begin, end, block);
          for (int64_t j = 0; j < cols; j += kTileCols)
            for (int64_t i = begin; i < end; i += kTileRows) {
              if (j == 0 && i + kTileRows < end) prefetch_rows(block, i + kTileRows, 0, 1);
              tile(block, i, j0 + j, packed_a + (i - begin) / kTileRows * panel_floats(),
                   packed_b + j * cells(depth), end - i, cols - j);
            }
        });
      }
  }

  /// A is small and read where it lies; tasks are columns of C, of which each packs its own part of B into
  /// the L2, one block of K after the other: nobody waits for anybody. Packing a weight remains: of base's
  /// products with 512 tokens 4 to 5 % forward, 5 to 7 % backward.
  void by_columns() {
    const int64_t cells_max = cells(depth_max_);
    const Cut cut{ceil_div(n_, kTileCols), max(1, kTaskFloats / (cells_max * kTileCols))};
    pool_.parallel_for(cut.tasks(), [=, this](int64_t task, int thread) {
      const int64_t first = cut.begin(task);
      const int64_t begin = first * kTileCols, end = min(n_, cut.next(first) * kTileCols);
      const int64_t ld = ceil_div(end - begin, kTileCols) * kTileCols;
      for (int64_t k0 = 0; k0 < k_; k0 += depth_max_) {
        const int64_t depth = min(depth_max_, k_ - k0);
        const int64_t before = ld * cells_max + (sums_apart_ ? m_ * ld : 0);
        const int64_t last = (m_ - 1) / kTileRows * kTileRows;  // what is not read where it lies
        float* const packed_b = workspace_.of_thread(thread, before + panel_floats());
        float* const sums = sums_apart_ ? packed_b + ld * cells_max : nullptr;
        const Block block{k0, depth, {sums, DType::f32, ld, 1}, begin};
        float* const packed_a = pack_rows(thread, before, last, m_, block);
        pack_panels<Side::b, kPairs>(packed_b, cells(depth) * kTileCols, b_.from(k0, begin).transposed(),
                                     end - begin, 0, depth);
        for (int64_t i = 0; i < m_; i += kTileRows)
          for (int64_t j = begin; j < end; j += kTileCols) {
            if (i + kTileRows < m_)
              prefetch_rows(block, i + kTileRows, (j - begin) / kTileCols, ld / kTileCols);
            tile(block, i, j, packed_a, packed_b + (j - begin) * cells(depth), m_ - i, end - j);
          }
      }
    });
  }

  /// A block of K, and where its sums wait: those of column `col` of C in the first column, none in C itself.
  struct Block {
    int64_t k, depth;
    Matrix sums;
    int64_t col;
  };

  static TOPOLM_INLINE int64_t cells(int64_t depth) { return ceil_div(depth, kElements); }

  /// Whether a tile reads its rows of A where they lie. It reads all rows that it has sums for.
  TOPOLM_INLINE bool reads_in_place(int64_t rows) const {
    return in_place_ && (rows >= kTileRows || rows == kShortRows);
  }

  /// Of a panel of A.
  int64_t panel_floats() const { return packed_lines(kTileRows) * cells(depth_max_); }

  /// Packs those of the rows [begin, end) that tiles do not read where they lie, behind the first `before`
  /// floats of the thread's memory.
  float* pack_rows(int thread, int64_t before, int64_t begin, int64_t end, const Block& block) {
    const int64_t panels = ceil_div(end - begin, kTileRows);
    float* const out = workspace_.of_thread(thread, before + panels * panel_floats()) + before;
    int64_t first = 0;
    while (first < panels && reads_in_place(end - begin - first * kTileRows)) ++first;
    if (first < panels)
      pack_panels<Side::a, kPairs>(out + first * panel_floats(), panel_floats(),
                                   a_.from(begin + first * kTileRows, block.k),
                                   end - begin - first * kTileRows, 0, block.depth);
    return out;
  }

  /// Fetches part `part` of `parts` of the panel of A at row i, which is next.
  TOPOLM_INLINE void prefetch_rows(const Block& block, int64_t i, int64_t part, int64_t parts) const {
    if (!in_place_) return;
    const Matrix a = a_.from(i, block.k);
    const int64_t bytes = block.depth * size_of(a.dtype), row_bytes = a.row_stride * size_of(a.dtype);
    const int64_t rows = min(kTileRows, m_ - i);
    for (int64_t at = bytes * part / parts / 64 * 64; at < bytes * (part + 1) / parts; at += 64)
      for (int64_t r = 0; r < rows; ++r)
        __builtin_prefetch(static_cast<const char*>(a.data) + r * row_bytes + at);
  }

  /// The tile of C at (i, j), of at most `rows` and `cols`.
  void tile(const Block& block, int64_t i, int64_t j, const float* packed_a, const float* packed_b,
            int64_t rows, int64_t cols) {
    const bool first = block.k == 0, last = block.k + block.depth == k_, in_place = reads_in_place(rows);
    rows = min(rows, kTileRows), cols = min(cols, kTileCols);
    const Matrix to = c_.from(i, j), partial = sums_apart_ ? block.sums.from(i, j - block.col) : to;
    const float* const addend = first && !accumulate_ ? nullptr : static_cast<const float*>(partial.data);
    const TileTarget target{last ? to : partial, addend, partial.row_stride, rows, cols};
    const Matrix a = a_.from(i, block.k);
    const Rows lines = in_place ? Rows{static_cast<const char*>(a.data), a.row_stride * size_of(a.dtype)}
                                : Rows{reinterpret_cast<const char*>(packed_a), 0};
    if (last && epilogue_.beside.data) fetch_tile(epilogue_.beside.from(i, j), rows, cols);
    const auto compute = [&]<int R, int V>(std::integer_sequence<int, R, V>) {
      (in_place ? compute_tile<R, V, kPairs, true>
                : compute_tile<R, V, kPairs, false>)(target, lines, packed_b, block.depth);
    };
    const auto compute_rows = [&]<int R>(std::integer_sequence<int, R>) {
      is_narrow(cols) ? compute(std::integer_sequence<int, R, 1>{})
                      : compute(std::integer_sequence<int, R, 2>{});
    };
    rows <= kShortRows ? compute_rows(std::integer_sequence<int, kShortRows>{})
                       : compute_rows(std::integer_sequence<int, kTileRows>{});
    if (last && epilogue_.run) epilogue_.run(epilogue_.context, i, j, rows, cols);
  }

  ThreadPool& pool_;
  Workspace& workspace_;
  const Epilogue epilogue_;
  const Matrix c_, a_, b_;
  const int64_t m_, n_, k_;
  const bool accumulate_;
  int64_t depth_max_;
  bool sums_apart_, in_place_;
};

}  // namespace

void gemm(ThreadPool& pool, Workspace& workspace, const Matrix& c, const Matrix& a, const Matrix& b,
          int64_t m, int64_t n, int64_t k, bool accumulate, const Epilogue& epilogue) {
#if defined(TOPOLM_AMX)
  if (a.dtype == DType::bf16 && b.dtype == DType::bf16)
    return gemm_amx(pool, workspace, c, a, b, m, n, k, accumulate, epilogue);
#elif defined(TOPOLM_BF16_DOT)
  if (a.dtype == DType::bf16 && b.dtype == DType::bf16)
    return Product<true>(pool, workspace, c, a, b, m, n, k, accumulate, epilogue).run();
#endif
  Product<false>(pool, workspace, c, a, b, m, n, k, accumulate, epilogue).run();
}

}  // namespace topolm::TOPOLM_ISA
