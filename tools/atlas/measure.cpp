#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/error.h"
#include "engine/token_file.h"
#include "tools/analysis/contrast.h"
#include "tools/atlas/atlas.h"

namespace topolm {

namespace {

using Report = std::function<void(const std::string&)>;

/// The checkpoints of a directory, oldest first; or the one that `path` is itself. At most `most`, evenly
/// spread.
std::vector<fs::path> history(const fs::path& path, int64_t most) {
  const auto newest = find_checkpoint(path);
  require(newest.has_value(), "there is no model in '{}'; train one with ./train_topolm DATA.bin --out {}",
          path.string(), path.string());
  if (*newest == path) return {path};
  std::vector<fs::path> all;
  for (const auto& entry : fs::directory_iterator(path))
    if (fs::exists(entry.path() / "model.safetensors") && entry.path().extension() != ".partial")
      all.push_back(entry.path());
  std::sort(all.begin(), all.end());
  const auto n = std::ssize(all), kept = std::min<int64_t>(n, std::max<int64_t>(most, 1));
  std::vector<fs::path> some;
  for (int64_t i = 1; i <= kept; ++i) some.push_back(all[static_cast<size_t>(i * n / kept - 1)]);
  return some;
}

bool is_in(const std::string& condition, const std::vector<std::string>& group) {
  return std::find(group.begin(), group.end(), condition) != group.end();
}

/// A site's responses to both sides of a contrast. `of_item` leaves items out.
ContrastResponses both_sides(const StimulusSet& set, const Contrast& contrast, const Responses& responses,
                             size_t site, const std::function<bool(size_t)>& of_item = {}) {
  std::vector<std::span<const float>> positive, negative;
  for (size_t i = 0; i < set.items.size(); ++i) {
    if (of_item && !of_item(i)) continue;
    const auto values = responses.of(static_cast<int64_t>(i), static_cast<int64_t>(site));
    if (is_in(set.items[i].condition, contrast.positive)) positive.push_back(values);
    if (is_in(set.items[i].condition, contrast.negative)) negative.push_back(values);
  }
  return {positive, negative};
}

std::vector<ContrastResponses> at_all_sites(const AtlasPlan& plan, size_t contrast,
                                            const std::vector<Responses>& responses) {
  const PlannedContrast& c = plan.contrasts[contrast];
  std::vector<ContrastResponses> sites;
  for (int64_t site = 0; site < responses[c.set].sites; ++site)
    sites.push_back(both_sides(plan.sets[c.set], c.contrast, responses[c.set], static_cast<size_t>(site)));
  return sites;
}

/// The maps of a contrast at all sites; p adjusted over all of them together.
std::vector<SiteMap> map_sites(const std::vector<Sheet>& sheets, const std::vector<ContrastResponses>& sites,
                               double fwhm) {
  std::vector<SiteMap> maps(sheets.size());
  std::vector<double> p;
  for (size_t s = 0; s < sheets.size(); ++s) {
    ContrastMap map = sites[s].map(Readout(sheets[s], fwhm));
    p.insert(p.end(), map.p.begin(), map.p.end());
    maps[s].t = std::move(map.t);
  }
  const std::vector<double> q = benjamini_hochberg(p);
  auto next = q.begin();
  for (SiteMap& map : maps) {
    map.q.assign(next, next + std::ssize(map.t));
    next += std::ssize(map.t);
  }
  return maps;
}

void describe_maps(const AtlasPlan& plan, const Sheet& sheet, SiteMap& map) {
  map.moran = morans_i(map.t, sheet.rows(), sheet.cols(), plan.moran);
  ClusterOptions options = plan.clusters;
  options.sign = 1;
  map.positive = grow_clusters(map.t, map.q, sheet.rows(), sheet.cols(), options);
  options.sign = -1;
  map.negative = grow_clusters(map.t, map.q, sheet.rows(), sheet.cols(), options);
}

/// The units that the localizer finds positive, by every other item: profiles are taken from the items
/// between, so that no response is shown by which its unit was chosen.
std::vector<std::vector<int32_t>> localized_units(const AtlasPlan& plan, const ModelAtlas& model) {
  const PlannedContrast& localizer = plan.contrasts[0];
  std::vector<ContrastResponses> sites;
  for (size_t s = 0; s < model.sheets.size(); ++s)
    sites.push_back(both_sides(plan.sets[localizer.set], localizer.contrast, model.responses[localizer.set],
                               s, [](size_t item) { return item % 2 == 0; }));
  const std::vector<SiteMap> maps = map_sites(model.sheets, sites, plan.fwhm[localizer_readout(plan)]);
  std::vector<std::vector<int32_t>> units(maps.size());
  for (size_t s = 0; s < maps.size(); ++s)
    for (int cell = 0; cell < std::ssize(maps[s].t); ++cell)
      if (maps[s].t[static_cast<size_t>(cell)] > 0 &&
          maps[s].q[static_cast<size_t>(cell)] < plan.clusters.alpha) {
        const Sheet& sheet = model.sheets[s];
        units[s].push_back(sheet.unit_at(cell / sheet.cols(), cell % sheet.cols()));
      }
  return units;
}

void measure_profiles(const AtlasPlan& plan, ModelAtlas& model) {
  const auto units = localized_units(plan, model);
  for (size_t set = 0; set < plan.sets.size(); ++set) {
    const bool same = set == plan.contrasts[0].set;
    StimulusSet items{plan.sets[set].name, {}};
    Responses responses = model.responses[set];
    if (same) {  // the items that chose no unit
      responses.values.clear();
      for (size_t i = 1; i < plan.sets[set].items.size(); i += 2) {
        items.items.push_back(plan.sets[set].items[i]);
        for (int64_t site = 0; site < responses.sites; ++site) {
          const auto values = model.responses[set].of(static_cast<int64_t>(i), site);
          responses.values.insert(responses.values.end(), values.begin(), values.end());
        }
      }
      responses.texts = std::ssize(items.items);
    } else {
      items = plan.sets[set];
    }
    model.profiles.push_back(network_profile(responses, items, units));
  }
}

/// Over the responses to all stimuli.
void measure_sheets(ModelAtlas& model) {
  for (size_t s = 0; s < model.sheets.size(); ++s) {
    std::vector<float> rows;
    for (const Responses& responses : model.responses)
      for (int64_t text = 0; text < responses.texts; ++text) {
        const auto values = responses.of(text, static_cast<int64_t>(s));
        rows.insert(rows.end(), values.begin(), values.end());
      }
    model.dimensionality.push_back(effective_dimensionality(rows, model.config.n_embd));
    model.by_distance.push_back(
        correlation_by_distance(Correlations(rows, model.config.n_embd), model.sheets[s]));
  }
}

void measure_chance(const AtlasPlan& plan, ModelAtlas& model, const Report& progress) {
  const Maps& maps = model.last().maps;
  for (size_t c = 0; c < plan.contrasts.size(); ++c) {
    if (plan.null_draws > 0) {
      progress(fmt::format("{}: the null of {}", model.name, plan.contrasts[c].contrast.name));
      const auto sites = at_all_sites(plan, c, model.responses);
      auto& nulls = model.nulls.emplace_back();
      for (const double fwhm : plan.fwhm)
        nulls.push_back(
            kernel_matched_null(model.sheets, sites, fwhm, plan.null_draws, plan.seed, plan.moran));
    }
    if (plan.permutations > 0) {
      auto& tests = model.shuffled.emplace_back();
      for (const auto& sites : maps[c]) {
        auto& of_sites = tests.emplace_back();
        for (size_t s = 0; s < sites.size(); ++s)
          of_sites.push_back(moran_permutation_test(sites[s].t, model.sheets[s].rows(),
                                                    model.sheets[s].cols(), plan.permutations, plan.seed + s,
                                                    plan.moran));
      }
    }
  }
}

}  // namespace

size_t localizer_readout(const AtlasPlan& plan) {
  size_t best = 0;
  for (size_t i = 1; i < plan.fwhm.size(); ++i)
    if (std::abs(plan.fwhm[i] - kLocalizerFwhm) < std::abs(plan.fwhm[best] - kLocalizerFwhm)) best = i;
  return best;
}

double CheckpointAtlas::mean_moran(size_t contrast, size_t fwhm) const {
  double sum = 0;
  for (const SiteMap& map : maps[contrast][fwhm]) sum += map.moran;
  return sum / static_cast<double>(maps[contrast][fwhm].size());
}

std::vector<int32_t> text_of(const AtlasPlan& plan, const Subject& subject, int64_t count) {
  fs::path path = plan.text;
  if (path.empty() && fs::exists(subject.checkpoint() / "trainer.json")) {
    const TrainerState state = load_trainer_state(subject.checkpoint());
    if (state.data.is_object()) path = fs::path(state.data.value("path", "")).parent_path() / "val.bin";
    if (!fs::exists(path)) return {};
  }
  if (path.empty()) return {};
  const TokenFile file(path);
  require(file.max_token() < subject.config().vocab_size,
          "'{}' holds the token id {}, but the vocabulary of '{}' has {} entries; give --text tokens that "
          "the model "
          "was made for",
          path.string(), file.max_token(), subject.checkpoint().string(), subject.config().vocab_size);
  std::vector<int32_t> tokens(static_cast<size_t>(std::min(count, file.size())));
  file.read(0, tokens);
  return tokens;
}

double text_loss(Subject& subject, std::span<const int32_t> tokens) {
  std::vector<std::vector<int32_t>> windows;
  const auto context = static_cast<size_t>(subject.config().block_size);
  for (size_t begin = 0; begin + 1 < tokens.size(); begin += context) {
    const auto window = tokens.subspan(begin, std::min(context, tokens.size() - begin));
    if (window.size() > 1) windows.emplace_back(window.begin(), window.end());
  }
  double sum = 0;
  int64_t count = 0;
  subject.run(windows, [&](std::span<const Subject::Sequence> batch) {
    subject.network().evaluate();
    const std::vector<float> losses = subject.network().token_losses();
    for (const auto& sequence : batch)
      for (int64_t i = 0; i + 1 < sequence.tokens; ++i, ++count)
        sum += losses[static_cast<size_t>(sequence.row + i)];
  });
  return sum / static_cast<double>(count);
}

LocalizerMap localizer_of(const AtlasPlan& plan, const ModelAtlas& model) {
  LocalizerMap localizer;
  const auto& sites = model.last().maps[0][localizer_readout(plan)];
  for (size_t s = 0; s < sites.size(); ++s) {
    const Sheet& sheet = model.sheets[s];
    const auto unit_of = [&](int32_t cell) {
      return sheet.unit_at(cell / sheet.cols(), cell % sheet.cols());
    };
    auto& t = localizer.t.emplace_back(sites[s].t.size());
    auto& q = localizer.q.emplace_back(sites[s].t.size());
    for (int32_t cell = 0; cell < std::ssize(t); ++cell) {
      const auto unit = static_cast<size_t>(unit_of(cell)), c = static_cast<size_t>(cell);
      t[unit] = sites[s].t[c], q[unit] = sites[s].q[c];
    }
    auto& clusters = localizer.clusters.emplace_back();
    for (const Cluster& cluster : sites[s].positive) {
      auto& units = clusters.emplace_back();
      for (const int32_t cell : cluster.cells) units.push_back(unit_of(cell));
    }
  }
  return localizer;
}

ModelAtlas measure_model(Kernels& kernels, const AtlasPlan& plan, const std::string& name,
                         const fs::path& path, const Report& progress) {
  ModelAtlas model;
  model.name = name;
  const std::vector<fs::path> checkpoints = history(path, plan.checkpoints);
  for (size_t k = 0; k < checkpoints.size(); ++k) {
    progress(fmt::format("{}: checkpoint {} of {}", name, k + 1, checkpoints.size()));
    Subject subject(kernels, checkpoints[k]);
    const bool last = k + 1 == checkpoints.size();
    CheckpointAtlas checkpoint{0, checkpoints[k], {}};
    if (fs::exists(checkpoints[k] / "trainer.json"))
      checkpoint.step = load_trainer_state(checkpoints[k]).step;
    model.config = subject.config();
    model.sheets = subject.sheets();
    model.responses.clear();
    for (const StimulusSet& set : plan.sets) {
      std::vector<std::string> texts;
      for (const Stimulus& item : set.items) texts.push_back(item.text);
      model.responses.push_back(record_responses(subject, texts, plan.pooling));
    }
    for (size_t c = 0; c < plan.contrasts.size(); ++c) {
      const auto sites = at_all_sites(plan, c, model.responses);
      auto& readouts = checkpoint.maps.emplace_back();
      for (const double fwhm : plan.fwhm) {
        readouts.push_back(map_sites(model.sheets, sites, fwhm));
        for (size_t s = 0; s < sites.size(); ++s) describe_maps(plan, model.sheets[s], readouts.back()[s]);
      }
    }
    model.checkpoints.push_back(std::move(checkpoint));
    if (!last) continue;

    std::vector<int32_t> text = text_of(plan, subject, plan.text_tokens);
    if (std::ssize(text) > 1) model.task_loss = text_loss(subject, text);
    // Without a text of its own, what it was shown.
    for (size_t i = 0; text.size() < 64 && i < plan.sets[0].items.size(); ++i)
      for (const int32_t id : subject.encode(plan.sets[0].items[i].text)) text.push_back(id);
    model.strongest = find_strongest(subject, text);
    for (const int32_t id : model.strongest.tokens)
      model.token_texts.push_back(subject.tokenizer().decode({&id, 1}));
  }
  progress(name + ": profiles");
  measure_profiles(plan, model);
  measure_sheets(model);
  measure_chance(plan, model, progress);
  return model;
}

}  // namespace topolm
