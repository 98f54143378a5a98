#include "engine/arena.h"

#include "engine/error.h"

namespace topolm {

namespace {
constexpr int64_t kAlignment = 256;  // a cache line on the CPU, a coalesced row on a GPU
}

Arena::~Arena() {
  if (block_) device_.release(block_);
}

void Arena::add(Tensor& slot, std::string name, DType dtype, Shape shape) {
  require(block_ == nullptr, "arena '{}': '{}' was added after commit()", name_, name);
  slot = {nullptr, dtype, shape};
  entries_.push_back({&slot, std::move(name), bytes_});
  bytes_ += ceil_div(slot.bytes(), kAlignment) * kAlignment;
}

void Arena::commit() {
  require(block_ == nullptr, "arena '{}' was committed twice", name_);
  block_ = device_.allocate(static_cast<size_t>(bytes_), name_);
  for (const Entry& e : entries_) e.slot->data = static_cast<char*>(block_) + e.offset;
}

}  // namespace topolm
