#include "kernels/cuda/cuda_device.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "engine/error.h"

namespace topolm {

namespace {

// Uploads pass through blocks of this size. A micro-step uploads a few, each smaller than one, so the host
// runs some steps ahead before a block that it wants is still on its way.
constexpr size_t kStagingBytes = size_t{1} << 20;

std::string version_name(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

cudaDeviceProp properties() {
  cudaDeviceProp p{};
  check_cuda(cudaGetDeviceProperties(&p, 0), "cudaGetDeviceProperties");
  return p;
}

}  // namespace

void check_cuda(cudaError_t status, const char* call, const std::string& hint) {
  if (status == cudaSuccess) return;
  (void)cudaGetLastError();  // or the next call that asks for it would report this one again
  fail("{}: {} ({}){}{}", call, cudaGetErrorString(status), cudaGetErrorName(status),
       hint.empty() ? "" : "; ", hint);
}

std::string why_no_cuda() {
  int count = 0;  // which stays as it is where there is no driver
  const cudaError_t status = cudaGetDeviceCount(&count);
  (void)cudaGetLastError();
  if (status == cudaErrorInsufficientDriver) {
    int driver = 0, runtime = 0;
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) return "no CUDA driver";
    check_cuda(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
    return fmt::format("the driver is for CUDA {}, this program for {}", version_name(driver),
                       version_name(runtime));
  }
  if (status == cudaErrorNoDevice || (status == cudaSuccess && count == 0)) return "no NVIDIA GPU";
  if (status != cudaSuccess) return fmt::format("CUDA does not start: {}", cudaGetErrorString(status));
  const cudaDeviceProp gpu = properties();
  if (gpu.major < 8)
    return fmt::format("{} has compute capability {}.{}, 8.0 is needed", gpu.name, gpu.major, gpu.minor);
  return "";
}

CudaDevice::CudaDevice() {
  check_cuda(cudaSetDevice(0), "cudaSetDevice", "is another program using the GPU exclusively?");
  const cudaDeviceProp gpu = properties();
  model_ = gpu.name;
  add_detail(fmt::format("{} multiprocessors", gpu.multiProcessorCount));
  add_detail(fmt::format("{} GB", (gpu.totalGlobalMem + (size_t{1} << 29)) >> 30));
  add_detail(fmt::format("compute capability {}.{}", gpu.major, gpu.minor));
  // Non-blocking: nothing that runs in CUDA's default stream is waited for.
  check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  for (cudaEvent_t* event : {&start_, &stop_}) check_cuda(cudaEventCreate(event), "cudaEventCreate");
  for (Staging& s : staging_) {
    check_cuda(cudaMallocHost(&s.memory, kStagingBytes), "cudaMallocHost");
    check_cuda(cudaEventCreateWithFlags(&s.copied, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  }
  void* reply = nullptr;
  check_cuda(cudaMallocHost(&reply, sizeof(Reply)), "cudaMallocHost");
  reply_ = static_cast<Reply*>(reply);
  fault_ = static_cast<FaultRecord*>(allocate(sizeof(FaultRecord), "the fault"));
}

CudaDevice::~CudaDevice() {
  // What fails now is not worth more than the error that may be on its way.
  (void)cudaStreamSynchronize(stream_);
  release(scratch_);
  release(fault_);
  (void)cudaFreeHost(reply_);
  for (const Staging& s : staging_) {
    (void)cudaEventDestroy(s.copied);
    (void)cudaFreeHost(s.memory);
  }
  for (const cudaEvent_t event : {start_, stop_}) (void)cudaEventDestroy(event);
  (void)cudaStreamDestroy(stream_);
}

void* CudaDevice::allocate(size_t bytes, const std::string& what) {
  must_not_capture("allocating");
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, std::max<size_t>(bytes, 1));
  if (status == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    size_t free = 0, total = 0;
    check_cuda(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    fail("not enough GPU memory for {}: {} MB wanted, {} MB of {} MB free; {}", what, bytes >> 20, free >> 20,
         total >> 20, kLessMemory);
  }
  check_cuda(status, "cudaMalloc");
  check_cuda(cudaMemsetAsync(memory, 0, bytes, stream_), "cudaMemsetAsync");
  return memory;
}

void CudaDevice::release(void* memory) noexcept { (void)cudaFree(memory); }

void CudaDevice::upload(const Tensor& to, const void* from) {
  must_not_capture("uploading");
  const auto bytes = static_cast<size_t>(to.bytes());
  for (size_t done = 0; done < bytes; done += kStagingBytes) {
    const size_t count = std::min(kStagingBytes, bytes - done);
    const Staging& block = staging_[next_staging_++ % staging_.size()];
    check_cuda(cudaEventSynchronize(block.copied), "cudaEventSynchronize");  // at once if never recorded
    std::memcpy(block.memory, static_cast<const char*>(from) + done, count);
    check_cuda(cudaMemcpyAsync(static_cast<char*>(to.data) + done, block.memory, count,
                               cudaMemcpyHostToDevice, stream_),
               "cudaMemcpyAsync to the device");
    check_cuda(cudaEventRecord(block.copied, stream_), "cudaEventRecord");
  }
}

void CudaDevice::download(void* to, const Tensor& from) {
  must_not_capture("downloading");
  const auto bytes = static_cast<size_t>(from.bytes());
  const bool small = bytes <= reply_->bytes.size();
  check_cuda(
      cudaMemcpyAsync(small ? reply_->bytes.data() : to, from.data, bytes, cudaMemcpyDeviceToHost, stream_),
      "cudaMemcpyAsync from the device");
  synchronize();
  if (small) std::memcpy(to, reply_->bytes.data(), bytes);
}

void CudaDevice::synchronize() {
  must_not_capture("waiting");
  check_cuda(cudaMemcpyAsync(&reply_->fault, fault_, sizeof(FaultRecord), cudaMemcpyDeviceToHost, stream_),
             "cudaMemcpyAsync from the device");
  check_cuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize",
             fmt::format("the last kernel launched was {}, the one that failed may be an earlier one: "
                         "compute-sanitizer says which",
                         last_kernel_));
  if (reply_->fault.earliest == 0) return;
  check_cuda(cudaMemsetAsync(fault_, 0, sizeof(FaultRecord), stream_), "cudaMemsetAsync");
  throw_if(reply_->fault.fault());
}

void CudaDevice::launch(const Launch& launch) {
  const Grid& grid = launch.grid;
  const auto hint = [&] {
    return fmt::format("launching {} with {} x {} x {} blocks of {} x {} x {} threads and {} bytes",
                       launch.kernel, grid.blocks.x, grid.blocks.y, grid.blocks.z, grid.threads.x,
                       grid.threads.y, grid.threads.z, grid.shared);
  };
  // More than 48 KB a block, static and dynamic together, must be asked for; once a function is enough.
  if (size_t& limit = shared_limit_[launch.function]; grid.shared > limit) {
    check_cuda(cudaFuncSetAttribute(launch.function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(grid.shared)),
               "cudaFuncSetAttribute", hint());
    limit = grid.shared;
  }
  std::array<void*, 32> arguments;
  require(launch.arguments.size() <= arguments.size(), "{} has too many arguments", launch.kernel);
  std::transform(launch.arguments.begin(), launch.arguments.end(), arguments.begin(),
                 [](const Argument& a) { return const_cast<void*>(a.value); });
  const auto extent = [](const Extent& e) { return dim3(e.x, e.y, e.z); };
  const cudaError_t status = cudaLaunchKernel(launch.function, extent(grid.blocks), extent(grid.threads),
                                              arguments.data(), grid.shared, stream_);
  if (status != cudaSuccess) check_cuda(status, "cudaLaunchKernel", hint());
  last_kernel_ = launch.kernel;
}

void* CudaDevice::scratch(size_t bytes) {
  if (bytes > scratch_bytes_) {
    must_not_capture("growing scratch");
    check_cuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");  // kernels may still use the old one
    release(std::exchange(scratch_, nullptr));
    scratch_bytes_ = 0;
    scratch_ = allocate(bytes, "scratch");
    scratch_bytes_ = bytes;
    ++scratch_generation_;
  }
  return scratch_;
}

double CudaDevice::seconds(const std::function<void()>& issue) {
  must_not_capture("timing");
  check_cuda(cudaEventRecord(start_, stream_), "cudaEventRecord");
  issue();
  check_cuda(cudaEventRecord(stop_, stream_), "cudaEventRecord");
  check_cuda(cudaEventSynchronize(stop_), "cudaEventSynchronize",
             fmt::format("the last kernel launched was {}", last_kernel_));
  float milliseconds = 0;
  check_cuda(cudaEventElapsedTime(&milliseconds, start_, stop_), "cudaEventElapsedTime");
  return 1e-3 * double{milliseconds};
}

void CudaDevice::must_not_capture(const char* operation) const {
  require(!capturing_, "{} while a CUDA graph is being captured", operation);
}

/// Operations as a CUDA graph: one launch instead of hundreds. The first run of a key issues them, so that
/// scratch grows and matrix products choose their algorithms; the second captures; the others launch.
class CudaDevice::Graph final : public Recording {
 public:
  ~Graph() override { clear(); }

  void run(CudaDevice& device, const std::vector<int64_t>& key, const std::function<void()>& issue) {
    if (key != key_ || generation_ != device.scratch_generation_) {
      clear();
      issue();
      key_ = key;
      generation_ = device.scratch_generation_;
      return;
    }
    if (!executable_) capture(device, issue);
    check_cuda(cudaGraphLaunch(executable_, device.stream_), "cudaGraphLaunch");
    device.last_kernel_ = "one of a graph";
  }

 private:
  void capture(CudaDevice& device, const std::function<void()>& issue) {
    cudaGraph_t graph = nullptr;
    check_cuda(cudaStreamBeginCapture(device.stream_, cudaStreamCaptureModeThreadLocal),
               "cudaStreamBeginCapture");
    device.capturing_ = true;
    try {
      issue();
    } catch (...) {
      device.capturing_ = false;
      (void)cudaStreamEndCapture(device.stream_, &graph);
      if (graph) (void)cudaGraphDestroy(graph);
      throw;
    }
    device.capturing_ = false;
    check_cuda(cudaStreamEndCapture(device.stream_, &graph), "cudaStreamEndCapture");
    const cudaError_t status = cudaGraphInstantiate(&executable_, graph, 0);
    (void)cudaGraphDestroy(graph);
    check_cuda(status, "cudaGraphInstantiate");
  }

  void clear() {
    // One that still runs is freed when it has finished.
    if (executable_) (void)cudaGraphExecDestroy(std::exchange(executable_, nullptr));
    generation_ = -1;
  }

  std::vector<int64_t> key_;
  int64_t generation_ = -1;
  cudaGraphExec_t executable_ = nullptr;
};

void CudaDevice::replay(std::unique_ptr<Recording>& recording, const std::vector<int64_t>& key,
                        const std::function<void()>& issue) {
  // A replayed graph shows a profiler none of the ranges that were opened while it was recorded.
  static const char* const graphs = std::getenv("TOPOLM_GRAPHS");
  if (graphs && std::string(graphs) == "off") return issue();
  if (!recording) recording = std::make_unique<Graph>();
  static_cast<Graph&>(*recording).run(*this, key, issue);
}

}  // namespace topolm
