// One block of device memory for many tensors, planned before the first step: add() every tensor, then
// commit() allocates once and fills in the addresses. Nothing is allocated in a step.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "engine/device.h"
#include "engine/tensor.h"

namespace topolm {

/// Moments first .. last, both included, in whatever the plan's owner counts.
struct Moments {
  int first, last;
};

/// What lies in a block of memory, largest first.
struct MemoryUse {
  std::string name;
  int64_t bytes;
};

class Arena {
 public:
  explicit Arena(Device& device, std::string name) : device_(device), name_(std::move(name)) {}
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  /// Plans a tensor. `slot` gets its type and shape now and its address at commit(); it must not move. What
  /// it holds is only kept during `needed`: tensors that are never needed at one moment may share memory.
  /// Without `needed` it is always.
  void add(Tensor& slot, std::string name, DType dtype, Shape shape, std::vector<Moments> needed = {});
  void commit();

  const std::string& name() const { return name_; }
  int64_t bytes() const { return bytes_; }
  /// What the block holds at the moment when most of it is in use, tensors of one name together, and what is
  /// then left between them; the sum is bytes().
  std::vector<MemoryUse> usage() const;
  /// The whole block as one float32 vector, gaps included (zero, and zero they stay under += and Adam).
  Tensor all() const { return {block_, DType::f32, {bytes_ / 4}}; }

 private:
  struct Entry {
    Tensor* slot;
    std::string name;
    int64_t bytes, offset;
    std::vector<Moments> needed;
  };

  void place();
  static int64_t place(const std::vector<Entry*>& order);

  Device& device_;
  std::string name_;
  std::vector<Entry> entries_;
  int64_t bytes_ = 0;
  void* block_ = nullptr;
};

}  // namespace topolm
