// What report measures of each model, and its picture.
#pragma once

#include <string>
#include <vector>

#include "engine/file.h"
#include "model/config.h"
#include "model/sheet_statistics.h"

namespace topolm {

struct SiteReport {
  Sheet sheet;
  Correlations correlations;
  double spatial_loss;                // mean over all neighborhoods
  PairMean neighbors;                 // pairs at distance 1
  PairMean far;                       // pairs at least half a sheet apart
  std::vector<PairMean> by_distance;  // as correlation_by_distance
  PrincipalComponents components;
};

/// Columns of metrics.csv: NaN where a step has no value.
struct TrainingCurves {
  std::vector<double> step, task_loss, spatial_loss, val_task_loss;
};

struct ModelReport {
  std::string name;
  fs::path checkpoint;
  ModelConfig config;
  int64_t steps = 0;  // of training; 0 when the checkpoint does not say
  std::string data;   // it was trained on; empty when the checkpoint does not say
  double task_loss = 0;
  std::vector<SiteReport> sites;
  TrainingCurves curves;  // empty without metrics.csv

  /// The mean over the sites of what `value` takes from one.
  template <class F>
  double mean(F&& value) const {
    double sum = 0;
    for (const SiteReport& site : sites) sum += value(site);
    return sum / static_cast<double>(sites.size());
  }
};

/// The distance from which units count as far: half of the sheet's longer side.
inline double far_distance(const TopographyConfig& t) { return std::max(t.rows, t.cols) / 2.0; }

/// Draws the models side by side as a PNG. All have sheets of one size and as many sites.
void draw_report(const fs::path& png, const std::vector<ModelReport>& models, const std::string& caption);

}  // namespace topolm
