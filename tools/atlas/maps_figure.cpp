// The maps of one contrast as a picture: for each model its sheets, attention above MLP, layer by layer.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tools/atlas/atlas.h"
#include "tools/figure.h"

namespace topolm {

namespace {

constexpr double kScale = 2, kMargin = 28, kLabels = 20, kGap = 8, kKey = 88;
constexpr size_t kAcross = 12;  // layers in a row; more go below

struct Layout {
  double cell;
  int rows, cols;
  size_t layers;

  explicit Layout(const Atlas& atlas) : rows(atlas.rows()), cols(atlas.cols()), layers(atlas.sites() / 2) {
    // Sheets of about 100 pixels where there are few; whole pixels a cell, so that cells are alike.
    const double wanted = across() <= 6 ? 120 : 78;
    cell = std::max(1.0, std::round(kScale * wanted / cols)) / kScale;
  }
  size_t across() const { return std::min(layers, kAcross); }
  size_t bands() const { return (layers + kAcross - 1) / kAcross; }
  double sheet_width() const { return cell * cols; }
  double sheet_height() const { return cell * rows; }
  double band_height() const { return 18 + 2 * (sheet_height() + 20); }
  double model_height() const { return 30 + static_cast<double>(bands()) * (band_height() + 6); }
  double width() const {
    return std::max(560.0,
                    2 * kMargin + kLabels + static_cast<double>(across()) * (sheet_width() + kGap) + kKey);
  }
};

/// Drawn as t lies in [-most, most]; white where not significant.
void draw_sheet(Figure& f, const Box& box, const SiteMap& map, int rows, int cols, double most,
                double alpha) {
  f.cells(box, rows, cols, [&](int r, int c) {
    const auto cell = static_cast<size_t>(r * cols + c);
    return map.q[cell] < alpha ? diverging(std::clamp(map.t[cell] / most, -1.0, 1.0)) : Rgb{1, 1, 1};
  });
  f.frame(box, {.color = kPale});
}

void draw_model(Figure& f, double top, const Layout& layout, const Atlas& atlas, const ModelAtlas& model,
                size_t contrast, size_t fwhm, double most) {
  const auto& maps = model.last().maps[contrast][fwhm];
  std::string title = fmt::format("mean Moran's I {}", number(model.last().mean_moran(contrast, fwhm), 2));
  if (!model.nulls.empty())
    title += fmt::format(" (units at random: {} to {})", number(model.nulls[contrast][fwhm].low, 2),
                         number(model.nulls[contrast][fwhm].high, 2));
  f.text({kMargin, top + 12}, model.name, {.size = 13, .bold = true});
  f.text({kMargin + 10 + f.text_width(model.name, {.size = 13, .bold = true}), top + 12}, title,
         {.color = kGray});
  for (size_t s = 0; s < maps.size(); ++s) {
    const size_t layer = s / 2, band = layer / kAcross, column = layer % kAcross, module = s % 2;
    const double y = top + 30 + static_cast<double>(band) * (layout.band_height() + 6);
    const Box box{kMargin + kLabels + static_cast<double>(column) * (layout.sheet_width() + kGap),
                  y + 18 + static_cast<double>(module) * (layout.sheet_height() + 20), layout.sheet_width(),
                  layout.sheet_height()};
    draw_sheet(f, box, maps[s], layout.rows, layout.cols, most, atlas.plan.clusters.alpha);
    if (module == 0)
      f.text({box.x + box.width / 2, box.y - 6}, fmt::format("layer {}", layer + 1),
             {.size = 10, .align = 0.5});
    f.text({box.x + box.width / 2, box.bottom() + 11}, number(maps[s].moran, 2),
           {.size = 9, .align = 0.5, .color = kGray});
    if (column == 0)
      f.text({kMargin + 10, box.y + box.height / 2}, module == 0 ? "attention" : "MLP",
             {.size = 10, .align = 0.5, .upwards = true});
  }
}

}  // namespace

void draw_maps(const fs::path& png, const Atlas& atlas, size_t contrast, size_t fwhm) {
  const Layout layout(atlas);
  // A colour scale that a few extreme cells do not wash out: the 99th percentile of |t|, beyond it the last
  // colour.
  std::vector<double> sizes;
  for (const ModelAtlas& model : atlas.models)
    for (const SiteMap& map : model.last().maps[contrast][fwhm])
      for (const double t : map.t) sizes.push_back(std::abs(t));
  const auto place = sizes.begin() + static_cast<int64_t>(0.99 * static_cast<double>(sizes.size() - 1));
  std::nth_element(sizes.begin(), place, sizes.end());
  const double most = std::max(*place, 1.0);

  const double top = 54, height = top + static_cast<double>(atlas.models.size()) * layout.model_height() + 20;
  Figure f(layout.width(), height, kScale);
  const Contrast& c = atlas.plan.contrasts[contrast].contrast;
  f.text({kMargin, 26}, c.name, {.size = 15, .bold = true});
  f.text(
      {kMargin, 43},
      fmt::format(
          "{} minus {}; {}; white: q >= {} (Benjamini-Hochberg over all sites); below each sheet Moran's I",
          fmt::join(c.positive, " + "), fmt::join(c.negative, " + "),
          atlas.plan.fwhm[fwhm] > 0 ? fmt::format("readout of FWHM {}", atlas.plan.fwhm[fwhm])
                                    : std::string("no readout"),
          atlas.plan.clusters.alpha),
      {.size = 10, .color = kGray});
  for (size_t m = 0; m < atlas.models.size(); ++m)
    draw_model(f, top + static_cast<double>(m) * layout.model_height(), layout, atlas, atlas.models[m],
               contrast, fwhm, most);

  const Axis ticks = Axis::around("t", -most, most, 5);
  std::vector<double> inside;
  for (const double t : ticks.ticks)
    if (std::abs(t) <= most) inside.push_back(t);
  f.color_bar({layout.width() - kKey + 14, top + 48, 12, std::min(160.0, layout.model_height() - 70)}, -most,
              most, inside, "Welch t", [&](double t) { return diverging(t / most); });
  f.save(png);
}

}  // namespace topolm
