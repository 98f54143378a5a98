#include "kernels/cuda/plan_cache.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "engine/error.h"

namespace topolm {

using nlohmann::json;

namespace {

json to_json(const std::string& product, const MatrixPlan& plan) {
  std::string hex;
  for (const uint64_t word : plan.algorithm) hex += fmt::format("{:016x}", word);
  return {{"product", product}, {"algorithm", hex},        {"id", plan.id},
          {"tile", plan.tile},  {"split_k", plan.split_k}, {"milliseconds", plan.milliseconds}};
}

MatrixPlan from_json(const json& j) {
  MatrixPlan plan;
  const std::string& hex = j.at("algorithm").get_ref<const std::string&>();
  require(hex.size() == 16 * plan.algorithm.size(), "an algorithm of {} digits", hex.size());
  for (size_t i = 0; i < plan.algorithm.size(); ++i) {
    const char *const begin = hex.data() + 16 * i, *const end = begin + 16;
    const auto [stopped, error] = std::from_chars(begin, end, plan.algorithm[i], 16);
    require(stopped == end && error == std::errc(), "an algorithm that is not hexadecimal");
  }
  j.at("id").get_to(plan.id);
  j.at("tile").get_to(plan.tile);
  j.at("split_k").get_to(plan.split_k);
  j.at("milliseconds").get_to(plan.milliseconds);
  return plan;
}

/// For a file's name: letters, digits and dots stay.
std::string plain(std::string name) {
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return !std::isalnum(c) && c != '.'; }, '_');
  return name;
}

}  // namespace

std::string MatrixProduct::str() const {
  return fmt::format("{}x{}x{} {}{} {} to {}{}, aligned to {}", m, n, k, transpose_a ? 'T' : 'N',
                     transpose_b ? 'T' : 'N', name_of(operands), name_of(result), accumulate ? ", added" : "",
                     alignment);
}

std::string plans_to_json(const std::string& gpu, const std::string& library, const MatrixPlans& plans) {
  json list = json::array();
  for (const auto& [product, plan] : plans) list.push_back(to_json(product, plan));
  return json{{"gpu", gpu}, {"library", library}, {"plans", list}}.dump(1) + "\n";
}

fs::path PlanCache::directory() {
  // As the XDG specification says: a path that is not absolute does not count.
  if (const char* xdg = std::getenv("XDG_CACHE_HOME"); xdg && *xdg == '/') return fs::path(xdg) / "topolm";
  if (const char* home = std::getenv("HOME"); home && *home == '/')
    return fs::path(home) / ".cache" / "topolm";
  return {};
}

PlanCache::PlanCache(const fs::path& directory, std::string gpu, std::string library)
    : gpu_(std::move(gpu)), library_(std::move(library)) {
  if (directory.empty()) return;
  path_ = directory / (plain(gpu_) + "-" + plain(library_) + ".json");
  read();
}

/// Plans of the file that are not known yet. A file that is damaged or another's is as good as none.
void PlanCache::read() {
  std::error_code none;
  if (!fs::exists(path_, none)) return;
  try {
    const json file = json::parse(read_file(path_));
    require(file.at("gpu") == gpu_ && file.at("library") == library_, "it is of another GPU or library");
    MatrixPlans plans;
    for (const json& j : file.at("plans")) plans.emplace(j.at("product").get<std::string>(), from_json(j));
    plans_.merge(plans);
  } catch (const std::exception& e) {
    note_ = fmt::format("'{}' is ignored: {}", path_.string(), e.what());
  }
}

std::optional<MatrixPlan> PlanCache::find(const MatrixProduct& product) const {
  const auto found = plans_.find(product.str());
  if (found == plans_.end()) return std::nullopt;
  return found->second;
}

void PlanCache::remember(const MatrixProduct& product, const MatrixPlan& plan) {
  plans_[product.str()] = plan;
  if (path_.empty()) return;
  read();
  try {
    make_directories(path_.parent_path());
    write_file(path_, plans_to_json(gpu_, library_, plans_));
  } catch (const Error& e) {
    note_ = e.what();  // what cannot be remembered is timed again
  }
}

}  // namespace topolm
