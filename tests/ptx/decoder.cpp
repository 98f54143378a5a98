// Statements become instructions: the opcode is looked up, operands are flattened to slots, and what has no
// instruction of its own becomes two.
#include <algorithm>
#include <array>
#include <limits>
#include <sstream>

#include "engine/error.h"
#include "tests/ptx/instruction.h"

namespace topolm::ptx {

namespace {

const Table& known_opcodes() {
  static const Table table = [] {
    Table t;
    add_arithmetic(t);
    add_conversions(t);
    add_memory(t);
    add_cooperation(t);
    return t;
  }();
  return table;
}

/// "ld.global.nc.f32" without what changes nothing where there are no caches and threads take turns.
std::string without_hints(const std::string& opcode) {
  constexpr std::array kHints = {"nc", "ca",  "cg",       "cs",   "lu",      "cv",  "wb",
                                 "wt", "gpu", "volatile", "weak", "relaxed", "cta", "sys"};
  const bool is_copy =
      opcode.rfind("cp.", 0) == 0;  // its .ca and .cg are kept: not every size goes with both
  std::istringstream in(opcode);
  std::string result;
  for (std::string word; std::getline(in, word, '.');) {
    const bool is_hint = !is_copy && std::find(kHints.begin(), kHints.end(), word) != kHints.end();
    if (is_hint || word.rfind("L1::", 0) == 0 || word.rfind("L2::", 0) == 0) continue;
    result += (result.empty() ? "" : ".") + word;
  }
  return result;
}

bool starts_with_one_of(const std::string& s, std::initializer_list<const char*> beginnings) {
  return std::any_of(beginnings.begin(), beginnings.end(),
                     [&](const char* beginning) { return s.rfind(beginning, 0) == 0; });
}

class Decoder {
 public:
  explicit Decoder(ParsedKernel parsed) : kernel_(std::make_unique<Kernel>()) {
    static_cast<ParsedKernel&>(*kernel_) = std::move(parsed);
  }

  std::unique_ptr<const Kernel> decode() {
    std::vector<Statement>& statements = kernel_->statements;
    Statement end;
    end.line = statements.empty() ? 0 : statements.back().line;
    end.text = end.opcode = "ret";
    statements.push_back(end);
    std::vector<uint32_t> first;  // instruction of each statement
    for (statement_ = 0; statement_ < statements.size(); ++statement_) {
      first.push_back(static_cast<uint32_t>(kernel_->code.size()));
      translate(statements[statement_]);
    }
    for (const Jump& jump : jumps_) {
      statement_ = kernel_->origins[jump.instruction];
      const auto label = kernel_->labels.find(jump.label);
      if (label == kernel_->labels.end()) unknown("there is no label " + jump.label);
      if (jump.operand == 0)
        kernel_->code[jump.instruction].offset = static_cast<int32_t>(first[label->second]);
      else
        kernel_->operands[kernel_->code[jump.instruction].all + jump.operand] = first[label->second];
    }
    for (const Interval& array : kernel_->shared) {
      kernel_->shared_bytes.resize(std::max<size_t>(kernel_->shared_bytes.size(), array.begin + array.bytes));
      std::fill_n(kernel_->shared_bytes.begin() + array.begin, array.bytes, true);
    }
    return std::move(kernel_);
  }

 private:
  /// A place for the number of the instruction at a label: its offset, or an operand of brx.idx.
  struct Jump {
    size_t instruction;
    uint32_t operand;
    std::string label;
  };

  [[noreturn]] void unknown(const std::string& what) const {
    const Statement& s = kernel_->statements[statement_];
    fail("{}:{}: {}: '{}'", kernel_->file, s.line, what, s.text);
  }

  Slot new_slot() {
    if (kernel_->image.size() > std::numeric_limits<Slot>::max()) unknown("too many registers");
    kernel_->image.push_back(0);
    return static_cast<Slot>(kernel_->image.size() - 1);
  }

