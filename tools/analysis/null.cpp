#include "tools/analysis/null.h"

#include <algorithm>
#include <cmath>

#include "engine/error.h"
#include "engine/random.h"

namespace topolm {

namespace {

double quantile(const std::vector<double>& sorted, double q) {
  const double place = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const double above = sorted[std::min(below + 1, sorted.size() - 1)];
  return std::lerp(sorted[below], above, place - static_cast<double>(below));
}

Sheet shuffled(const Sheet& sheet, Random random) {
  std::vector<Position> positions;
  for (const int32_t unit : random.permutation(static_cast<int32_t>(sheet.positions().size())))
    positions.push_back(sheet.positions()[static_cast<size_t>(unit)]);
  return {"a shuffled sheet", sheet.rows(), sheet.cols(), std::move(positions)};
}

}  // namespace

MoranNull kernel_matched_null(std::span<const Sheet> sheets, std::span<const ContrastResponses> sites,
                              double fwhm, int draws, uint64_t seed, const MoranOptions& options,
                              ThreadPool* pool) {
  require(draws >= 1, "a null needs at least one draw, not {}", draws);
  require(!sites.empty() && sheets.size() == sites.size(),
          "a null needs the responses of each site; there are {} for {} sheets", sites.size(), sheets.size());
  const auto count = static_cast<size_t>(draws);
  std::vector<double> each(sites.size() * count);
  const auto draw = [&](int64_t task, int) {
    const size_t site = static_cast<size_t>(task) / count, k = static_cast<size_t>(task) % count;
    const Sheet& sheet = sheets[site];
    const Random random(seed, Random::Purpose::places, static_cast<uint32_t>(k), static_cast<uint32_t>(site));
    const Readout readout(shuffled(sheet, random), fwhm);
    each[site * count + k] = morans_i(sites[site].t_map(readout), sheet.rows(), sheet.cols(), options);
  };
  if (pool)
    pool->parallel_for(std::ssize(each), draw);
  else
    for (int64_t task = 0; task < std::ssize(each); ++task) draw(task, 0);

  MoranNull null;
  null.draws.resize(count);
  for (size_t i = 0; i < each.size(); ++i)
    null.draws[i % count] += each[i] / static_cast<double>(sites.size());
  const Sample sample = describe(null.draws);
  null.mean = sample.mean;
  null.sd = std::sqrt(sample.variance);
  std::vector<double> sorted = null.draws;
  std::sort(sorted.begin(), sorted.end());
  null.low = quantile(sorted, 0.025);
  null.high = quantile(sorted, 0.975);
  return null;
}

}  // namespace topolm
