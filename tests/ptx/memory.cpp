// Loads, stores, atomics and asynchronous copies. Every access is checked: its alignment, and that it lies in
// one array or allocation.
#include <algorithm>

#include "engine/error.h"
#include "kernels/simt/tensor_core.h"
#include "tests/ptx/instruction.h"

namespace topolm::ptx {

namespace {

enum class Space { global, shared, param, local, generic };

// Where the other state spaces lie among generic addresses. The host's memory, which is the global space, is
// far below.
constexpr uint64_t window(Space space) { return uint64_t{static_cast<uint8_t>(space)} << 60; }

std::string name(Space space) {
  constexpr const char* kNames[] = {"global", "shared", "param", "local", ""};
  return kNames[static_cast<int>(space)];
}

[[noreturn]] void outside(const Thread& t, const Instruction& i, Space space, uint64_t address,
                          size_t bytes) {
  t.fail(i, fmt::format("{} bytes at {} address {:#x} are outside of every {}", bytes, name(space), address,
                        space == Space::global ? "allocation" : "array"));
}

unsigned char* locate_global(Thread& t, const Instruction& i, uint64_t address, size_t bytes) {
  const auto holds = [&](const Memory& m) { return address >= m.begin && address + bytes <= m.end; };
  Memory& recent = t.recent[t.index(i)];
  if (!holds(recent)) {
    const auto& memory = t.execution.memory;
    const auto above = std::upper_bound(memory.begin(), memory.end(), address,
                                        [](uint64_t a, const Memory& m) { return a < m.begin; });
    if (above == memory.begin() || !holds(above[-1])) outside(t, i, Space::global, address, bytes);
    recent = above[-1];
  }
  return reinterpret_cast<unsigned char*>(address);
}

unsigned char* locate_shared(const Thread& t, const Instruction& i, uint32_t address, size_t bytes) {
  const Kernel& kernel = *t.execution.kernel;
  const uint64_t last = uint64_t{address} + bytes - 1;
  const bool is_static =
      last < kernel.shared_bytes.size() && kernel.shared_bytes[address] && kernel.shared_bytes[last];
  const bool is_dynamic = address >= kernel.dynamic_shared && last < t.execution.shared_end;
  if (!is_static && !is_dynamic) outside(t, i, Space::shared, address, bytes);
  return simt::this_block.dynamic_shared + address;
}

template <Space SPACE>
unsigned char* locate(Thread& t, const Instruction& i, uint64_t address, size_t bytes) {
  if (address % bytes) t.fail(i, fmt::format("{} bytes at address {:#x} are not aligned", bytes, address));
  const uint32_t near = static_cast<uint32_t>(address);
  if constexpr (SPACE == Space::global) return locate_global(t, i, address, bytes);
  if constexpr (SPACE == Space::shared) return locate_shared(t, i, near, bytes);
  if constexpr (SPACE == Space::param) {
    if (near + bytes > t.execution.parameters.size()) outside(t, i, SPACE, near, bytes);
    return const_cast<unsigned char*>(t.execution.parameters.data()) + near;
  }
  if constexpr (SPACE == Space::local) {
    if (near + bytes > t.local.size()) outside(t, i, SPACE, near, bytes);
    return t.local.data() + near;
  }
  if (address >= window(Space::local)) return locate<Space::local>(t, i, near, bytes);
  if (address >= window(Space::param)) return locate<Space::param>(t, i, near, bytes);
  if (address >= window(Space::shared)) return locate<Space::shared>(t, i, near, bytes);
  return locate_global(t, i, address, bytes);
}

// ---- ld and st

/// Into the register's whole width: it may be wider than the type.
template <class T>
void set_loaded(Thread& t, Slot slot, const unsigned char* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  if constexpr (std::is_integral_v<T> && std::is_signed_v<T>)
    t.set(slot, int64_t{value});
  else
    t.set(slot, value);
}

template <Space SPACE, class T>
void load(Thread& t, const Instruction& i) {
  const uint64_t address = t.get<uint64_t>(i.at[1]) + static_cast<uint64_t>(int64_t{i.offset});
  set_loaded<T>(t, i.at[0], locate<SPACE>(t, i, address, sizeof(T)));
}
template <Space SPACE, class T>
void load_vector(Thread& t, const Instruction& i) {
  const uint64_t address =
      t.get<uint64_t>(t.operand(i, i.elements)) + static_cast<uint64_t>(int64_t{i.offset});
  const unsigned char* const from = locate<SPACE>(t, i, address, sizeof(T) * i.elements);
  for (uint32_t n = 0; n < i.elements; ++n) set_loaded<T>(t, t.operand(i, n), from + sizeof(T) * n);
}

template <Space SPACE, class T>
void store(Thread& t, const Instruction& i) {
  const uint64_t address = t.get<uint64_t>(i.at[0]) + static_cast<uint64_t>(int64_t{i.offset});
  unsigned char* const to = locate<SPACE>(t, i, address, sizeof(T) * i.elements);
  for (uint32_t n = 0; n < i.elements; ++n) {
    const T value = t.get<T>(t.operand(i, 1 + n));
    std::memcpy(to + sizeof(T) * n, &value, sizeof value);
  }
}

template <Space SPACE>
void add_loads_and_stores(Table& table) {
  const std::string space = SPACE == Space::generic ? "" : name(SPACE) + ".";
  for_types<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, uint64_t, int64_t, float, double>(
      [&]<class T>(const std::string& type) {
        // How many operands a vector has, its own count says.
        for (const std::string& name : {type, untyped(type)}) {
          if (std::is_signed_v<T> && name[0] == 'b') continue;
          table["ld." + space + name] = {load<SPACE, T>, 2};
          table["ld." + space + "v." + name] = {load_vector<SPACE, T>, kAnyNumber};
          if (SPACE == Space::param) continue;
          table["st." + space + name] = {store<SPACE, T>, 2};
          table["st." + space + "v." + name] = {store<SPACE, T>, kAnyNumber};
        }
      });
}

// ---- cvta

template <Space SPACE>
void to_generic(Thread& t, const Instruction& i) {
  t.set(i.at[0], t.get<uint64_t>(i.at[1]) + window(SPACE));
}
template <Space SPACE>
void from_generic(Thread& t, const Instruction& i) {
  t.set(i.at[0], t.get<uint64_t>(i.at[1]) - window(SPACE));
}

template <Space SPACE>
void add_address_conversions(Table& table) {
  table["cvta." + name(SPACE) + ".u64"] = {to_generic<SPACE>, 2};
  table["cvta.to." + name(SPACE) + ".u64"] = {from_generic<SPACE>, 2};
}

// ---- atom and red

/// atom d, [a], b: the old value comes back; red [a], b drops it. OPERANDS says which.
template <Space SPACE, class T, auto F, int OPERANDS>
void atomic(Thread& t, const Instruction& i) {
  constexpr int kAddress = OPERANDS - 2;
  const uint64_t address = t.get<uint64_t>(i.at[kAddress]) + static_cast<uint64_t>(int64_t{i.offset});
  T* const p = reinterpret_cast<T*>(locate<SPACE>(t, i, address, sizeof(T)));
  const T b = t.get<T>(i.at[kAddress + 1]);
  const T old = simt::read_modify_write(p, [&](T x) { return static_cast<T>(F(x, b)); });
  if constexpr (OPERANDS == 3) t.set(i.at[0], old);
}

template <Space SPACE, class T>
void compare_and_swap(Thread& t, const Instruction& i) {
  const uint64_t address = t.get<uint64_t>(i.at[1]) + static_cast<uint64_t>(int64_t{i.offset});
  T* const p = reinterpret_cast<T*>(locate<SPACE>(t, i, address, sizeof(T)));
  const T expected = t.get<T>(i.at[2]), desired = t.get<T>(i.at[3]);
  t.set(i.at[0], simt::read_modify_write(p, [&](T x) { return x == expected ? desired : x; }));
}

template <Space SPACE, auto F, class... T>
void add_atomic(Table& table, const std::string& operation, bool is_typed) {
  const std::string space = SPACE == Space::generic ? "" : name(SPACE) + ".";
  for_types<T...>([&]<class U>(const std::string& type) {
    const std::string opcode = space + operation + "." + (is_typed ? type : untyped(type));
    table["atom." + opcode] = {atomic<SPACE, U, F, 3>, 3};
    table["red." + opcode] = {atomic<SPACE, U, F, 2>, 2};
  });
}

// No floats: the kernels promise sums in a fixed order.
template <Space SPACE>
void add_atomics(Table& table) {
  constexpr auto kAdd = [](auto a, auto b) { return static_cast<std::make_unsigned_t<decltype(a)>>(a) + b; };
  constexpr auto kMin = [](auto a, auto b) { return b < a ? b : a; };
  constexpr auto kMax = [](auto a, auto b) { return a < b ? b : a; };
  constexpr auto kAnd = [](auto a, auto b) { return a & b; };
  constexpr auto kOr = [](auto a, auto b) { return a | b; };
  constexpr auto kXor = [](auto a, auto b) { return a ^ b; };
  constexpr auto kExchange = [](auto, auto b) { return b; };
  add_atomic<SPACE, kAdd, uint32_t, int32_t, uint64_t>(table, "add", true);
  add_atomic<SPACE, kMin, uint32_t, int32_t, uint64_t, int64_t>(table, "min", true);
  add_atomic<SPACE, kMax, uint32_t, int32_t, uint64_t, int64_t>(table, "max", true);
  add_atomic<SPACE, kAnd, uint32_t, uint64_t>(table, "and", false);
  add_atomic<SPACE, kOr, uint32_t, uint64_t>(table, "or", false);
  add_atomic<SPACE, kXor, uint32_t, uint64_t>(table, "xor", false);
  add_atomic<SPACE, kExchange, uint32_t, uint64_t>(table, "exch", false);
  const std::string space = SPACE == Space::generic ? "" : name(SPACE) + ".";
  table["atom." + space + "cas.b32"] = {compare_and_swap<SPACE, uint32_t>, 4};
  table["atom." + space + "cas.b64"] = {compare_and_swap<SPACE, uint64_t>, 4};
}

void fence(Thread&, const Instruction&) { std::atomic_thread_fence(std::memory_order_seq_cst); }

// ---- cp.async

/// cp.async [shared], [global], size, bytes: what is not read becomes 0. The decoder adds up each address.
void start_copy(Thread& t, const Instruction& i, uint32_t bytes) {
  const uint32_t size = t.get<uint32_t>(i.at[2]);
  const uint64_t from = t.get<uint64_t>(i.at[1]);
  unsigned char* const to = locate<Space::shared>(t, i, t.get<uint64_t>(i.at[0]), size);
  if (bytes > size) t.fail(i, fmt::format("a copy of {} bytes reads {}", size, bytes));
  if (from % size) t.fail(i, fmt::format("{} bytes at address {:#x} are not aligned", size, from));
  if (bytes > 0) locate_global(t, i, from, bytes);
  simt::copy_async(t.site(i), to, reinterpret_cast<const void*>(from), static_cast<int>(size),
                   static_cast<int>(bytes));
}
void copy_whole(Thread& t, const Instruction& i) { start_copy(t, i, t.get<uint32_t>(i.at[2])); }
void copy_part(Thread& t, const Instruction& i) { start_copy(t, i, t.get<uint32_t>(i.at[3])); }
void commit_copies(Thread&, const Instruction&) { simt::copy_async_commit(); }
void wait_for_copies(Thread& t, const Instruction& i) { simt::copy_async_wait(t.get<int32_t>(i.at[0])); }

// ---- ldmatrix

template <int N, bool TRANSPOSE>
void load_matrix(Thread& t, const Instruction& i) {
  // Only the first 8 N lanes give addresses that are used.
  const void* row = nullptr;
  if (simt::this_thread->lane < 8 * N)
    row = locate<Space::shared>(
        t, i, t.get<uint64_t>(t.operand(i, N)) + static_cast<uint64_t>(int64_t{i.offset}), 16);
  uint32_t result[N];
  simt::ldmatrix<N, TRANSPOSE>(t.site(i), result, row);
  for (uint32_t n = 0; n < N; ++n) t.set(t.operand(i, n), result[n]);
}

}  // namespace

void add_memory(Table& table) {
  add_loads_and_stores<Space::global>(table);
  add_loads_and_stores<Space::shared>(table);
  add_loads_and_stores<Space::param>(table);
  add_loads_and_stores<Space::local>(table);
  add_loads_and_stores<Space::generic>(table);
  add_address_conversions<Space::global>(table);
  add_address_conversions<Space::shared>(table);
  add_address_conversions<Space::param>(table);
  add_address_conversions<Space::local>(table);
  add_atomics<Space::global>(table);
  add_atomics<Space::shared>(table);
  add_atomics<Space::generic>(table);
  for (const char* level : {"cta", "gl", "sys"}) table[std::string("membar.") + level] = {fence, 0};
  for (const char* order : {"sc", "acq_rel"})
    for (const char* scope : {"cta", "gpu", "sys"})
      table[std::string("fence.") + order + "." + scope] = {fence, 0};
  for (const char* cache : {"ca", "cg"}) {
    const std::string opcode = std::string("cp.async.") + cache + ".shared.global";
    table[opcode] = {copy_whole, 3};
    table[opcode + ".part"] = {copy_part, 4};
  }
  table["cp.async.commit_group"] = {commit_copies, 0};
  table["cp.async.wait_group"] = {wait_for_copies, 1};
  const std::string matrices = "ldmatrix.sync.aligned.m8n8.";
  table[matrices + "x1.shared.b16"] = {load_matrix<1, false>, 2};
  table[matrices + "x2.shared.b16"] = {load_matrix<2, false>, 3};
  table[matrices + "x4.shared.b16"] = {load_matrix<4, false>, 5};
  table[matrices + "x1.trans.shared.b16"] = {load_matrix<1, true>, 2};
  table[matrices + "x2.trans.shared.b16"] = {load_matrix<2, true>, 3};
  table[matrices + "x4.trans.shared.b16"] = {load_matrix<4, true>, 5};
}

}  // namespace topolm::ptx
