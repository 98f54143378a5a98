#include "engine/nvtx.h"

#if defined(TOPOLM_NVTX)

#include <nvtx3/nvToolsExt.h>

#include <string>

namespace topolm {

namespace {

/// Null where no profiler is attached: NVTX says so by giving no handle.
nvtxDomainHandle_t domain() {
  static const nvtxDomainHandle_t handle = nvtxDomainCreateA("topolm");
  return handle;
}

}  // namespace

bool nvtx_listens() { return domain() != nullptr; }

void nvtx_push(const char* name, int64_t index) {
  const std::string numbered = index < 0 ? name : std::string(name) + " " + std::to_string(index);
  nvtxEventAttributes_t range{};
  range.version = NVTX_VERSION;
  range.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
  range.messageType = NVTX_MESSAGE_TYPE_ASCII;  // copied by the profiler before the call returns
  range.message.ascii = numbered.c_str();
  if (index >= 0) {
    range.payloadType = NVTX_PAYLOAD_TYPE_INT64;
    range.payload.llValue = index;
  }
  nvtxDomainRangePushEx(domain(), &range);
}

void nvtx_pop() { nvtxDomainRangePop(domain()); }

}  // namespace topolm

#else

namespace topolm {

bool nvtx_listens() { return false; }
void nvtx_push(const char*, int64_t) {}
void nvtx_pop() {}

}  // namespace topolm

#endif
