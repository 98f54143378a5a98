#include "tools/figure.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "engine/error.h"

/// Fontconfig keeps offsets where it means addresses, so LeakSanitizer takes its cache for lost. Asked only
/// in a build with the sanitizer.
extern "C" const char* __lsan_default_suppressions() { return "leak:libfontconfig\n"; }

namespace topolm {

namespace {

constexpr const char* kFont = "DejaVu Sans";
constexpr double kTickLength = 4, kTickText = 10;

double to_linear(double c) { return c <= 0.04045 ? c / 12.92 : std::pow((c + 0.055) / 1.055, 2.4); }
double to_srgb(double c) {
  c = std::clamp(c, 0.0, 1.0);
  return c <= 0.0031308 ? 12.92 * c : 1.055 * std::pow(c, 1 / 2.4) - 0.055;
}

std::array<double, 3> to_oklab(Rgb c) {
  const double r = to_linear(c.r), g = to_linear(c.g), b = to_linear(c.b);
  const double l = std::cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const double m = std::cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const double s = std::cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return {0.2104542553 * l + 0.7936177850 * m - 0.0040720468 * s,
          1.9779984951 * l - 2.4285922050 * m + 0.4505937099 * s,
          0.0259040371 * l + 0.7827717662 * m - 0.8086757660 * s};
}

/// As many digits as the step between ticks needs.
std::string tick_text(double value, std::span<const double> ticks) {
  const double step = ticks.size() > 1 ? std::abs(ticks[1] - ticks[0]) : 1;
  return number(value, std::max(0, static_cast<int>(std::ceil(-std::log10(step) - 1e-9))));
}

}  // namespace

// ---- colours

Rgb rgb(uint32_t hex) { return {(hex >> 16 & 255) / 255.0, (hex >> 8 & 255) / 255.0, (hex & 255) / 255.0}; }

Rgb oklab(double lightness, double a, double b) {
  const double l = std::pow(lightness + 0.3963377774 * a + 0.2158037573 * b, 3);
  const double m = std::pow(lightness - 0.1055613458 * a - 0.0638541728 * b, 3);
  const double s = std::pow(lightness - 0.0894841775 * a - 1.2914855480 * b, 3);
  return {to_srgb(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s),
          to_srgb(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s),
          to_srgb(-0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s)};
}

Rgb diverging(double t) {
  static constexpr std::array<uint32_t, 9> kAnchors = {0x053061, 0x2166ac, 0x4393c3, 0xa6d1e5, 0xf7f7f7,
                                                       0xf9bfa3, 0xd6604d, 0xb2182b, 0x67001f};
  const double place = (std::clamp(t, -1.0, 1.0) + 1) / 2 * (kAnchors.size() - 1);
  const size_t i = std::min(static_cast<size_t>(place), kAnchors.size() - 2);
  const double w = place - static_cast<double>(i);
  const auto from = to_oklab(rgb(kAnchors[i])), to = to_oklab(rgb(kAnchors[i + 1]));
  return oklab(from[0] + w * (to[0] - from[0]), from[1] + w * (to[1] - from[1]),
               from[2] + w * (to[2] - from[2]));
}

Rgb categorical(size_t i) {
  static constexpr std::array<uint32_t, 6> kColors = {0x0072b2, 0xd55e00, 0x009e73,
                                                      0xcc79a7, 0xe69f00, 0x56b4e9};
  return rgb(kColors[i % kColors.size()]);
}

// ---- the sheet of pixels

Figure::Figure(double width, double height, double scale)
    : width_(width),
      height_(height),
      surface_(cairo_image_surface_create(CAIRO_FORMAT_RGB24, static_cast<int>(std::lround(width * scale)),
                                          static_cast<int>(std::lround(height * scale)))),
      cairo_(cairo_create(surface_)) {
  cairo_scale(cairo_, scale, scale);
  cairo_font_options_t* options = cairo_font_options_create();
  cairo_font_options_set_hint_metrics(options, CAIRO_HINT_METRICS_OFF);  // else letters sit on whole pixels
  cairo_font_options_set_antialias(options, CAIRO_ANTIALIAS_GRAY);
  cairo_set_font_options(cairo_, options);
  cairo_font_options_destroy(options);
  cairo_set_line_join(cairo_, CAIRO_LINE_JOIN_ROUND);
  fill({0, 0, width, height}, {1, 1, 1});
}

Figure::~Figure() {
  cairo_destroy(cairo_);
  cairo_surface_destroy(surface_);
}

void Figure::use(const TextStyle& style) {
  cairo_select_font_face(cairo_, kFont, CAIRO_FONT_SLANT_NORMAL,
                         style.bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
  cairo_set_font_size(cairo_, style.size);
  cairo_set_source_rgb(cairo_, style.color.r, style.color.g, style.color.b);
}

double Figure::text_width(const std::string& text, const TextStyle& style) {
  use(style);
  cairo_text_extents_t extents;
  cairo_text_extents(cairo_, text.c_str(), &extents);
  return extents.x_advance;
}

void Figure::text(Point at, const std::string& text, const TextStyle& style) {
  const double width = text_width(text, style);
  cairo_save(cairo_);
  cairo_translate(cairo_, at.x, at.y);
  if (style.upwards) cairo_rotate(cairo_, -std::numbers::pi / 2);
  cairo_move_to(cairo_, -style.align * width, 0);
  cairo_show_text(cairo_, text.c_str());
  cairo_restore(cairo_);
}

void Figure::line(std::span<const Point> points, const Stroke& stroke) {
  bool drawing = false;
  for (const Point& p : points) {
    if (!std::isfinite(p.x) || !std::isfinite(p.y)) {
      drawing = false;
      continue;
    }
    drawing ? cairo_line_to(cairo_, p.x, p.y) : cairo_move_to(cairo_, p.x, p.y);
    drawing = true;
  }
  const double dashes[] = {4, 3};
  cairo_set_dash(cairo_, dashes, stroke.dashed ? 2 : 0, 0);
  cairo_set_line_width(cairo_, stroke.width);
  cairo_set_source_rgba(cairo_, stroke.color.r, stroke.color.g, stroke.color.b, stroke.opacity);
  cairo_stroke(cairo_);
}

void Figure::line(Point from, Point to, const Stroke& stroke) {
  const std::array points = {from, to};
  line(points, stroke);
}

void Figure::frame(const Box& box, const Stroke& stroke) {
  const std::array<Point, 5> corners = {{{box.x, box.y},
                                         {box.right(), box.y},
                                         {box.right(), box.bottom()},
                                         {box.x, box.bottom()},
                                         {box.x, box.y}}};
  line(corners, stroke);
}

void Figure::fill(const Box& box, Rgb color) {
  cairo_set_source_rgb(cairo_, color.r, color.g, color.b);
  cairo_rectangle(cairo_, box.x, box.y, box.width, box.height);
  cairo_fill(cairo_);
}

void Figure::dot(Point at, double radius, Rgb color) {
  cairo_set_source_rgb(cairo_, color.r, color.g, color.b);
  cairo_arc(cairo_, at.x, at.y, radius, 0, 2 * std::numbers::pi);
  cairo_fill(cairo_);
}

void Figure::cells(const Box& box, int rows, int cols, const std::function<Rgb(int row, int col)>& color) {
  const double width = box.width / cols, height = box.height / rows;
  cairo_save(cairo_);
  cairo_set_antialias(cairo_, CAIRO_ANTIALIAS_NONE);  // else hairlines of the background show between cells
  for (int row = 0; row < rows; ++row)
    for (int col = 0; col < cols; ++col)
      fill({box.x + col * width, box.y + row * height, width, height}, color(row, col));
  cairo_restore(cairo_);
}

void Figure::color_bar(const Box& box, double lo, double hi, std::span<const double> ticks,
                       const std::string& label, const std::function<Rgb(double)>& color) {
  constexpr int kSteps = 200;
  cells(box, kSteps, 1, [&](int row, int) { return color(hi - (hi - lo) * (row + 0.5) / kSteps); });
  frame(box, {kInk, 0.8});
  double widest = 0;
  for (const double tick : ticks) {
    const double y = box.bottom() - (tick - lo) / (hi - lo) * box.height;
    const TextStyle style{.size = kTickText};
    line({box.right(), y}, {box.right() + kTickLength, y}, {kInk, 0.8});
    text({box.right() + kTickLength + 3, y + 0.36 * kTickText}, tick_text(tick, ticks), style);
    widest = std::max(widest, text_width(tick_text(tick, ticks), style));
  }
  text({box.right() + kTickLength + 3 + widest + 14, box.y + box.height / 2}, label,
       {.align = 0.5, .upwards = true});
}

void Figure::clipped(const Box& box, const std::function<void()>& draw) {
  cairo_save(cairo_);
  cairo_rectangle(cairo_, box.x, box.y, box.width, box.height);
  cairo_clip(cairo_);
  draw();
  cairo_restore(cairo_);
}

void Figure::save(const fs::path& png) const {
  std::string bytes;
  const auto append = [](void* to, const unsigned char* data, unsigned int size) {
    static_cast<std::string*>(to)->append(reinterpret_cast<const char*>(data), size);
    return CAIRO_STATUS_SUCCESS;
  };
  cairo_status_t status = cairo_status(cairo_);  // sticks: the first thing that went wrong since the start
  if (status == CAIRO_STATUS_SUCCESS) status = cairo_surface_write_to_png_stream(surface_, append, &bytes);
  require(status == CAIRO_STATUS_SUCCESS, "cannot draw '{}': {}", png.string(),
          cairo_status_to_string(status));
  write_file(png, bytes);
}

// ---- charts

std::string number(double value, int digits) {
  const std::string text = fmt::format("{:.{}f}", std::abs(value), digits);
  const bool zero = text.find_first_not_of("0.") == text.npos;  // never "-0.0"
  return (value < 0 && !zero ? "\u2212" : "") + text;
}

Axis Axis::around(std::string label, double lo, double hi, int count) {
  if (!(hi > lo)) hi = lo + 1;
  const double raw = (hi - lo) / count, power = std::pow(10, std::floor(std::log10(raw)));
  const double step = (raw / power > 5 ? 10 : raw / power > 2 ? 5 : raw / power > 1 ? 2 : 1) * power;
  const double first = std::floor(lo / step + 1e-9), last = std::ceil(hi / step - 1e-9);
  Axis axis{std::move(label), first * step, last * step, {}};
  for (double i = first; i <= last; ++i) axis.ticks.push_back(i * step);
  return axis;
}

Chart::Chart(Figure& figure, const Box& box, Axis x, Axis y)
    : figure_(figure), box_(box), x_(std::move(x)), y_(std::move(y)) {
  const Stroke spine{kInk, 0.8};
  double widest = 0;
  for (const double tick : y_.ticks) {
    const Point p = at(x_.lo, tick);
    const TextStyle style{.size = kTickText, .align = 1};
    if (tick != y_.lo) figure.line(p, {box.right(), p.y}, {kPale, 0.8});
    figure.line({p.x - kTickLength, p.y}, p, spine);
    figure.text({p.x - kTickLength - 3, p.y + 0.36 * kTickText}, tick_text(tick, y_.ticks), style);
    widest = std::max(widest, figure.text_width(tick_text(tick, y_.ticks), style));
  }
  for (const double tick : x_.ticks) {
    const Point p = at(tick, y_.lo);
    figure.line(p, {p.x, p.y + kTickLength}, spine);
    figure.text({p.x, p.y + kTickLength + 3 + 0.76 * kTickText}, tick_text(tick, x_.ticks),
                {.size = kTickText, .align = 0.5});
  }
  figure.line({box.x, box.y}, {box.x, box.bottom()}, spine);
  figure.line({box.x, box.bottom()}, {box.right(), box.bottom()}, spine);
  figure.text({box.x + box.width / 2, box.bottom() + 32}, x_.label, {.align = 0.5});
  figure.text({box.x - kTickLength - 3 - widest - 8, box.y + box.height / 2}, y_.label,
              {.align = 0.5, .upwards = true});
}

Point Chart::at(double x, double y) const {
  return {box_.x + (x - x_.lo) / (x_.hi - x_.lo) * box_.width,
          box_.bottom() - (y - y_.lo) / (y_.hi - y_.lo) * box_.height};
}

void Chart::curve(std::span<const Point> points, const Stroke& stroke) {
  std::vector<Point> placed;
  for (const Point& p : points) placed.push_back(at(p.x, p.y));
  figure_.clipped(box_, [&] { figure_.line(placed, stroke); });
}

void Chart::dots(std::span<const Point> points, double radius, Rgb color) {
  for (const Point& p : points) figure_.dot(at(p.x, p.y), radius, color);
}

void legend(Figure& figure, Point top_left, std::span<const LegendEntry> entries) {
  constexpr double kSample = 22;
  for (size_t i = 0; i < entries.size(); ++i) {
    const double y = top_left.y + kLegendLine * (static_cast<double>(i) + 0.5);
    if (entries[i].dot)
      figure.dot({top_left.x + kSample / 2, y}, 3, entries[i].stroke.color);
    else
      figure.line({top_left.x, y}, {top_left.x + kSample, y}, entries[i].stroke);
    figure.text({top_left.x + kSample + 6, y + 4}, entries[i].name);
  }
}

}  // namespace topolm
