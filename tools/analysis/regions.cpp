#include "tools/analysis/regions.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "engine/error.h"
#include "engine/random.h"

namespace topolm {

namespace {

struct Unit {
  size_t site;
  int32_t unit;
  auto operator<=>(const Unit&) const = default;
};

/// One region being read. The grammar: SITE ":" ("all" | FORM "(" NUMBER {"," NUMBER} ")") ["*" GAIN].
class RegionParser {
 public:
  RegionParser(const std::string& text, const std::vector<Sheet>& sheets,
               const std::optional<LocalizerMap>& localizer, float gain)
      : text_(text), rest_(text), sheets_(sheets), localizer_(localizer), gain_(gain) {}

  std::vector<Intervention> parse() {
    check(text_.find(':') != std::string::npos, "it needs a site, a colon and a form, as in h.0.mlp:all");
    read_site(until(":"));
    take(':');
    read_form(until("(*"));
    if (take('*')) read_gain(until(""));

    std::map<size_t, Intervention> sites;
    for (const Unit& u : units_) {
      Intervention& i =
          sites.try_emplace(u.site, Intervention{static_cast<int>(u.site), {}, gain_}).first->second;
      i.units.push_back(u.unit);
    }
    std::vector<Intervention> interventions;
    for (auto& entry : sites) interventions.push_back(std::move(entry.second));
    return interventions;
  }

 private:
  template <class... Args>
  void check(bool condition, fmt::format_string<Args...> format, Args&&... args) const {
    if (!condition) fail("region '{}': {}", text_, fmt::format(format, std::forward<Args>(args)...));
  }

  /// The text up to one of `stops`, or to the end, without the spaces around it.
  std::string_view until(std::string_view stops) {
    std::string_view word = rest_.substr(0, rest_.find_first_of(stops));
    rest_.remove_prefix(word.size());
    while (word.starts_with(' ')) word.remove_prefix(1);
    while (word.ends_with(' ')) word.remove_suffix(1);
    return word;
  }
  bool take(char c) {
    const bool there = rest_.starts_with(c);
    if (there) rest_.remove_prefix(1);
    return there;
  }

  template <class T>
  bool whole(std::string_view word, T& value) const {
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    return error == std::errc() && end == word.data() + word.size();
  }
  double number(std::string_view word) const {
    double value = 0;
    check(whole(word, value) && std::isfinite(value), "'{}' is not a number", word);
    return value;
  }
  uint64_t integer(std::string_view word) const {
    uint64_t value = 0;
    check(whole(word, value), "'{}' is not a whole number, 0 or more", word);
    return value;
  }

  void read_gain(std::string_view word) {
    check(whole(word, gain_) && std::isfinite(gain_), "its gain '{}' is not a number that fp32 holds", word);
  }

  void read_site(std::string_view name) {
    for (size_t site = 0; site < sheets_.size(); ++site)
      if (name == "all" || name == site_name(static_cast<int>(site))) sites_.push_back(site);
    check(!sites_.empty(), "there is no site {}: the model has {} to {}, or all", name, site_name(0),
          site_name(static_cast<int>(sheets_.size()) - 1));
  }

  void read_form(std::string_view form) {
    std::vector<std::string_view> arguments;
    if (take('(')) {
      do arguments.push_back(until(",)"));
      while (take(','));
      check(take(')'), "its bracket is not closed");
      const std::string_view more = until("*");
      check(more.empty(), "'{}' after the bracket is too much", more);
    }
    const auto takes = [&](std::string_view name, size_t count, const char* as) {
      if (form != name) return false;
      check(arguments.size() == count, "{} is written {}", name, as);
      return true;
    };
    if (takes("all", 0, "all, without brackets"))
      every_unit();
    else if (takes("disk", 3, "disk(ROW,COLUMN,RADIUS)"))
      disk(number(arguments[0]), number(arguments[1]), number(arguments[2]));
    else if (takes("cluster", 1, "cluster(NUMBER)"))
      cluster(integer(arguments[0]));
    else if (takes("top", 1, "top(COUNT)"))
      top(integer(arguments[0]));
    else if (takes("random", 2, "random(COUNT,SEED)"))
      random(integer(arguments[0]), integer(arguments[1]));
    else if (takes("units", std::max<size_t>(arguments.size(), 1), "units(NUMBER,NUMBER,...)"))
      numbers(arguments);
    else
      check(false, "there is no form '{}': choose disk, cluster, top, random, units or all", form);
  }

  const LocalizerMap& localizer(std::string_view form) const {
    check(localizer_.has_value(), "{} needs --atlas atlas.json, as ./atlas writes it", form);
    return *localizer_;
  }
  int32_t units_of(size_t site) const { return static_cast<int32_t>(sheets_[site].positions().size()); }
  std::vector<Unit> candidates() const {
    std::vector<Unit> all;
    for (const size_t site : sites_)
      for (int32_t unit = 0; unit < units_of(site); ++unit) all.push_back({site, unit});
    return all;
  }
  std::vector<Unit> enough(uint64_t count, std::vector<Unit> candidates, const char* what) const {
    check(count <= candidates.size(), "there are only {} {}", candidates.size(), what);
    return candidates;
  }

  void every_unit() { units_ = candidates(); }

