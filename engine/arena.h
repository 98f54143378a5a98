// One block of device memory for many tensors, planned before the first step: add() every tensor, then
// commit() allocates once and fills in the addresses. Nothing is allocated in a step.
#pragma once

#include <string>
#include <vector>

#include "engine/device.h"
#include "engine/tensor.h"

namespace topolm {

class Arena {
 public:
  explicit Arena(Device& device, std::string name) : device_(device), name_(std::move(name)) {}
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  /// Plans a tensor. `slot` gets its type and shape now and its address at commit(); it must not move.
  void add(Tensor& slot, std::string name, DType dtype, Shape shape);
  void commit();

  int64_t bytes() const { return bytes_; }
  /// The whole block as one float32 vector, gaps included (zero, and zero they stay under += and Adam).
  Tensor all() const { return {block_, DType::f32, {bytes_ / 4}}; }

 private:
  struct Entry {
    Tensor* slot;
    std::string name;
    int64_t offset;
  };

  Device& device_;
  std::string name_;
  std::vector<Entry> entries_;
  int64_t bytes_ = 0;
  void* block_ = nullptr;
};

}  // namespace topolm
