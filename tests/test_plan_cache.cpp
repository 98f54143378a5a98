// The algorithms remembered for matrix products: what tells two products apart, and what a file may do wrong.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "kernels/cuda/plan_cache.h"
#include "tests/temporary.h"

using namespace topolm;

namespace {

const MatrixProduct kProduct{2352, 49152, 784, true, false, DType::bf16, DType::bf16, false, 256};

MatrixPlan some_plan(uint64_t first = 7) {
  return {{first, ~uint64_t{0}, 0, 1, 2, 3, 4, 0x123456789abcdef0}, 66, 20, 4, 0.1234567};
}

/// An environment variable for the time of a test.
class Environment {
 public:
  Environment(const char* name, const char* value) : name_(name) {
    if (const char* before = std::getenv(name)) before_ = before;
    value ? setenv(name, value, 1) : unsetenv(name);
  }
  ~Environment() { before_ ? setenv(name_, before_->c_str(), 1) : unsetenv(name_); }

 private:
  const char* name_;
  std::optional<std::string> before_;
};

}  // namespace

TEST_CASE("plan cache: products that differ in anything have plans of their own") {
  std::set<std::string> names = {kProduct.str()};
  const auto differs = [&](auto change) {
    MatrixProduct other = kProduct;
    change(other);
    CHECK(names.insert(other.str()).second);
    CHECK(other != kProduct);
  };
  differs([](MatrixProduct& p) { p.m = 784; });
  differs([](MatrixProduct& p) { p.n = 1; });
  differs([](MatrixProduct& p) { p.k = 785; });
  differs([](MatrixProduct& p) { p.transpose_a = false; });
  differs([](MatrixProduct& p) { p.transpose_b = true; });
  differs([](MatrixProduct& p) { p.operands = DType::f32; });
  differs([](MatrixProduct& p) { p.result = DType::f32; });
  differs([](MatrixProduct& p) { p.accumulate = true; });
  differs([](MatrixProduct& p) { p.alignment = 16; });
}

TEST_CASE("plan cache: the next run finds what this one has chosen, and what others chose meanwhile") {
  const TemporaryDirectory directory;
  const fs::path place = directory / "not/yet/there";
  PlanCache first(place, "NVIDIA H100 80GB HBM3", "cublasLt 130100");
  CHECK_FALSE(first.find(kProduct));
  first.remember(kProduct, some_plan());
  CHECK(first.find(kProduct) == some_plan());
  CHECK(first.note() == "");
  CHECK(first.path() == place / "NVIDIA_H100_80GB_HBM3-cublasLt_130100.json");

  PlanCache second(place, "NVIDIA H100 80GB HBM3", "cublasLt 130100");
  CHECK(second.find(kProduct) == some_plan());
  MatrixProduct other = kProduct;
  other.accumulate = true;
  CHECK_FALSE(second.find(other));
  second.remember(other, some_plan(8));
  MatrixProduct third = kProduct;
  third.k = 1;
  first.remember(third, some_plan(9));  // has not seen the second's

  const PlanCache all(place, "NVIDIA H100 80GB HBM3", "cublasLt 130100");
  CHECK(all.find(kProduct) == some_plan());
  CHECK(all.find(other) == some_plan(8));
  CHECK(all.find(third) == some_plan(9));
  CHECK_FALSE(PlanCache(place, "NVIDIA A100", "cublasLt 130100").find(kProduct));
  CHECK_FALSE(PlanCache(place, "NVIDIA H100 80GB HBM3", "cublasLt 120802").find(kProduct));
  CHECK_FALSE(PlanCache({}, "NVIDIA H100 80GB HBM3", "cublasLt 130100").find(kProduct));
}

TEST_CASE("plan cache: a file that is damaged or another's is ignored, with a note, and then replaced") {
  const TemporaryDirectory directory;
  const auto open = [&] { return PlanCache(directory.path(), "gpu", "library"); };
  open().remember(kProduct, some_plan());
  const std::string whole = read_file(open().path());
  const auto ignored = [&](const std::string& contents, const std::string& why) {
    CAPTURE(contents);
    write_file(open().path(), contents);
    PlanCache cache = open();
    CHECK_FALSE(cache.find(kProduct));
    CHECK(contains(cache.note(), "gpu-library.json' is ignored: "));
    CHECK_MESSAGE(contains(cache.note(), why), cache.note());
    cache.remember(kProduct, some_plan(3));
    CHECK(open().find(kProduct) == some_plan(3));
  };
  const auto with = [&](auto change) {
    auto j = nlohmann::json::parse(whole);
    change(j);
    return j.dump();
  };
  ignored("", "parse error");
  ignored(whole.substr(0, whole.size() / 2), "parse error");
  ignored("[]", "");
  ignored("{}", "gpu");
  ignored(with([](auto& j) { j["gpu"] = "another"; }), "of another GPU");
  ignored(with([](auto& j) { j["library"] = 13; }), "of another GPU");
  ignored(with([](auto& j) { j["plans"][0]["algorithm"] = "123"; }), "3 digits");
  ignored(with([](auto& j) { j["plans"][0]["algorithm"] = std::string(128, 'x'); }), "hexadecimal");
  ignored(with([](auto& j) { j["plans"][0].erase("split_k"); }), "split_k");
  ignored(with([](auto& j) { j["plans"][0]["product"] = 1; }), "type must be string");
}

TEST_CASE("plan cache: where nothing can be written, plans are kept for this run") {
  const TemporaryDirectory directory;
  directory.write("file", "in the way");
  PlanCache cache(directory / "file", "gpu", "library");
  cache.remember(kProduct, some_plan());
  CHECK(cache.find(kProduct) == some_plan());
  CHECK(contains(cache.note(), "cannot create the directory"));
}

TEST_CASE("plan cache: it lies where XDG says, else in the home directory, else nowhere") {
  {
    const Environment xdg("XDG_CACHE_HOME", "/somewhere"), home("HOME", "/home/me");
    CHECK(PlanCache::directory() == "/somewhere/topolm");
  }
  for (const char* unusable : {"", "relative"}) {
    const Environment xdg("XDG_CACHE_HOME", unusable), home("HOME", "/home/me");
    CHECK(PlanCache::directory() == "/home/me/.cache/topolm");
  }
  const Environment xdg("XDG_CACHE_HOME", nullptr), home("HOME", nullptr);
  CHECK(PlanCache::directory().empty());
}
