#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <set>

#include "engine/arena.h"
#include "engine/error.h"
#include "engine/file.h"
#include "engine/interrupt.h"
#include "engine/progress.h"
#include "engine/random.h"
#include "engine/sha256.h"
#include "engine/tensor.h"
#include "tests/temporary.h"

using namespace topolm;

namespace {

/// Plain memory; the engine's tests do without a kernel's device.
class TestDevice : public Device {
 public:
  std::string name() const override { return "test"; }
  std::string description() const override { return "test"; }
  void* allocate(size_t bytes, const std::string&) override {
    void* p = std::aligned_alloc(256, bytes);
    return std::memset(p, 0, bytes);
  }
  void release(void* memory) noexcept override { std::free(memory); }
  void upload(const Tensor& to, const void* from) override {
    std::memcpy(to.data, from, static_cast<size_t>(to.bytes()));
  }
  void download(void* to, const Tensor& from) override {
    std::memcpy(to, from.data, static_cast<size_t>(from.bytes()));
  }
  void synchronize() override {}
};

std::string sha256_of(std::string_view text) { return sha256(std::as_bytes(std::span(text))); }

}  // namespace

TEST_CASE("device: one that does not record issues the operations every time") {
  TestDevice device;
  std::unique_ptr<Recording> recording;
  int issued = 0;
  for (const int64_t key : {1, 1, 2}) device.replay(recording, {key}, [&] { ++issued; });
  CHECK(issued == 3);
  CHECK(recording == nullptr);
}

TEST_CASE("random: philox4x32-10 gives the answers of Random123's kat_vectors") {
  using Block = std::array<uint32_t, 4>;
  CHECK(philox4x32({0, 0, 0, 0}, {0, 0}) == Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  constexpr uint32_t kOnes = 0xffffffff;
  CHECK(philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}) ==
        Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("random: streams repeat themselves and differ from each other") {
  const auto first = [](uint64_t seed, Random::Purpose purpose, uint32_t a, uint32_t b) {
    Random random(seed, purpose, a, b);
    return uint64_t{random.bits()} << 32 | random.bits();
  };
  std::set<uint64_t> seen;
  for (const uint64_t seed : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 32})
    for (const auto purpose : {Random::Purpose::weights, Random::Purpose::batches})
      for (uint32_t a = 0; a < 3; ++a)
        for (uint32_t b = 0; b < 3; ++b) {
          seen.insert(first(seed, purpose, a, b));
          CHECK(first(seed, purpose, a, b) == first(seed, purpose, a, b));
        }
  CHECK(seen.size() == 3 * 2 * 3 * 3);
}

TEST_CASE("random: draw gives distinct values, each as likely in each place") {
  Random random(1, Random::Purpose::tests);
  int counts[5][10] = {};
  for (int trial = 0; trial < 10000; ++trial) {
    const std::vector<int32_t> drawn = random.draw(5, 10);
    CHECK(std::set(drawn.begin(), drawn.end()).size() == 5);
    for (size_t i = 0; i < 5; ++i) ++counts[i][drawn.at(i)];
  }
  for (const auto& place : counts)
    for (const int count : place) CHECK(std::abs(count - 1000) < 150);  // 5 standard deviations
  const std::vector<int32_t> all = random.permutation(100);
  CHECK(std::set(all.begin(), all.end()).size() == 100);
  CHECK(random.draw(0, 0).empty());
  CHECK_THROWS_AS(random.draw(4, 3), Error);
  CHECK_THROWS_AS(random.below(0), Error);
}

TEST_CASE("random: uniform and normal have their mean and variance") {
  Random random(2, Random::Purpose::tests);
  constexpr int kN = 100000;
  double mean = 0, square = 0, normal_mean = 0, normal_square = 0, fourth = 0;
  for (int i = 0; i < kN; ++i) {
    const double u = random.uniform(), z = random.normal();
    CHECK((u >= 0 && u < 1));
    mean += u / kN, square += u * u / kN;
    normal_mean += z / kN, normal_square += z * z / kN, fourth += z * z * z * z / kN;
  }
  CHECK(std::abs(mean - 0.5) < 0.005);
  CHECK(std::abs(square - 1.0 / 3) < 0.005);
  CHECK(std::abs(normal_mean) < 0.016);
  CHECK(std::abs(normal_square - 1) < 0.023);
  CHECK(std::abs(fourth - 3) < 0.16);
}

