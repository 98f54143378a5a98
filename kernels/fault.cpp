#include "kernels/fault.h"

#include "engine/error.h"

namespace topolm {

Fault FaultRecord::fault() const {
  if (earliest == 0) return {};
  const auto kind = static_cast<Fault::Kind>(0xff - (earliest >> 56));
  const uint64_t index = kLastIndex - (earliest >> 32 & kLastIndex);
  require(kind > Fault::none && kind < Fault::kinds, "a kernel reported a fault of unknown kind {}",
          static_cast<int>(kind));
  return {kind, static_cast<int32_t>(earliest), static_cast<int64_t>(index),
          static_cast<int64_t>(limit[kind])};
}

void throw_if(const Fault& fault) {
  const auto indexed = [&](const char* what, const char* of) {
    fail("{} {} at position {} is outside {} of {}", what, fault.value, fault.index, of, fault.limit);
  };
  switch (fault.kind) {
    case Fault::none:
    case Fault::kinds:
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
}

}  // namespace topolm
