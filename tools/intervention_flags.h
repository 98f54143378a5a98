// --lesion, --drive and what belongs to them, for every program that runs a model.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "engine/error.h"
#include "tools/analysis/regions.h"

namespace topolm {

struct InterventionFlags {
  std::vector<std::string> lesions, drives;
  std::string atlas, atlas_model;
  std::optional<uint64_t> control;

  void add_to(CLI::App& app) {
    // One text a flag: without that the prompt behind it would be another region.
    const auto regions = [&](const char* flag, std::vector<std::string>& texts, const char* help) {
      app.add_option(flag, texts, help)->allow_extra_args(false);
    };
    regions("--lesion", lesions,
            "silence units: SITE:disk(ROW,COLUMN,RADIUS), cluster(NUMBER), top(COUNT), random(COUNT,SEED), "
            "units(NUMBER,...) or all; SITE is h.0.attn, h.0.mlp, ... or all; may be given several times");
    regions("--drive", drives, "REGION*GAIN: multiply its units' outputs; may be given several times");
    app.add_option("--control", control,
                   "instead of these regions, as many other units of the same sites, drawn from this seed");
    auto* file = app.add_option("--atlas", atlas, "an atlas.json of ./atlas, for cluster, top and random");
    app.add_option("--atlas-model", atlas_model, "the model of it to read; the first unless given")
        ->needs(file);
  }

  bool given() const { return !lesions.empty() || !drives.empty() || control; }

  /// What the flags ask of a model with these sheets. Says so on standard error, a line for all lesions and
  /// one a drive: "[lesion: 49 of 1568 units: h.3.mlp 49]".
  std::vector<Intervention> read(const std::vector<Sheet>& sheets) const {
    require(!control || !lesions.empty() || !drives.empty(),
            "--control {} needs a --lesion or --drive to draw as many units as", *control);
    std::optional<LocalizerMap> localizer;
    if (!atlas.empty()) localizer = LocalizerMap::load(atlas, atlas_model, sheets);
    std::vector<Intervention> all;
    std::vector<std::pair<std::string, size_t>> parts;  // what to call them, and where in `all` they end
    const auto add = [&](const std::string& text, float gain) {
      auto more = parse_region(text, sheets, localizer, gain);
      std::move(more.begin(), more.end(), std::back_inserter(all));
    };
    for (const std::string& text : lesions) {
      require(text.find('*') == std::string::npos,
              "--lesion '{}': a lesion has no gain; say --drive '{}' for one", text, text);
      add(text, 0);
    }
    if (!lesions.empty()) parts.emplace_back("lesion", all.size());
    for (const std::string& text : drives) {
      const size_t star = text.find('*');
      require(star != std::string::npos, "--drive '{}' needs a gain, as in --drive '{}*2'", text, text);
      add(text, 1);
      parts.emplace_back("drive" + text.substr(star), all.size());
    }
    if (control) all = random_control(all, sheets, *control);
    size_t begin = 0;
    for (const auto& [name, end] : parts) {
      fmt::print(stderr, "[{}{}: {}]\n", name, control ? fmt::format(", control of seed {}", *control) : "",
                 describe({all.data() + begin, end - begin}, sheets));
      begin = end;
    }
    return all;
  }
};

}  // namespace topolm
