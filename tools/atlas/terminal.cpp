// What ./atlas prints: Moran's I, clusters, profiles; maps in characters.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tools/atlas/atlas.h"

namespace topolm {

namespace {

constexpr int kLabel = 38, kColumn = 22;

void row(const Atlas& atlas, const std::string& label,
         const std::function<std::string(const ModelAtlas&)>& value, const std::string& note = "") {
  fmt::print("{:<{}}", label, kLabel);
  for (const ModelAtlas& model : atlas.models) fmt::print("{:>{}}", value(model), kColumn);
  fmt::print("{}{}\n", note.empty() ? "" : "   ", note);
}

std::string readout_name(double fwhm) { return fwhm > 0 ? fmt::format("FWHM {}", fwhm) : "none"; }

/// From far below 0 to far above; the middle is what is not significant.
char symbol(double t, double q, double alpha, double most) {
  if (!(q < alpha)) return '.';
  const bool strong = std::abs(t) > most / 2;
  return t > 0 ? (strong ? '#' : '+') : (strong ? '=' : '-');
}

}  // namespace

void print_summary(const Atlas& atlas) {
  const AtlasPlan& plan = atlas.plan;
  fmt::print("\nMoran's I of t, mean of {} sites; in brackets 95 % of maps whose units lie at random\n",
             atlas.sites());
  row(atlas, "", [](const ModelAtlas& m) { return m.name; });
  for (size_t c = 0; c < plan.contrasts.size(); ++c) {
    fmt::print("{}\n", plan.contrasts[c].contrast.name);
    for (size_t f = 0; f < plan.fwhm.size(); ++f)
      row(atlas, "  readout " + readout_name(plan.fwhm[f]), [&](const ModelAtlas& m) {
        std::string text = fmt::format("{:.3f}", m.last().mean_moran(c, f));
        if (!m.nulls.empty()) text += fmt::format(" [{:.2f} {:.2f}]", m.nulls[c][f].low, m.nulls[c][f].high);
        return text;
      });
  }

  const size_t f = localizer_readout(plan);
  fmt::print("\n{} (FWHM {}): units with q < {} in clusters of {} and more\n",
             plan.contrasts[0].contrast.name, plan.fwhm[f], plan.clusters.alpha, plan.clusters.min_size);
  for (size_t s = 0; s < atlas.sites(); ++s)
    row(atlas, site_name(static_cast<int>(s)), [&](const ModelAtlas& m) {
      const auto sizes = [](const std::vector<Cluster>& clusters) {
        size_t sum = 0;
        for (const Cluster& cluster : clusters) sum += cluster.cells.size();
        return fmt::format("{} in {}", sum, clusters.size());
      };
      const SiteMap& map = m.last().maps[0][f][s];
      return fmt::format("+{}, -{}", sizes(map.positive), sizes(map.negative));
    });

  fmt::print("\nmean |response| of the units that the localizer finds positive, with 95 % intervals\n");
  for (size_t set = 0; set < plan.sets.size(); ++set)
    for (const auto& condition : plan.sets[set].conditions())
      row(atlas, fmt::format("{}: {}", plan.sets[set].name, condition.first), [&](const ModelAtlas& m) {
        for (const Profile& profile : m.profiles[set])
          if (profile.condition == condition.first)
            return fmt::format("{:.3f} +- {:.3f}", profile.response.mean,
                               (profile.response.high - profile.response.low) / 2);
        return std::string("-");  // the localizer found no unit
      });
  row(
      atlas, "effective dimensions, a site",
      [](const ModelAtlas& m) {
        double mean = 0;
        for (const double d : m.dimensionality) mean += d / static_cast<double>(m.dimensionality.size());
        return fmt::format("{:.1f}", mean);
      },
      fmt::format("of {} units, over all stimuli", atlas.models[0].config.n_embd));
  if (atlas.models[0].task_loss)
    row(
        atlas, "task loss",
        [](const ModelAtlas& m) { return m.task_loss ? fmt::format("{:.4f}", *m.task_loss) : "-"; },
        "nats a token");
}

std::string ascii_maps(const Atlas& atlas, size_t contrast, size_t fwhm, int width) {
  const int rows = atlas.rows(), cols = atlas.cols();
  const int across = std::max(1, (width + 2) / (cols + 2));
  double most = 0;
  for (const ModelAtlas& model : atlas.models)
    for (const SiteMap& map : model.last().maps[contrast][fwhm])
      for (const double t : map.t) most = std::max(most, std::abs(t));
  std::string text;
  for (const ModelAtlas& model : atlas.models) {
    const auto& maps = model.last().maps[contrast][fwhm];
    text += fmt::format(
        "{}: {}, {}; # + positive, = - negative (beyond and within |t| = {:.1f}), . not significant\n",
        model.name, atlas.plan.contrasts[contrast].contrast.name,
        atlas.plan.fwhm[fwhm] > 0 ? fmt::format("FWHM {}", atlas.plan.fwhm[fwhm]) : "no readout", most / 2);
    for (size_t first = 0; first < maps.size(); first += static_cast<size_t>(across)) {
      const size_t last = std::min(maps.size(), first + static_cast<size_t>(across));
      for (int r = -1; r < rows; ++r) {
        std::string line;
        for (size_t s = first; s < last; ++s) {
          std::string part;
          if (r < 0)
            part = site_name(static_cast<int>(s)).substr(0, static_cast<size_t>(cols));
          else
            for (int c = 0; c < cols; ++c) {
              const auto cell = static_cast<size_t>(r * cols + c);
              part += symbol(maps[s].t[cell], maps[s].q[cell], atlas.plan.clusters.alpha, most);
            }
          line += s + 1 < last ? fmt::format("{:<{}}", part, cols + 2) : part;
        }
        text += line + '\n';
      }
      text += '\n';
    }
  }
  return text;
}

}  // namespace topolm
