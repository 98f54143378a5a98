// What a kernel that cannot throw leaves for the host to throw.
#pragma once

#include <cstdint>

namespace topolm {

/// The first index out of range that a kernel met. It goes on without that element, and the next
/// synchronize() or download() throws.
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
  };
  int32_t kind;
  int32_t value;
  int64_t index;  // of the element that holds it
  int64_t limit;
};

/// Throws the Error that a fault stands for: "embedding_forward: token id 97 at position 5 is outside the
/// vocabulary of 97". Does nothing when there is none.
void throw_if(const Fault& fault);

}  // namespace topolm
