// atlas: trained models -> what their units respond to, where on the sheets, and how clustered; as tables,
// pictures and a page to explore.
#include <algorithm>

#include "engine/progress.h"
#include "tools/atlas/atlas.h"
#include "tools/atlas/lesions.h"
#include "tools/atlas/page.h"
#include "tools/main.h"

using namespace topolm;

namespace {

struct Options {
  std::vector<std::string> models = {"models/topolm"}, stimuli, contrasts;
  std::string out = "maps", pooling = "mean", contiguity = "queen", weights = "row", save_responses, blimp;
  bool ascii = false;
  AtlasPlan plan;
  LesionPlan lesions;
  DeviceOptions device;
};

void add_flags(CLI::App& app, Options& o) {
  app.add_option("MODELS", o.models,
                 "checkpoints or directories of checkpoints, NAME=DIR or DIR; several go side by side")
      ->capture_default_str();
  app.add_option("--out", o.out, "directory for atlas.html, atlas.json, tables and pictures")
      ->capture_default_str();
  app.add_flag("--ascii", o.ascii, "print the localizer's maps");
  app.add_option("--device", o.device.name, "auto, cpu, cuda, or simt: CUDA kernels run by the CPU")
      ->capture_default_str();
  app.add_option("--threads", o.device.threads, "threads; 0 is one a CPU")->check(CLI::Range(0, 4096));
  app.add_option("--seed", o.plan.seed, "of shuffles, nulls and random controls")->capture_default_str();

  app.add_option("--stimuli", o.stimuli,
                 "CSV or text files, directories, or ours: localizer, pairs, words; the first set's first "
                 "contrast is the "
                 "localizer (localizer pairs words)")
      ->allow_extra_args(false)
      ->group("Stimuli");
  app.add_option("--contrast", o.contrasts,
                 "as A+B-C, conditions of one set; instead of the sets' usual ones; may be repeated")
      ->allow_extra_args(false)
      ->group("Stimuli");
  app.add_option("--pooling", o.pooling,
                 "mean over a text's tokens, last token, or compat: over padding too, as published")
      ->capture_default_str()
      ->group("Stimuli");
  app.add_option("--save-responses", o.save_responses,
                 "npy or safetensors: also write every unit's response to every text")
      ->check(CLI::IsMember({"npy", "safetensors"}))
      ->group("Stimuli");
  app.add_option("--text", o.plan.text,
                 "token file for strongest tokens and losses (val.bin of the model's training data)")
      ->group("Stimuli");

  app.add_option("--fwhm", o.plan.fwhm, "readouts in unit spacings; 0 is none")
      ->delimiter(',')
      ->capture_default_str()
      ->group("Maps");
  app.add_option("--significance", o.plan.clusters.alpha, "bound of adjusted p")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str()
      ->group("Maps");
  app.add_option("--min-size", o.plan.clusters.min_size, "smallest cluster (paper: 10, its code: 25)")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group("Maps");
  app.add_option("--connectivity", o.plan.clusters.connectivity, "neighbors of a cell in a cluster: 4 or 8")
      ->check(CLI::IsMember({4, 8}))
      ->capture_default_str()
      ->group("Maps");
  app.add_option("--contiguity", o.contiguity, "neighbors in Moran's I: queen or rook")
      ->check(CLI::IsMember({"queen", "rook"}))
      ->capture_default_str()
      ->group("Maps");
  app.add_option("--weights", o.weights, "of Moran's I: row (standardised) or binary")
      ->check(CLI::IsMember({"row", "binary"}))
      ->capture_default_str()
      ->group("Maps");
  app.add_option("--permutations", o.plan.permutations, "shuffles behind Moran's p; 0: none")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group("Maps");
  app.add_option("--null", o.plan.null_draws,
                 "draws of units at random places, through the same readout; 0: none")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group("Maps");
  app.add_option("--checkpoints", o.plan.checkpoints, "at most so many of a model's checkpoints")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group("Maps");

  app.add_option("--blimp", o.blimp, "BLiMP: a .jsonl file, or a directory of them")->group("Language");
  app.add_flag("--compat", o.lesions.compat, "BLiMP as published: padding is scored too")->group("Language");
  app.add_option("--lesion", o.lesions.regions,
                 "silence REGION, or *GAIN; reports loss and BLiMP (./infer --help); may be repeated")
      ->allow_extra_args(false)
      ->group("Language");
  app.add_option("--controls", o.lesions.controls, "random lesions of equal size beside each")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group("Language");
}

const std::vector<std::string> kOurs = {"localizer", "pairs", "words"};

StimulusSet find_stimuli(const std::string& name) {
  if (std::find(kOurs.begin(), kOurs.end(), name) != kOurs.end() && !fs::exists(name))
    return built_in_stimuli(name);
  return load_stimuli(name);
}

/// The set that a contrast of the command line is of: the first that has its conditions.
PlannedContrast find_contrast(const std::vector<StimulusSet>& sets, const std::string& text) {
  std::string reasons;
  for (size_t s = 0; s < sets.size(); ++s) try {
      return {s, parse_contrast(text, sets[s])};
    } catch (const Error& e) {
      reasons += (reasons.empty() ? "" : "; ") + std::string(e.what());
    }
  fail("{}", reasons);
}

void complete_plan(Options& o) {
  AtlasPlan& plan = o.plan;
  if (o.stimuli.empty()) o.stimuli = kOurs;
  for (const std::string& name : o.stimuli) plan.sets.push_back(find_stimuli(name));
  if (o.contrasts.empty())
    for (size_t s = 0; s < plan.sets.size(); ++s)
      for (Contrast& contrast : default_contrasts(plan.sets[s]))
        plan.contrasts.push_back({s, std::move(contrast)});
  for (const std::string& text : o.contrasts) plan.contrasts.push_back(find_contrast(plan.sets, text));
  require(!plan.contrasts.empty() || !o.save_responses.empty(),
          "there is nothing to contrast; name two of the conditions with --contrast A-B, or ask for the "
          "responses alone "
          "with --save-responses npy");
  for (size_t i = 0; i < plan.contrasts.size(); ++i)  // names are those of files too
    for (size_t k = 0; k < i; ++k)
      if (plan.contrasts[k].contrast.name == plan.contrasts[i].contrast.name)
        plan.contrasts[i].contrast.name =
            plan.sets[plan.contrasts[i].set].name + ":" + plan.contrasts[i].contrast.name;
  plan.pooling = o.pooling == "mean" ? Pooling::mean : o.pooling == "last" ? Pooling::last : Pooling::compat;
  require(o.pooling == "mean" || o.pooling == "last" || o.pooling == "compat",
          "--pooling '{}' is none of mean, last, compat", o.pooling);
  plan.moran.contiguity = o.contiguity == "rook" ? Contiguity::rook : Contiguity::queen;
  plan.moran.weights = o.weights == "binary" ? MoranWeights::binary : MoranWeights::row_standardised;
  require(!plan.fwhm.empty() && *std::min_element(plan.fwhm.begin(), plan.fwhm.end()) >= 0,
          "--fwhm needs numbers that are not negative");
  plan.threads = o.device.threads;
  if (!o.blimp.empty()) o.lesions.pairs = load_blimp(o.blimp);
}

/// NAME=DIR, or DIR: the name is its last part.
std::pair<std::string, fs::path> split_name(const std::string& argument) {
  const size_t equals = argument.find('=');
  if (equals != argument.npos && equals > 0 && !fs::exists(argument))
    return {argument.substr(0, equals), argument.substr(equals + 1)};
  const fs::path path = fs::path(argument).lexically_normal();
  return {(path.has_filename() ? path : path.parent_path()).filename().string(), argument};
}

void check_comparable(const ModelAtlas& a, const ModelAtlas& b) {
  const TopographyConfig &s = a.config.topography, &t = b.config.topography;
  require(s.rows == t.rows && s.cols == t.cols && a.sheets.size() == b.sheets.size(),
          "{} has {} sheets of {}x{}, but {} has {} of {}x{}; only models of one shape go side by side",
          a.name, a.sheets.size(), s.rows, s.cols, b.name, b.sheets.size(), t.rows, t.cols);
  require(a.name != b.name, "two models are called {}; name them: one={} other={}", a.name,
          a.last().path.string(), b.last().path.string());
}

void save_responses(const Options& o, const std::string& model, const std::vector<Responses>& responses) {
  if (o.save_responses.empty()) return;
  make_directories(o.out);
  for (size_t s = 0; s < responses.size(); ++s) {
    const fs::path path =
        fs::path(o.out) / fmt::format("responses-{}-{}.{}", model, o.plan.sets[s].name, o.save_responses);
    write_responses(path, responses[s]);
    fmt::print("responses   {}: {} texts x {} sites x {} units\n", path.string(), responses[s].texts,
               responses[s].sites, responses[s].units);
  }
}

void write_all(const Options& o, const Atlas& atlas, const nlohmann::json& extra) {
  const fs::path out = o.out;
  make_directories(out);
  nlohmann::json json = atlas_json(atlas);
  json.update(extra);
  write_file(out / "atlas.json", json.dump(1) + "\n");
  write_tables(out, atlas);
  write_file(out / "atlas.html", atlas_page(page_data(atlas)));
#ifdef TOPOLM_CAIRO
  for (size_t c = 0; c < atlas.plan.contrasts.size(); ++c)
    for (size_t f = 0; f < atlas.plan.fwhm.size(); ++f) {
      std::string name = atlas.plan.contrasts[c].contrast.name;
      std::replace_if(
          name.begin(), name.end(), [](char ch) { return ch == '/' || ch == ' ' || ch == ':'; }, '_');
      draw_maps(out / fmt::format("{}-fwhm{}.png", name, atlas.plan.fwhm[f]), atlas, c, f);
    }
#endif
  fmt::print("\npage        {}\nnumbers     {}, and the tables *.csv beside it\n",
             (out / "atlas.html").string(), (out / "atlas.json").string());
#ifdef TOPOLM_CAIRO
  fmt::print("pictures    {}: one a contrast and readout\n", (out / "*.png").string());
#else
  fmt::print("pictures    none: this program was built without cairo\n");
#endif
}

void run(Options& o) {
  complete_plan(o);
  const auto kernels = make_kernels(o.device);
  if (o.plan.contrasts.empty()) {
    for (const std::string& argument : o.models) {
      const auto named = split_name(argument);
      Subject subject(*kernels, checkpoints_of(named.second, 1).back());
      save_responses(o, named.first, record_sets(o.plan, subject));
    }
    return;
  }
  Atlas atlas{o.plan, {}};
  ProgressLine line;
  const auto progress = [&](const std::string& what) { line.update(what); };
  for (const std::string& argument : o.models) {
    const auto named = split_name(argument);
    ModelAtlas model = measure_model(*kernels, o.plan, named.first, named.second, progress);
    for (const ModelAtlas& other : atlas.models) check_comparable(other, model);
    atlas.models.push_back(std::move(model));
  }
  std::vector<BlimpResult> blimp;
  std::vector<LesionReport> lesions;
  nlohmann::json extra = nlohmann::json::object();
  for (const ModelAtlas& model : atlas.models)
    if (!o.lesions.regions.empty()) {
      lesions.push_back(measure_lesions(*kernels, o.plan, o.lesions, model, progress));
      extra["lesions"].push_back(to_json(lesions.back()));
    } else if (!o.lesions.pairs.empty()) {
      progress(model.name + ": BLiMP");
      Subject subject(*kernels, model.last().path);
      blimp.push_back(score_blimp(subject, o.lesions.pairs, o.lesions.compat));
      extra["blimp"].push_back({{"model", model.name}, {"result", to_json(blimp.back())}});
    }
  line.finish();

  print_summary(atlas);
  if (o.ascii) fmt::print("\n{}", ascii_maps(atlas, 0, localizer_readout(o.plan), 100));
  std::vector<std::string> names;
  for (const ModelAtlas& model : atlas.models) names.push_back(model.name);
  if (!blimp.empty()) print_blimp(names, blimp);
  print_lesions(lesions);
  write_all(o, atlas, extra);
  for (const ModelAtlas& model : atlas.models) save_responses(o, model.name, model.responses);
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  for (int i = 0; i < argc; ++i) o.plan.command += (i ? " " : "") + std::string(argv[i]);
  CLI::App app("Maps what the units of trained models respond to, and how clustered they are.", "atlas");
  add_flags(app, o);
  return run_main(app, argc, argv, [&] { run(o); });
}