  void disk(double row, double col, double radius) {
    check(radius >= 0, "its radius is negative");
    for (const Unit& u : candidates()) {
      const Position p = sheets_[u.site].positions()[static_cast<size_t>(u.unit)];
      if (std::hypot(p.row - row, p.col - col) <= radius) units_.push_back(u);
    }
    const Sheet& sheet = sheets_[sites_[0]];
    check(!units_.empty(), "the disk covers no unit; rows are 0 to {} and columns 0 to {}", sheet.rows() - 1,
          sheet.cols() - 1);
  }

  void cluster(uint64_t number) {
    const auto& clusters = localizer(fmt::format("cluster({})", number)).clusters;
    size_t most = 0;
    for (const size_t site : sites_) {
      most = std::max(most, clusters[site].size());
      if (number >= 1 && number <= clusters[site].size())
        for (const int32_t unit : clusters[site][number - 1]) units_.push_back({site, unit});
    }
    check(!units_.empty(), "there is no cluster {}: the atlas has {} there, numbered from 1", number, most);
  }

  void top(uint64_t count) {
    const auto& t = localizer(fmt::format("top({})", count)).t;
    units_ = enough(count, candidates(), "units there");
    // Units of equal t in order of their numbers, so that the same atlas gives the same units everywhere.
    std::stable_sort(units_.begin(), units_.end(), [&](const Unit& a, const Unit& b) {
      return t[a.site][static_cast<size_t>(a.unit)] > t[b.site][static_cast<size_t>(b.unit)];
    });
    units_.resize(count);
    std::sort(units_.begin(), units_.end());
  }

  void random(uint64_t count, uint64_t seed) {
    const LocalizerMap& map = localizer(fmt::format("random({},{})", count, seed));
    std::vector<Unit> outside = candidates();
    std::erase_if(outside, [&](const Unit& u) { return map.selective(u.site, u.unit); });
    outside = enough(count, std::move(outside), "units there outside of what the localizer found positive");
    // Each site has a stream of its own, and all together another.
    Random random(seed, Random::Purpose::regions,
                  static_cast<uint32_t>(sites_.size() == 1 ? sites_[0] : sheets_.size()));
    for (const int32_t i : random.draw(static_cast<int32_t>(count), static_cast<int32_t>(outside.size())))
      units_.push_back(outside[static_cast<size_t>(i)]);
    std::sort(units_.begin(), units_.end());
  }

  void numbers(const std::vector<std::string_view>& arguments) {
    for (const size_t site : sites_)
      for (const std::string_view argument : arguments) {
        const uint64_t unit = integer(argument);
        check(unit < static_cast<uint64_t>(units_of(site)), "there is no unit {}: {} has 0 to {}", unit,
              site_name(static_cast<int>(site)), units_of(site) - 1);
        const Unit u{site, static_cast<int32_t>(unit)};
        check(std::find(units_.begin(), units_.end(), u) == units_.end(), "it names unit {} twice", unit);
        units_.push_back(u);
      }
  }

  const std::string& text_;
  std::string_view rest_;  // what is not read yet
  const std::vector<Sheet>& sheets_;
  const std::optional<LocalizerMap>& localizer_;
  float gain_;
  std::vector<size_t> sites_;
  std::vector<Unit> units_;
};

/// The distinct units of each site that interventions act on.
std::map<int, std::set<int32_t>> distinct_units(std::span<const Intervention> interventions) {
  std::map<int, std::set<int32_t>> sites;
  for (const Intervention& i : interventions)
    if (!i.units.empty()) sites[i.site].insert(i.units.begin(), i.units.end());
  return sites;
}

}  // namespace

std::vector<Intervention> parse_region(const std::string& text, const std::vector<Sheet>& sheets,
                                       const std::optional<LocalizerMap>& localizer, float gain) {
  return RegionParser(text, sheets, localizer, gain).parse();
}

std::vector<Intervention> random_control(const std::vector<Intervention>& interventions,
                                         const std::vector<Sheet>& sheets, uint64_t seed) {
  std::map<int, std::map<int32_t, int32_t>> stand_ins;  // [site][unit]: the one drawn for it
  for (const auto& [site, units] : distinct_units(interventions)) {
    std::vector<int32_t> outside;
    for (int32_t unit = 0; unit < std::ssize(sheets[static_cast<size_t>(site)].positions()); ++unit)
      if (!units.contains(unit)) outside.push_back(unit);
    require(units.size() <= outside.size(),
            "a random control of {} needs {} units outside of the region, but it leaves only {}",
            site_name(site), units.size(), outside.size());
    Random random(seed, Random::Purpose::controls, static_cast<uint32_t>(site));
    auto unit = units.begin();
    for (const int32_t i :
         random.draw(static_cast<int32_t>(units.size()), static_cast<int32_t>(outside.size())))
      stand_ins[site][*unit++] = outside[static_cast<size_t>(i)];
  }
  std::vector<Intervention> control = interventions;
  for (Intervention& i : control)
    for (int32_t& unit : i.units) unit = stand_ins.at(i.site).at(unit);
  return control;
}

std::string describe(std::span<const Intervention> interventions, const std::vector<Sheet>& sheets) {
  size_t all = 0, hit = 0;
  for (const Sheet& sheet : sheets) all += sheet.positions().size();
  std::string sites;
  for (const auto& [site, units] : distinct_units(interventions)) {
    sites += fmt::format("{} {} {}", sites.empty() ? ":" : ",", site_name(site), units.size());
    hit += units.size();
  }
  return fmt::format("{} of {} units{}", hit, all, sites);
}

}  // namespace topolm