TEST_CASE("sha256: the examples of FIPS 180-4") {
  CHECK(sha256_of("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256_of("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST_CASE("output file: nothing appears before commit, nothing stays without") {
  const TemporaryDirectory directory;
  const fs::path path = directory / "model";
  {
    OutputFile file(path);
    file.write("new");
    CHECK_FALSE(fs::exists(path));
    file.commit();
    CHECK(read_file(path) == "new");
  }
  {
    OutputFile file(path);
    file.write("never");
  }
  CHECK(read_file(path) == "new");
  CHECK(std::distance(fs::directory_iterator(directory.path()), {}) == 1);  // no temporary is left
  CHECK_THROWS_AS(OutputFile(directory / "missing" / "model"), Error);
  CHECK_THROWS_AS(make_directories(path / "below"), Error);
}

TEST_CASE("output file: a full disk is an Error and the old version survives") {
  CHECK_THROWS_WITH_AS(write_file("/dev/full", "x"), doctest::Contains("No space left on device"), Error);
  // A whole file system cannot be filled in a test; a file size limit fails the same write.
  const TemporaryDirectory directory;
  const fs::path path = directory / "model";
  write_file(path, "old");
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1000, 1000};
    setrlimit(RLIMIT_FSIZE, &limit);
    try {
      write_file(path, std::string(5000, 'x'));
      _exit(0);
    } catch (const Error&) {
      _exit(3);
    }
  }
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(WEXITSTATUS(status) == 3);
  CHECK(read_file(path) == "old");
  CHECK(std::distance(fs::directory_iterator(directory.path()), {}) == 1);
}

TEST_CASE("mapped file: empty files, directories and missing files") {
  const TemporaryDirectory directory;
  write_file(directory / "empty", "");
  CHECK(MappedFile(directory / "empty").bytes().empty());
  CHECK_THROWS_AS(MappedFile(directory.path()), Error);
  CHECK_THROWS_AS(MappedFile(directory / "missing"), Error);
}

TEST_CASE("arena: tensors are aligned, zeroed and apart; all() covers them") {
  TestDevice device;
  Tensor a, b, c;
  Arena arena(device, "test");
  arena.add(a, "a", DType::f32, {7});
  arena.add(b, "b", DType::bf16, {3, 5});
  arena.add(c, "c", DType::i32, {100});
  CHECK_FALSE(static_cast<bool>(a));
  arena.commit();
  for (const Tensor* t : {&a, &b, &c}) CHECK(reinterpret_cast<uintptr_t>(t->data) % 64 == 0);
  const auto end = [](const Tensor& t) { return static_cast<char*>(t.data) + t.bytes(); };
  CHECK(end(a) <= b.data);
  CHECK(end(b) <= c.data);
  CHECK(arena.all().data == a.data);
  CHECK(end(arena.all()) >= end(c));
  for (int64_t i = 0; i < arena.all().elements(); ++i) CHECK(arena.all().f32()[i] == 0);
  CHECK_THROWS_AS(arena.add(a, "late", DType::f32, {1}), Error);
  CHECK_THROWS_AS(arena.commit(), Error);
}

TEST_CASE("arena: tensors share memory unless they are needed at one moment") {
  TestDevice device;
  Random random(5, Random::Purpose::tests);
  const auto below = [&](int n) { return static_cast<int>(random.below(static_cast<uint32_t>(n))); };
  const auto meet = [](const std::vector<Moments>& a, const std::vector<Moments>& b) {
    for (int t = 0; t < 12; ++t) {
      const auto at = [t](const Moments& m) { return m.first <= t && t <= m.last; };
      const auto needed = [&](const auto& m) { return m.empty() || std::any_of(m.begin(), m.end(), at); };
      if (needed(a) && needed(b)) return true;
    }
    return false;
  };
  int shared = 0;
  for (int round = 0; round < 50; ++round) {
    CAPTURE(round);
    std::vector<Tensor> tensors(1 + static_cast<size_t>(below(30)));
    std::vector<std::vector<Moments>> needed(tensors.size());
    Arena arena(device, "test");
    for (size_t i = 0; i < tensors.size(); ++i) {
      for (int windows = below(3); windows > 0; --windows) {
        const int first = below(12);
        needed[i].push_back({first, first + below(12 - first)});
      }
      arena.add(tensors[i], std::to_string(i % 4), DType::f32, {1 + below(1000)}, needed[i]);
    }
    arena.commit();
    const auto begin = [&](size_t i) { return static_cast<char*>(tensors[i].data); };
    for (size_t i = 0; i < tensors.size(); ++i) {
      CHECK(begin(i) >= static_cast<char*>(arena.all().data));
      CHECK(begin(i) + tensors[i].bytes() <= static_cast<char*>(arena.all().data) + arena.bytes());
      for (size_t j = 0; j < i; ++j) {
        const bool apart =
            begin(i) + tensors[i].bytes() <= begin(j) || begin(j) + tensors[j].bytes() <= begin(i);
        if (meet(needed[i], needed[j])) CHECK(apart);
        shared += !apart;
      }
    }
    int64_t most = 0, sum = 0;
    for (int t = 0; t < 12; ++t) {
      int64_t bytes = 0;
      for (size_t i = 0; i < tensors.size(); ++i)
        if (meet(needed[i], {{t, t}})) bytes += tensors[i].bytes();
      most = std::max(most, bytes);
    }
    for (const MemoryUse& use : arena.usage()) {
      sum += use.bytes;
      if (use.name == "between them") most += use.bytes;
    }
    CHECK(sum == arena.bytes());
    CHECK(most == arena.bytes());
  }
  CHECK(shared > 100);

  // Two halves of a step, one after the other, on the memory of the larger.
  Tensor a, b, c;
  Arena arena(device, "test");
  arena.add(a, "a", DType::f32, {64}, {{0, 1}, {4, 5}});
  arena.add(b, "b", DType::f32, {128}, {{2, 3}});
  arena.add(c, "c", DType::f32, {64});
  CHECK_THROWS_AS(arena.add(a, "backwards", DType::f32, {1}, {{3, 2}}), Error);
  arena.commit();
  CHECK(arena.bytes() == (64 + 128) * 4);
  CHECK(a.data == b.data);
}

TEST_CASE("shape and tensor: what is wrong is said") {
  CHECK(Shape{8, 256, 196}.str() == "[8, 256, 196]");
  CHECK(Shape{}.elements() == 1);
  CHECK(Shape{1 << 20, 1 << 20}.elements() == int64_t{1} << 40);
  CHECK(Shape{2, 3} != Shape{3, 2});
  CHECK_THROWS_AS((Shape{1, 2, 3, 4, 5}), Error);
  CHECK_THROWS_AS((Shape{-1}), Error);

  float values[6] = {};
  const Tensor t{values, DType::f32, {2, 3}};
  CHECK(t.view({6}).elements() == 6);
  CHECK(t.row_range(1, 1).data == values + 3);
  CHECK_THROWS_AS(t.view({7}), Error);
  CHECK_THROWS_AS(t.row_range(1, 2), Error);
  CHECK_THROWS_WITH_AS(t.i32(), "a fp32 tensor of shape [2, 3] was used as int32", Error);
  CHECK_THROWS_WITH_AS(check_shape("layernorm_forward", "weight", t, {36}),
                       "layernorm_forward: weight is [2, 3], not [36]", Error);
  CHECK(div_exact(12, 4) == 3);
  CHECK_THROWS_AS(div_exact(12, 5), Error);
  CHECK_THROWS_AS(div_exact(12, 0), Error);
}

TEST_CASE("interrupt: the first signal sets a flag, one 0.2 s later exits with 130") {
  for (const int number : {SIGINT, SIGTERM}) {
    const InterruptGuard guard;
    CHECK_FALSE(interrupted());
    raise(number);
    CHECK(interrupted());
    raise(number);  // the same request once more, as timeout(1) sends it
  }
  CHECK_FALSE(interrupted());

  const pid_t child = fork();
  if (child == 0) {
    const InterruptGuard guard;
    raise(SIGINT);
    usleep(250'000);
    raise(SIGINT);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 130);
}

TEST_CASE("progress: plain lines without control characters where there is no terminal") {
  const TemporaryDirectory directory;
  const fs::path path = directory / "log";
  std::FILE* file = std::fopen(path.c_str(), "w");
  {
    ProgressLine progress(file);
    CHECK_FALSE(progress.on_terminal());
    progress.update("step 1");
    progress.update("step 2");  // too soon after the first
    progress.print("saved");
    progress.update("step 3");
  }
  std::fclose(file);
  CHECK(read_file(path) == "step 1\nsaved\nstep 3\n");
}

TEST_CASE("progress: one live line on a terminal, cut to its width") {
  setenv("TERM", "xterm", 1);
  int leader = -1, follower = -1;
  const winsize size{24, 11, 0, 0};
  REQUIRE(openpty(&leader, &follower, nullptr, nullptr, &size) == 0);
  std::FILE* file = fdopen(follower, "w");
  {
    ProgressLine progress(file);
    CHECK(progress.on_terminal());
    progress.update("äöü 漢字 and more\n");  // 3 + 1 + 2 * 2 + 1 + 1 columns of the 10
    progress.print("a line that is as long as it likes");
    progress.update("last");
  }
  std::string seen;
  char buffer[4096];
  for (pollfd ready{leader, POLLIN, 0}; poll(&ready, 1, 100) > 0 && (ready.revents & POLLIN);)
    seen.append(buffer, static_cast<size_t>(std::max<ssize_t>(0, read(leader, buffer, sizeof buffer))));
  std::fclose(file);
  close(leader);
  CHECK(seen ==
        "\räöü 漢字 a\033[K"
        "\ra line that is as long as it likes\033[K\r\n"
        "\räöü 漢字 a\033[K"
        "\rlast\033[K\r\n");
}

TEST_CASE("progress: numbers for people") {
  CHECK(human_duration(0) == "0.0 s");
  CHECK(human_duration(3.44) == "3.4 s");
  CHECK(human_duration(9.96) == "10 s");
  CHECK(human_duration(42) == "42 s");
  CHECK(human_duration(59.7) == "1 min 00 s");
  CHECK(human_duration(187) == "3 min 07 s");
  CHECK(human_duration(3599.6) == "1 h 00 min");
  CHECK(human_duration(7500) == "2 h 05 min");
  CHECK(human_duration(274000) == "3 d 04 h");
  CHECK(human_duration(-1) == "?");
  CHECK(human_duration(std::numeric_limits<double>::infinity()) == "?");
  CHECK(human_duration(std::nan("")) == "?");

  CHECK(human_count(0) == "0");
  CHECK(human_count(999) == "999");
  CHECK(human_count(1000) == "1.00 k");
  CHECK(human_count(4048) == "4.05 k");
  CHECK(human_count(9999) == "10.0 k");
  CHECK(human_count(1.96e6) == "1.96 M");
  CHECK(human_count(123.4e9) == "123 G");
  CHECK(human_count(999.7e3) == "1.00 M");
  CHECK(human_count(-4048) == "-4.05 k");
  CHECK(human_count(std::nan("")) == "?");

  CHECK(human_bytes(512) == "512 B");
  CHECK(human_bytes(1536) == "1.50 KiB");
  CHECK(human_bytes(3.82 * (1 << 30)) == "3.82 GiB");
}
