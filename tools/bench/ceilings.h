// ./bench: what the machine can do, measured in the same run as what is made of it.
#pragma once

#include <map>

#include "kernels/ceiling.h"
#include "tools/bench/measure.h"

namespace topolm::bench {

struct Ceilings {
  int threads;
  std::map<std::string, double> multiply_add;  // FLOP/s by dtype: no product is faster
  std::map<std::string, double> product;       // of our own product of 768 x 768 matrices
  MemorySpeed memory;
  std::vector<CacheSpeed> caches;
};

Ceilings measure_ceilings(const Options& o, int threads);
void print_ceilings(const Options& o, const std::vector<Ceilings>& all);
nlohmann::json to_json(const Ceilings& c);

}  // namespace topolm::bench
