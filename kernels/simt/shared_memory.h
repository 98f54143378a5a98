// Shared memory of the block that runs, and the asynchronous copies into it. Part of machine.cpp: it is
// compiled there and nowhere else, see sanitizers.h.
#pragma once

#include <algorithm>
#include <array>
#include <cstdlib>
#include <utility>

#include "engine/error.h"
#include "kernels/simt/machine.h"
#include "kernels/simt/sanitizers.h"
#include "kernels/simt/simt.h"

namespace topolm::simt {

/// Each array is NaN when its block starts, and lies between gaps that AddressSanitizer guards.
class SharedMemory {
 public:
  SharedMemory() : memory_(static_cast<unsigned char*>(std::aligned_alloc(kAlignment, kCapacity))) {
    require(memory_ != nullptr, "simt: no memory for shared memory");
  }
  ~SharedMemory() {
    allow_access(memory_, kCapacity);
    std::free(memory_);
  }
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  /// Forgets every array and returns the dynamic one.
  unsigned char* begin(size_t dynamic_bytes) {
    forbid_access(memory_, kCapacity);
    end_ = dynamic_ = static_ = 0;
    dynamic_ = dynamic_bytes;
    return take(dynamic_bytes, kAlignment);
  }

  void* static_array(const SharedSlot& slot) {
    const size_t alignment = std::max<size_t>(slot.alignment, 16);
    static_ = (static_ + alignment - 1) / alignment * alignment + slot.bytes;
    if (static_ > kMaxStaticShared)
      operation_failed(slot.site, fmt::format("makes {} bytes of static shared memory; the limit is {}, more "
                                              "must be dynamic",
                                              static_, kMaxStaticShared)
                                      .c_str());
    if (static_ + dynamic_ > kMaxShared)
      operation_failed(slot.site,
                       fmt::format("makes {} bytes of shared memory, static and dynamic; the limit is {}",
                                   static_ + dynamic_, kMaxShared)
                           .c_str());
    return take(slot.bytes, alignment);
  }

 private:
  static constexpr size_t kGap = 64, kAlignment = 128, kCapacity = 256 << 10;

  unsigned char* take(size_t bytes, size_t alignment) {
    const size_t at = (end_ + kGap + alignment - 1) / alignment * alignment;
    if (at + bytes + kGap > kCapacity) kernel_failed("too many shared arrays");
    end_ = at + bytes;
    allow_access(memory_ + at, bytes);
    fill_with_nan(memory_ + at, bytes);
    return memory_ + at;
  }

  unsigned char* const memory_;
  size_t end_ = 0, dynamic_ = 0, static_ = 0;
};

/// The copies of one thread that are under way, in the order of issue.
class Copies {
 public:
  void begin() { count_ = groups_ = 0; }

  void issue(const Site& site, void* shared, const void* global, int size, int bytes, RandomBits& random) {
    if (bytes < 0 || bytes > size)
      operation_failed(site, fmt::format("copies {} of {} bytes", bytes, size).c_str());
    for (const void* p : {static_cast<const void*>(shared), global})
      if (reinterpret_cast<uintptr_t>(p) % static_cast<uintptr_t>(size))
        operation_failed(site, fmt::format("has an address that is not a multiple of {}", size).c_str());
    if (count_ == kMost)
      operation_failed(
          site, fmt::format("is one more than the {} that a thread can have under way", kMost).c_str());
    // Both ends are touched now, and the shared one again at the wait: in between anything may happen to it.
    note_read(global, static_cast<size_t>(bytes));
    note_write(shared, static_cast<size_t>(size));
    if constexpr (kAddressSanitizer) {
      const volatile unsigned char *const to = static_cast<unsigned char*>(shared),
                                          *const from = static_cast<const unsigned char*>(global);
      (void)to[0], (void)to[size - 1];
      if (bytes > 0) (void)from[0], (void)from[bytes - 1];
    }
    Copy& copy = at(count_++);
    copy = {shared, global, size, bytes, groups_, false};
    // A random half lands now, which shows a copy that comes too early; the rest lands at the wait, which
    // shows a wait that is missing.
    if (random.next() & 1) land(copy);
  }

  void commit() { ++groups_; }

  /// Copies that were never committed are not waited for.
  void wait(int newest) {
    int left = 0;
    for (int i = 0; i < count_; ++i) {
      Copy& copy = at(i);
      if (copy.group >= groups_ - newest) {
        at(left++) = copy;
      } else {
        note_write(copy.shared, static_cast<size_t>(copy.size));
        land(copy);
      }
    }
    count_ = left;
  }

 private:
  struct Copy {
    void* shared;
    const void* global;
    int size, bytes, group;
    bool landed;
  };
  static constexpr int kMost = 256;

  Copy& at(int i) { return queue_[static_cast<size_t>(i)]; }

  /// Byte by byte: ThreadSanitizer would see a memcpy, whoever calls it.
  static void land(Copy& copy) {
    if (std::exchange(copy.landed, true)) return;
    auto* const to = static_cast<volatile unsigned char*>(copy.shared);
    const auto* const from = static_cast<const unsigned char*>(copy.global);
    for (int i = 0; i < copy.size; ++i) to[i] = i < copy.bytes ? from[i] : 0;
  }

  std::array<Copy, kMost> queue_;
  int count_, groups_;
};

}  // namespace topolm::simt
