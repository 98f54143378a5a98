// science: the tables and the figure of the study that science.sh runs.
#include "tools/science.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "engine/metrics.h"
#include "tools/main.h"

using namespace topolm;

namespace topolm {

const ScienceArm& Science::topographic() const {
  for (const ScienceArm& arm : arms)
    if (arm.alpha == 2.5) return arm;
  fail("the study has no runs of alpha 2.5");
}

const ScienceArm& Science::control() const {
  for (const ScienceArm& arm : arms)
    if (arm.alpha == 0) return arm;
  fail("the study has no runs of alpha 0");
}

size_t Science::contrast(const std::string& name) const {
  const auto found = std::find(contrasts.begin(), contrasts.end(), name);
  require(found != contrasts.end(), "the study has no contrast '{}'", name);
  return static_cast<size_t>(found - contrasts.begin());
}

size_t Science::readout(double wanted) const {
  const auto found = std::find(fwhm.begin(), fwhm.end(), wanted);
  require(found != fwhm.end(), "the study has no readout of FWHM {}", wanted);
  return static_cast<size_t>(found - fwhm.begin());
}

double moran_of(const ScienceRun& run, size_t contrast, size_t fwhm) {
  return run.model.at("contrasts").at(contrast).at("readouts").at(fwhm).at("moran").get<double>();
}

std::vector<MoranStep> moran_history(const ScienceRun& run, size_t contrast, size_t fwhm) {
  std::vector<MoranStep> steps;
  for (const auto& checkpoint : run.model.at("history"))
    steps.push_back(
        {checkpoint.at("step").get<double>(), checkpoint.at("moran").at(contrast).at(fwhm).get<double>()});
  return steps;
}

}  // namespace topolm

