// What the interpreter executes: statements whose opcode has become a function and whose operands are
// indices.
#pragma once

#include <atomic>
#include <cstring>
#include <memory>

#include "kernels/cuda/gpu_device.h"
#include "kernels/simt/simt.h"
#include "tests/ptx/interpreter.h"
#include "tests/ptx/parser.h"

namespace topolm::ptx {

struct Thread;
struct Instruction;
using Handler = void (*)(Thread&, const Instruction&);

struct Instruction {
  Handler execute;
  Slot at[4];  // the first operands as written; an address is its base
  Slot guard;  // executed where the guard is `wanted`
  bool wanted;
  uint8_t elements;  // of the vector that is loaded or stored
  int32_t offset;    // the address'; of a branch, the instruction to go to
  uint32_t all;      // where all operands begin in Kernel::operands
};

/// A kernel, ready to run.
struct Kernel : ParsedKernel {
  std::vector<Instruction> code;
  std::vector<uint32_t> operands;
  std::vector<simt::Site> sites;   // of each instruction
  std::vector<uint32_t> origins;   // of each instruction: the index of its statement
  std::vector<bool> shared_bytes;  // true where a static array lies
};

/// Throws Error naming file, line and text of a statement that the interpreter does not know.
std::unique_ptr<const Kernel> decode(ParsedKernel parsed);

/// One launch.
struct Execution {
  const Kernel* kernel;
  std::vector<unsigned char> parameters;
  std::vector<Memory> memory;  // in ascending order
  uint32_t shared_end;         // static and dynamic
  uint64_t number;             // no two launches share one
  mutable std::atomic<uint64_t> instructions = 0;
};

/// One CUDA thread. A register is 8 bytes whatever its type: set() extends what is narrower by zeros.
struct Thread {
  uint64_t* registers;
  const Instruction* next;
  const Execution& execution;
  Memory* recent;  // of each instruction: the allocation that it touched last
  std::vector<unsigned char> local;

  template <class T>
  T get(Slot slot) const {
    T t;
    std::memcpy(&t, registers + slot, sizeof t);
    return t;
  }
  template <class T>
  void set(Slot slot, T t) {
    uint64_t bits = 0;
    std::memcpy(&bits, &t, sizeof t);
    registers[slot] = bits;
  }

  bool holds(Slot predicate) const { return registers[predicate] & 1; }

  size_t index(const Instruction& i) const { return static_cast<size_t>(&i - execution.kernel->code.data()); }
  const simt::Site& site(const Instruction& i) const { return execution.kernel->sites[index(i)]; }
  /// An operand beyond the fourth.
  Slot operand(const Instruction& i, uint32_t n) const {
    return static_cast<Slot>(execution.kernel->operands[i.all + n]);
  }
  [[noreturn]] void fail(const Instruction& i, const std::string& what) const;
};

/// The functions of each family of opcodes, by the opcode's full name without what does not matter here
/// (cache hints); `operands` is how many the statement has, vectors counted by their elements.
struct Definition {
  Handler handler;
  int operands;
};
constexpr int kAnyNumber = -1;
using Table = std::map<std::string, Definition>;
void add_arithmetic(Table& table);
void add_conversions(Table& table);
void add_memory(Table& table);
void add_cooperation(Table& table);

// Defining opcodes: for every type of a list, the instantiation of a template.

template <class T>
std::string type_name() {
  return (std::is_floating_point_v<T> ? "f"
          : std::is_signed_v<T>       ? "s"
                                      : "u") +
         std::to_string(8 * sizeof(T));
}

template <class... T, class F>
void for_types(F&& f) {
  (f.template operator()<T>(type_name<T>()), ...);
}

/// "b32" for "u32".
inline std::string untyped(const std::string& type) { return "b" + type.substr(1); }

}  // namespace topolm::ptx
