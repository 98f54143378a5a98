// What the network loses with some of its units, beside what it loses with as many others.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tools/analysis/blimp.h"
#include "tools/atlas/atlas.h"

namespace topolm {

struct Score {
  double loss = 0;  // nats a token
  std::optional<BlimpResult> blimp;
};

struct LesionResult {
  std::string region;  // as given
  std::vector<Intervention> interventions;
  Score lesioned;
  std::vector<Score> controls;  // as many units of the same sites, drawn at random
};

struct LesionReport {
  std::string model;
  int64_t tokens = 0;
  Score intact;
  std::vector<LesionResult> lesions;
};

/// What is asked: regions, each with its gain (0 unless "*GAIN" says otherwise), as regions.h has them.
struct LesionPlan {
  std::vector<std::string> regions;
  int controls = 5;
  int64_t tokens = 32768;
  std::vector<MinimalPair> pairs;  // none: no BLiMP
  bool compat = false;
};

/// Opens the model's last checkpoint anew for each. Throws Error when there is no text to measure the loss
/// on, or a region does not fit.
LesionReport measure_lesions(Kernels& kernels, const AtlasPlan& plan, const LesionPlan& lesions,
                             const ModelAtlas& model,
                             const std::function<void(const std::string&)>& progress);

void print_lesions(const std::vector<LesionReport>& reports);
nlohmann::json to_json(const LesionReport& report);

/// Without lesions: the scores by phenomenon.
void print_blimp(const std::vector<std::string>& models, const std::vector<BlimpResult>& results);
nlohmann::json to_json(const BlimpResult& result);

}  // namespace topolm
