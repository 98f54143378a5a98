// What a profiler is to NVTX, reduced to the test of our ranges: a library that NVTX loads where
// $NVTX_INJECTION64_PATH names it, and that writes each range, indented by its depth, to $TOPOLM_NVTX_LOG:
//
//   topolm: block 3 (3)
//
// The domain, the message, and the payload if there is one. After the "Injection" part of the NVTX v3
// reference.
#include <nvtx3/nvToolsExt.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace {

FILE* log_file() {
  static FILE* const file = [] {
    const char* const path = std::getenv("TOPOLM_NVTX_LOG");
    return path ? std::fopen(path, "w") : nullptr;
  }();
  return file;
}

int depth = 0;

// A handle is the address of the name: never freed, as handles live as long as the program.
nvtxDomainHandle_t NVTX_API create_domain(const char* name) {
  return reinterpret_cast<nvtxDomainHandle_t>(new std::string(name));
}

int NVTX_API push(nvtxDomainHandle_t domain, const nvtxEventAttributes_t* range) {
  if (FILE* const file = log_file()) {
    const bool text = range->messageType == NVTX_MESSAGE_TYPE_ASCII;
    std::fprintf(file, "%*s%s: %s", 2 * depth, "", reinterpret_cast<std::string*>(domain)->c_str(),
                 text ? range->message.ascii : "?");
    if (range->payloadType == NVTX_PAYLOAD_TYPE_INT64)
      std::fprintf(file, " (%lld)", static_cast<long long>(range->payload.llValue));
    std::fputc('\n', file);
    std::fflush(file);
  }
  return depth++;
}

int NVTX_API pop(nvtxDomainHandle_t) {
  if (--depth < 0 && log_file()) std::fputs("a range was closed that had not been opened\n", log_file());
  return depth;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get) {
  const auto* const callbacks = static_cast<const NvtxExportTableCallbacks*>(get(NVTX_ETID_CALLBACKS));
  NvtxFunctionTable table = nullptr;
  unsigned size = 0;
  if (!callbacks || !callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &table, &size)) return 0;
  const auto replace = [&](unsigned id, auto* function) {
    if (id < size && table[id]) *table[id] = reinterpret_cast<NvtxFunctionPointer>(function);
  };
  replace(NVTX_CBID_CORE2_DomainCreateA, create_domain);
  replace(NVTX_CBID_CORE2_DomainRangePushEx, push);
  replace(NVTX_CBID_CORE2_DomainRangePop, pop);
  return 1;
}
