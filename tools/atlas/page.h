// atlas.html: one file that opens in any browser and needs no network. It is tools/atlas/page/page.html, in
// which the style, the scripts and the data are put where {{NAME}} stands. The scripts read the data from
// <script id="atlas-data" type="application/json">:
//
//   {
//     "format": 1, "title": "...", "command": "./atlas ...",
//     "rows": 28, "cols": 28, "sites": ["h.0.attn", "h.0.mlp", ...],
//     "fwhm": [0, 1, 2],                  // of the readout, in unit spacings; 0: not smoothed
//     "levels": [0.05, 0.01, 0.001],      // of adjusted p
//     "conditions": [
//       {"name": "sentence", "set": "localizer", "items": 80, "example": "the old house ..."}, ...],
//     "contrasts": [
//       {"name": "sentence-nonword", "set": "localizer",
//        "positive": ["sentence"], "negative": ["nonword"]}, ...],
//     "models": [{
//       "name": "topographic", "path": "models/topolm", "note": "500 steps, alpha 2.5",
//       "unit": BLOB i16 [sites][cells],  // which unit lies there
//       "checkpoints": [{                 // oldest first; the last is the model
//         "step": 500,
//         "t": {"scale": 0.01, "data": BLOB i16 [contrasts][fwhm][sites][cells]},  // value = scale * integer
//         "level": BLOB u8 [contrasts][fwhm][sites][cells],    // how many of "levels" adjusted p is below
//         "cluster": BLOB i8 [contrasts][fwhm][sites][cells],  // 0: none; n > 0 where t > 0, -n: t < 0
//         "moran": [[[...]]]              // [contrasts][fwhm][sites]; null where a map has no variance
//       }, ...],
//       // Of the last checkpoint:
//       "response": {"scale": ..., "data": BLOB i16 [conditions][sites][cells]},   // mean over items
//       "tokens": ["She", " had", ...],   // a piece of text
//       "strongest": BLOB u16 [sites][cells][5],  // where in it the unit is most active, strongest first
//       "strongest_value": {"scale": ..., "data": BLOB i16 [sites][cells][5]}
//     }, ...]
//   }
//
// cell = row * cols + col. A BLOB is a string: base64 of a zlib stream of little-endian integers.
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>

namespace topolm {

/// The page with `data` in it. Bytes of a string that are not UTF-8 become U+FFFD.
std::string atlas_page(const nlohmann::json& data);

/// A BLOB of the integers.
std::string blob(std::span<const int8_t> values);
std::string blob(std::span<const uint8_t> values);
std::string blob(std::span<const int16_t> values);
std::string blob(std::span<const uint16_t> values);

}  // namespace topolm
