// A tensor is a view: an address, a type and a shape. It owns nothing and is cheap to copy. Dense, row-major.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

namespace topolm {

/// The upper half of an IEEE float32: the same range, 8 bits of precision.
struct bf16 {
  uint16_t bits;
};

float bf16_to_float(bf16 x);

enum class DType : uint8_t { f32, bf16, i32, i8 };

constexpr int64_t size_of(DType t) { return t == DType::i8 ? 1 : t == DType::bf16 ? 2 : 4; }
std::string_view name_of(DType t);

/// Up to four dimensions, outermost first. Sizes are 64-bit: B*T*V of the published model passes 2^31.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) : Shape(std::span(dims.begin(), dims.size())) {}
  explicit Shape(std::span<const int64_t> dims);
  int rank() const { return rank_; }
  int64_t operator[](int i) const { return dims_[i]; }
  int64_t back() const { return dims_[rank_ - 1]; }
  int64_t elements() const;
  bool operator==(const Shape& other) const;
  std::string str() const;  // "[8, 256, 196]"

 private:
  std::array<int64_t, 4> dims_{};
  int rank_ = 0;
};

struct Tensor {
  void* data = nullptr;
  DType dtype = DType::f32;
  Shape shape;

  int64_t elements() const { return shape.elements(); }
  int64_t bytes() const { return elements() * size_of(dtype); }
  /// Rows of the tensor read as a matrix whose columns are the last dimension.
  int64_t rows() const { return shape.rank() == 0 ? 0 : elements() / shape.back(); }
  int64_t cols() const { return shape.back(); }
  explicit operator bool() const { return data != nullptr; }

  /// The typed address. Throws Error when the tensor holds another type.
  float* f32() const { return static_cast<float*>(typed(DType::f32)); }
  topolm::bf16* bf16() const { return static_cast<topolm::bf16*>(typed(DType::bf16)); }
  int32_t* i32() const { return static_cast<int32_t*>(typed(DType::i32)); }
  int8_t* i8() const { return static_cast<int8_t*>(typed(DType::i8)); }

  /// The same memory in another shape of as many elements.
  Tensor view(Shape other) const;
  /// Rows [begin, begin + count) of the tensor read as a matrix: [count, cols()].
  Tensor row_range(int64_t begin, int64_t count) const;

 private:
  void* typed(DType wanted) const;
};

/// Throws Error unless `t` has this shape: "layernorm_forward: weight is [7], not [36]".
void check_shape(const char* operation, const char* name, const Tensor& t, const Shape& shape);

/// a / b, which must divide without remainder.
int64_t div_exact(int64_t a, int64_t b);
constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace topolm
