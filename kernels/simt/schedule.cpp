#include "kernels/simt/schedule.h"

#include <charconv>
#include <cstdlib>

#include "engine/error.h"

namespace topolm::simt {

Settings parse_settings(const std::string& text) {
  constexpr std::array kNames{"forward", "reverse", "random", "priority"};
  const size_t colon = text.find(':');
  const auto* const name = std::find(kNames.begin(), kNames.end(), text.substr(0, colon));
  Settings settings;
  bool good = name != kNames.end();
  settings.order = static_cast<Order>(name - kNames.begin());
  if (colon != std::string::npos) {
    const char *const begin = text.data() + colon + 1, *const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(begin, end, settings.seed);
    good = good && error == std::errc() && stop == end;
  }
  require(good,
          "simt: '{}' is no schedule; use forward, reverse, random or priority, and a seed if you like: "
          "TOPOLM_SIMT=priority:7",
          text);
  return settings;
}

Settings settings_from_environment() {
  const char* const text = std::getenv("TOPOLM_SIMT");
  return text ? parse_settings(text) : Settings{};
}

}  // namespace topolm::simt
