// What a kernel that cannot throw leaves for the host to throw.
#pragma once

#include <cstdint>

namespace topolm {

/// An index out of range. A kernel goes on without that element, and the next synchronize() or download()
/// throws.
struct Fault {
  enum Kind : int32_t {
    none,
    embedding_forward_token,
    embedding_forward_position,
    embedding_backward_token,
    attention_cached_position,
    cross_entropy_forward_target,
    cross_entropy_backward_target,
    spatial_loss_forward_member,
    spatial_loss_backward_member,
    kinds,
  };
  int32_t kind;
  int32_t value;
  int64_t index;  // of the element that holds it
  int64_t limit;
};

/// What kernels leave of their faults in device memory, at first zeros. It keeps the earliest: of several
/// kinds the first in the list above, of one kind the lowest index. So it does not tell which block ran
/// first: a maximum of packed words is the same in any order.
struct FaultRecord {
  static constexpr unsigned long long kLastIndex = 0xffffff;  // those beyond count as this one

  /// 0: none. Else, from the top: 255 - kind in 8 bits, kLastIndex - index in 24, the value in 32.
  unsigned long long earliest;
  unsigned long long limit[Fault::kinds];  // the largest that a kind met

  Fault fault() const;
};

/// Throws the Error that a fault stands for: "embedding_forward: token id 97 at position 5 is outside the
/// vocabulary of 97". Does nothing when there is none.
void throw_if(const Fault& fault);

}  // namespace topolm
