// Figures: text, lines, cells, charts and colours on a sheet of pixels, written as a PNG. Coordinates are
// logical pixels from the top left; the PNG has `scale` times as many.
#pragma once

#include <cairo.h>

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "engine/file.h"

namespace topolm {

struct Point {
  double x, y;
};

struct Box {
  double x, y, width, height;
  double right() const { return x + width; }
  double bottom() const { return y + height; }
};

// ---- colours

struct Rgb {
  double r, g, b;  // sRGB, 0 to 1
};

/// "#0072b2" as a number: 0x0072b2.
Rgb rgb(uint32_t hex);
/// Lightness 0 to 1, a (green to red) and b (blue to yellow) about -0.3 to 0.3: equal steps look equally
/// large (Ottosson, "A perceptual color space for image processing", 2020). Colours that no screen shows are
/// clipped.
Rgb oklab(double lightness, double a, double b);
/// Blue, white, red for t in [-1, 1], as ColorBrewer's RdBu; blended in OKLab.
Rgb diverging(double t);
/// The i-th of a few colours that colour-blind readers tell apart (Okabe & Ito 2008).
Rgb categorical(size_t i);

inline constexpr Rgb kInk{0.13, 0.13, 0.15}, kGray{0.42, 0.42, 0.45}, kPale{0.88, 0.88, 0.90};

// ---- the sheet of pixels

struct TextStyle {
  double size = 11;
  double align = 0;  // 0: begins at the point, 0.5: centred on it, 1: ends there
  bool bold = false;
  Rgb color = kInk;
  bool upwards = false;  // turned by 90 degrees
};

struct Stroke {
  Rgb color = kInk;
  double width = 1;
  bool dashed = false;
  double opacity = 1;
};

class Figure {
 public:
  Figure(double width, double height, double scale);
  ~Figure();
  Figure(const Figure&) = delete;
  Figure& operator=(const Figure&) = delete;

  double width() const { return width_; }
  double height() const { return height_; }

  /// The baseline runs through `at`.
  void text(Point at, const std::string& text, const TextStyle& style = {});
  double text_width(const std::string& text, const TextStyle& style);
  void line(std::span<const Point> points, const Stroke& stroke);
  void line(Point from, Point to, const Stroke& stroke);
  void frame(const Box& box, const Stroke& stroke);
  void fill(const Box& box, Rgb color);
  void dot(Point at, double radius, Rgb color);

  /// rows x cols cells without gaps.
  void cells(const Box& box, int rows, int cols, const std::function<Rgb(int row, int col)>& color);
  /// Upright, `color` of lo at the bottom to that of hi at the top, ticks and label on its right.
  void color_bar(const Box& box, double lo, double hi, std::span<const double> ticks,
                 const std::string& label, const std::function<Rgb(double)>& color);

  /// What `draw` draws appears only inside the box.
  void clipped(const Box& box, const std::function<void()>& draw);

  /// Throws Error naming the file when it cannot be written.
  void save(const fs::path& png) const;

 private:
  void use(const TextStyle& style);

  double width_, height_;
  cairo_surface_t* surface_;
  cairo_t* cairo_;
};

// ---- charts

/// With `digits` decimals and a true minus sign.
std::string number(double value, int digits);

struct Axis {
  std::string label;
  double lo, hi;
  std::vector<double> ticks;

  /// Round limits around [lo, hi] and about `count` ticks at 1, 2 or 5 times a power of ten.
  static Axis around(std::string label, double lo, double hi, int count);
};

/// Axes on the left and below `box`, pale lines across at the ticks; their labels need 40 pixels on the left
/// and 35 below.
class Chart {
 public:
  Chart(Figure& figure, const Box& box, Axis x, Axis y);

  Point at(double x, double y) const;  // on the figure
  /// points in the chart's units. NaN breaks the line.
  void curve(std::span<const Point> points, const Stroke& stroke);
  void dots(std::span<const Point> points, double radius, Rgb color);

  const Axis& x() const { return x_; }
  const Axis& y() const { return y_; }

 private:
  Figure& figure_;
  Box box_;
  Axis x_, y_;
};

struct LegendEntry {
  std::string name;
  Stroke stroke;
  bool dot = false;
};
inline constexpr double kLegendLine = 16;
/// One entry a line: a sample and its name.
void legend(Figure& figure, Point top_left, std::span<const LegendEntry> entries);

}  // namespace topolm
