#include "tests/cuda_host/fake_cuda.h"

#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "kernels/cuda/matrix_products.h"
#include "kernels/kernels.h"

namespace topolm::fake {

State state;

namespace {

using Work = std::function<void()>;

/// Work in the order issued. There is one stream, and it is this.
std::deque<Work> pending;
std::vector<Work>* captured = nullptr;  // where work goes while a graph is captured
std::map<void*, size_t> device_memory;
std::map<const void*, size_t> shared_limit;
const Launch* launching = nullptr;

void enqueue(Work work) {
  if (captured)
    captured->push_back(std::move(work));
  else
    pending.push_back(std::move(work));
}

void run_all() {
  if (!pending.empty()) ++state.waits;
  while (!pending.empty()) {
    const Work work = std::move(pending.front());
    pending.pop_front();
    work();
  }
}

/// The failure that a test has asked for, once.
cudaError_t planned(const char* function) {
  if (!state.failing || std::strcmp(state.failing, function) != 0) return cudaSuccess;
  state.failing = nullptr;
  return state.failure;
}

/// What may not be called while a graph is captured.
cudaError_t forbidden_in_capture() { return captured ? cudaErrorStreamCaptureUnsupported : cudaSuccess; }

struct Event {
  bool done = true;
  double time = 0;
};

struct Graph {
  std::vector<Work> nodes;
};

/// A launch whose arguments were copied when it was issued, as CUDA does.
struct Issued {
  Launch launch;
  std::vector<std::vector<char>> bytes;
  std::vector<Argument> arguments;
  explicit Issued(const Launch& l) : launch(l) {
    for (const Argument& a : l.arguments) {
      const char* const p = static_cast<const char*>(a.value);
      bytes.emplace_back(p, p + a.size);
    }
    for (size_t i = 0; i < bytes.size(); ++i)
      arguments.push_back({bytes[i].data(), l.arguments[i].size, l.arguments[i].alignment});
    launch.arguments = arguments;
  }
  Issued(const Issued&) = delete;
};

Event* event_of(cudaEvent_t e) { return reinterpret_cast<Event*>(e); }

}  // namespace

void Device::launch(const Launch& launch) {
  launching = &launch;
  cuda_->launch(launch);
}

}  // namespace topolm::fake

// Instead of what nvcc compiled.
namespace topolm::simt_kernels {
std::unique_ptr<Kernels> make_gpu_kernels(std::unique_ptr<GpuDevice> device,
                                          std::unique_ptr<MatrixProducts> products);
}
namespace topolm::cuda_kernels {
std::unique_ptr<Kernels> make_gpu_kernels(std::unique_ptr<GpuDevice> device,
                                          std::unique_ptr<MatrixProducts> products);
std::unique_ptr<Kernels> make_gpu_kernels(std::unique_ptr<GpuDevice> device,
                                          std::unique_ptr<MatrixProducts> products) {
  return simt_kernels::make_gpu_kernels(std::make_unique<fake::Device>(std::move(device)),
                                        std::move(products));
}
}  // namespace topolm::cuda_kernels

using namespace topolm::fake;

extern "C" {

void fake_enqueue(void (*run)(void*), void* argument) {
  enqueue([=] { run(argument); });
}
State* fake_state() { return &state; }

#define BEGIN \
  if (const cudaError_t error = planned(__func__); error != cudaSuccess) return error

const char* cudaGetErrorString(cudaError_t) { return "it failed"; }
const char* cudaGetErrorName(cudaError_t) { return "cudaErrorOfTheTest"; }
cudaError_t cudaGetLastError() { return cudaSuccess; }

cudaError_t cudaGetDeviceCount(int* count) {
  if (state.driver_version < 13000) return cudaErrorInsufficientDriver;  // the count stays as it was
  if (state.devices == 0) return cudaErrorNoDevice;
  *count = state.devices;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) { return *version = state.driver_version, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  *p = {};
  std::strcpy(p->name, "Fake GPU");
  p->major = state.major;
  p->multiProcessorCount = 7;
  p->totalGlobalMem = size_t{1} << 30;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int) {
  BEGIN;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  BEGIN;
  if (const cudaError_t error = forbidden_in_capture(); error != cudaSuccess) return error;
  if (bytes > state.free_bytes) return cudaErrorMemoryAllocation;
  *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  std::memset(*memory, 0xcd, bytes);
  state.free_bytes -= bytes;
  device_memory[*memory] = bytes;
  return cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
  run_all();
  if (!memory) return cudaSuccess;
  state.free_bytes += device_memory.at(memory);
  device_memory.erase(memory);
  std::free(memory);
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *free = state.free_bytes;
  *total = size_t{1} << 30;
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** memory, size_t bytes) {
  *memory = std::malloc(bytes);
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* memory) { return std::free(memory), cudaSuccess; }

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  static char the_stream;
  *stream = reinterpret_cast<cudaStream_t>(&the_stream);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t) { return run_all(), cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  BEGIN;
  if (const cudaError_t error = forbidden_in_capture(); error != cudaSuccess) return error;
  run_all();
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  enqueue([=] { std::memset(to, value, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  BEGIN;
  enqueue([=] { std::memcpy(to, from, bytes); });
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  *event = reinterpret_cast<cudaEvent_t>(new Event);
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return cudaEventCreate(event); }
cudaError_t cudaEventDestroy(cudaEvent_t event) { return delete event_of(event), cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  event_of(event)->done = false;
  enqueue([e = event_of(event)] { e->done = true, e->time = state.clock; });
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (!event_of(event)->done) ++state.waits;
  while (!event_of(event)->done) {
    const auto work = std::move(pending.front());
    pending.pop_front();
    work();
  }
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t stop) {
  *milliseconds = static_cast<float>(event_of(stop)->time - event_of(start)->time);
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute, int bytes) {
  BEGIN;
  shared_limit[function] = static_cast<size_t>(bytes);
  return cudaSuccess;
}
cudaError_t cudaLaunchKernel(const void* function, dim3, dim3, void** arguments, size_t shared,
                             cudaStream_t) {
  BEGIN;
  if (function != launching->function || shared > shared_limit[function]) return cudaErrorInvalidValue;
  for (size_t i = 0; i < launching->arguments.size(); ++i)
    if (arguments[i] != launching->arguments[i].value) return cudaErrorInvalidValue;
  enqueue([issued = std::make_shared<Issued>(*launching)] {
    static topolm::SimtDevice machine(1);
    machine.launch(issued->launch);
  });
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  BEGIN;
  captured = &(new Graph)->nodes;
  ++state.captures;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  *graph = reinterpret_cast<cudaGraph_t>(std::exchange(captured, nullptr));
  return planned(__func__);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  BEGIN;
  *executable = reinterpret_cast<cudaGraphExec_t>(new Graph{*reinterpret_cast<Graph*>(graph)});
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return delete reinterpret_cast<Graph*>(graph), cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t e) {
  return delete reinterpret_cast<Graph*>(e), cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t) {
  BEGIN;
  ++state.graph_launches;
  for (const auto& node : reinterpret_cast<Graph*>(executable)->nodes) enqueue(node);
  return cudaSuccess;
}

}  // extern "C"
