#include "engine/arena.h"

#include <algorithm>
#include <map>

#include "engine/error.h"

namespace topolm {

namespace {

constexpr int64_t kAlignment = 256;  // a cache line on the CPU, a coalesced row on a GPU

int64_t aligned(int64_t bytes) { return ceil_div(bytes, kAlignment) * kAlignment; }

bool needed_at(const std::vector<Moments>& needed, int moment) {
  return needed.empty() || std::any_of(needed.begin(), needed.end(), [=](const Moments& m) {
           return m.first <= moment && moment <= m.last;
         });
}

bool meet(const std::vector<Moments>& a, const std::vector<Moments>& b) {
  if (a.empty() || b.empty()) return true;
  for (const Moments& m : a)
    for (const Moments& n : b)
      if (m.first <= n.last && n.first <= m.last) return true;
  return false;
}

}  // namespace

Arena::~Arena() {
  if (block_) device_.release(block_);
}

void Arena::add(Tensor& slot, std::string name, DType dtype, Shape shape, std::vector<Moments> needed) {
  require(block_ == nullptr, "arena '{}': '{}' was added after commit()", name_, name);
  for (const Moments& m : needed)
    require(m.first <= m.last, "arena '{}': '{}' is needed from {} to {}", name_, name, m.first, m.last);
  slot = {nullptr, dtype, shape};
  entries_.push_back({&slot, std::move(name), slot.bytes(), 0, std::move(needed)});
}

/// What is always needed comes first, in the order of add(). The rest goes, one after another, to the lowest
/// place that nothing needed at one moment with it has: the largest first, or those needed longest, whichever
/// ends up smaller. For a training step of base that is within 2 % of what its fullest moment needs.
void Arena::place() {
  std::vector<Entry*> order;
  for (Entry& e : entries_) order.push_back(&e);
  const auto sometimes =
      std::stable_partition(order.begin(), order.end(), [](const Entry* e) { return e->needed.empty(); });
  const auto place_by = [&](auto key) {
    std::stable_sort(sometimes, order.end(),
                     [&](const Entry* a, const Entry* b) { return key(*a) > key(*b); });
    return place(order);
  };
  const auto size = [](const Entry& e) { return e.bytes; };
  const auto time = [](const Entry& e) {
    int64_t moments = 0;
    for (const Moments& m : e.needed) moments += m.last - m.first + 1;
    return std::pair(moments, e.bytes);
  };
  const int64_t by_size = place_by(size), by_time = place_by(time);
  bytes_ = by_time <= by_size ? by_time : place_by(size);
}

int64_t Arena::place(const std::vector<Entry*>& order) {
  std::vector<const Entry*> placed;  // by offset
  int64_t end = 0;
  for (Entry* const e : order) {
    const bool always = e->needed.empty();  // behind all before it: ./bench has thousands of them
    e->offset = always ? end : 0;
    for (size_t i = 0; i < placed.size() && !always; ++i) {
      const Entry& other = *placed[i];
      if (other.offset < e->offset + aligned(e->bytes) && meet(e->needed, other.needed))
        e->offset = std::max(e->offset, other.offset + aligned(other.bytes));
    }
    placed.insert(std::upper_bound(placed.begin(), placed.end(), e,
                                   [](const Entry* a, const Entry* b) { return a->offset < b->offset; }),
                  e);
    end = std::max(end, e->offset + aligned(e->bytes));
  }
  return end;
}

void Arena::commit() {
  require(block_ == nullptr, "arena '{}' was committed twice", name_);
  place();
  std::string what = name_;
  if (const auto uses = usage(); uses.size() > 1)
    what += fmt::format(" ({} {} MB, {} {} MB, ...)", uses[0].name, uses[0].bytes >> 20, uses[1].name,
                        uses[1].bytes >> 20);
  block_ = device_.allocate(static_cast<size_t>(bytes_), what);
  for (const Entry& e : entries_) e.slot->data = static_cast<char*>(block_) + e.offset;
}

std::vector<MemoryUse> Arena::usage() const {
  const auto used_at = [&](int moment) {
    int64_t bytes = 0;
    for (const Entry& e : entries_)
      if (needed_at(e.needed, moment)) bytes += e.bytes;
    return bytes;
  };
  // Use grows only where something begins to be needed.
  int fullest = 0;
  int64_t most = used_at(0);
  for (const Entry& e : entries_)
    for (const Moments& m : e.needed)
      if (const int64_t bytes = used_at(m.first); bytes > most) most = bytes, fullest = m.first;

  std::map<std::string, int64_t> by_name;
  for (const Entry& e : entries_)
    if (needed_at(e.needed, fullest)) by_name[e.name] += e.bytes;
  std::vector<MemoryUse> uses;
  for (const auto& [name, bytes] : by_name) uses.push_back({name, bytes});
  if (bytes_ > most) uses.push_back({"between them", bytes_ - most});
  std::stable_sort(uses.begin(), uses.end(),
                   [](const MemoryUse& a, const MemoryUse& b) { return a.bytes > b.bytes; });
  return uses;
}

}  // namespace topolm
