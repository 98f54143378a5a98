// report: how topographic trained models are, side by side: tables, report.json and report.png.
#include "tools/report.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/metrics.h"
#include "engine/token_file.h"
#include "model/checkpoint.h"
#include "tools/main.h"

using namespace topolm;

namespace {

struct Options {
  std::string data, out = "report.png";
  std::vector<std::string> models;
  int64_t rows = 4096;
  DeviceOptions device;
};

/// Whole windows of text, spread evenly over the validation data.
struct Windows {
  int64_t count, time;
  std::vector<int32_t> tokens, targets;  // [count, time]

  Windows(const TokenFile& data, int64_t rows, int64_t context) {
    require(data.size() >= 2, "'{}' has too few tokens to predict one", data.path().string());
    time = std::min({rows, context, data.size() - 1});
    const int64_t fit = (data.size() - 1) / time;
    count = std::min(rows / time, fit);
    std::vector<int32_t> window(static_cast<size_t>(time) + 1);
    for (int64_t i = 0; i < count; ++i) {
      data.read(i * fit / count * time, window);
      tokens.insert(tokens.end(), window.begin(), window.end() - 1);
      targets.insert(targets.end(), window.begin() + 1, window.end());
    }
  }
};

TrainingCurves read_curves(const fs::path& checkpoint) {
  const std::vector<std::string> names = {"step", "task_loss", "spatial_loss", "val_task_loss"};
  for (const fs::path& directory : {checkpoint, checkpoint.parent_path()})
    if (const fs::path csv = directory / "metrics.csv"; fs::exists(csv)) {
      auto columns = read_metrics(csv, names);
      return {std::move(columns[0]), std::move(columns[1]), std::move(columns[2]), std::move(columns[3])};
    }
  return {};
}

/// Same ids, other words: a model must see the tokens it was trained on.
void check_vocabulary(const TokenFile& data, const fs::path& checkpoint, const ModelConfig& config) {
  require(data.max_token() < config.vocab_size,
          "'{}' holds the token id {}, but the vocabulary of '{}' has {} entries; give the data that the "
          "model was made for",
          data.path().string(), data.max_token(), checkpoint.string(), config.vocab_size);
  const fs::path ours = data.path().parent_path() / "tokenizer.json", theirs = checkpoint / "tokenizer.json";
  require(!fs::exists(ours) || !fs::exists(theirs) || read_file(ours) == read_file(theirs),
          "'{}' was not written with the tokenizer of '{}'; give the data that the model was made for",
          data.path().string(), checkpoint.string());
}

/// The model that NAME=DIR names, not measured yet.
ModelReport open_model(const TokenFile& data, const std::string& argument) {
  const size_t equals = argument.find('=');
  require(equals != argument.npos && equals > 0, "'{}' is not NAME=DIR", argument);
  ModelReport model;
  model.name = argument.substr(0, equals);
  const std::string directory = argument.substr(equals + 1);
  const auto checkpoint = find_checkpoint(directory);
  require(checkpoint.has_value(),
          "there is no model in '{}'; train one with ./train_topolm DATA.bin --out {}", directory, directory);
  model.checkpoint = *checkpoint;
  model.config = load_config(*checkpoint);
  check_vocabulary(data, *checkpoint, model.config);
  if (fs::exists(*checkpoint / "trainer.json")) {
    const TrainerState state = load_trainer_state(*checkpoint);
    model.steps = state.step;
    if (state.data.is_object()) model.data = state.data.value("path", "");
  }
  model.curves = read_curves(*checkpoint);
  return model;
}

/// Sheets are compared place by place and site by site.
void check_same_shape(const ModelReport& a, const ModelReport& b) {
  const TopographyConfig &s = a.config.topography, &t = b.config.topography;
  require(s.rows == t.rows && s.cols == t.cols && a.config.sites() == b.config.sites(),
          "{} has {} sheets of {}x{}, but {} has {} of {}x{}; only models of one shape go side by side",
          a.name, a.config.sites(), s.rows, s.cols, b.name, b.config.sites(), t.rows, t.cols);
}

/// Runs the windows through the network: the activations of every site, [sites][rows * n_embd], and the loss.
std::vector<std::vector<float>> run_windows(TopoLM& network, const Windows& windows, int64_t batch,
                                            double& task_loss) {
  std::vector<std::vector<float>> activations(static_cast<size_t>(network.config().sites()));
  task_loss = 0;
  for (int64_t begin = 0; begin < windows.count; begin += batch) {
    const int64_t count = std::min(batch, windows.count - begin);
    const auto first = static_cast<size_t>(begin * windows.time);
    const auto size = static_cast<size_t>(count * windows.time);
    network.set_batch(count, windows.time, std::span(windows.tokens).subspan(first, size),
                      std::span(windows.targets).subspan(first, size));
    network.zero_losses();
    network.run_network();
    network.evaluate();
    task_loss += network.losses().task * static_cast<double>(count) / static_cast<double>(windows.count);
    for (size_t site = 0; site < activations.size(); ++site) {
      const Tensor t = network.site(static_cast<int>(site));
      const size_t before = activations[site].size();
      activations[site].resize(before + static_cast<size_t>(t.elements()));
      network.kernels().device().download(activations[site].data() + before, t);
    }
  }
  return activations;
}

void measure(Kernels& kernels, const Windows& windows, ModelReport& model) {
  const ModelConfig& config = model.config;
  const std::vector<Sheet> sheets = load_sheets(model.checkpoint, config);
  const int64_t batch = std::min<int64_t>(8, windows.count);
  TopoLM network(kernels, config, sheets, batch, windows.time, DType::f32, false);
  load_weights(model.checkpoint, config, kernels.device(), network.weights());
  const auto activations = run_windows(network, windows, batch, model.task_loss);
  require(std::isfinite(model.task_loss), "the loss of '{}' is not finite; the model is damaged",
          model.checkpoint.string());
  for (size_t site = 0; site < sheets.size(); ++site) {
    const Sheet& sheet = sheets[site];
    const Correlations r(activations[site], config.n_embd);
    model.sites.push_back({sheet, r, spatial_loss(r, sheet, config.topography),
                           mean_correlation(r, sheet, 1, 1),
                           mean_correlation(r, sheet, far_distance(config.topography), 1e9),
                           correlation_by_distance(r, sheet), principal_components(r)});
  }
}

void print_tables(const std::vector<ModelReport>& models, const std::string& source) {
  constexpr int kLabel = 34, kColumn = 14;
  const auto row = [&](const std::string& label, const auto& value, const std::string& note) {
    fmt::print("{:<{}}", label, kLabel);
    for (const ModelReport& m : models) fmt::print("{:>{}}", value(m), kColumn);
    fmt::print("{}{}\n", note.empty() ? "" : "   ", note);
  };
  const auto over_sites = [](auto&& value) {
    return [value](const ModelReport& m) { return fmt::format("{:.4f}", m.mean(value)); };
  };
  const ModelReport& first = models[0];
  const TopographyConfig& t = first.config.topography;
  const SiteReport& site = first.sites[0];
  row(
      "", [](const ModelReport& m) { return m.name; }, "");
  row(
      "validation loss", [](const ModelReport& m) { return fmt::format("{:.4f}", m.task_loss); },
      fmt::format("nats a token; {}", source));
  row("mean spatial loss", over_sites([](const SiteReport& s) { return s.spatial_loss; }),
      fmt::format("every neighborhood of every one of the {} sites", first.sites.size()));
  row("correlation of neighboring units",
      over_sites([](const SiteReport& s) { return s.neighbors.correlation; }),
      fmt::format("distance 1, {} pairs a site", site.neighbors.pairs));
  row("correlation of far units", over_sites([](const SiteReport& s) { return s.far.correlation; }),
      fmt::format("distance {} and more, {} pairs a site", far_distance(t), site.far.pairs));
  fmt::print("\ncorrelation against distance on the sheet (in unit spacings, rounded), mean of {} sites\n",
             first.sites.size());
  for (size_t d = 0; d < site.by_distance.size(); ++d)
    row(fmt::format("{:>4}", d + 1),
        over_sites([d](const SiteReport& s) { return s.by_distance[d].correlation; }),
        fmt::format("{} pairs", site.by_distance[d].pairs));
}

nlohmann::json to_json(const PairMean& m) {
  return {{"distance", m.distance}, {"correlation", m.correlation}, {"pairs", m.pairs}};
}

nlohmann::json to_json(const ModelReport& m) {
  nlohmann::json sites = nlohmann::json::array();
  for (size_t i = 0; i < m.sites.size(); ++i) {
    const SiteReport& s = m.sites[i];
    nlohmann::json by_distance = nlohmann::json::array();
    for (const PairMean& mean : s.by_distance) by_distance.push_back(to_json(mean));
    sites.push_back({{"site", site_name(static_cast<int>(i))},
                     {"spatial_loss", s.spatial_loss},
                     {"neighbors", to_json(s.neighbors)},
                     {"far", to_json(s.far)},
                     {"by_distance", by_distance},
                     {"explained_by_components", s.components.explained}});
  }
  return {{"name", m.name},
          {"checkpoint", m.checkpoint.string()},
          {"steps", m.steps},
          {"validation_loss", m.task_loss},
          {"spatial_loss", m.mean([](const SiteReport& s) { return s.spatial_loss; })},
          {"correlation_of_neighbors", m.mean([](const SiteReport& s) { return s.neighbors.correlation; })},
          {"correlation_of_far", m.mean([](const SiteReport& s) { return s.far.correlation; })},
          {"sites", sites}};
}

void run(const Options& o) {
  const TokenFile data(o.data);
  std::vector<ModelReport> models;
  int64_t context = data.size();
  for (const std::string& argument : o.models) {
    models.push_back(open_model(data, argument));
    check_same_shape(models.front(), models.back());
    context = std::min<int64_t>(context, models.back().config.block_size);
  }
  const Windows windows(data, o.rows, context);
  const auto kernels = make_kernels(o.device);
  for (ModelReport& model : models) measure(*kernels, windows, model);
  const std::string source = fmt::format("{} tokens of {}", windows.tokens.size(), o.data);
  print_tables(models, source);

  nlohmann::json json = {
      {"data", o.data}, {"tokens", windows.tokens.size()}, {"models", nlohmann::json::array()}};
  for (const ModelReport& m : models) json["models"].push_back(to_json(m));
  const fs::path png = o.out, json_path = fs::path(o.out).replace_extension(".json");
  if (png.has_parent_path()) make_directories(png.parent_path());
  write_file(json_path, json.dump(1) + "\n");
  fmt::print("\nnumbers     {}\n", json_path.string());
#ifdef TOPOLM_CAIRO
  std::string caption = fmt::format("build/report --data {} --out {} {}: measured on {}", o.data, o.out,
                                    fmt::join(o.models, " "), source);
  if (!models[0].data.empty()) caption += fmt::format("; trained on {}", models[0].data);
  draw_report(png, models, caption + ".");
  fmt::print("picture     {}\n", png.string());
#else
  fmt::print("picture     none: this program was built without cairo\n");
#endif
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  CLI::App app("Measures how topographic trained models are, and draws them side by side.", "report");
  app.add_option("MODELS", o.models, "NAME=DIR: a checkpoint, or a directory of checkpoints")->required();
  app.add_option("--data", o.data, "validation tokens")->required();
  app.add_option("--out", o.out, "the picture; its numbers go beside it as .json")->capture_default_str();
  app.add_option("--rows", o.rows, "tokens to measure on")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--device", o.device.name, "auto, cpu")->capture_default_str();
  app.add_option("--threads", o.device.threads, "threads; 0 is one a CPU")->check(CLI::Range(0, 4096));
  return run_main(app, argc, argv, [&] { run(o); });
}
