#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "engine/error.h"
#include "engine/parallel.h"
#include "engine/token_file.h"
#include "tools/analysis/contrast.h"
#include "tools/atlas/atlas.h"

namespace topolm {

namespace {

using Report = std::function<void(const std::string&)>;

bool is_in(const std::string& condition, const std::vector<std::string>& group) {
  return std::find(group.begin(), group.end(), condition) != group.end();
}

/// Whether each item is one of the odd ones of its condition: the first, the third, ...
std::vector<bool> odd_items(const StimulusSet& set) {
  std::map<std::string, int> seen;
  std::vector<bool> odd;
  for (const Stimulus& item : set.items) odd.push_back(seen[item.condition]++ % 2 == 0);
  return odd;
}

/// One side of a contrast at a site; of the items in `some` only, unless it is empty.
std::vector<std::span<const float>> side(const StimulusSet& set, const std::vector<std::string>& conditions,
                                         const Responses& responses, size_t site,
                                         const std::vector<bool>& some = {}) {
  std::vector<std::span<const float>> values;
  for (size_t i = 0; i < set.items.size(); ++i)
    if (is_in(set.items[i].condition, conditions) && (some.empty() || some[i]))
      values.push_back(responses.of(static_cast<int64_t>(i), static_cast<int64_t>(site)));
  return values;
}

std::vector<ContrastResponses> at_all_sites(const AtlasPlan& plan, size_t contrast,
                                            const std::vector<Responses>& responses) {
  const PlannedContrast& c = plan.contrasts[contrast];
  std::vector<ContrastResponses> sites;
  for (int64_t site = 0; site < responses[c.set].sites; ++site)
    sites.emplace_back(
        side(plan.sets[c.set], c.contrast.positive, responses[c.set], static_cast<size_t>(site)),
        side(plan.sets[c.set], c.contrast.negative, responses[c.set], static_cast<size_t>(site)));
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

LocalizerMap in_order_of_units(const AtlasPlan& plan, const std::vector<Sheet>& sheets,
                               const std::vector<SiteMap>& sites) {
  LocalizerMap localizer;
  localizer.significance = plan.clusters.alpha;
  for (size_t s = 0; s < sites.size(); ++s) {
    const Sheet& sheet = sheets[s];
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

void describe_maps(const AtlasPlan& plan, const Sheet& sheet, SiteMap& map) {
  map.moran = morans_i(map.t, sheet.rows(), sheet.cols(), plan.moran);
  ClusterOptions options = plan.clusters;
  options.sign = 1;
  map.positive = grow_clusters(map.t, map.q, sheet.rows(), sheet.cols(), options);
  options.sign = -1;
  map.negative = grow_clusters(map.t, map.q, sheet.rows(), sheet.cols(), options);
}

/// The units that the localizer finds positive by the odd items of its conditions: profiles are taken from
/// the even ones, so that no response is shown by which its unit was chosen. None where the halves are too
/// small.
std::vector<std::vector<int32_t>> localized_units(const AtlasPlan& plan, const ModelAtlas& model,
                                                  const std::vector<bool>& odd) {
  const PlannedContrast& localizer = plan.contrasts[0];
  const StimulusSet& set = plan.sets[localizer.set];
  std::vector<ContrastResponses> sites;
  for (size_t s = 0; s < model.sheets.size(); ++s) {
    const Responses& responses = model.responses[localizer.set];
    const auto positive = side(set, localizer.contrast.positive, responses, s, odd),
               negative = side(set, localizer.contrast.negative, responses, s, odd);
    if (positive.size() < 2 || negative.size() < 2)
      return std::vector<std::vector<int32_t>>(model.sheets.size());
    sites.emplace_back(positive, negative);
  }
  return in_order_of_units(plan, model.sheets,
                           map_sites(model.sheets, sites, plan.fwhm[localizer_readout(plan)]))
      .selective_units();
}

/// Some of the items, and the responses to them.
std::pair<StimulusSet, Responses> those(const StimulusSet& set, const Responses& responses,
                                        const std::vector<bool>& wanted) {
  StimulusSet items{set.name, {}};
  Responses some{0, responses.sites, responses.units, {}};
  for (size_t i = 0; i < set.items.size(); ++i) {
    if (!wanted[i]) continue;
    items.items.push_back(set.items[i]);
    ++some.texts;
    for (int64_t site = 0; site < responses.sites; ++site) {
      const auto values = responses.of(static_cast<int64_t>(i), site);
      some.values.insert(some.values.end(), values.begin(), values.end());
    }
  }
  return {std::move(items), std::move(some)};
}

void measure_profiles(const AtlasPlan& plan, ModelAtlas& model) {
  const size_t localizer = plan.contrasts[0].set;
  std::vector<bool> odd = odd_items(plan.sets[localizer]);
  const auto units = localized_units(plan, model, odd);
  odd.flip();
  for (size_t set = 0; set < plan.sets.size(); ++set) {
    if (set == localizer) {
      const auto even = those(plan.sets[set], model.responses[set], odd);
      model.profiles.push_back(even.second.texts ? network_profile(even.second, even.first, units)
                                                 : std::vector<Profile>());
    } else {
      model.profiles.push_back(network_profile(model.responses[set], plan.sets[set], units));
    }
  }
}

/// Not to the localizer's own set, which chose the clusters.
void measure_clusters(const AtlasPlan& plan, ModelAtlas& model) {
  const auto clusters = localizer_of(plan, model).clusters;
  for (size_t site = 0; site < clusters.size(); ++site)
    for (size_t i = 0; i < clusters[site].size(); ++i)
      for (size_t set = 0; set < plan.sets.size(); ++set)
        if (set != plan.contrasts[0].set)
          model.cluster_responses.push_back(
              {site, set, static_cast<int>(i) + 1,
               cluster_profile(model.responses[set], plan.sets[set], static_cast<int>(site),
                               model.sheets[site], clusters[site][i])});
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
  ThreadPool pool(plan.threads);
  for (size_t c = 0; c < plan.contrasts.size(); ++c) {
    if (plan.null_draws > 0) {
      progress(fmt::format("{}: the null of {}", model.name, plan.contrasts[c].contrast.name));
      const auto sites = at_all_sites(plan, c, model.responses);
      auto& nulls = model.nulls.emplace_back();
      for (const double fwhm : plan.fwhm)
        nulls.push_back(
            kernel_matched_null(model.sheets, sites, fwhm, plan.null_draws, plan.seed, plan.moran, &pool));
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

std::vector<fs::path> checkpoints_of(const fs::path& path, int64_t most) {
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

std::vector<Responses> record_sets(const AtlasPlan& plan, Subject& subject) {
  std::vector<Responses> responses;
  for (const StimulusSet& set : plan.sets) {
    std::vector<std::string> texts;
    // As inside running text, where the space before a word is part of its token; the published code has
    // none.
    for (const Stimulus& item : set.items)
      texts.push_back((plan.pooling == Pooling::compat ? "" : " ") + item.text);
    responses.push_back(record_responses(subject, texts, plan.pooling));
  }
  return responses;
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
  return in_order_of_units(plan, model.sheets, model.last().maps[0][localizer_readout(plan)]);
}

ModelAtlas measure_model(Kernels& kernels, const AtlasPlan& plan, const std::string& name,
                         const fs::path& path, const Report& progress) {
  ModelAtlas model;
  model.name = name;
  const std::vector<fs::path> checkpoints = checkpoints_of(path, plan.checkpoints);
  for (size_t k = 0; k < checkpoints.size(); ++k) {
    progress(fmt::format("{}: checkpoint {} of {}", name, k + 1, checkpoints.size()));
    Subject subject(kernels, checkpoints[k]);
    const bool last = k + 1 == checkpoints.size();
    CheckpointAtlas checkpoint{0, checkpoints[k], {}};
    if (fs::exists(checkpoints[k] / "trainer.json"))
      checkpoint.step = load_trainer_state(checkpoints[k]).step;
    model.config = subject.config();
    model.sheets = subject.sheets();
    model.responses = record_sets(plan, subject);
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
  measure_clusters(plan, model);
  measure_sheets(model);
  measure_chance(plan, model, progress);
  return model;
}

}  // namespace topolm
