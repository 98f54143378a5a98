#include "tools/analysis/profiles.h"

#include <cmath>
#include <map>

#include "engine/error.h"
#include "tools/analysis/readout.h"

namespace topolm {

namespace {

void check_units(const Responses& responses, int64_t site, std::span<const int32_t> units) {
  for (const int32_t unit : units)
    require(unit >= 0 && unit < responses.units, "there is no unit {} in {}; responses are of {}", unit,
            site_name(static_cast<int>(site)), responses.units);
}

void check_texts(const Responses& responses, const StimulusSet& set) {
  require(responses.texts == std::ssize(set.items),
          "there are responses to {} texts, but the stimuli '{}' are {}; record these stimuli",
          responses.texts, set.name, set.items.size());
}

std::vector<Profile> summarise(const std::map<std::string, std::vector<double>>& values) {
  std::vector<Profile> profiles;
  for (const auto& [condition, v] : values) profiles.push_back({condition, mean_interval(v), std::ssize(v)});
  return profiles;
}

/// The mean magnitude of a map, or of a site's responses, at some places.
template <class T>
double mean_magnitude(std::span<const T> x, std::span<const int32_t> places) {
  double sum = 0;
  for (const int32_t place : places) sum += std::abs(static_cast<double>(x[static_cast<size_t>(place)]));
  return sum / static_cast<double>(places.size());
}

}  // namespace

std::vector<Profile> network_profile(const Responses& responses, const StimulusSet& set,
                                     const std::vector<std::vector<int32_t>>& selected) {
  check_texts(responses, set);
  require(responses.sites == std::ssize(selected), "there are responses of {} sites, but units of {}",
          responses.sites, selected.size());
  for (int64_t site = 0; site < responses.sites; ++site)
    check_units(responses, site, selected[static_cast<size_t>(site)]);
  std::map<std::string, std::vector<double>> values;
  for (int64_t text = 0; text < responses.texts; ++text)
    for (int64_t site = 0; site < responses.sites; ++site) {
      const std::vector<int32_t>& units = selected[static_cast<size_t>(site)];
      if (!units.empty())
        values[set.items[static_cast<size_t>(text)].condition].push_back(
            mean_magnitude(responses.of(text, site), std::span(units)));
    }
  return summarise(values);
}

std::vector<Profile> cluster_profile(const Responses& responses, const StimulusSet& set, int site,
                                     const Sheet& sheet, std::span<const int32_t> units, double fwhm) {
  check_texts(responses, set);
  require(site >= 0 && site < responses.sites, "there is no site {}; responses are of {}, numbered from 0",
          site, responses.sites);
  require(responses.units == std::ssize(sheet.positions()), "responses of {} units are not of a {}x{} sheet",
          responses.units, sheet.rows(), sheet.cols());
  require(!units.empty(), "a cluster without units has no profile");
  check_units(responses, site, units);
  const Readout readout(sheet, fwhm);
  std::vector<int32_t> cells;
  for (const int32_t unit : units) {
    const Position p = sheet.positions()[static_cast<size_t>(unit)];
    cells.push_back(p.row * sheet.cols() + p.col);
  }
  std::map<std::string, std::vector<double>> values;
  std::vector<double> map(static_cast<size_t>(readout.cells()));
  for (int64_t text = 0; text < responses.texts; ++text) {
    readout.sample(map, responses.of(text, site));
    values[set.items[static_cast<size_t>(text)].condition].push_back(
        mean_magnitude(std::span<const double>(map), std::span<const int32_t>(cells)));
  }
  return summarise(values);
}

}  // namespace topolm
