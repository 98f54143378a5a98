// What the page knows: the format is tools/atlas/page.h's. A checkpoint's maps stay packed until they are
// shown.

const atlas = JSON.parse(document.getElementById('atlas-data').textContent);
const kRows = atlas.rows, kCols = atlas.cols, kCells = kRows * kCols, kSites = atlas.sites.length;
const kStrongest = 5;

/// A BLOB's integers, little-endian as all machines that run a browser.
async function unpack(blob, Type) {
  const text = atob(blob), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; ++i) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Type(await new Response(stream).arrayBuffer());
}

const mapOffset = (contrast, fwhm, site) => ((contrast * atlas.fwhm.length + fwhm) * kSites + site) * kCells;

class Model {
  constructor(json, index) {
    Object.assign(this, {index, name: json.name, note: json.note, path: json.path, tokens: json.tokens});
    this.json = json;
    this.steps = json.checkpoints.map((c) => c.step);
    this.maps = [];  // of a checkpoint, once they are unpacked
    this.loading = [];
    this.ranges = new Map();
  }

  /// The newest checkpoint that is not newer than the step; the first where all are newer.
  checkpointAt(step) { return Math.max(0, this.steps.findLastIndex((s) => s <= step)); }

  /// Unpacks a checkpoint's maps.
  load(checkpoint) {
    this.loading[checkpoint] ??= (async () => {
      const {t, level, cluster} = this.json.checkpoints[checkpoint];
      const unpacked = await Promise.all(
          [unpack(t.data, Int16Array), unpack(level, Uint8Array), unpack(cluster, Int8Array)]);
      this.maps[checkpoint] = {t: unpacked[0], scale: t.scale, level: unpacked[1], cluster: unpacked[2]};
    })();
    return this.loading[checkpoint];
  }

  async loadUnits() {
    const {unit, response, strongest, strongest_value} = this.json;
    [this.unit, this.response, this.strongest, this.strongestValue] = await Promise.all([
      unpack(unit, Int16Array), unpack(response.data, Int16Array), unpack(strongest, Uint16Array),
      unpack(strongest_value.data, Int16Array)
    ]);
  }

  unitAt(site, cell) { return this.unit[site * kCells + cell]; }

  responseAt(condition, site, cell) {
    return this.response[(condition * kSites + site) * kCells + cell] * this.json.response.scale;
  }

  /// The 99th percentile of |mean response| over the site's units: one scale for their charts.
  responseRange(site) {
    if (!this.ranges.has(site)) {
      const all = atlas.conditions.flatMap(
          (_, k) => Array.from({length: kCells}, (__, i) => Math.abs(this.responseAt(k, site, i))));
      this.ranges.set(site, all.sort((a, b) => a - b)[Math.floor(0.99 * (all.length - 1))] || 1);
    }
    return this.ranges.get(site);
  }

  /// Where in the text the unit is most active: [{position, value}], strongest first.
  strongestAt(site, cell) {
    const first = (site * kCells + cell) * kStrongest;
    return Array.from(
        {length: kStrongest}, (_, k) => ({
                                position: this.strongest[first + k],
                                value: this.strongestValue[first + k] * this.json.strongest_value.scale
                              }));
  }

  moran(checkpoint, contrast, fwhm, site) {
    return this.json.checkpoints[checkpoint].moran[contrast][fwhm][site];
  }

  /// Mean over the sites that have one: a map without any variance has no Moran's I.
  meanMoran(checkpoint, contrast, fwhm) {
    return mean(this.json.checkpoints[checkpoint].moran[contrast][fwhm]);
  }
}

const models = atlas.models.map((json, index) => new Model(json, index));
const kSteps = [...new Set(models.flatMap((m) => m.steps))].sort((a, b) => a - b);

/// Of what the last checkpoints have of |t|, the 99th percentile and the maximum, over sites and models: one
/// scale for the whole training.
const spreads = new Map();
function spread(contrast, fwhm) {
  const key = contrast * atlas.fwhm.length + fwhm;
  if (!spreads.has(key)) {
    const all = new Float32Array(models.length * kSites * kCells);
    models.forEach((m, i) => {
      const {t, scale} = m.maps[m.steps.length - 1], from = mapOffset(contrast, fwhm, 0);
      for (let k = 0; k < kSites * kCells; ++k) all[i * kSites * kCells + k] = Math.abs(t[from + k] * scale);
    });
    all.sort();
    const p99 = all[Math.floor(0.99 * (all.length - 1))];
    spreads.set(key, {p99: Math.max(p99, 1e-3), max: Math.max(all[all.length - 1], 1e-3)});
  }
  return spreads.get(key);
}

function mean(values) {
  const known = values.filter((x) => x !== null);
  return known.length ? known.reduce((sum, x) => sum + x, 0) / known.length : null;
}

/// Of n values, divided by n - 1.
function deviation(values) {
  const m = mean(values);
  return values.length > 1 ?
      Math.sqrt(values.reduce((sum, x) => sum + (x - m) ** 2, 0) / (values.length - 1)) :
      0;
}