  void translate(const Statement& s) {
    if (s.opcode == "brx.idx") return translate_indexed_branch(s);
    std::string opcode = s.opcode;
    Instruction i{};
    i.guard = s.guard, i.wanted = s.wanted, i.elements = 1;
    if (starts_with_one_of(opcode, {"ld.", "st.", "atom.", "red.", "cp."})) opcode = without_hints(opcode);
    const bool is_copy = opcode.rfind("cp.", 0) == 0;

    std::vector<uint32_t> slots;
    size_t elements = 0;  // of the statement's vector
    for (const Operand& o : s.operands) {
      if (o.kind == Operand::Kind::label) jumps_.push_back({kernel_->code.size(), 0, o.label});
      if (o.kind == Operand::Kind::address && !is_copy) i.offset = o.offset;
      if (o.kind == Operand::Kind::list) elements = o.list.size();
      if (o.kind == Operand::Kind::list)
        for (const Operand& element : o.list) slots.push_back(plain_slot(element, false));
      else
        slots.push_back(plain_slot(o, is_copy));
    }

    const bool first_is_list = !s.operands.empty() && s.operands[0].kind == Operand::Kind::list;
    if (opcode.rfind("mov.", 0) == 0 && elements > 0)
      opcode.insert(4, std::string(first_is_list ? "unpack" : "pack") + (elements == 4 ? "4." : "."));
    if (opcode.rfind("shfl.", 0) == 0 && first_is_list) opcode += ".predicate";
    if (is_copy && slots.size() == 4) opcode += ".part";
    if (starts_with_one_of(opcode, {"ld.", "st."})) {
      const size_t v = opcode.find(".v");
      const size_t wanted = v == std::string::npos ? 0 : static_cast<size_t>(opcode[v + 2] - '0');
      if (wanted != elements || s.operands.size() != 2) unknown("a vector of another size");
      if (wanted) opcode.erase(v + 2, 1), i.elements = static_cast<uint8_t>(elements);
    }
    if (opcode.rfind("setp.", 0) == 0 && slots.size() == 4) return translate_compound_setp(i, opcode, slots);
    emit(i, opcode, slots);
  }

  /// setp.lt.and.f32 p, a, b, c: a comparison and then an operation of predicates.
  void translate_compound_setp(const Instruction& i, std::string opcode, const std::vector<uint32_t>& slots) {
    for (const std::string operation : {"and", "or", "xor"}) {
      const size_t at = opcode.find("." + operation + ".");
      if (at == std::string::npos) continue;
      opcode.erase(at, operation.size() + 1);
      const uint32_t comparison = new_slot();
      emit(i, opcode, {comparison, slots[1], slots[2]});
      return emit(i, operation + ".pred", {slots[0], comparison, slots[3]});
    }
    unknown("unknown opcode");
  }

  void translate_indexed_branch(const Statement& s) {
    const auto table = kernel_->branch_tables.find(s.operands.size() == 2 ? s.operands[1].label : "");
    if (table == kernel_->branch_tables.end()) unknown("there is no such table of branches");
    Instruction i{};
    i.guard = s.guard, i.wanted = s.wanted;
    i.offset = static_cast<int32_t>(table->second.size());
    std::vector<uint32_t> slots{s.operands[0].slot};
    for (const std::string& label : table->second) {
      jumps_.push_back({kernel_->code.size(), static_cast<uint32_t>(slots.size()), label});
      slots.push_back(0);
    }
    emit(i, s.opcode, slots);
  }

  /// The operand's slot. What is computed on the way to it becomes an instruction of its own: the negation of
  /// a predicate, and with `add_offset` an address.
  uint32_t plain_slot(const Operand& o, bool add_offset) {
    Instruction i{};
    i.guard = kAlways, i.wanted = true;
    if (o.negated) {
      const Slot result = new_slot();
      emit(i, "not.pred", {result, o.slot});
      return result;
    }
    if (o.kind == Operand::Kind::address && add_offset && o.offset != 0) {
      const Slot result = new_slot(), offset = new_slot();
      kernel_->image[offset] = static_cast<uint64_t>(int64_t{o.offset});
      emit(i, "add.s64", {result, o.slot, offset});
      return result;
    }
    return o.slot;
  }

  void emit(Instruction i, const std::string& opcode, const std::vector<uint32_t>& slots) {
    const auto found = known_opcodes().find(opcode);
    if (found == known_opcodes().end()) unknown("unknown opcode");
    const auto [handler, operands] = found->second;
    if (operands != kAnyNumber && slots.size() != static_cast<size_t>(operands))
      unknown(fmt::format("{} operands where {} are known", slots.size(), operands));
    i.execute = handler;
    for (size_t n = 0; n < std::min(slots.size(), std::size(i.at)); ++n)
      i.at[n] = static_cast<Slot>(slots[n]);
    i.all = static_cast<uint32_t>(kernel_->operands.size());
    kernel_->operands.insert(kernel_->operands.end(), slots.begin(), slots.end());
    kernel_->code.push_back(i);
    const Statement& s = kernel_->statements[statement_];
    kernel_->sites.push_back({kernel_->file.c_str(), s.line, s.opcode.c_str()});
    kernel_->origins.push_back(static_cast<uint32_t>(statement_));
  }

  std::unique_ptr<Kernel> kernel_;
  std::vector<Jump> jumps_;
  size_t statement_ = 0;
};

}  // namespace

std::unique_ptr<const Kernel> decode(ParsedKernel parsed) { return Decoder(std::move(parsed)).decode(); }

}  // namespace topolm::ptx
