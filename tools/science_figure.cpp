// The figure of the study: clusters over training, by contrast and readout, and over alpha.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "tools/figure.h"
#include "tools/science.h"

namespace topolm {

namespace {

constexpr double kScale = 2, kWidth = 1200, kMargin = 28, kChart = 210;

void panel_title(Figure& f, Point at, const std::string& letter, const std::string& title) {
  f.text(at, letter, {.size = 14, .bold = true});
  f.text({at.x + 18, at.y}, title, {.size = 12, .bold = true});
}

Axis moran_axis(const std::string& label) { return {label, -0.1, 1, {0, 0.2, 0.4, 0.6, 0.8, 1}}; }

/// A mean with its 95 % interval.
void draw_interval(Figure& f, const Chart& chart, double x, const MeanInterval& m, Rgb color) {
  const Point low = chart.at(x, m.low), high = chart.at(x, m.high);
  f.line(low, high, {color, 1.4});
  f.line({low.x - 3, low.y}, {low.x + 3, low.y}, {color, 1.4});
  f.line({high.x - 3, high.y}, {high.x + 3, high.y}, {color, 1.4});
  f.dot(chart.at(x, m.mean), 3.2, color);
}

/// Means over seeds at each x, joined.
void draw_means(Figure& f, Chart& chart, const std::map<double, std::vector<double>>& at,
                const Stroke& stroke) {
  std::vector<Point> points;
  for (const auto& [x, values] : at) points.push_back({x, mean_interval(values).mean});
  chart.curve(points, stroke);
  for (const auto& [x, values] : at) draw_interval(f, chart, x, mean_interval(values), stroke.color);
}

std::map<double, std::vector<double>> over_training(const ScienceArm& arm, size_t contrast, size_t fwhm) {
  std::map<double, std::vector<double>> at;
  for (const ScienceRun& run : arm.runs)
    for (const MoranStep& step : moran_history(run, contrast, fwhm)) at[step.step].push_back(step.moran);
  return at;
}

void draw_training(Figure& f, const Box& box, const Science& science) {
  const size_t fwhm = science.readout(1);
  double last = 1;
  for (const auto& point : over_training(science.topographic(), 0, fwhm)) last = std::max(last, point.first);
  Chart chart(f, box, Axis::around("training step", 0, last, 4), moran_axis("Moran's I, FWHM 1"));
  std::vector<LegendEntry> entries;
  const std::array<std::string, 2> names = {"sentence-nonword", "verb-noun"};
  for (size_t i = 0; i < names.size(); ++i) {
    const size_t contrast = science.contrast(names[i]);
    draw_means(f, chart, over_training(science.topographic(), contrast, fwhm), {categorical(i), 1.8});
    draw_means(f, chart, over_training(science.control(), contrast, fwhm), {categorical(i), 1.2, true});
    entries.push_back({names[i] + ", topographic (dashed: control)", {categorical(i), 1.8}});
  }
  legend(f, {box.x, box.y - kLegendLine * 2 - 8}, entries);
}

/// Every contrast as a group of points: control beside topographic, and the null's interval as a bar behind.
void draw_contrasts(Figure& f, const Box& box, const Science& science, size_t fwhm, const std::string& name) {
  const double count = static_cast<double>(science.contrasts.size());
  Chart chart(f, box, {"", -0.6, count - 0.4, {}}, moran_axis("Moran's I, " + name));
  for (size_t c = 0; c < science.contrasts.size(); ++c) {
    const double x = static_cast<double>(c);
    double low = 0, high = 0;
    const auto& runs = science.control().runs;
    for (const ScienceRun& run : runs) {
      const auto& readout = run.model.at("contrasts").at(c).at("readouts").at(fwhm);
      if (!readout.contains("null")) continue;
      low += readout["null"].at("low").get<double>() / static_cast<double>(runs.size());
      high += readout["null"].at("high").get<double>() / static_cast<double>(runs.size());
    }
    const Point top = chart.at(x - 0.38, high), bottom = chart.at(x + 0.38, low);
    f.fill({top.x, top.y, bottom.x - top.x, std::max(1.0, bottom.y - top.y)}, kPale);
    const auto value = [&](const ScienceRun& r) { return moran_of(r, c, fwhm); };
    draw_interval(f, chart, x - 0.15, mean_interval(science.control().values(value)), categorical(1));
    draw_interval(f, chart, x + 0.15, mean_interval(science.topographic().values(value)), categorical(0));
    // Long names turn, so that they do not run into each other.
    f.text({chart.at(x, 0).x + 3, box.bottom() + 8 + f.text_width(science.contrasts[c], {.size = 8.5})},
           science.contrasts[c], {.size = 8.5, .upwards = true});
  }
}

void draw_alpha(Figure& f, const Box& box, const Science& science) {
  const size_t fwhm = science.readout(1), contrast = science.contrast("verb-noun");
  // Places, not values: 0 and 5 are far apart on any scale that shows 0.25.
  const double count = static_cast<double>(science.arms.size());
  Chart chart(f, box, {"alpha", -0.5, count - 0.5, {}}, moran_axis("Moran's I, verb-noun, FWHM 1"));
  std::map<double, std::vector<double>> at;
  for (size_t i = 0; i < science.arms.size(); ++i) {
    at[static_cast<double>(i)] =
        science.arms[i].values([&](const ScienceRun& r) { return moran_of(r, contrast, fwhm); });
    f.text({chart.at(static_cast<double>(i), 0).x, box.bottom() + 14},
           fmt::format("{}", science.arms[i].alpha), {.size = 10, .align = 0.5});
  }
  draw_means(f, chart, at, {categorical(0), 1.8});
}

void draw_cost(Figure& f, const Box& box, const Science& science) {
  double low = INFINITY, high = -INFINITY;
  for (const ScienceArm& arm : science.arms)
    for (const ScienceRun& run : arm.runs)
      low = std::min(low, run.task_loss), high = std::max(high, run.task_loss);
  const double count = static_cast<double>(science.arms.size());
  Chart chart(f, box, {"alpha", -0.5, count - 0.5, {}},
              Axis::around("validation loss (nats a token)", low, high, 5));
  std::map<double, std::vector<double>> at;
  for (size_t i = 0; i < science.arms.size(); ++i) {
    at[static_cast<double>(i)] = science.arms[i].values([](const ScienceRun& r) { return r.task_loss; });
    f.text({chart.at(static_cast<double>(i), low).x, box.bottom() + 14},
           fmt::format("{}", science.arms[i].alpha), {.size = 10, .align = 0.5});
  }
  draw_means(f, chart, at, {categorical(2), 1.8});
}

}  // namespace

void draw_science(const fs::path& png, const Science& science) {
  const double first = 118, second = first + kChart + 226;
  Figure f(kWidth, second + kChart + 80, kScale);
  const size_t seeds = science.topographic().runs.size();
  f.text(
      {kMargin, 36},
      fmt::format("Clusters in {} topographic models and {} controls", seeds, science.control().runs.size()),
      {.size = 18, .bold = true});
  f.text({kMargin, 56}, "Moran's I of t maps, mean over sites; points: mean over seeds and its 95 % interval",
         {.size = 11, .color = kGray});
  const double third = (kWidth - 2 * kMargin - 3 * 72) / 3;
  const auto place = [&](size_t column, double top) {
    return Box{kMargin + 52 + static_cast<double>(column) * (third + 72), top, third, kChart};
  };
  for (size_t i = 0; i < science.fwhm.size() && i < 3; ++i) {
    const Box box = place(i, first);
    const std::string name = science.fwhm[i] > 0 ? fmt::format("FWHM {}", science.fwhm[i]) : "no readout";
    panel_title(f, {box.x - 46, first - 32}, std::string(1, static_cast<char>('a' + i)),
                "Contrasts, " + name);
    draw_contrasts(f, box, science, i, name);
  }
  const std::array<LegendEntry, 2> arms = {{{"topographic", {categorical(0), 2}, true},
                                            {"control; bars: units at random", {categorical(1), 2}, true}}};
  legend(f, {place(2, first).x + third - 190, 40}, arms);
  panel_title(f, {place(0, second).x - 46, second - 56}, "d", "Over training");
  draw_training(f, place(0, second), science);
  panel_title(f, {place(1, second).x - 46, second - 56}, "e", "Over alpha");
  draw_alpha(f, place(1, second), science);
  panel_title(f, {place(2, second).x - 46, second - 56}, "f", "What it costs");
  draw_cost(f, place(2, second), science);
  f.text({kMargin, f.height() - 14}, science.command, {.size = 10, .color = kGray});
  f.save(png);
}

}  // namespace topolm
