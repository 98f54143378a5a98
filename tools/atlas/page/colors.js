// Colours and numbers. The map is ColorBrewer's RdBu (Brewer, 2003), which the colour-blind read as well:
// blue below 0, red above, white at 0; between its eleven colours the way is straight in Oklab.

const kRdBu = [
  '053061', '2166ac', '4393c3', '92c5de', 'd1e5f0', 'f7f7f7', 'fddbc7', 'f4a582', 'd6604d', 'b2182b', '67001f'
];
const kHalf = 256;  // colours on either side of 0

const rgbOf = (hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16));
const toLinear = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const toByte = (v) =>
    Math.round(255 * Math.min(1, Math.max(0, v <= 0.0031308 ? 12.92 * v : 1.055 * v ** (1 / 2.4) - 0.055)));

/// Oklab (Ottosson, 2020).
function oklabOf(rgb) {
  const [r, g, b] = rgb.map(toLinear);
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s
  ];
}
function rgbOfOklab([lightness, a, b]) {
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s
  ].map(toByte);
}

/// Of -1 ... 1 in 2 * kHalf + 1 steps.
const kColors = Array.from({length: 2 * kHalf + 1}, (_, i) => {
  const x = (i / (2 * kHalf)) * (kRdBu.length - 1), k = Math.min(kRdBu.length - 2, Math.floor(x));
  const [from, to] = [kRdBu[k], kRdBu[k + 1]].map((hex) => oklabOf(rgbOf(hex)));
  return rgbOfOklab(from.map((v, c) => v + (x - k) * (to[c] - v)));
});
const pixelOf = ([r, g, b]) =>
    (255 << 24 | b << 16 | g << 8 | r) >>> 0;  // as a little-endian ImageData has it
const kPixels = Uint32Array.from(kColors, pixelOf);
const kBlank = [255, 255, 255];  // below the threshold

const colorIndex = (x) => kHalf + Math.round(kHalf * Math.min(1, Math.max(-1, x)));
const colorOf = (x) => `rgb(${kColors[colorIndex(x)].join(' ')})`;

/// With a real minus sign, which is as wide as the digits.
const minus = (text) => text.replace('-', '−');
const number = (x, digits = 2) =>
    (x === null || !Number.isFinite(x) ? '–' : minus(x.toFixed(digits).replace(/^-(0\.?0*)$/, '$1')));
/// As statisticians write what cannot exceed 1.
const p = (x) => String(x).replace(/^0/, '');
const percent = (x) => `${x > 0 && x < 0.01 ? '<1' : Math.round(100 * x)} %`;
const levelText = (level) => (level ? `p < ${p(atlas.levels[level - 1])}` : 'n.s.');
const fwhmText = (fwhm) => (fwhm ? String(fwhm) : 'none');
const count = (n, noun) => `${n.toLocaleString('en')} ${noun}${n === 1 ? '' : 's'}`;

/// About n round numbers in -range ... range.
function ticks(range, n = 5) {
  const rough = (2 * range) / n, unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((m) => m * unit >= rough * 0.999);
  const last = Math.floor(range / step + 1e-9);
  return {
    values: Array.from({length: 2 * last + 1}, (_, i) => (i - last) * step),
    digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9))
  };
}
