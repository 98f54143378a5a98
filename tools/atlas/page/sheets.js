// The sheets: how they lie on the page, their pictures, and what is drawn over them. A picture is one pixel a
// cell, enlarged by the browser without smoothing; a cell is a whole number of the screen's pixels. Outlines,
// selection and marks lie on a canvas above it, so that pointing draws no map.

/// Attention in one row and MLP in the next, layers across.
const places = atlas.sites.map((name, site) => {
  const [, layer, module] = name.match(/^h\.(\d+)\.(attn|mlp)$/) ?? [];
  return {layer: layer ? Number(layer) : site >> 1, row: module ? Number(module === 'mlp') : site & 1};
});
const kLayers = [...new Set(places.map((place) => place.layer))].sort((a, b) => a - b);

const kGap = 14, kSmallest = 80;
const kOutline = (208 << 24 | 26 << 16 | 22 << 8 | 20) >>> 0;  // dark, not quite opaque

class Sheet {
  constructor(model, site) {
    Object.assign(this, {model, site, cell: 0, ratio: 0, marks: ''});
    const name = atlas.sites[site];
    this.map = h('canvas', {className: 'map', width: kCols, height: kRows});
    this.over = h('canvas', {className: 'over'});
    this.box =
        h('div', {
          className: 'sheet',
          tabIndex: -1,
          role: 'application',
          'aria-roledescription': 'sheet of units',
          'aria-label': `${name}, ${model.name}: ${kRows} by ${
              kCols} units. Arrow keys move, with Shift they select a box; Enter opens the details.`
        },
          this.map, this.over);
    this.name =
        h('button', {type: 'button', className: 'name', tabIndex: -1, title: `Enlarge ${name}`}, name);
    this.moran = h('span', {className: 'moran', title: 'Moran’s I'});
    this.figure = h('figure', {}, this.box, h('figcaption', {}, this.name, this.moran));
    this.context = this.map.getContext('2d'), this.above = this.over.getContext('2d');
    this.image = this.context.createImageData(kCols, kRows);
    this.pixels = new Uint32Array(this.image.data.buffer);
  }

  /// The map of t; returns how many cells are above the threshold with t > 0 and with t < 0.
  paint(view) {
    const {t, level, cluster, scale} = this.model.maps[view.checkpoints[this.model.index]];
    const from = mapOffset(view.contrast, view.fwhm, this.site), {blank, smallest, needed} = view;
    const gain = (scale / view.range) * kHalf, pixels = this.pixels;
    let positive = 0, negative = 0;
    for (let i = 0; i < kCells; ++i) {
      const v = t[from + i];
      if (level[from + i] < needed || Math.abs(v * scale) < smallest) {
        pixels[i] = blank;
        continue;
      }
      v > 0 ? ++positive : ++negative;
      pixels[i] = kPixels[kHalf + Math.round(Math.min(kHalf, Math.max(-kHalf, v * gain)))];
    }
    this.context.putImageData(this.image, 0, 0);
    this.cluster = cluster.subarray(from, from + kCells);
    this.moran.textContent =
        number(this.model.moran(view.checkpoints[this.model.index], view.contrast, view.fwhm, this.site));
    return {positive, negative};
  }

  /// `cell` of the screen's pixels a cell.
  resize(cell) {
    if (cell === this.cell && devicePixelRatio === this.ratio) return;
    this.cell = cell, this.ratio = devicePixelRatio;
    this.marks = '';  // setting its size empties a canvas
    this.over.width = kCols * cell, this.over.height = kRows * cell;
    this.box.style.width = `${(kCols * cell) / devicePixelRatio}px`;
    this.box.style.height = `${(kRows * cell) / devicePixelRatio}px`;
  }

  /// What lies above the map; cells by their numbers, and undefined where there is none.
  drawOver({outline, selected, lasso, hover, twin, pinned}) {
    const c = this.above, cell = this.cell,
          line = Math.max(1, Math.round(Math.min(cell / 9, 1.6 * devicePixelRatio)));
    c.clearRect(0, 0, this.over.width, this.over.height);
    if (outline) this.drawOutlines(line);
    if (selected) {
      const inside = new Uint8Array(kCells);
      for (const i of selected) inside[i] = 1;
      c.fillStyle = 'rgb(255 255 255 / .6)';
      for (let i = 0; i < kCells; ++i)
        if (!inside[i]) c.fillRect((i % kCols) * cell, Math.floor(i / kCols) * cell, cell, cell);
      c.fillStyle = '#101114';
      borders(inside, cell, Math.max(line, Math.round(1.5 * devicePixelRatio)), (...at) => c.fillRect(...at));
    }
    if (lasso) {
      const path = new Path2D();
      lasso.forEach(([x, y], i) => (i ? path.lineTo(x * cell, y * cell) : path.moveTo(x * cell, y * cell)));
      c.fillStyle = 'rgb(20 22 26 / .1)';
      c.fill(path);
      this.stroke(path, 1.5, [4, 3]);
    }
    if (pinned !== undefined) this.mark(pinned, 2, []);
    if (twin !== undefined) this.mark(twin, 1, [2, 2]);
    if (hover !== undefined) this.mark(hover, 1.5, []);
  }

  /// Pixel by pixel: so many rectangles take a canvas too long.
  drawOutlines(line) {
    const {width, height} = this.over;
    if (this.outlined !== this.cluster || this.outlines.width !== width) {
      if (this.outlines?.width !== width) this.outlines = this.above.createImageData(width, height);
      const pixels = new Uint32Array(this.outlines.data.buffer);
      pixels.fill(0);
      borders(this.cluster, this.cell, line, (x, y, w, h) => {
        for (let row = y; row < y + h; ++row) pixels.fill(kOutline, row * width + x, row * width + x + w);
      });
      this.outlined = this.cluster;
    }
    this.above.putImageData(this.outlines, 0, 0);
  }

