#include "tests/ptx/parser.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <limits>

#include "engine/error.h"

namespace topolm::ptx {

namespace {

// An access is of 16 bytes at most (32 on sm_100): it cannot step over a gap.
constexpr uint32_t kGap = 32;

bool is_blank(char c) { return std::isspace(static_cast<unsigned char>(c)); }
bool is_digit(char c) { return std::isdigit(static_cast<unsigned char>(c)); }
bool is_name(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$'; }

std::string trimmed(const std::string& s) {
  const auto begin = std::find_if_not(s.begin(), s.end(), is_blank);
  const auto end = std::find_if_not(s.rbegin(), std::make_reverse_iterator(begin), is_blank).base();
  return {begin, end};
}

bool starts_with(const std::string& s, const char* beginning) { return s.rfind(beginning, 0) == 0; }

/// Comments become blanks, so that lines keep their numbers.
std::string without_comments(std::string text) {
  for (size_t i = 0; i + 1 < text.size(); ++i) {
    if (text[i] != '/') continue;
    const bool block = text[i + 1] == '*';
    if (!block && text[i + 1] != '/') continue;
    const size_t end = std::min(text.size(), block ? text.find("*/", i + 2) + 2 : text.find('\n', i));
    for (; i < end; ++i)
      if (text[i] != '\n') text[i] = ' ';
  }
  return text;
}

/// Cuts at separators that stand outside of brackets of any kind.
std::vector<std::string> split(const std::string& s, char separator) {
  std::vector<std::string> parts;
  std::string part;
  int depth = 0;
  for (const char c : s) {
    depth += (c == '{' || c == '[' || c == '(') - (c == '}' || c == ']' || c == ')');
    if (c == separator && depth == 0) {
      parts.push_back(trimmed(part));
      part.clear();
    } else {
      part += c;
    }
  }
  if (!trimmed(part).empty()) parts.push_back(trimmed(part));
  return parts;
}

/// A declaration of memory: ".shared .align 4 .b8 name[128]", ".param .u64 .ptr .align 1 name".
struct Variable {
  std::string name;
  uint32_t bytes = 0, alignment = 0;
};

uint32_t type_bytes(const std::string& type) {
  const size_t digits = type.find_first_of("0123456789");
  if (digits == std::string::npos) return 0;
  return static_cast<uint32_t>(std::atoi(type.c_str() + digits)) / 8;
}

Variable parse_variable(const std::string& declaration) {
  Variable v;
  const std::vector<std::string> words = split(declaration, ' ');
  bool pointer = false;  // what follows .ptr is about the memory that it points to
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (word == ".ptr") pointer = true;
    if (word == ".align" && ++i < words.size() && !pointer)
      v.alignment = static_cast<uint32_t>(std::atoi(words[i].c_str()));
    if (word[0] == '.' && !pointer && type_bytes(word)) v.bytes = type_bytes(word);
    if (is_name(word[0]) && i + 1 >= words.size()) v.name = word;
  }
  if (v.alignment == 0) v.alignment = v.bytes;
  const size_t bracket = v.name.find('[');
  if (bracket != std::string::npos) {
    v.bytes *= static_cast<uint32_t>(std::atoi(v.name.c_str() + bracket + 1));
    v.name.resize(bracket);
  }
  return v;
}

uint32_t aligned(uint32_t n, uint32_t alignment) { return (n + alignment - 1) / alignment * alignment; }

/// Reads one kernel's parameters and body.
class KernelParser {
 public:
  KernelParser(const std::string& file, const std::string& name) {
    kernel_.file = file;
    kernel_.name = name;
    scopes_.emplace_back();
    constant_slot(1);
    for (const char* special : kSpecialRegisters) scopes_.back()[special] = new_slot(0);
  }

  void parameter(const std::string& declaration) {
    const Variable v = parse_variable(declaration);
    if (v.bytes == 0 || v.name.empty()) unreadable(declaration);
    const Interval* const last = kernel_.parameters.empty() ? nullptr : &kernel_.parameters.back();
    kernel_.parameters.push_back({aligned(last ? last->begin + last->bytes : 0, v.alignment), v.bytes});
    symbols_[v.name] = kernel_.parameters.back().begin;
  }

  void shared(const Variable& v) {
    symbols_[v.name] = aligned(shared_end_, v.alignment);
    kernel_.shared.push_back({static_cast<uint32_t>(symbols_[v.name]), v.bytes});
    shared_end_ = kernel_.shared.back().begin + v.bytes + kGap;
  }

  /// `body` lies between the kernel's braces; it begins in `line`.
  void body(const std::string& body, int line, const Variable& dynamic_shared) {
    dynamic_shared_ = dynamic_shared;
    std::string text;
    int begin = line;
    for (size_t i = 0; i < body.size(); ++i) {
      const char c = body[i];
      if (text.empty()) begin = line;
      if (c == '\n') ++line;
      line_ = begin, text_ = text;
      if (text.empty() && is_blank(c)) continue;
      if (text.empty() && c == '{') {
        scopes_.emplace_back();
      } else if (text.empty() && c == '}') {
        scopes_.pop_back();
      } else if (c == ';') {
        statement(text);
        text.clear();
      } else if (c == ':' && std::all_of(text.begin(), text.end(), is_name)) {
        kernel_.labels[text] = kernel_.statements.size();
        text.clear();
      } else {
        text += is_blank(c) ? ' ' : c;
      }
    }
    if (!symbols_.count(dynamic_shared_.name)) kernel_.dynamic_shared = shared_end_;
  }