namespace {

/// "seed-3" with this prefix -> 3.
double number_behind(const std::string& name, const std::string& prefix) {
  double value = 0;
  const char* const end = name.data() + name.size();
  const bool good =
      name.starts_with(prefix) && std::from_chars(name.data() + prefix.size(), end, value).ptr == end;
  require(good, "'{}' is not of the study; its directories are alpha-ALPHA/seed-SEED", name);
  return value;
}

std::vector<fs::path> directories(const fs::path& parent, const std::string& prefix) {
  std::vector<fs::path> all;
  require(fs::is_directory(parent), "there is no study in '{}'; make science runs one", parent.string());
  for (const auto& entry : fs::directory_iterator(parent))
    if (entry.is_directory() && entry.path().filename().string().starts_with(prefix))
      all.push_back(entry.path());
  std::sort(all.begin(), all.end());
  return all;
}

Science load(const fs::path& root) {
  Science science;
  science.command = "make science";
  for (const fs::path& of_alpha : directories(root, "alpha-")) {
    ScienceArm arm{number_behind(of_alpha.filename().string(), "alpha-"), {}};
    for (const fs::path& run : directories(of_alpha, "seed-")) {
      const fs::path file = run / "atlas" / "atlas.json";
      if (!fs::exists(file)) continue;
      nlohmann::json atlas;
      try {
        atlas = nlohmann::json::parse(read_file(file));
        if (science.fwhm.empty()) {
          science.fwhm = atlas.at("fwhm").get<std::vector<double>>();
          for (const auto& contrast : atlas.at("contrasts"))
            science.contrasts.push_back(contrast.at("name").get<std::string>());
        }
        const std::vector<std::string> names = {"val_task_loss", "val_spatial_loss"};
        const auto losses = read_metrics(run / "metrics.csv", names);
        require(!losses[0].empty(), "'{}' has no row", (run / "metrics.csv").string());
        arm.runs.push_back({static_cast<int>(number_behind(run.filename().string(), "seed-")),
                            losses[0].back(), losses[1].back(), atlas.at("models").at(0)});
      } catch (const nlohmann::json::exception& e) {
        fail("'{}' is damaged ({}); delete it, and make science writes it again", file.string(), e.what());
      }
    }
    if (!arm.runs.empty()) science.arms.push_back(std::move(arm));
  }
  std::sort(science.arms.begin(), science.arms.end(),
            [](const ScienceArm& a, const ScienceArm& b) { return a.alpha < b.alpha; });
  science.topographic(), science.control();
  return science;
}

std::string interval(const std::vector<double>& values, int digits = 3) {
  const MeanInterval m = mean_interval(values);
  return fmt::format("{:.{}f} +- {:.{}f}", m.mean, digits, (m.high - m.low) / 2, digits);
}

std::string range(const std::vector<double>& values) {
  return fmt::format("{:.3f} to {:.3f}", *std::min_element(values.begin(), values.end()),
                     *std::max_element(values.begin(), values.end()));
}

std::string readout_name(double fwhm) { return fwhm > 0 ? fmt::format("FWHM {}", fwhm) : "none"; }

void print_arms(const Science& science) {
  fmt::print("{:<28}", "mean of seeds, 95 % interval");
  for (const ScienceArm& arm : science.arms) fmt::print("{:>18}", fmt::format("alpha {}", arm.alpha));
  fmt::print("\n");
  const auto row = [&](const std::string& label, auto&& value) {
    fmt::print("{:<28}", label);
    for (const ScienceArm& arm : science.arms) fmt::print("{:>18}", interval(arm.values(value)));
    fmt::print("\n");
  };
  fmt::print("{:<28}", "seeds");
  for (const ScienceArm& arm : science.arms) fmt::print("{:>18}", arm.runs.size());
  fmt::print("\n");
  row("task loss, validation", [](const ScienceRun& r) { return r.task_loss; });
  row("mean spatial loss", [](const ScienceRun& r) { return r.spatial_loss; });
  for (size_t c = 0; c < science.contrasts.size(); ++c) {
    fmt::print("Moran's I, {}\n", science.contrasts[c]);
    for (size_t f = 0; f < science.fwhm.size(); ++f)
      row("  readout " + readout_name(science.fwhm[f]),
          [&](const ScienceRun& r) { return moran_of(r, c, f); });
  }
}

/// A number of the null that a run's contrast has.
double null_of(const ScienceRun& run, size_t contrast, size_t fwhm, const char* what) {
  return run.model.at("contrasts").at(contrast).at("readouts").at(fwhm).at("null").at(what).get<double>();
}

void print_claims(const Science& science) {
  const ScienceArm &topographic = science.topographic(), &control = science.control();
  const size_t f = science.readout(1), pairs = science.contrast("verb-noun");
  const auto moran = [&](size_t contrast) {
    return [=](const ScienceRun& r) { return moran_of(r, contrast, f); };
  };
  fmt::print("\nnoun-verb pairs, FWHM 1: topographic {}, control {}\n",
             range(topographic.values(moran(pairs))), range(control.values(moran(pairs))));
  for (const ScienceRun& run : control.runs)
    fmt::print("  control, seed {}: {:.3f}, its units at random {:.3f} to {:.3f}\n", run.seed,
               moran_of(run, pairs, f), null_of(run, pairs, f, "low"), null_of(run, pairs, f, "high"));
  const size_t concrete = science.contrast("concrete_noun-concrete_verb"),
               abstract = science.contrast("abstract_noun-abstract_verb");
  for (const ScienceArm* arm : {&topographic, &control})
    fmt::print("concrete minus abstract noun-verb, FWHM 1, alpha {}: {}\n", arm->alpha,
               interval(arm->values([&](const ScienceRun& r) {
                 return moran_of(r, concrete, f) - moran_of(r, abstract, f);
               })));
  std::vector<double> cost;
  for (const ScienceRun& run : topographic.runs)
    for (const ScienceRun& other : control.runs)
      if (run.seed == other.seed) cost.push_back(run.task_loss - other.task_loss);
  if (!cost.empty())
    fmt::print("task loss, topographic minus control of the same seed: {}\n", interval(cost));
}

void write_csv(const fs::path& path, const Science& science) {
  std::string csv = "alpha,seed,contrast,fwhm,step,moran,null_low,null_high,task_loss,spatial_loss\n";
  for (const ScienceArm& arm : science.arms)
    for (const ScienceRun& run : arm.runs)
      for (size_t c = 0; c < science.contrasts.size(); ++c)
        for (size_t f = 0; f < science.fwhm.size(); ++f) {
          const auto steps = moran_history(run, c, f);
          const bool has_null = run.model.at("contrasts")[c].at("readouts")[f].contains("null");
          for (size_t i = 0; i < steps.size(); ++i) {
            const bool last = i + 1 == steps.size();
            const auto only_last = [&](bool there, auto&& value) {
              return last && there ? fmt::format("{}", value()) : std::string();
            };
            csv += fmt::format("{},{},{},{},{},{},{},{},{},{}\n", arm.alpha, run.seed, science.contrasts[c],
                               science.fwhm[f], steps[i].step, steps[i].moran,
                               only_last(has_null, [&] { return null_of(run, c, f, "low"); }),
                               only_last(has_null, [&] { return null_of(run, c, f, "high"); }),
                               only_last(true, [&] { return run.task_loss; }),
                               only_last(true, [&] { return run.spatial_loss; }));
          }
        }
  write_file(path, csv);
}

void run(const std::string& directory, const std::string& figure) {
  const Science science = load(directory);
  print_arms(science);
  print_claims(science);
  write_csv(fs::path(directory) / "science.csv", science);
  fmt::print("\nnumbers     {}\n", (fs::path(directory) / "science.csv").string());
#ifdef TOPOLM_CAIRO
  draw_science(figure, science);
  fmt::print("picture     {}\n", figure);
#endif
}

}  // namespace

int main(int argc, char** argv) {
  std::string directory = "science", figure;
  CLI::App app("Tables and figure of the study that science.sh runs.", "science");
  app.add_option("DIR", directory, "where science.sh put its models")->capture_default_str();
  app.add_option("--figure", figure, "the picture (DIR/science.png)");
  return run_main(app, argc, argv, [&] {
    run(directory, figure.empty() ? (fs::path(directory) / "science.png").string() : figure);
  });
}
