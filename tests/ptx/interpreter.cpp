#include "tests/ptx/interpreter.h"

#include "engine/error.h"
#include "tests/ptx/instruction.h"

namespace topolm::ptx {

namespace {

/// What the threads that run on one host thread share: their registers, and where each instruction went.
struct Worker {
  uint64_t launch = 0;
  std::vector<uint64_t> registers;
  std::vector<Memory> recent;
};
thread_local Worker worker;

void set_special_registers(uint64_t* registers) {
  const simt::ThreadState& thread = *simt::this_thread;
  const simt::BlockState& block = simt::this_block;
  uint64_t* to = registers + kFirstSpecial;
  for (const Extent& e : {thread.index, block.threads, block.index, block.blocks})
    for (const uint32_t n : {e.x, e.y, e.z}) *to++ = n;
  *to = static_cast<uint64_t>(thread.lane);
}

/// Launch::call: one CUDA thread from its first instruction to its last.
void run_thread(const void* function, std::span<const Argument>) {
  const auto& execution = *static_cast<const Execution*>(function);
  const Kernel& kernel = *execution.kernel;
  const Extent& threads = simt::this_block.threads;
  if (worker.launch != execution.number) {
    worker.launch = execution.number;
    worker.registers.resize(kernel.image.size() * threads.x * threads.y * threads.z);
    worker.recent.assign(kernel.code.size(), {});
  }
  uint64_t* const registers =
      worker.registers.data() + kernel.image.size() * static_cast<size_t>(simt::this_thread->linear);
  std::copy(kernel.image.begin(), kernel.image.end(), registers);
  set_special_registers(registers);
  Thread thread{registers, kernel.code.data(), execution, worker.recent.data(),
                std::vector<unsigned char>(kernel.local_bytes, 0xff)};
  uint64_t executed = 0;
  while (thread.next) {
    const Instruction& i = *thread.next++;
    ++executed;
    if (thread.holds(i.guard) == i.wanted) i.execute(thread, i);
  }
  execution.instructions.fetch_add(executed, std::memory_order_relaxed);
}

}  // namespace

void Thread::fail(const Instruction& i, const std::string& what) const {
  const Kernel& kernel = *execution.kernel;
  const Statement& s = kernel.statements[kernel.origins[index(i)]];
  simt::kernel_failed(fmt::format("{}:{}: {}: '{}'", kernel.file, s.line, what, s.text).c_str());
}

uint64_t run(const Kernel& kernel, const Launch& launch, std::vector<Memory> memory,
             const std::function<void(const Launch&)>& machine) {
  static std::atomic<uint64_t> launches = 0;
  const Extent& threads = launch.grid.threads;
  require(threads.x * threads.y * threads.z <= kernel.max_threads,
          "{}: {} threads a block, but the kernel was compiled for {}", launch.kernel,
          threads.x * threads.y * threads.z, kernel.max_threads);
  require(launch.arguments.size() == kernel.parameters.size(), "{}: {} arguments for {} parameters in {}",
          launch.kernel, launch.arguments.size(), kernel.parameters.size(), kernel.file);
  Execution execution{.kernel = &kernel,
                      .parameters = {},
                      .memory = std::move(memory),
                      .shared_end = kernel.dynamic_shared + static_cast<uint32_t>(launch.grid.shared),
                      .number = ++launches};
  for (size_t n = 0; n < kernel.parameters.size(); ++n) {
    const auto [begin, bytes] = kernel.parameters[n];
    require(launch.arguments[n].size == bytes, "{}: argument {} has {} bytes, the parameter in {} has {}",
            launch.kernel, n, launch.arguments[n].size, kernel.file, bytes);
    execution.parameters.resize(begin + bytes);
    std::memcpy(execution.parameters.data() + begin, launch.arguments[n].value, bytes);
  }
  Launch interpreted = launch;
  interpreted.function = &execution;
  interpreted.call = run_thread;
  interpreted.grid.shared = execution.shared_end;
  machine(interpreted);
  return execution.instructions;
}

}  // namespace topolm::ptx
