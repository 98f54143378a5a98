// What threads do together, and where they go: barriers, shuffles, votes, tensor cores, branches. Meetings
// are those of the machine of fibers, which checks that all who must come do.
#include "engine/error.h"
#include "kernels/simt/tensor_core.h"
#include "tests/ptx/instruction.h"

namespace topolm::ptx {

namespace {

void sync_block(Thread& t, const Instruction& i) {
  if (t.get<uint32_t>(i.at[0]) != 0) t.fail(i, "only barrier 0 is known");
  simt::sync_block(t.site(i));
}

void sync_warp(Thread& t, const Instruction& i) { simt::sync_warp(t.site(i), t.get<uint32_t>(i.at[0])); }

// ---- shfl.sync

using simt::ShuffleKind;

struct ShuffleLane {
  uint32_t in, b, c;
  uint32_t out;
  bool inside;
};

/// The PTX ISA's own words: c holds the last lane of a segment and, from bit 8 on, the mask of its lanes.
template <ShuffleKind KIND>
void resolve_shuffle(void** lanes, uint32_t mask) {
  for (uint32_t lane = 0; lane < 32; ++lane) {
    if (!(mask >> lane & 1)) continue;
    auto* const mine = static_cast<ShuffleLane*>(lanes[lane]);
    const uint32_t b = mine->b & 31, clamp = mine->c & 31, segment = mine->c >> 8 & 31;
    const int first = static_cast<int>(lane & segment), last = first | static_cast<int>(clamp & ~segment);
    const int me = static_cast<int>(lane), n = static_cast<int>(b);
    int from = me;
    switch (KIND) {
      case ShuffleKind::up:
        from = me - n;
        break;
      case ShuffleKind::down:
        from = me + n;
        break;
      case ShuffleKind::exclusive_or:
        from = me ^ n;
        break;
      case ShuffleKind::index:
        from = first | static_cast<int>(b & ~segment);
        break;
    }
    mine->inside = KIND == ShuffleKind::up ? from >= last : from <= last;
    if (!mine->inside) from = me;
    mine->out = mask >> from & 1 ? static_cast<ShuffleLane*>(lanes[from])->in : simt::undefined<uint32_t>();
  }
}

/// shfl d, a, b, c, mask, or with d|p: whether the lane lay inside the segment.
template <ShuffleKind KIND, uint32_t WITH_PREDICATE>
void shuffle(Thread& t, const Instruction& i) {
  const auto value = [&](uint32_t n) { return t.get<uint32_t>(t.operand(i, n + WITH_PREDICATE)); };
  ShuffleLane lane{value(1), value(2), value(3), 0, false};
  simt::warp_operation(value(4), t.site(i), &lane, resolve_shuffle<KIND>);
  t.set(i.at[0], lane.out);
  if constexpr (WITH_PREDICATE) t.set(i.at[1], lane.inside);
}

template <ShuffleKind KIND>
void add_shuffle(Table& table, const std::string& mode) {
  table["shfl.sync." + mode + ".b32"] = {shuffle<KIND, 0>, 5};
  table["shfl.sync." + mode + ".b32.predicate"] = {shuffle<KIND, 1>, 6};
}

// ---- vote.sync d, predicate, mask

constexpr auto kBallot = [](uint32_t ballot, uint32_t) { return ballot; };
constexpr auto kAny = [](uint32_t ballot, uint32_t) { return ballot != 0; };
constexpr auto kAll = [](uint32_t ballot, uint32_t mask) { return ballot == mask; };
constexpr auto kUniform = [](uint32_t ballot, uint32_t mask) { return ballot == mask || ballot == 0; };

template <auto F>
void vote(Thread& t, const Instruction& i) {
  const uint32_t mask = t.get<uint32_t>(i.at[2]);
  t.set(i.at[0], F(simt::ballot(t.site(i), mask, t.holds(i.at[1])), mask));
}

// ---- mma.sync d, a, b, c

template <int K>
void multiply_matrices(Thread& t, const Instruction& i) {
  constexpr uint32_t kA = K / 4, kB = K / 8;  // registers of each
  uint32_t a[4] = {}, b[2] = {};
  float c[4];
  for (uint32_t n = 0; n < kA; ++n) a[n] = t.get<uint32_t>(t.operand(i, 4 + n));
  for (uint32_t n = 0; n < kB; ++n) b[n] = t.get<uint32_t>(t.operand(i, 4 + kA + n));
  for (uint32_t n = 0; n < 4; ++n) c[n] = t.get<float>(t.operand(i, 4 + kA + kB + n));
  simt::mma<K>(t.site(i), c, a, b);
  for (uint32_t n = 0; n < 4; ++n) t.set(t.operand(i, n), c[n]);
}

// ---- branches

void branch(Thread& t, const Instruction& i) { t.next = t.execution.kernel->code.data() + i.offset; }
/// brx.idx: the operands behind the index are where to go.
void branch_indexed(Thread& t, const Instruction& i) {
  const uint32_t index = t.get<uint32_t>(i.at[0]);
  if (index >= static_cast<uint32_t>(i.offset)) t.fail(i, fmt::format("there is no branch target {}", index));
  t.next = t.execution.kernel->code.data() + t.execution.kernel->operands[i.all + 1 + index];
}
void leave(Thread& t, const Instruction&) { t.next = nullptr; }

}  // namespace

void add_cooperation(Table& table) {
  table["bar.sync"] = table["barrier.sync"] = table["barrier.sync.aligned"] = {sync_block, 1};
  table["bar.warp.sync"] = {sync_warp, 1};
  add_shuffle<ShuffleKind::up>(table, "up");
  add_shuffle<ShuffleKind::down>(table, "down");
  add_shuffle<ShuffleKind::exclusive_or>(table, "bfly");
  add_shuffle<ShuffleKind::index>(table, "idx");
  table["vote.sync.ballot.b32"] = {vote<kBallot>, 3};
  table["vote.sync.any.pred"] = {vote<kAny>, 3};
  table["vote.sync.all.pred"] = {vote<kAll>, 3};
  table["vote.sync.uni.pred"] = {vote<kUniform>, 3};
  table["mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"] = {multiply_matrices<16>, 14};
  table["mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32"] = {multiply_matrices<8>, 11};
  table["bra"] = table["bra.uni"] = {branch, 1};
  table["brx.idx"] = {branch_indexed, kAnyNumber};
  table["ret"] = table["exit"] = {leave, 0};
}

}  // namespace topolm::ptx
