// The algorithms that were fastest for matrix products, remembered on disk for each GPU model and version of
// the library: the next run need not time them again, and gets the same bits.
#pragma once

#include <array>
#include <compare>
#include <map>
#include <optional>
#include <string>

#include "engine/file.h"
#include "engine/tensor.h"

namespace topolm {

/// A product as BLAS sees it: column-major c [m,n] = a b, or += a b; a [m,k] and b [k,n] after transposition.
struct MatrixProduct {
  int64_t m, n, k;
  bool transpose_a, transpose_b;
  DType operands, result;
  bool accumulate;
  int64_t alignment;  // bytes that divide all three addresses, at most 256

  /// "784x2352x49152 NT bf16 to fp32, added, aligned to 256": distinct for distinct products.
  std::string str() const;
  auto operator<=>(const MatrixProduct&) const = default;
};

/// An algorithm of the library: as it serializes itself, and what people may want to know of it.
struct MatrixPlan {
  std::array<uint64_t, 8> algorithm{};
  int64_t id = 0, tile = 0, split_k = 1;
  double milliseconds = 0;  // when it was chosen; 0 where it could not be timed
  bool operator==(const MatrixPlan&) const = default;
};

using MatrixPlans = std::map<std::string, MatrixPlan>;  // by MatrixProduct::str()

/// As in a cache file: {"gpu", "library", "plans": [{"product", "algorithm", ...}]}.
std::string plans_to_json(const std::string& gpu, const std::string& library, const MatrixPlans& plans);

class PlanCache {
 public:
  /// Reads what is remembered for this GPU and library from `directory`; an empty path remembers nothing.
  PlanCache(const fs::path& directory, std::string gpu, std::string library);

  /// $XDG_CACHE_HOME/topolm, else $HOME/.cache/topolm, else nothing.
  static fs::path directory();

  std::optional<MatrixPlan> find(const MatrixProduct& product) const;
  /// Keeps a plan and writes the file, together with what others have written there meanwhile.
  void remember(const MatrixProduct& product, const MatrixPlan& plan);

  const fs::path& path() const { return path_; }
  /// Why a file was ignored or could not be written, in a sentence; empty if all is well.
  const std::string& note() const { return note_; }

 private:
  void read();

  std::string gpu_, library_;
  fs::path path_;
  MatrixPlans plans_;
  std::string note_;
};

}  // namespace topolm