  /// ".maxntid 256, 1, 1"
  void bounds(const std::string& directives) {
    const size_t at = directives.find(".maxntid");
    if (at == std::string::npos) return;
    kernel_.max_threads = 1;
    for (const auto& n : split(directives.substr(at + 8, directives.find('\n', at) - at - 8), ','))
      kernel_.max_threads *= static_cast<uint32_t>(std::atoi(n.c_str()));
  }

  ParsedKernel take() { return std::move(kernel_); }

 private:
  [[noreturn]] void unreadable(const std::string& what) const {
    fail("{}:{}: cannot read '{}' of '{}'", kernel_.file, line_, what, text_);
  }

  Slot new_slot(uint64_t value) {
    if (kernel_.image.size() > std::numeric_limits<Slot>::max()) unreadable("too many registers");
    kernel_.image.push_back(value);
    return static_cast<Slot>(kernel_.image.size() - 1);
  }

  Slot constant_slot(uint64_t value) {
    const auto [at, is_new] = constants_.try_emplace(value, Slot{0});
    if (is_new) at->second = new_slot(value);
    return at->second;
  }

  void statement(const std::string& whole) {
    text_ = whole;
    if (whole[0] == '.') return directive(whole);
    Statement s;
    s.line = line_;
    s.text = whole;
    std::string rest = whole;
    if (rest[0] == '@') {
      const size_t blank = rest.find(' ');
      if (blank == std::string::npos) unreadable(rest);
      const Operand guard = operand(rest.substr(1, blank - 1));
      s.guard = guard.slot;
      s.wanted = !guard.negated;
      rest = trimmed(rest.substr(blank));
    }
    const size_t blank = rest.find(' ');
    s.opcode = rest.substr(0, blank);
    if (blank != std::string::npos)
      for (const auto& part : split(rest.substr(blank), ',')) s.operands.push_back(operand(part));
    kernel_.statements.push_back(std::move(s));
  }

  void directive(const std::string& whole) {
    if (starts_with(whole, ".reg")) {
      const std::string typed = trimmed(whole.substr(4));  // .b32 %r<5>
      for (const auto& names : split(typed.substr(std::min(typed.find(' '), typed.size())), ','))
        declare_registers(names);
    } else if (starts_with(whole, ".shared")) {
      if (symbols_.count(dynamic_shared_.name)) unreadable(".shared behind a use of dynamic shared memory");
      shared(parse_variable(whole));
    } else if (starts_with(whole, ".local")) {
      const Variable v = parse_variable(whole);
      symbols_[v.name] = aligned(kernel_.local_bytes, v.alignment);
      kernel_.local_bytes = static_cast<uint32_t>(symbols_[v.name]) + v.bytes;
    } else if (starts_with(whole, ".branchtargets")) {
      for (const auto& [label, at] : kernel_.labels)
        if (at == kernel_.statements.size())
          kernel_.branch_tables[label] = split(whole.substr(whole.find(' ')), ',');
    } else if (!starts_with(whole, ".pragma")) {
      unreadable(whole);
    }
  }

  /// "%r<5>" declares %r0 to %r4. What is never written holds the most conspicuous bits.
  void declare_registers(const std::string& names) {
    const size_t bracket = names.find('<');
    if (bracket == std::string::npos) {
      scopes_.back()[names] = new_slot(~uint64_t{0});
      return;
    }
    const int count = std::atoi(names.c_str() + bracket + 1);
    for (int i = 0; i < count; ++i)
      scopes_.back()[names.substr(0, bracket) + std::to_string(i)] = new_slot(~uint64_t{0});
  }

  Operand operand(const std::string& text) {
    Operand o;
    if (text.empty()) unreadable(text_);
    if (text[0] == '{' || text.find('|') != std::string::npos) {
      o.kind = Operand::Kind::list;
      const bool braces = text[0] == '{';
      for (const auto& part : split(braces ? text.substr(1, text.size() - 2) : text, braces ? ',' : '|'))
        o.list.push_back(operand(part));
    } else if (text[0] == '[') {
      o = sum(trimmed(text.substr(1, text.size() - 2)));
      o.kind = Operand::Kind::address;
    } else if (text[0] == '!') {
      o = operand(text.substr(1));
      o.negated = true;
    } else if (text == "_") {
      o.slot = new_slot(0);  // a result that nobody wants
    } else if (is_digit(text[0]) || text[0] == '-') {
      o.slot = constant_slot(immediate(text));
    } else {
      o = sum(text);
      if (o.kind == Operand::Kind::value && o.offset != 0) {
        if (!symbols_.count(o.label)) unreadable(text);
        o.slot = constant_slot(symbols_[o.label] + static_cast<uint64_t>(int64_t{o.offset}));
      }
    }
    return o;
  }