  /// Dark on a white halo: seen on every colour of the map.
  stroke(path, width, dash) {
    const c = this.above, scale = devicePixelRatio;
    c.lineJoin = 'round';
    c.setLineDash([]);
    c.strokeStyle = 'rgb(255 255 255 / .9)', c.lineWidth = (width + 2) * scale;
    c.stroke(path);
    c.setLineDash(dash.map((d) => d * scale));
    c.strokeStyle = '#101114', c.lineWidth = width * scale;
    c.stroke(path);
  }

  mark(i, width, dash) {
    const path = new Path2D(), around = Math.max(1, 3 * devicePixelRatio - this.cell / 3);
    path.rect(
        (i % kCols) * this.cell - around, Math.floor(i / kCols) * this.cell - around, this.cell + 2 * around,
        this.cell + 2 * around);
    this.stroke(path, width, dash);
  }
}

/// The borders between cells of different numbers, inside those whose number is not 0, corners included, as
/// calls of rect(x, y, width, height): on whole pixels, crisp where a stroked line would not be.
function borders(of, cell, line, rect) {
  for (let r = 0, i = 0; r < kRows; ++r)
    for (let c = 0; c < kCols; ++c, ++i) {
      const n = of[i];
      if (!n) continue;
      const same = (dr, dc) =>
          r + dr >= 0 && r + dr < kRows && c + dc >= 0 && c + dc < kCols && of[i + dr * kCols + dc] === n;
      const x = c * cell, y = r * cell, far = cell - line;
      const up = same(-1, 0), down = same(1, 0), left = same(0, -1), right = same(0, 1);
      if (!up) rect(x, y, cell, line);
      if (!down) rect(x, y + far, cell, line);
      if (!left) rect(x, y, line, cell);
      if (!right) rect(x + far, y, line, cell);
      if (up && left && !same(-1, -1)) rect(x, y, line, line);
      if (up && right && !same(-1, 1)) rect(x + far, y, line, line);
      if (down && left && !same(1, -1)) rect(x, y + far, line, line);
      if (down && right && !same(1, 1)) rect(x + far, y + far, line, line);
    }
}

/// A model's sheets under its name.
class Section {
  constructor(model) {
    this.model = model;
    this.sheets = atlas.sites.map((_, site) => new Sheet(model, site));
    this.grid = h('div', {className: 'grid'}, this.sheets.map((sheet) => sheet.figure));
    this.facts = h('p', {className: 'facts'});
    this.spark = h('div', {className: 'spark-place'});
    this.element =
        h('section', {'aria-label': model.name},
          h('header', {},
            h('div', {}, h('h2', {title: model.path}, model.name), h('p', {className: 'note'}, model.note),
              this.facts),
            this.spark),
          this.grid);
  }

  /// The one sheet that the Tab key reaches; from there the arrow keys reach the others.
  reach(site) {
    for (const sheet of this.sheets) sheet.box.tabIndex = sheet.name.tabIndex = sheet.site === site ? 0 : -1;
  }

  /// As many layers in a row as leave a sheet kSmallest wide; the rows equally long.
  layout(large) {
    const width = this.element.clientWidth, scale = devicePixelRatio;
    const cellFor = (room) => Math.max(1, Math.floor((room * scale) / kCols));
    this.sheets.forEach((sheet) => (sheet.figure.hidden = large !== null && sheet.site !== large));
    if (large !== null) {
      const room = Math.min(width, (Math.max(320, innerHeight - 200) * kCols) / kRows);
      const sheet = this.sheets[large];
      sheet.resize(cellFor(room));
      sheet.figure.style.gridArea = '1 / 1';
      this.reach(large);
      return;
    }
    const most = Math.max(
        1, Math.min(kLayers.length, Math.floor((width + kGap) / (Math.min(kSmallest, width) + kGap))));
    this.columns = Math.ceil(kLayers.length / Math.ceil(kLayers.length / most));
    const cell = Math.min(cellFor((width - (this.columns - 1) * kGap) / this.columns), cellFor(260));
    const left = (width - (this.columns * cell * kCols) / scale) / Math.max(1, this.columns - 1);
    this.grid.style.columnGap = `${Math.floor(Math.min(left, 3 * kGap))}px`;
    for (const sheet of this.sheets) {
      const {row, column} = this.placeOf(sheet.site);
      sheet.figure.style.gridArea = `${row + 1} / ${column + 1}`;
      sheet.figure.classList.toggle('band-end', row % 2 === 1);
      sheet.resize(cell);
    }
  }

  placeOf(site) {
    const k = kLayers.indexOf(places[site].layer);
    return {row: 2 * Math.floor(k / this.columns) + places[site].row, column: k % this.columns};
  }

  /// The site whose sheet lies `down` rows and `right` columns from this one; undefined where there is none.
  neighbor(site, down, right) {
    const {row, column} = this.placeOf(site);
    const found = atlas.sites.findIndex((_, other) => {
      const place = this.placeOf(other);
      return place.row === row + down && place.column === column + right;
    });
    return found < 0 ? undefined : found;
  }
}

const sections = models.map((model) => new Section(model));
sections.forEach((section) => section.reach(0));
const sheetOf = ({model, site}) => sections[model].sheets[site];
