// What the study of science.sh has found: for each value of alpha, runs from several seeds, each as its
// atlas.json has it.
#pragma once

#include <nlohmann/json.hpp>

#include <string>
#include <vector>

#include "engine/file.h"
#include "tools/analysis/statistics.h"

namespace topolm {

struct ScienceRun {
  int seed;
  double task_loss, spatial_loss;  // on all validation text, after the last step
  nlohmann::json model;            // "models"[0] of its atlas.json
};

struct ScienceArm {
  double alpha;
  std::vector<ScienceRun> runs;  // by seed

  /// What `value` takes from each run.
  template <class F>
  std::vector<double> values(F&& value) const {
    std::vector<double> all;
    for (const ScienceRun& run : runs) all.push_back(value(run));
    return all;
  }
};

struct Science {
  std::vector<ScienceArm> arms;  // by alpha
  std::vector<std::string> contrasts;
  std::vector<double> fwhm;
  std::string command;

  const ScienceArm& topographic() const;  // alpha 2.5, the paper's
  const ScienceArm& control() const;      // alpha 0
  size_t contrast(const std::string& name) const;
  size_t readout(double fwhm) const;
};

/// Moran's I of a run, mean over its sites; and over the steps of its checkpoints.
double moran_of(const ScienceRun& run, size_t contrast, size_t fwhm);
struct MoranStep {
  double step, moran;
};
std::vector<MoranStep> moran_history(const ScienceRun& run, size_t contrast, size_t fwhm);

void draw_science(const fs::path& png, const Science& science);

}  // namespace topolm
