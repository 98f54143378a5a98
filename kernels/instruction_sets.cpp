// Which copies of the CPU's kernels this machine can run, and which of them is best.
#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "engine/error.h"
#include "kernels/cpu_device.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace topolm {

namespace {

#if defined(__x86_64__)

/// Tiles of bf16: the processor has them, the operating system saves them, and lets this process use them.
/// Linux asks to be asked, once for a process and its threads. By CPUID, which names of features in
/// __builtin_cpu_supports do not reach in clang 14.
bool has_amx() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kOsSaves = 1u << 27, kBf16 = 1u << 22, kTile = 1u << 24, kTileState = 3u << 17;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & kOsSaves)) return false;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & kBf16) || !(d & kTile)) return false;
  asm volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
  if ((a & kTileState) != kTileState) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

/// Whether VDPBF16PS multiplies faster than fp32 FMA: twice as fast on AMD's Zen 4 and 5, half as fast on
/// Intel's Sapphire Rapids. No feature bit tells, so it is tried: under a millisecond.
bool bf16_products_are_fast() {
  const auto seconds = [](float (*loop)(int64_t)) {
    using Clock = std::chrono::steady_clock;
    auto best = Clock::duration::max();
    for (int i = 0; i < 5; ++i) {
      const auto start = Clock::now();
      loop(1 << 20);
      best = std::min(best, Clock::now() - start);
    }
    return best;
  };
  return seconds(avx512_bf16::ceiling_loops().bf16_multiply_add) <
         seconds(avx512::ceiling_loops().multiply_add);
}

std::vector<std::string> find_instruction_sets() {
  // Feature bits, checked together with what the operating system saves; never the model's name, which
  // virtual machines change.
  std::vector<std::string> sets;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (avx512) {
    const bool bf16 = __builtin_cpu_supports("avx512bf16");
    if (bf16 && has_amx()) sets.push_back("amx");
    sets.push_back("avx512");
    if (bf16) sets.insert(sets.end() - (bf16_products_are_fast() ? 1 : 0), "avx512_bf16");
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
    sets.push_back("avx2");
  sets.push_back("sse2");
  if (avx512) sets.push_back("amx_emulated");
  return sets;
}

#else

std::vector<std::string> find_instruction_sets() { return {"neon"}; }

#endif

/// What an instruction set's copy of the kernels defines.
struct InstructionSet {
  std::string name;
  std::unique_ptr<Kernels> (*make_cpu_kernels)(int threads);
  CeilingLoops (*ceiling_loops)();
};

#define TOPOLM_ISA_ENTRY(isa) \
  { #isa, isa::make_cpu_kernels, isa::ceiling_loops }
const InstructionSet kInstructionSets[] = {
#if defined(__x86_64__)
    TOPOLM_ISA_ENTRY(amx),  TOPOLM_ISA_ENTRY(avx512_bf16), TOPOLM_ISA_ENTRY(avx512),
    TOPOLM_ISA_ENTRY(avx2), TOPOLM_ISA_ENTRY(sse2),        TOPOLM_ISA_ENTRY(amx_emulated),
#else
    TOPOLM_ISA_ENTRY(neon),
#endif
};
#undef TOPOLM_ISA_ENTRY

const InstructionSet& choose(const DeviceOptions& options) {
  const auto sets = cpu_instruction_sets();
  std::string isa = options.isa;
  if (const char* wanted = std::getenv("TOPOLM_CPU_ISA"); isa.empty() && wanted) isa = wanted;
  if (isa.empty()) isa = sets.front();
  require(std::find(sets.begin(), sets.end(), isa) != sets.end(),
          "this machine cannot run the instruction set '{}'; it has: {}", isa, fmt::join(sets, ", "));
  return *std::find_if(std::begin(kInstructionSets), std::end(kInstructionSets),
                       [&](const InstructionSet& s) { return s.name == isa; });
}

}  // namespace

std::vector<std::string> cpu_instruction_sets() {
  static const std::vector<std::string> sets = find_instruction_sets();
  return sets;
}

std::unique_ptr<Kernels> make_cpu_kernels(const DeviceOptions& options) {
  return choose(options).make_cpu_kernels(options.threads);
}

CeilingLoops ceiling_loops(const DeviceOptions& options) { return choose(options).ceiling_loops(); }

}  // namespace topolm
