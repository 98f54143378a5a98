// The check itself: what it must find in PTX that was tampered with.
#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "engine/error.h"
#include "engine/random.h"
#include "tests/errors.h"
#include "tests/ptx/check.h"
#include "tests/ptx/wrappers.h"

using namespace topolm;
using namespace topolm::ptx;

namespace {

/// The file of the kernel whose symbol contains `name`.
std::string file_of(const Architecture& architecture, const std::string& name) {
  for (const auto& [symbol, kernel] : architecture.kernels)
    if (contains(symbol, name)) return kernel->file;
  FAIL("there is no kernel " << name);
  return "";
}

std::string read(const std::string& file) {
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  return text.str();
}

/// One architecture whose only module is `text`.
std::vector<Architecture> edited(const std::string& file, const std::string& text) {
  std::vector<Architecture> one(1);
  one[0].name = "edited";
  add_module(one[0], file, text);
  return one;
}

/// What the check tells of the kernel that uses all wrappers.
std::vector<std::string> differences_of_wrappers(std::vector<Architecture>& tested) {
  std::vector<std::string> differences;
  PtxDevice device(1, tested, [&](const std::string& what) { differences.push_back(what); });
  auto* const out = static_cast<uint32_t*>(device.allocate(4 * 32 * simt_kernels::kWrapperOutputs, "out"));
  auto* const in = static_cast<uint32_t*>(device.allocate(4 * 512, "in"));
  Random random(7, Random::Purpose::tests, 1);
  for (int i = 0; i < 512; ++i) {
    const auto half = [&] { return std::bit_cast<uint32_t>(static_cast<float>(random.normal())) >> 16; };
    const uint32_t low = half();
    in[i] = half() << 16 | low;
  }
  simt_kernels::launch_wrappers(device, out, in);
  device.release(out);
  device.release(in);
  return differences;
}

/// Exchanges the first two elements of the n-th list of the first statement that holds `opcode`.
std::string with_swapped_registers(std::string text, const std::string& opcode, int n) {
  size_t open = text.find(opcode);
  REQUIRE(open != std::string::npos);
  for (int list = 0; list <= n; ++list) open = text.find('{', open + 1);
  const size_t comma = text.find(',', open), end = text.find_first_of(",}", comma + 1);
  const std::string first = text.substr(open + 1, comma - open - 1),
                    second = text.substr(comma + 1, end - comma - 1);
  return text.replace(open + 1, end - open - 1, second + "," + first);
}

}  // namespace

TEST_CASE("ptx check: every wrapper of inline PTX does what its twin does") {
  for (const std::string& difference : differences_of_wrappers(architectures())) FAIL_CHECK(difference);
}

TEST_CASE("ptx check: registers given to a tensor core in the wrong order are seen") {
  for (const auto& architecture : architectures()) {
    const std::string file = file_of(architecture, "wrappers_kernel"), text = read(file);
    CAPTURE(file);
    struct Edit {
      const char* opcode;
      int list;
    };
    for (const Edit& edit :
         {Edit{"mma.sync.aligned.m16n8k16", 1}, Edit{"mma.sync.aligned.m16n8k16", 2},
          Edit{"mma.sync.aligned.m16n8k8", 1}, Edit{"ldmatrix.sync.aligned.m8n8.x4.shared", 0},
          Edit{"ldmatrix.sync.aligned.m8n8.x2.trans", 0}}) {
      CAPTURE(edit.opcode);
      std::vector<Architecture> tested = edited(file, with_swapped_registers(text, edit.opcode, edit.list));
      const auto differences = differences_of_wrappers(tested);
      REQUIRE(differences.size() == 1);
      CHECK(contains(differences[0], "wrappers_kernel on edited"));
      CHECK(contains(differences[0], "of out"));
    }
  }
}

TEST_CASE("ptx check: an access behind the end is reported with its line") {
  for (const auto& architecture : architectures()) {
    const std::string file = file_of(architecture, "wrappers_kernel");
    CAPTURE(file);
    for (const std::string access : {"ld.global", "st.global"}) {
      CAPTURE(access);
      // Its address, "[%rd5]" or "[%rd5+4]", moves by far.
      std::string text = read(file);
      const size_t at = text.find(access), bracket = text.find(']', at);
      REQUIRE(bracket != std::string::npos);
      const bool has_offset = text.substr(at, bracket - at).find('+') != std::string::npos;
      text.insert(bracket, has_offset ? "00000" : "+400000");
      const auto line = std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(at), '\n') + 1;
      std::vector<Architecture> tested = edited(file, text);
      const std::string error = error_of([&] { differences_of_wrappers(tested); });
      CAPTURE(error);
      CHECK(contains(error, "wrappers_kernel, block (0, 0, 0)"));
      CHECK(contains(error, fmt::format("{}:{}: 4 bytes at global address", file, line)));
      CHECK(contains(error, "outside of every allocation: '" + access));
    }
  }
}
