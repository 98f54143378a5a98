#include "engine/tensor.h"

#include <algorithm>
#include <bit>

#include "engine/error.h"

namespace topolm {

float bf16_to_float(bf16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }

std::string_view name_of(DType t) {
  return t == DType::f32 ? "fp32" : t == DType::bf16 ? "bf16" : t == DType::i32 ? "int32" : "int8";
}

// Every operation checks its tensors here. A shape is put in words only for an error, so no require() with
// str() among its arguments: a check_shape() and f32() took 310 ns where they now take 10.
Shape::Shape(std::span<const int64_t> dims) : rank_(static_cast<int>(dims.size())) {
  require(dims.size() <= dims_.size(), "a shape has at most {} dimensions, not {}", dims_.size(),
          dims.size());
  std::copy(dims.begin(), dims.end(), dims_.begin());
  for (int i = 0; i < rank_; ++i)
    if (dims_[i] < 0) fail("a dimension of {} is negative", str());
}

int64_t Shape::elements() const {
  int64_t n = 1;
  for (int i = 0; i < rank_; ++i) n *= dims_[i];
  return n;
}

bool Shape::operator==(const Shape& other) const { return rank_ == other.rank_ && dims_ == other.dims_; }

std::string Shape::str() const {
  return fmt::format("[{}]", fmt::join(dims_.begin(), dims_.begin() + rank_, ", "));
}

void* Tensor::typed(DType wanted) const {
  if (dtype != wanted)
    fail("a {} tensor of shape {} was used as {}", name_of(dtype), shape.str(), name_of(wanted));
  return data;
}

Tensor Tensor::view(Shape other) const {
  if (other.elements() != elements())
    fail("a tensor of shape {} cannot be viewed as {}", shape.str(), other.str());
  return {data, dtype, other};
}

Tensor Tensor::row_range(int64_t begin, int64_t count) const {
  require(begin >= 0 && count >= 0 && begin + count <= rows(),
          "rows {} to {} are outside a tensor of {} rows", begin, begin + count, rows());
  return {static_cast<char*>(data) + begin * cols() * size_of(dtype), dtype, {count, cols()}};
}

void check_shape(const char* operation, const char* name, const Tensor& t, const Shape& shape) {
  if (t.shape != shape) fail("{}: {} is {}, not {}", operation, name, t.shape.str(), shape.str());
}

int64_t div_exact(int64_t a, int64_t b) {
  require(b != 0 && a % b == 0, "{} is not divisible by {}", a, b);
  return a / b;
}

}  // namespace topolm
