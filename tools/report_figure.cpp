// The picture of report: for each model its sheets coloured by principal components and the correlations with
// one unit; for all of them correlation against distance, and the losses over training.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "tools/figure.h"
#include "tools/report.h"

namespace topolm {

namespace {

constexpr double kScale = 2, kWidth = 1200, kMargin = 28;
constexpr double kKeys = 92;    // the column of colour keys on the right
constexpr double kGap = 30;     // between models
constexpr double kLabels = 20;  // "attention" and "MLP", left of the sheets

std::string layer_of(size_t site) { return fmt::format("layer {}", site / 2 + 1); }
std::string module_of(size_t site) { return site % 2 == 0 ? "attention" : "MLP"; }

void panel_title(Figure& f, Point at, const std::string& letter, const std::string& title) {
  f.text(at, letter, {.size = 14, .bold = true});
  f.text({at.x + 18, at.y}, title, {.size = 12, .bold = true});
}

// ---- the parts of the page

/// Where a model's panels lie and how large a sheet is drawn in `columns` columns.
struct Layout {
  double left, width, cell, pitch;
  int rows, cols;

  Layout(size_t model, size_t models, size_t columns, const TopographyConfig& t)
      : rows(t.rows), cols(t.cols) {
    const double all = kWidth - 2 * kMargin - kKeys;
    const auto n = static_cast<double>(std::max<size_t>(models, 2));
    width = (all - (n - 1) * kGap) / n;
    left = kMargin + static_cast<double>(model) * (width + kGap);
    pitch = (width - kLabels) / static_cast<double>(columns);
    cell = std::max(1.0, std::floor(kScale * (pitch - 9) / cols)) / kScale;  // whole pixels
  }
  Box sheet(size_t column, double top) const {
    const double free = pitch - cell * cols;
    return {left + kLabels + static_cast<double>(column) * pitch + free / 2, top, cell * cols, cell * rows};
  }
};

/// Component 1 from blue to yellow and 2 from dark to light: what a colour-blind eye sees as well. Component
/// 3 from green to red.
Rgb component_color(const std::array<double, 3>& x) {
  return oklab(0.66 + 0.17 * x[1], 0.115 * x[2], 0.15 * x[0]);
}

/// The loadings as colours: centred, in units of 1.6 times the spread of the component that spreads most.
/// One factor for all three: a weak component gives weak colours.
std::vector<Rgb> unit_colors(const SiteReport& site) {
  auto x = site.components.loadings;
  double largest = 1e-12;
  for (size_t k = 0; k < 3; ++k) {
    double mean = 0, squares = 0;
    for (const auto& loading : x) mean += loading[k] / static_cast<double>(x.size());
    for (auto& loading : x) loading[k] -= mean, squares += loading[k] * loading[k];
    largest = std::max(largest, std::sqrt(squares / static_cast<double>(x.size())));
  }
  std::vector<Rgb> colors;
  for (auto& loading : x) {
    for (double& value : loading) value = std::clamp(value / (1.6 * largest), -1.3, 1.3);
    colors.push_back(component_color(loading));
  }
  return colors;
}

constexpr size_t kLayersAcross = 6;  // more go below, in another band

/// A band: the layers' names, a row of attention, a row of MLP.
double band_height(const Layout& layout) { return 16 + 2 * (layout.cell * layout.rows + 20); }

void draw_sheets(Figure& f, const ModelReport& model, const Layout& layout, double top) {
  for (size_t i = 0; i < model.sites.size(); ++i) {
    const SiteReport& site = model.sites[i];
    const size_t column = i / 2 % kLayersAcross, module = i % 2;
    const double band = top + static_cast<double>(i / 2 / kLayersAcross) * band_height(layout);
    const Box box =
        layout.sheet(column, band + 16 + static_cast<double>(module) * (layout.cell * layout.rows + 20));
    const double middle = box.x + box.width / 2;
    const std::vector<Rgb> colors = unit_colors(site);
    f.cells(box, layout.rows, layout.cols,
            [&](int row, int col) { return colors[static_cast<size_t>(site.sheet.unit_at(row, col))]; });
    f.text({middle, box.bottom() + 12}, fmt::format("SL {:.3f}", site.spatial_loss),
           {.size = 9.5, .align = 0.5, .color = kGray});
    if (module == 0) f.text({middle, band + 10}, layer_of(i), {.size = 10.5, .align = 0.5});
    if (column == 0)
      f.text({layout.left + 12, box.y + box.height / 2}, module_of(i),
             {.size = 10.5, .align = 0.5, .upwards = true});
  }
}

void draw_component_key(Figure& f, double left, double top) {
  constexpr int kSteps = 11;
  for (size_t k = 0; k < 3; ++k) {
    const double y = top + 46 * static_cast<double>(k);
    f.text({left, y}, fmt::format("component {}", k + 1), {.size = 10});
    f.cells({left, y + 6, 66, 12}, 1, kSteps, [&](int, int col) {
      std::array<double, 3> x{};
      x[k] = 1.2 * (2.0 * col / (kSteps - 1) - 1);
      return component_color(x);
    });
    f.text({left, y + 28}, "\u2212", {.size = 10, .color = kGray});
    f.text({left + 66, y + 28}, "+", {.size = 10, .align = 1, .color = kGray});
  }
}

/// A few sites from first to last.
std::vector<size_t> some_sites(size_t sites) {
  const size_t count = std::min<size_t>(4, sites);
  std::vector<size_t> chosen;
  for (size_t i = 0; i < count; ++i)
    chosen.push_back(count == 1 ? 0 : (i * (sites - 1) + (count - 1) / 2) / (count - 1));
  return chosen;
}

void draw_seed_maps(Figure& f, const ModelReport& model, const Layout& layout, double top) {
  const std::vector<size_t> sites = some_sites(model.sites.size());
  for (size_t i = 0; i < sites.size(); ++i) {
    const SiteReport& site = model.sites[sites[i]];
    const Box box = layout.sheet(i, top + 16);
    const int row = layout.rows / 2, col = layout.cols / 2;
    const int32_t seed = site.sheet.unit_at(row, col);
    f.cells(box, layout.rows, layout.cols,
            [&](int r, int c) { return diverging(site.correlations(seed, site.sheet.unit_at(r, c))); });
    f.frame(box, {kPale, 0.8});
    const Box framed{box.x + col * layout.cell, box.y + row * layout.cell, layout.cell, layout.cell};
    f.frame(framed, {{1, 1, 1}, 3});
    f.frame(framed, {kInk, 1.2});
    f.text({box.x + box.width / 2, top + 10}, fmt::format("{}, {}", layer_of(sites[i]), module_of(sites[i])),
           {.size = 10.5, .align = 0.5});
  }
}

/// Above each chart: a line for each model and one more.
double legend_height(const std::vector<ModelReport>& models) {
  return kLegendLine * static_cast<double>(models.size() + 1) + 10;
}

/// Mean over the sites at each distance.
std::vector<Point> mean_profile(const ModelReport& model) {
  std::vector<Point> points;
  for (size_t d = 0; d < model.sites[0].by_distance.size(); ++d)
    points.push_back({model.sites[0].by_distance[d].distance,
                      model.mean([d](const SiteReport& s) { return s.by_distance[d].correlation; })});
  return points;
}

/// a and b of the least-squares fit of a + b/(1+d) up to distance `reach`, each point weighted by its pairs.
std::pair<double, double> fit_inverse_distance(const std::vector<Point>& profile,
                                               const std::vector<PairMean>& bins, double reach) {
  double w = 0, x = 0, y = 0, xx = 0, xy = 0;
  for (size_t i = 0; i < bins.size() && profile[i].x <= reach; ++i) {
    const double weight = static_cast<double>(bins[i].pairs), closeness = 1 / (1 + profile[i].x);
    w += weight, x += weight * closeness, y += weight * profile[i].y;
    xx += weight * closeness * closeness, xy += weight * closeness * profile[i].y;
  }
  const double spread = xx - x * x / w, b = spread > 1e-12 ? (xy - x * y / w) / spread : 0;
  return {(y - b * x) / w, b};
}

void draw_profiles(Figure& f, const Box& box, const std::vector<ModelReport>& models) {
  double lo = 0, hi = 0.1, last = 1;
  for (const ModelReport& m : models)
    for (const SiteReport& s : m.sites)
      for (const PairMean& p : s.by_distance)
        lo = std::min(lo, p.correlation), hi = std::max(hi, p.correlation), last = std::max(last, p.distance);
  Chart chart(f, box, Axis::around("distance on the sheet (unit spacings)", 0, last, 9),
              Axis::around("mean correlation of two units", lo, hi, 5));
  const std::array<Point, 2> zero = {{{chart.x().lo, 0}, {chart.x().hi, 0}}};
  chart.curve(zero, {kGray, 0.8});
  for (size_t i = 0; i < models.size(); ++i)
    for (const SiteReport& s : models[i].sites) {
      std::vector<Point> points;
      for (const PairMean& p : s.by_distance) points.push_back({p.distance, p.correlation});
      chart.curve(points, {categorical(i), 0.8, false, 0.45});
    }
  std::vector<LegendEntry> entries;
  for (size_t i = 0; i < models.size(); ++i) {
    const std::vector<Point> profile = mean_profile(models[i]);
    chart.curve(profile, {categorical(i), 2.6});
    chart.dots(profile, 2.8, categorical(i));
    entries.push_back({models[i].name + ", mean of the sites (thin: each site)", {categorical(i), 2.6}});
  }
  // The shape that the spatial loss asks for, as far as a neighborhood reaches along a row: of units further
  // apart it says little.
  const double reach = 2 * models[0].config.topography.radius - 2;
  const std::array<Point, 2> border = {{{reach, chart.y().lo}, {reach, chart.y().hi}}};
  chart.curve(border, {kGray, 0.8, true});
  const Point note = chart.at(reach, chart.y().hi);
  f.text({note.x + 5, note.y + 10}, "beyond a neighborhood's reach", {.size = 9.5, .color = kGray});
  const std::vector<Point> profile = mean_profile(models[0]);
  const auto [a, b] = fit_inverse_distance(profile, models[0].sites[0].by_distance, reach + 0.5);
  std::vector<Point> fit;
  for (double d = profile[0].x; d <= std::min(reach, last); d += 0.1) fit.push_back({d, a + b / (1 + d)});
  const Stroke stroke{kInk, 1.3, true};
  chart.curve(fit, stroke);
  entries.push_back({fmt::format("{} + {} / (1 + distance), fitted to {} within a neighborhood's reach",
                                 number(a, 2), number(b, 2), models[0].name),
                     stroke});
  legend(f, {box.x, box.y - legend_height(models)}, entries);
}

/// A loss over the steps of every model that logged it; dots where `validation` has values.
void draw_curves(Figure& f, const Box& box, const std::vector<ModelReport>& models, const std::string& label,
                 std::vector<double> TrainingCurves::*loss, std::vector<double> TrainingCurves::*validation) {
  double lo = INFINITY, hi = 0, last = 1;
  for (const ModelReport& m : models) {
    for (const double step : m.curves.step) last = std::max(last, step);
    for (const double value : m.curves.*loss)
      if (std::isfinite(value)) hi = std::max(hi, value), lo = std::min(lo, value);
  }
  Chart chart(f, box, Axis::around("training step", 0, last, 4),
              Axis::around(label, validation ? std::min(lo, hi) : 0, hi, 5));
  std::vector<LegendEntry> entries;
  for (size_t i = 0; i < models.size(); ++i) {
    const TrainingCurves& c = models[i].curves;
    const auto points = [&](const std::vector<double>& values) {
      std::vector<Point> list;
      for (size_t s = 0; s < values.size(); ++s)
        if (std::isfinite(values[s])) list.push_back({c.step[s], values[s]});
      return list;
    };
    if (c.step.empty()) continue;
    chart.curve(points(c.*loss), {categorical(i), 1.4});
    if (validation) chart.dots(points(c.*validation), 3, categorical(i));
    entries.push_back({models[i].name, {categorical(i), 1.4}});
  }
  if (validation) entries.push_back({"on validation text", {kGray, 1}, true});
  legend(f, {box.x, box.y - legend_height(models)}, entries);
}

}  // namespace

void draw_report(const fs::path& png, const std::vector<ModelReport>& models, const std::string& caption) {
  const ModelReport& first = models[0];
  const TopographyConfig& t = first.config.topography;
  const size_t layers = first.sites.size() / 2, across = std::min(layers, kLayersAcross);
  const size_t maps = some_sites(first.sites.size()).size();
  const Layout sheets(0, models.size(), across, t), seeds(0, models.size(), maps, t);

  const double sheets_top = 128, bands = std::ceil(static_cast<double>(layers) / kLayersAcross);
  const double sheets_bottom = sheets_top + bands * band_height(sheets);
  const double seeds_top = sheets_bottom + 40, seeds_bottom = seeds_top + 16 + seeds.cell * t.rows;
  const double charts_top = seeds_bottom + 56 + legend_height(models), charts_height = 210;
  Figure f(kWidth, charts_top + charts_height + 86, kScale);
  const double keys = kWidth - kMargin - kKeys + 22;

  f.text({kMargin, 36},
         fmt::format("Topography of {} sites, each a sheet of {} \u00d7 {} units", first.sites.size(), t.rows,
                     t.cols),
         {.size = 18, .bold = true});
  panel_title(f, {kMargin, sheets_top - 10}, "a",
              "The sheet of every site: units of like colour load alike on the principal components of the "
              "activations");
  panel_title(f, {kMargin, seeds_top - 10}, "b",
              "Correlation of every unit with the one in the middle (framed)");
  for (size_t i = 0; i < models.size(); ++i) {
    const ModelReport& m = models[i];
    const Layout place(i, models.size(), across, t);
    const TextStyle name{.size = 15, .bold = true, .color = categorical(i)};
    f.text({place.left, 72}, m.name, name);
    f.text({place.left, 90},
           fmt::format("{}validation loss {:.3f} nats a token, mean spatial loss (SL) {:.3f}",
                       m.steps > 0 ? fmt::format("training step {}: ", m.steps) : "", m.task_loss,
                       m.mean([](const SiteReport& s) { return s.spatial_loss; })),
           {.size = 11, .color = kGray});
    draw_sheets(f, m, place, sheets_top);
    draw_seed_maps(f, m, Layout(i, models.size(), maps, t), seeds_top);
  }
  draw_component_key(f, keys, sheets_top + 26);
  const std::array ticks = {-1.0, -0.5, 0.0, 0.5, 1.0};
  f.color_bar({keys, seeds_top + 16, 14, seeds.cell * t.rows}, -1, 1, ticks, "correlation", diverging);

  const double titles = charts_top - legend_height(models) - 10;
  const bool trained =
      std::any_of(models.begin(), models.end(), [](const ModelReport& m) { return !m.curves.step.empty(); });
  const double third = 214, right = kWidth - kMargin;
  const Box profiles{kMargin + 52, charts_top, (trained ? right - 2 * third - 140 : right) - kMargin - 52,
                     charts_height};
  panel_title(f, {kMargin, titles}, "c", "Correlation against distance");
  draw_profiles(f, profiles, models);
  if (trained) {
    const Box task{right - 2 * third - 68, charts_top, third, charts_height};
    const Box spatial{right - third, charts_top, third, charts_height};
    panel_title(f, {task.x - 46, titles}, "d", "Task loss");
    draw_curves(f, task, models, "task loss (nats a token)", &TrainingCurves::task_loss,
                &TrainingCurves::val_task_loss);
    panel_title(f, {spatial.x - 46, titles}, "e", "Mean spatial loss");
    draw_curves(f, spatial, models, "mean SL (0.5 is chance)", &TrainingCurves::spatial_loss, nullptr);
  }
  TextStyle small{.size = 10, .color = kGray};
  small.size *= std::min(1.0, (kWidth - 2 * kMargin) / f.text_width(caption, small));
  f.text({kMargin, f.height() - 18}, caption, small);
  f.save(png);
}

}  // namespace topolm
