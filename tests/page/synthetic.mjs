// Synthetic data for the Atlas page, at any size: smooth random maps that cluster more with every checkpoint
// in the model "topographic" and stay noise in "control"; and the page made of it, as tools/atlas/page.cpp
// makes it.
//
//   node synthetic.mjs OUT.html ['{"layers": 12, "side": 28, "checkpoints": 20, ...}']
import {readFileSync, writeFileSync} from 'node:fs';
import {fileURLToPath} from 'node:url';
import {deflateSync} from 'node:zlib';

const kSources = new URL('../../tools/atlas/page/', import.meta.url);

/// mulberry32: the same page each time.
function random(seed) {
  let s = seed >>> 0;
  const uniform = () => {
    s = (s + 0x6d2b79f5) >>> 0;
    let x = Math.imul(s ^ (s >>> 15), 1 | s);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
  const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  return {uniform, normal};
}

const blob = (array, level) =>
    deflateSync(Buffer.from(array.buffer, array.byteOffset, array.byteLength), {level}).toString('base64');

/// Gaussian smoothing, edges repeated, then scaled to unit variance.
function smooth(map, side, sigma) {
  if (!sigma) return map;
  const reach = Math.ceil(3 * sigma);
  const kernel =
      Array.from({length: 2 * reach + 1}, (_, i) => Math.exp(-((i - reach) ** 2) / (2 * sigma ** 2)));
  const inside = (i) => Math.min(side - 1, Math.max(0, i));
  const pass = (from, step, other) => {
    const to = new Float32Array(side * side);
    for (let a = 0; a < side; ++a)
      for (let b = 0; b < side; ++b) {
        let sum = 0;
        for (let k = -reach; k <= reach; ++k)
          sum += kernel[k + reach] * from[inside(a + k) * step + b * other];
        to[a * step + b * other] = sum;
      }
    return to;
  };
  const out = pass(pass(map, 1, side), side, 1);
  const mean = out.reduce((s, x) => s + x, 0) / out.length;
  const sd = Math.sqrt(out.reduce((s, x) => s + (x - mean) ** 2, 0) / out.length);
  return out.map((x) => (x - mean) / sd);
}

/// Moran's I with binary rook weights.
function moran(t, side) {
  const mean = t.reduce((s, x) => s + x, 0) / t.length;
  let near = 0, pairs = 0, all = 0;
  t.forEach((x, i) => {
    all += (x - mean) ** 2;
    for (const j of [i % side < side - 1 ? i + 1 : -1, i + side < t.length ? i + side : -1])
      if (j >= 0) near += (x - mean) * (t[j] - mean), ++pairs;
  });
  return (t.length / pairs) * (near / all);
}

/// Connected cells of one sign above the level, at least 10: numbered by size, negative where t < 0.
function clusters(t, level, side) {
  const found = [], seen = new Uint8Array(t.length), out = new Int8Array(t.length);
  for (let start = 0; start < t.length; ++start) {
    if (seen[start] || !level[start]) continue;
    const members = [start];
    seen[start] = 1;
    for (let k = 0; k < members.length; ++k) {
      const i = members[k], c = i % side;
      for (const j of [c ? i - 1 : -1, c < side - 1 ? i + 1 : -1, i - side, i + side])
        if (j >= 0 && j < t.length && !seen[j] && level[j] && t[j] > 0 === t[start] > 0)
          seen[j] = 1, members.push(j);
    }
    if (members.length >= 10) found.push(members);
  }
  found.sort((a, b) => b.length - a.length);
  for (const sign of [1, -1])
    found.filter((m) => Math.sign(t[m[0]]) === sign)
        .slice(0, 127)
        .forEach((m, n) => m.forEach((i) => (out[i] = sign * (n + 1))));
  return out;
}

const kConditions = [
  ['sentence', 'localizer', 'the old house stood at the end of the lane'],
  ['nonword', 'localizer', 'ble snarp fo drimmel tas ob quen plish'],
  ['concrete noun', 'words', 'candle'],
  ['abstract noun', 'words', 'honour'],
  ['concrete verb', 'words', 'carry'],
  ['abstract verb', 'words', 'wonder'],
];
const kContrasts = [
  ['sentence-nonword', 'localizer', ['sentence'], ['nonword']],
  ['noun-verb', 'words', ['concrete noun', 'abstract noun'], ['concrete verb', 'abstract verb']],
  ['concrete-abstract', 'words', ['concrete noun', 'concrete verb'], ['abstract noun', 'abstract verb']],
  ['concrete noun-verb', 'words', ['concrete noun'], ['concrete verb']],
  ['abstract noun-verb', 'words', ['abstract noun'], ['abstract verb']],
];
const kWords =
    ('the of and to in a that it was his her with as had not at for on she be he which they you were said ' +
     'but have been so would could very much little house sister letter morning carriage lady gentleman room must ' +
     'never think know walk evening father manner')
        .split(' ');

/// Tokens of a text, as pieces that begin with their space; some that would break a careless page.
function text(rng, length) {
  const tokens = [];
  for (let i = 0; i < length; ++i)
    tokens.push(' ' + kWords[Math.floor(rng.uniform() ** 1.5 * kWords.length)]);
  for (let i = 11; i < length; i += 13) tokens[i] = i % 2 ? '.' : ',';
  const odd = ['</script>', '<!--', '<img src=x onerror=alert(1)>', '&amp;', '\ufffd', '\n', '{{data}}', '"'];
  const positions = odd.map((_, i) => (i + 1) * Math.floor(length / 10));
  odd.forEach((token, i) => (tokens[positions[i]] = token));
  return {tokens, positions};
}

function model({name, clustered, layers, side, checkpoints, fwhm, textLength, level: packing}, seed) {
  const rng = random(seed), sites = 2 * layers, cells = side * side,
        maps = kContrasts.length * fwhm.length * sites;
  // Each contrast at each site: a smooth map and noise, mixed by training; contrasts of words share a part.
  const smoothness = 1.7 * (side / 28) ** 0.5;
  const noise = () => Float32Array.from({length: cells}, rng.normal);
  const last = kContrasts.map(() => Array.from({length: sites}, () => smooth(noise(), side, smoothness)));
  const first = kContrasts.map(() => Array.from({length: sites}, noise));
  const mix = (a, b, w) => a.map((x, i) => Math.sqrt(w) * x + Math.sqrt(1 - w) * b[i]);
  for (const c of [3, 4]) last[c] = last[c].map((m, s) => mix(last[1][s], m, 0.6));

  const list = [];
  for (let k = 0; k < checkpoints; ++k) {
    const progress = checkpoints > 1 ? k / (checkpoints - 1) : 1;
    const w = clustered ? 0.97 * progress ** 0.6 : 0;
    const t = new Int16Array(maps * cells), level = new Uint8Array(maps * cells),
          cluster = new Int8Array(maps * cells);
    const scale = 0.002, moranOf = [];
    let at = 0;
    for (let c = 0; c < kContrasts.length; ++c) {
      moranOf.push(fwhm.map((f) => {
        const values = [];
        for (let s = 0; s < sites; ++s, at += cells) {
          const map = smooth(mix(last[c][s], first[c][s], w), side, f / Math.sqrt(8 * Math.log(2)));
          const spread = (2 + 6 * progress ** 0.5) * (1 + 0.4 * f) * (c === 0 ? 1.8 : 1);
          for (let i = 0; i < cells; ++i) {
            t[at + i] = Math.max(-32767, Math.min(32767, Math.round((map[i] * spread) / scale)));
            const size = Math.abs(t[at + i] * scale);
            level[at + i] = (size > 2.9) + (size > 3.6) + (size > 4.4);
          }
          const drawn = Float32Array.from(t.subarray(at, at + cells));
          cluster.set(clusters(drawn, level.subarray(at, at + cells), side), at);
          values.push(Number(moran(drawn, side).toFixed(4)));
        }
        return values;
      }));
    }
    list.push({
      step: checkpoints > 1 ? k * 25 : 500,
      t: {scale, data: blob(t, packing)},
      level: blob(level, packing),
      cluster: blob(cluster, packing),
      moran: moranOf
    });
  }

  const unit = new Int16Array(sites * cells);
  for (let s = 0; s < sites; ++s) {
    const order = Array.from({length: cells}, (_, i) => i);
    for (let i = cells - 1; i > 0; --i) {
      const j = Math.floor(rng.uniform() * (i + 1));
      [order[i], order[j]] = [order[j], order[i]];
    }
    unit.set(order, s * cells);
  }
  const {tokens, positions} = text(rng, textLength);
  const response = new Int16Array(kConditions.length * sites * cells);
  const strongest = new Uint16Array(sites * cells * 5), value = new Int16Array(strongest.length);
  for (let s = 0; s < sites; ++s)
    for (let i = 0; i < cells; ++i) {
      kConditions.forEach(([condition], k) => {
        let x = rng.normal() * 0.15;
        kContrasts.forEach(([, , positive, negative], c) => {
          x += 0.25 * last[c][s][i] * (positive.includes(condition) - negative.includes(condition));
        });
        response[(k * sites + s) * cells + i] = Math.round(x * 4000);
      });
      // Neighbours like the same tokens where the map is smooth.
      const taste =
          clustered ? Math.floor((last[1][s][i] + 4) * 3) * 37 : Math.floor(rng.uniform() * textLength);
      for (let k = 0; k < 5; ++k) {
        strongest[(s * cells + i) * 5 + k] =
            (taste + k * 101 + (rng.uniform() < 0.3 ? Math.floor(rng.uniform() * 50) : 0)) % textLength;
        value[(s * cells + i) * 5 + k] = Math.round((4 - 0.5 * k + rng.uniform()) * 3000);
      }
    }
  positions.forEach((position, i) => (strongest[5 * i] = position));  // the first units have seen them
  return {
    name,
    path: `models/${name}`,
    note: clustered ? '500 steps, alpha 2.5' : '500 steps, alpha 0',
    unit: blob(unit, packing),
    checkpoints: list,
    response: {scale: 1 / 4000, data: blob(response, packing)},
    tokens,
    strongest: blob(strongest, packing),
    strongest_value: {scale: 1 / 3000, data: blob(value, packing)},
  };
}

export function syntheticData(
    {layers = 12, side = 28, checkpoints = 20, fwhm = [0, 1, 2], models = 2, textLength = 4000, level = 9} =
        {}) {
  const sites = Array.from({length: 2 * layers}, (_, s) => `h.${s >> 1}.${s % 2 ? 'mlp' : 'attn'}`);
  return {
    format: 1,
    title: 'Synthetic maps',
    command: './atlas topographic=models/topolm control=models/control',
    rows: side,
    cols: side,
    sites,
    fwhm,
    levels: [0.05, 0.01, 0.001],
    conditions: kConditions.map(([name, set, example]) => ({name, set, items: 80, example})),
    contrasts: kContrasts.map(([name, set, positive, negative]) => ({name, set, positive, negative})),
    models: ['topographic', 'control'].slice(0, models).map(
        (name, m) =>
            model({name, clustered: m === 0, layers, side, checkpoints, fwhm, textLength, level}, 1 + m)),
  };
}

/// The page with the data in it: see atlas_page().
export function atlasPage(data) {
  const json = JSON.stringify(data)
                   .replaceAll('<', '\\u003c')
                   .replace(/[\u0080-\uffff]/g, (c) => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0'));
  const read = (name) => readFileSync(new URL(name, kSources), 'utf8');
  return read('page.html').replace(/\{\{(.*?)\}\}/g, (_, name) => (name === 'data' ? json : read(name)));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [, , out, options = '{}'] = process.argv;
  if (!out) throw new Error('usage: node synthetic.mjs OUT.html [OPTIONS]');
  writeFileSync(out, atlasPage(syntheticData(JSON.parse(options))));
}
