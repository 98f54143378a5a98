#include "kernels/cuda/gpu_device.h"

#include "engine/error.h"

namespace topolm {

void refuse(const std::string& sentence) { fail("{}", sentence); }

}  // namespace topolm
