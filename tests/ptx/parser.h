// PTX text, taken apart: every kernel's parameters, arrays and statements, with names resolved to registers.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace topolm::ptx {

/// Indices into a thread's register file. Everything that an instruction can read lies there: registers, the
/// special registers, and each immediate and symbol of the kernel as a constant.
using Slot = uint16_t;

/// Slot 0 is always true, the guard of statements that have none; these follow.
constexpr const char* kSpecialRegisters[] = {"%tid.x",    "%tid.y",    "%tid.z",   "%ntid.x",  "%ntid.y",
                                             "%ntid.z",   "%ctaid.x",  "%ctaid.y", "%ctaid.z", "%nctaid.x",
                                             "%nctaid.y", "%nctaid.z", "%laneid"};
constexpr Slot kAlways = 0, kFirstSpecial = 1;

struct Operand {
  enum class Kind {
    value,    // %r1, 5, 0f3F800000, symbol
    address,  // [%rd1+8]
    list,     // {%f1, %f2} or %r1|%p1
    label,
  };
  Kind kind = Kind::value;
  Slot slot = 0;         // the value; the address' base
  bool negated = false;  // !%p1
  int32_t offset = 0;    // the address'
  std::vector<Operand> list;
  std::string label;
};

struct Statement {
  int line = 0;
  std::string text, opcode;
  Slot guard = kAlways;
  bool wanted = true;  // the guard's value for the statement to be executed
  std::vector<Operand> operands;
};

/// A parameter or an array, at its place in its state space.
struct Interval {
  uint32_t begin, bytes;
};

struct ParsedKernel {
  std::string name, file;
  std::string text;  // from its name to its closing brace
  std::vector<Interval> parameters;
  std::vector<Interval> shared;  // static arrays, with gaps between them
  uint32_t dynamic_shared = 0;   // where the dynamic array begins, behind them
  uint32_t local_bytes = 0;
  uint32_t max_threads = 1024;  // a block, as __launch_bounds__ promised the compiler
  std::vector<uint64_t> image;  // a thread's register file before it starts
  std::vector<Statement> statements;
  std::map<std::string, size_t> labels;  // the statement that follows
  std::map<std::string, std::vector<std::string>> branch_tables;
};

/// The kernels of a module. `file` names it in errors. Throws Error naming line and text for what it cannot
/// read.
std::vector<ParsedKernel> parse(const std::string& file, const std::string& text);

}  // namespace topolm::ptx