  /// A name, or a name and an offset: %rd1+-8, array+16.
  Operand sum(const std::string& text) {
    Operand o;
    const size_t plus = text.find_first_of("+-");
    const std::string name = trimmed(text.substr(0, plus));
    if (plus != std::string::npos)
      o.offset =
          static_cast<int32_t>(std::strtol(text.c_str() + plus + (text[plus] == '+' ? 1 : 0), nullptr, 0));
    if (!name.empty() && is_digit(name[0])) {
      o.slot = constant_slot(immediate(name));
      return o;
    }
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope)
      if (const auto found = scope->find(name); found != scope->end()) {
        o.slot = found->second;
        return o;
      }
    if (name == dynamic_shared_.name && !name.empty() && !symbols_.count(name)) {
      kernel_.dynamic_shared = aligned(shared_end_, std::max(dynamic_shared_.alignment, 1u));
      symbols_[name] = kernel_.dynamic_shared;
    }
    o.label = name;
    if (const auto found = symbols_.find(name); found != symbols_.end()) {
      o.slot = constant_slot(found->second);
    } else if (name[0] == '$' || std::all_of(name.begin(), name.end(), is_name)) {
      o.kind = Operand::Kind::label;
    } else {
      unreadable(text);
    }
    return o;
  }

  uint64_t immediate(const std::string& text) const {
    const bool floating =
        text.size() > 2 && text[0] == '0' && std::string("fFdD").find(text[1]) != std::string::npos;
    char* end = nullptr;
    const uint64_t value = floating         ? std::strtoull(text.c_str() + 2, &end, 16)
                           : text[0] == '-' ? static_cast<uint64_t>(std::strtoll(text.c_str(), &end, 0))
                                            : std::strtoull(text.c_str(), &end, 0);
    if (*end && *end != 'U') unreadable(text);
    return value;
  }

  ParsedKernel kernel_;
  std::vector<std::map<std::string, Slot>> scopes_;  // registers; inline assembly opens scopes of its own
  std::map<std::string, uint64_t> symbols_;          // addresses in their own state space
  std::map<uint64_t, Slot> constants_;
  Variable dynamic_shared_;
  uint32_t shared_end_ = 0;
  int line_ = 0;
  std::string text_;
};

/// Of the bracket that closes the one at `open`.
size_t closing(const std::string& text, size_t open) {
  const char opening = text[open], close = opening == '(' ? ')' : '}';
  int depth = 0;
  for (size_t i = open; i < text.size(); ++i) {
    if (text[i] == opening) ++depth;
    if (text[i] == close && --depth == 0) return i;
  }
  return text.size();
}

}  // namespace

std::vector<ParsedKernel> parse(const std::string& file, const std::string& original) {
  const std::string text = without_comments(original);
  std::vector<ParsedKernel> kernels;
  std::vector<Variable> shared;
  Variable dynamic_shared;
  int line = 1;
  for (size_t i = 0; i < text.size();) {
    if (is_blank(text[i])) {
      line += text[i++] == '\n';
      continue;
    }
    // A declaration ends with a semicolon, a kernel with its body, and .version and its like with the line.
    const size_t end = text.find_first_of(";{\n", i);
    std::string head = text.substr(i, std::min(end, text.size()) - i);
    const size_t entry = head.find(".entry ");
    size_t next = std::min(end, text.size() - 1) + 1;
    if (entry != std::string::npos) {
      const size_t open = text.find('(', i), close = closing(text, open), brace = text.find('{', close);
      next = closing(text, brace) + 1;
      KernelParser parser(file, trimmed(text.substr(i + entry + 7, open - i - entry - 7)));
      for (const auto& p : split(text.substr(open + 1, close - open - 1), ',')) parser.parameter(p);
      parser.bounds(text.substr(close, brace - close));
      const std::string body = text.substr(brace + 1, next - brace - 2);
      for (const auto& v : shared)
        if (body.find(v.name) != std::string::npos) parser.shared(v);
      parser.body(body,
                  line + static_cast<int>(std::count(text.begin() + static_cast<ptrdiff_t>(i),
                                                     text.begin() + static_cast<ptrdiff_t>(brace), '\n')),
                  dynamic_shared);
      kernels.push_back(parser.take());
      kernels.back().text = text.substr(open, next - open);
    } else if (starts_with(head, ".extern .shared")) {
      dynamic_shared = parse_variable(head);
    } else if (head.find(".shared ") != std::string::npos) {
      shared.push_back(parse_variable(head));
    } else if (!starts_with(head, ".version") && !starts_with(head, ".target") &&
               !starts_with(head, ".address_size")) {
      fail("{}:{}: cannot read '{}'", file, line, trimmed(head));
    }
    line += static_cast<int>(std::count(text.begin() + static_cast<ptrdiff_t>(i),
                                        text.begin() + static_cast<ptrdiff_t>(next), '\n'));
    i = next;
  }
  return kernels;
}

}  // namespace topolm::ptx
