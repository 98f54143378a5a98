// A page in Debian's Chromium, and the data it was made of, read by other code than the page's own.
import assert from 'node:assert/strict';
import {readFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {pathToFileURL} from 'node:url';
import {inflateSync} from 'node:zlib';

// run.sh installs it outside the project.
const {chromium} = createRequire(`${process.env.PLAYWRIGHT}/`)('playwright-core');

export const launch = () => chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'
  ]
});

const kTypes = {
  i8: Int8Array,
  u8: Uint8Array,
  i16: Int16Array,
  u16: Uint16Array
};
function unpack(blob, type) {
  const bytes = inflateSync(Buffer.from(blob, 'base64'));
  return new kTypes[type](bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
}

/// What a page's maps are, at indices of the format in tools/atlas/page.h.
export class Data {
  constructor(html) {
    this.json =
        JSON.parse(html.match(/<script type="application\/json" id="atlas-data">([^<]*)<\/script>/)[1]);
    this.cells = this.json.rows * this.json.cols;
    this.sites = this.json.sites.length;
    this.unpacked = new Map();
  }
  blob(key, blob, type) {
    if (!this.unpacked.has(key)) this.unpacked.set(key, unpack(blob, type));
    return this.unpacked.get(key);
  }
  checkpoint(model, k) { return this.json.models[model].checkpoints.at(k); }
  /// Of one sheet: t, level and cluster, a value a cell.
  sheet({model = 0, checkpoint = -1, contrast = 0, fwhm = 0, site = 0}) {
    const json = this.checkpoint(model, checkpoint),
          from = ((contrast * this.json.fwhm.length + fwhm) * this.sites + site) * this.cells;
    const of = (name, packed, type) =>
        this.blob(`${model} ${json.step} ${name}`, packed, type).subarray(from, from + this.cells);
    return {
      t: Array.from(of('t', json.t.data, 'i16'), (v) => v * json.t.scale),
      level: of('level', json.level, 'u8'),
      cluster: of('cluster', json.cluster, 'i8'),
      moran: json.moran[contrast][fwhm][site]
    };
  }
  unit(model, site, cell) {
    return this.blob(`${model} unit`, this.json.models[model].unit, 'i16')[site * this.cells + cell];
  }
  response(model, condition, site, cell) {
    const {scale, data} = this.json.models[model].response;
    return this.blob(`${model} response`, data, 'i16')[(condition * this.sites + site) * this.cells + cell] *
        scale;
  }
  strongest(model, site, cell) {
    const from = (site * this.cells + cell) * 5;
    return [
      ...this.blob(`${model} strongest`, this.json.models[model].strongest, 'u16').subarray(from, from + 5)
    ];
  }
}

/// A page that shall say nothing on the console, throw nothing and ask for nothing: close() checks that.
export class Page {
  static async open(browser, file, {hash = '', script, ready = true, ...options} = {}) {
    const self = new Page();
    self.file = file;
    self.context =
        await browser.newContext({viewport: {width: 1280, height: 900}, acceptDownloads: true, ...options});
    self.page = await self.context.newPage();
    self.complaints = [];
    self.page.on('console', (m) => self.complaints.push(`console.${m.type()}: ${m.text()}`));
    self.page.on('pageerror', (e) => self.complaints.push(`error: ${e.message}`));
    self.page.on('dialog', (d) => (self.complaints.push(`dialog: ${d.message()}`), d.dismiss()));
    self.page.on('request', (r) => {
      if (!r.url().startsWith('file:') && !/^(blob|data):/.test(r.url()))
        self.complaints.push(`request: ${r.url()}`);
    });
    if (script) await self.page.addInitScript(script);
    await self.page.goto(pathToFileURL(file).href + hash);
    if (ready) await self.page.waitForSelector('html[data-ready]'), await self.settle();
    return self;
  }
  async close() {
    await this.context.close();
    assert.deepEqual(this.complaints, []);
  }

  /// Until nothing is waiting to be drawn.
  async settle() {
    await this.page.evaluate(async () => {
      for (let i = 0; i < 4; ++i)
        await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 8)));
    });
  }
  sheet(model, site) { return this.page.locator('#models > section').nth(model).locator('.sheet').nth(site); }
  async box(model, site) {
    await this.sheet(model, site).evaluate((e) => e.scrollIntoView({block: 'nearest'}));
    return this.sheet(model, site).boundingBox();
  }
  /// Where on the screen a point of a sheet is, in cells.
  async at(model, site, [col, row], {rows, cols}) {
    const b = await this.box(model, site);
    return [b.x + (b.width * col) / cols, b.y + (b.height * row) / rows];
  }
  async hover(data, model, site, cell) {
    const {cols} = data.json;
    await this.page.mouse.move(
        ...(await this.at(model, site, [(cell % cols) + 0.5, Math.floor(cell / cols) + 0.5], data.json)));
    await this.settle();
  }
  /// Draws a line around; the points are in cells.
  async lasso(data, model, site, points) {
    const all = [];
    for (const p of points) all.push(await this.at(model, site, p, data.json));
    await this.page.mouse.move(...all[0]);
    await this.page.mouse.down();
    for (const p of all.slice(1)) await this.page.mouse.move(...p, {steps: 4});
    await this.page.mouse.up();
    await this.settle();
  }
  async set(id, value) {
    await this.page.locator(`#${id}`).fill(String(value));
    await this.settle();
  }
  async radio(name, index) {
    await this.page.locator(`#${name} label`).nth(index).click();
    await this.settle();
  }
  async threshold(value) {
    await this.page.selectOption('#threshold', String(value));
    await this.settle();
  }
  /// Of one of a sheet's canvases, [r, g, b, a] a pixel.
  async pixels(model, site, canvas = 'map') {
    const flat = await this.sheet(model, site).locator(`.${canvas}`).evaluate((c) => {
      const copy = new OffscreenCanvas(c.width, c.height).getContext('2d', {willReadFrequently: true});
      copy.drawImage(c, 0, 0);
      return [...copy.getImageData(0, 0, c.width, c.height).data];
    });
    return Array.from({length: flat.length / 4}, (_, i) => flat.slice(4 * i, 4 * i + 4));
  }
  text(selector) { return this.page.locator(selector).innerText(); }
  panel() { return this.text('#panel'); }
  rows(table) {
    return this.page.locator('#panel table')
        .nth(table)
        .locator('tr:not(.heading)')
        .evaluateAll((rows) => rows.map((r) => [...r.cells].map((c) => c.textContent.replace('−', '-'))));
  }
  focus() {
    return this.page.evaluate(() => {
      const e = document.activeElement;
      return e.id || e.className || e.name || e.tagName;
    });
  }
}

export const readData = (file) => new Data(readFileSync(file, 'utf8'));
