#include "kernels/fault.h"

#include "engine/error.h"

namespace topolm {

void throw_if(const Fault& fault) {
  const auto indexed = [&](const char* what, const char* of) {
    fail("{} {} at position {} is outside {} of {}", what, fault.value, fault.index, of, fault.limit);
  };
  switch (fault.kind) {
    case Fault::none:
      return;
    case Fault::embedding_forward_token:
      return indexed("embedding_forward: token id", "the vocabulary");
    case Fault::embedding_forward_position:
      fail("embedding_forward: position {} is outside the context of {}", fault.value, fault.limit);
    case Fault::embedding_backward_token:
      return indexed("embedding_backward: token id", "the vocabulary");
    case Fault::attention_cached_position:
      fail("attention_cached: position {} is outside caches of {}", fault.value, fault.limit);
    case Fault::cross_entropy_forward_target:
      return indexed("cross_entropy_forward: target", "the vocabulary");
    case Fault::cross_entropy_backward_target:
      return indexed("cross_entropy_backward: target", "the vocabulary");
    case Fault::spatial_loss_forward_member:
      return indexed("spatial_loss_forward: member", "the units");
    case Fault::spatial_loss_backward_member:
      return indexed("spatial_loss_backward: member", "the units");
  }
  fail("a kernel reported a fault of unknown kind {}", static_cast<int>(fault.kind));
}

}  // namespace topolm
