// Ranges for NVIDIA's profilers (NVTX v3). Built where the CUDA headers are; elsewhere there is nothing to
// attach, and nothing here.
#pragma once

#include <cstdint>

namespace topolm {

/// Whether a profiler listens. Asked once, at the first range: profilers attach as a program starts.
bool nvtx_listens();
/// Opens a range of the domain "topolm": "block 3", with 3 as its payload; index -1 leaves both out.
void nvtx_push(const char* name, int64_t index);
void nvtx_pop();

}  // namespace topolm
