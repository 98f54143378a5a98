// What ./atlas measures of trained models, as plain data; and what it makes of that: tables, pictures, a
// page.
#pragma once

#include <nlohmann/json.hpp>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "model/sheet_statistics.h"
#include "tools/analysis/clusters.h"
#include "tools/analysis/moran.h"
#include "tools/analysis/null.h"
#include "tools/analysis/profiles.h"
#include "tools/analysis/regions.h"
#include "tools/analysis/responses.h"
#include "tools/analysis/stimuli.h"
#include "tools/analysis/strongest.h"

namespace topolm {

struct PlannedContrast {
  size_t set;  // of AtlasPlan::sets
  Contrast contrast;
};

/// What to measure, the same for every model.
struct AtlasPlan {
  std::string command;
  std::vector<StimulusSet> sets;
  std::vector<PlannedContrast> contrasts;  // the first is the localizer
  std::vector<double> fwhm = {0, 1, 2};    // readouts, in unit spacings
  Pooling pooling = Pooling::mean;
  ClusterOptions clusters;  // both signs are grown
  MoranOptions moran;
  int permutations = 999;  // of each map's cells; 0: no test
  int null_draws = 100;    // of units' places; 0: no null
  uint64_t seed = 1;
  int threads = 0;           // of the null's draws; 0: all CPUs
  int64_t checkpoints = 20;  // at most so many of a model, evenly spread; the last is always one of them
  fs::path text;  // tokens whose strongest are shown and whose loss is measured; empty: the model's own
  int64_t text_tokens = 4096;
};

/// The localizer's maps are read with the readout that the paper localizes with, or the nearest to it in the
/// plan.
inline constexpr double kLocalizerFwhm = 2;
size_t localizer_readout(const AtlasPlan& plan);

/// A contrast at one site. Cells are row-major over the sheet.
struct SiteMap {
  std::vector<double> t, q;  // [cells]: Welch's t, and p adjusted over all sites together
  double moran = 0;          // of t, not thresholded
  std::vector<Cluster> positive, negative;
};
using Maps = std::vector<std::vector<std::vector<SiteMap>>>;  // [contrasts][fwhm][sites]

struct CheckpointAtlas {
  int64_t step = 0;
  fs::path path;
  Maps maps;

  double mean_moran(size_t contrast, size_t fwhm) const;
};

/// What a positive cluster of the localizer answers to the conditions of another set.
struct ClusterResponse {
  size_t site, set;
  int number;  // from 1, as in the tables and for --lesion
  std::vector<Profile> conditions;
};

struct ModelAtlas {
  std::string name;
  ModelConfig config;
  std::vector<Sheet> sheets;
  std::vector<CheckpointAtlas> checkpoints;  // oldest first; all that follows is of the last
  std::vector<Responses> responses;          // [sets]

  std::vector<std::vector<MoranNull>> nulls;  // [contrasts][fwhm]; empty without a null
  std::vector<std::vector<std::vector<MoranTest>>>
      shuffled;                                // [contrasts][fwhm][sites]; empty without a test
  std::vector<std::vector<Profile>> profiles;  // [sets]: of the localizer's positive units
  std::vector<ClusterResponse> cluster_responses;
  std::vector<double> dimensionality;              // [sites]: effective, of the responses to all sets
  std::vector<std::vector<PairMean>> by_distance;  // [sites]: correlation of responses against distance
  std::vector<std::string> token_texts;            // of strongest.tokens
  StrongestTokens strongest;
  std::optional<double> task_loss;  // nats a token of plan.text, when it has one

  const CheckpointAtlas& last() const { return checkpoints.back(); }
};

struct Atlas {
  AtlasPlan plan;
  std::vector<ModelAtlas> models;  // of one shape: sheets and sites

  int rows() const { return models[0].config.topography.rows; }
  int cols() const { return models[0].config.topography.cols; }
  size_t sites() const { return models[0].sheets.size(); }
};

/// `path` itself when it is a checkpoint; else the checkpoints in it, oldest first, at most `most`.
std::vector<fs::path> checkpoints_of(const fs::path& path, int64_t most);
/// Responses to every set.
std::vector<Responses> record_sets(const AtlasPlan& plan, Subject& subject);

/// Measures the model of a checkpoint, or of a directory of checkpoints with its history. `progress` is told
/// what is being done. Throws Error when there is no model, or a stimulus does not fit in its context.
ModelAtlas measure_model(Kernels& kernels, const AtlasPlan& plan, const std::string& name,
                         const fs::path& path, const std::function<void(const std::string&)>& progress);

/// What lesions of this model may name: the localizer's maps as read by localizer_readout(), in order of
/// units.
LocalizerMap localizer_of(const AtlasPlan& plan, const ModelAtlas& model);

/// The tokens of the text that belongs to a model, at most `count`: plan.text, else the validation data
/// beside what it was trained on, else nothing.
std::vector<int32_t> text_of(const AtlasPlan& plan, const Subject& subject, int64_t count);
/// Mean loss in nats a token, in windows of the context.
double text_loss(Subject& subject, std::span<const int32_t> tokens);

// ---- what is made of it

/// Everything but the maps; and the localizer's maps, for --lesion.
nlohmann::json atlas_json(const Atlas& atlas);
/// moran.csv, clusters.csv, profiles.csv, cluster_profiles.csv, maps.csv
void write_tables(const fs::path& directory, const Atlas& atlas);
/// For standard output: Moran's I, clusters, profiles.
void print_summary(const Atlas& atlas);
/// The maps of a contrast in characters, `width` columns wide.
std::string ascii_maps(const Atlas& atlas, size_t contrast, size_t fwhm, int width);
/// The data of atlas.html (page.h).
nlohmann::json page_data(const Atlas& atlas);
/// The maps of a contrast as a PNG: white where not significant, one colour scale for all models and sites.
void draw_maps(const fs::path& png, const Atlas& atlas, size_t contrast, size_t fwhm);

}  // namespace topolm
