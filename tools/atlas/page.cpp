#include "tools/atlas/page.h"

#include <zlib.h>

#include <array>
#include <string_view>
#include <utility>

#include "engine/error.h"
#include "tools/embed.h"

TOPOLM_EMBED(topolm_page_html, "tools/atlas/page/page.html");
TOPOLM_EMBED(topolm_page_css, "tools/atlas/page/page.css");
TOPOLM_EMBED(topolm_data_js, "tools/atlas/page/data.js");
TOPOLM_EMBED(topolm_colors_js, "tools/atlas/page/colors.js");
TOPOLM_EMBED(topolm_charts_js, "tools/atlas/page/charts.js");
TOPOLM_EMBED(topolm_sheets_js, "tools/atlas/page/sheets.js");
TOPOLM_EMBED(topolm_panel_js, "tools/atlas/page/panel.js");
TOPOLM_EMBED(topolm_pointing_js, "tools/atlas/page/pointing.js");
TOPOLM_EMBED(topolm_files_js, "tools/atlas/page/files.js");
TOPOLM_EMBED(topolm_main_js, "tools/atlas/page/main.js");

namespace topolm {

namespace {

const std::array<std::pair<std::string_view, const char*>, 9> kParts{{
    {"page.css", topolm_page_css},
    {"data.js", topolm_data_js},
    {"colors.js", topolm_colors_js},
    {"charts.js", topolm_charts_js},
    {"sheets.js", topolm_sheets_js},
    {"panel.js", topolm_panel_js},
    {"pointing.js", topolm_pointing_js},
    {"files.js", topolm_files_js},
    {"main.js", topolm_main_js},
}};

std::string_view part(std::string_view name) {
  for (const auto& [file, text] : kParts)
    if (file == name) return text;
  fail("the Atlas page asks for '{}', which is not part of the program; add it to tools/atlas/page.cpp",
       name);
}

/// JSON that nothing inside a <script> can end early: with no '<' there is neither "</script" nor "<!--".
/// Only ASCII, which a browser keeps at one byte a character; what is not UTF-8, such as half a character of
/// a token, becomes U+FFFD.
std::string script_json(const nlohmann::json& data) {
  const std::string json = data.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  std::string safe;
  safe.reserve(json.size());
  for (const char c : json) c == '<' ? safe += "\\u003c" : safe += c;
  return safe;
}

template <typename T>
std::string encode(std::span<const T> values) {
  // The page reads little-endian integers.
  std::string bytes;
  bytes.reserve(values.size_bytes());
  for (const T value : values)
    for (size_t i = 0; i < sizeof(T); ++i)
      bytes += static_cast<char>(static_cast<std::make_unsigned_t<T>>(value) >> 8 * i & 255);

  uLongf size = compressBound(bytes.size());
  std::string packed(size, '\0');
  const int status = compress2(reinterpret_cast<Bytef*>(packed.data()), &size,
                               reinterpret_cast<const Bytef*>(bytes.data()), bytes.size(), 9);
  require(status == Z_OK, "zlib could not compress {} bytes of a map (status {})", bytes.size(), status);

  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((size + 2) / 3 * 4);
  for (size_t i = 0; i < size; i += 3) {
    uint32_t bits = 0;
    for (size_t k = 0; k < 3; ++k)
      bits = bits << 8 | (i + k < size ? static_cast<uint8_t>(packed[i + k]) : 0);
    for (size_t k = 0; k < 4; ++k) text += i + k <= size ? kDigits[bits >> (18 - 6 * k) & 63] : '=';
  }
  return text;
}

}  // namespace

std::string atlas_page(const nlohmann::json& data) {
  std::string page;
  // What is put in is not searched for more: a token may well read "{{data}}".
  for (std::string_view rest = topolm_page_html; !rest.empty();) {
    const size_t open = rest.find("{{"), close = rest.find("}}", open);
    page += rest.substr(0, open);
    if (open == rest.npos) break;
    const std::string_view name = rest.substr(open + 2, close - open - 2);
    page += name == "data" ? script_json(data) : part(name);
    rest.remove_prefix(close + 2);
  }
  return page;
}

std::string blob(std::span<const int8_t> values) { return encode(values); }
std::string blob(std::span<const uint8_t> values) { return encode(values); }
std::string blob(std::span<const int16_t> values) { return encode(values); }
std::string blob(std::span<const uint16_t> values) { return encode(values); }

}  // namespace topolm
