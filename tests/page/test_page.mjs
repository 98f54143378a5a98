// The Atlas page in a real browser, on synthetic data at full size and, with ATLAS_HTML=FILE, on a page that
// ./atlas has written. Every number on the page is compared with the data, decoded by other code.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';

import { launch, Page, readData } from './browser.mjs';
import { atlasPage, syntheticData } from './synthetic.mjs';

const kFolder = process.env.PLAYWRIGHT;
const kFull = `${kFolder}/full.html`, kSmall = `${kFolder}/small.html`, kBase = `${kFolder}/base.html`;
mkdirSync(kFolder, { recursive: true });
writeFileSync(kFull, atlasPage(syntheticData({ level: 1 })));
const small = syntheticData({ layers: 2, side: 8, checkpoints: 1, fwhm: [0], models: 1, textLength: 300 });
small.models[0].checkpoints[0].moran[0][0][2] = null;  // of a map without variance
writeFileSync(kSmall, atlasPage(small));

let browser;
before(async () => { browser = await launch(); });
after(() => browser.close());

const close = (a, b, digits = 2) => assert.ok(Math.abs(Number(a) - b) <= 0.500001 * 10 ** -digits, `${a} is not ${b}`);
const white = ([r, g, b]) => r === 255 && g === 255 && b === 255;
const mean = (x) => x.reduce((s, v) => s + v, 0) / x.length;
const blanks = async (page, ...sheet) => (await page.pixels(...sheet)).filter(white).length;
const levelName = ({ levels }, level) => (level ? `p < ${String(levels[level - 1]).slice(1)}` : 'n.s.');

/// On any page: what it shows is what its data say.
function readsItsData(name, file) {
  describe(name, () => {
    const data = readData(file), { json } = data, { contrasts, models, rows, cols } = json;
    const last = { model: models.length - 1, site: data.sites - 1 };
    const cells = [0, cols - 1, Math.floor(data.cells / 2) + 3, data.cells - 1];
    let page;
    before(async () => { page = await Page.open(browser, file); });
    after(() => page.close());

    test('opens: a sheet a site and model, no complaint, no request', async () => {
      assert.equal(await page.page.locator('.sheet').count(), models.length * data.sites);
      assert.deepEqual(await page.page.locator('.name').allInnerTexts(), models.flatMap(() => json.sites));
      const moran = await page.page.locator('.moran').allInnerTexts();
      models.forEach((_, model) => json.sites.forEach((__, site) => {
        const value = data.sheet({ model, site }).moran, shown = moran[model * data.sites + site].replace('−', '-');
        if (value === null) assert.equal(shown, '–');
        else close(shown, value);
      }));
      assert.deepEqual(page.complaints, []);
    });

    test('every contrast and readout: red where t > 0, blue where t < 0, white below the threshold', async () => {
      for (let contrast = 0; contrast < contrasts.length; ++contrast)
        for (let fwhm = 0; fwhm < json.fwhm.length; ++fwhm) {
          await page.radio('contrast', contrast), await page.radio('fwhm', fwhm);
          const { t, level } = data.sheet({ ...last, contrast, fwhm });
          (await page.pixels(last.model, last.site)).forEach((pixel, i) => {
            assert.equal(white(pixel), level[i] === 0, `cell ${i} of ${contrasts[contrast].name}`);
            if (level[i]) assert.equal(Math.sign(pixel[0] - pixel[2]), Math.sign(t[i]), `the sign of cell ${i}`);
          });
        }
      await page.radio('contrast', 0), await page.radio('fwhm', 0);
    });

    test('thresholds: as many cells are white as the data say', async () => {
      const { t, level } = data.sheet(last);
      await page.threshold('none');
      assert.equal(await blanks(page, last.model, last.site), 0);
      for (let k = 0; k < json.levels.length; ++k) {
        await page.threshold(k);
        assert.equal(await blanks(page, last.model, last.site), level.filter((l) => l <= k).length);
      }
      await page.threshold('t');
      for (const least of [1, 2.5]) {
        await page.set('tmin', least);
        assert.equal(await blanks(page, last.model, last.site), t.filter((x) => Math.abs(x) < least).length);
      }
      await page.threshold(0);
    });

    test('pointing at a unit: its number, t, level, cluster, responses and tokens', async () => {
      for (const cell of cells) {
        await page.hover(data, last.model, last.site, cell);
        const unit = data.unit(last.model, last.site, cell), { cluster } = data.sheet(last);
        assert.match(await page.text('#tip'), new RegExp(`^unit ${unit}\\b`));
        assert.equal(await page.text('#unit'), `Unit ${unit}`);
        const panel = await page.panel();
        assert.ok(panel.includes(`${json.sites[last.site]} · row ${Math.floor(cell / cols)}, column ${cell % cols} · ${models[last.model].name}`), panel);
        assert.ok(panel.replace('−', '-').includes(cluster[cell] ? `In cluster ${cluster[cell] > 0 ? '+' : ''}${cluster[cell]} of ` +
          `${cluster.filter((c) => c === cluster[cell]).length} unit` : 'In no cluster') || panel.includes('cluster −'), panel);

        const byContrast = await page.rows(0);
        contrasts.forEach((contrast, c) => {
          const { t, level } = data.sheet({ ...last, contrast: c });
          assert.equal(byContrast[c][0], contrast.name);
          close(byContrast[c][2], t[cell]);
          assert.equal(byContrast[c][3], levelName(json, level[cell]));
        });
        const byCondition = new Map((await page.rows(1)).map((r) => [r[0], r[2]]));
        json.conditions.forEach((condition, k) => close(byCondition.get(condition.name), data.response(last.model, k, last.site, cell)));

        const { tokens } = models[last.model], marked = await page.page.locator('#panel mark').allTextContents();
        assert.deepEqual(marked.map((m) => m.trim()), data.strongest(last.model, last.site, cell).map((p) => tokens[p].replaceAll('\n', '↵').replaceAll('\t', '⇥').trim()));
      }
      // The same site of the other models is marked, and no other.
      assert.deepEqual(await page.page.locator('.twin .name').allInnerTexts(), models.slice(1).map(() => json.sites[last.site]));
      await page.page.mouse.move(2, 2);
      await page.settle();
      assert.equal(await page.page.locator('.twin').count(), 0);
    });

    test('a lasso: its units, what they share, and the lesion', async () => {
      // Around the centres of 3 x 2 cells.
      const inside = [0, 1].flatMap((r) => [0, 1, 2].map((c) => (2 + r) * cols + 3 + c));
      await page.lasso(data, 0, 1, [[3.1, 2.1], [5.9, 2.1], [5.9, 3.9], [3.1, 3.9]]);
      assert.equal(await page.text('#selected'), '6 units selected');
      const units = inside.map((i) => data.unit(0, 1, i)).sort((a, b) => a - b);
      assert.equal(await page.page.inputValue('#lesion'), `--lesion '${json.sites[1]}:units(${units.join(',')})'`);
      const byContrast = await page.rows(0);
      contrasts.forEach((_, contrast) => close(byContrast[contrast][2], mean(inside.map((i) => data.sheet({ site: 1, contrast }).t[i]))));
      const byCondition = new Map((await page.rows(1)).map((r) => [r[0], r[2]]));
      json.conditions.forEach((c, k) => close(byCondition.get(c.name), mean(inside.map((i) => data.response(0, k, 1, i)))));

      const { cluster } = data.sheet({ site: 1 }), shares = (await page.page.locator('.shares .number').allInnerTexts()).map((s) => parseInt(s));
      const counts = [...new Set(inside.map((i) => cluster[i]))].map((n) => inside.filter((i) => cluster[i] === n).length);
      assert.deepEqual(shares, counts.sort((a, b) => b - a));

      const users = new Map();
      for (const i of inside) for (const token of new Set(data.strongest(0, 1, i).map((p) => models[0].tokens[p]))) users.set(token, (users.get(token) ?? 0) + 1);
      assert.equal(await page.text('.tokens li:first-child .number'), `${Math.round((100 * Math.max(...users.values())) / 6)} %`);

      // Six more with Shift; then nothing.
      await page.page.keyboard.down('Shift');
      await page.lasso(data, 0, 1, [[0.1, 0.1], [2.9, 0.1], [2.9, 1.9], [0.1, 1.9]]);
      await page.page.keyboard.up('Shift');
      assert.equal(await page.text('#selected'), '12 units selected');
      await page.page.keyboard.press('Escape');
      await page.settle();
      assert.equal(await page.page.locator('#selected').count(), 0);
    });

    test('outlines lie in the cells at the clusters’ borders, and go', async () => {
      const site = json.sites.findIndex((_, s) => data.sheet({ site: s }).cluster.some((n) => n));
      if (site < 0) return;
      await page.page.mouse.move(2, 2);
      await page.page.click('#outline');
      await page.settle();
      const { cluster } = data.sheet({ site }), over = await page.pixels(0, site, 'over'), width = Math.sqrt((over.length * cols) / rows), cell = width / cols;
      const border = (i) => cluster[i] && [[-1, 0], [1, 0], [0, -1], [0, 1]].some(([dr, dc]) => {
        const r = Math.floor(i / cols) + dr, c = (i % cols) + dc;
        return r < 0 || r >= rows || c < 0 || c >= cols || cluster[r * cols + c] !== cluster[i];
      });
      const inked = new Set(over.flatMap(([, , , alpha], k) => (alpha ? [Math.floor(Math.floor(k / width) / cell) * cols + Math.floor((k % width) / cell)] : [])));
      for (let i = 0; i < data.cells; ++i) {
        if (border(i)) assert.ok(inked.has(i), `cell ${i} has no line`);
        if (!cluster[i]) assert.ok(!inked.has(i), `cell ${i} of no cluster has a line`);
      }
      await page.page.click('#outline');
      await page.settle();
      assert.ok((await page.pixels(0, site, 'over')).every((p) => p[3] === 0));
    });

    test('390 pixels wide there is nothing to scroll sideways', async () => {
      const phone = await Page.open(browser, file, { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true });
      const fits = async (when) => assert.ok(await phone.page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), when);
      await fits('at first');
      await phone.sheet(0, 1).tap({ position: { x: 20, y: 20 } });
      await phone.settle();
      await fits('with a unit');
      assert.match(await phone.text('#panel h2'), /^Unit \d+$/);
      const panel = await phone.page.locator('#panel').boundingBox(), sheet = await phone.sheet(0, 1).boundingBox();
      assert.ok(sheet.y >= 0 && sheet.y + sheet.height <= panel.y + 1, 'the panel hides the sheet');
      await phone.page.click('.close');
      await phone.settle();
      await phone.threshold('t');
      await fits('with the slider of |t|');
      await phone.page.locator('.name').first().click();
      await phone.settle();
      await fits('enlarged');
      await phone.close();
    });
  });
}

readsItsData('synthetic, full size', kFull);
readsItsData('synthetic, one small model', kSmall);
if (process.env.ATLAS_HTML) readsItsData(process.env.ATLAS_HTML, process.env.ATLAS_HTML);

describe('the page', () => {
  const data = readData(kFull), { json } = data, { cols, rows } = json;
  let page;
  before(async () => { page = await Page.open(browser, kFull); });
  after(() => page.close());

  test('text that looks like markup stays text', async () => {
    const { tokens } = json.models[0];
    for (const piece of ['</script>', '<img src=x onerror=alert(1)>', '{{data}}']) {
      const position = tokens.indexOf(piece);
      assert.ok(position > 0);
      let found;
      for (let site = 0; site < data.sites && !found; ++site)
        for (let cell = 0; cell < data.cells && !found; ++cell) if (data.strongest(0, site, cell).includes(position)) found = [site, cell];
      await page.hover(data, 0, ...found);
      assert.ok((await page.page.locator('#panel mark').allTextContents()).includes(piece), piece);
    }
    assert.equal(await page.page.locator('img').count(), 0);
    assert.equal(await page.page.locator('script').count(), 2);
  });

  test('colours: one range for all sheets, the 99th percentile of |t| or the slider’s', async () => {
    const all = json.models.flatMap((_, model) => json.sites.flatMap((__, site) => data.sheet({ model, site }).t.map(Math.abs))).sort((a, b) => a - b);
    const range = all[Math.floor(0.99 * (all.length - 1))];
    close((await page.text('#range-value')).slice(2), range, 1);
    await page.threshold('none');
    const { t } = data.sheet({}), strongest = t.findIndex((x) => x >= range);
    if (strongest >= 0) assert.deepEqual((await page.pixels(0, 0))[strongest], [0x67, 0x00, 0x1f, 255]);
    const halfway = t.findIndex((x) => x > 0.2 * range && x < 0.4 * range), before = (await page.pixels(0, 0))[halfway];
    await page.set('range', Math.ceil(2 * range * 0.2) / 2);
    const stronger = (await page.pixels(0, 0))[halfway];
    assert.ok(stronger[2] < before[2], 'a narrower range makes colours stronger');
    await page.page.click('#auto');
    await page.settle();
    assert.deepEqual((await page.pixels(0, 0))[halfway], before);
    await page.threshold(0);
  });

  test('the slider and the player go through the checkpoints', async () => {
    const steps = json.models[0].checkpoints.map((c) => c.step), middle = 7;
    await page.set('step', middle);
    await page.page.waitForFunction((text) => document.querySelector('#step-value').textContent === text, String(steps[middle]));
    await page.settle();
    const { level, moran } = data.sheet({ checkpoint: middle, site: 3 });
    assert.equal(await blanks(page, 0, 3), level.filter((l) => l === 0).length);
    close(await page.page.locator('.moran').nth(3).innerText(), moran);
    const marked = await page.page.locator('.spark circle').first().getAttribute('cx');
    await page.set('step', 0);
    assert.ok(Number(await page.page.locator('.spark circle').first().getAttribute('cx')) < Number(marked));
    await page.set('step', steps.length - 4);
    await page.page.click('#play');
    await page.page.waitForFunction((text) => document.querySelector('#step-value').textContent === text, String(steps.at(-1)));
    await page.page.waitForSelector('#play:not(.playing)');
    await page.settle();
    assert.equal(await blanks(page, 0, 3), data.sheet({ site: 3 }).level.filter((l) => l === 0).length);
  });

  test('double-clicking a unit selects its cluster', async () => {
    const { cluster } = data.sheet({ site: 2 }), cell = cluster.findIndex((n) => n === 1);
    await page.hover(data, 0, 2, cell);
    await page.page.mouse.dblclick(...(await page.at(0, 2, [(cell % cols) + 0.5, Math.floor(cell / cols) + 0.5], json)));
    await page.settle();
    assert.equal(await page.text('#selected'), `${cluster.filter((n) => n === 1).length} units selected`);
    await page.page.keyboard.press('Escape');
  });

  test('the keyboard reaches everything and does what the mouse does', async () => {
    const other = await Page.open(browser, kFull), { keyboard } = other.page;
    const reached = [];
    while (reached.length < 60 && reached.at(-1) !== 'BODY') await keyboard.press('Tab'), await other.settle(), reached.push(await other.focus());
    for (const what of ['skip', 'png', 'contrast', 'fwhm', 'threshold', 'play', 'step', 'outline', 'range', 'auto', 'sheet', 'name'])
      assert.ok(reached.includes(what), `${what} is not among ${reached}`);
    assert.equal(reached.filter((what) => what === 'sheet').length, 2, `one sheet a model in ${reached}`);

    await other.sheet(0, 0).focus();
    const expect = async (model, site, row, col) =>
      assert.equal((await other.panel()).split(' · ', 2).join(' '), `Unit ${data.unit(model, site, row * cols + col)}\n\n${json.sites[site]} row ${row}, column ${col}`);
    const press = async (...keys) => { for (const key of keys) await keyboard.press(key); await other.settle(); };
    await press('Home');
    await expect(0, 0, rows / 2, 0);
    assert.notEqual(await other.sheet(0, 0).evaluate((e) => getComputedStyle(e).outlineStyle), 'none');
    await press('ArrowRight', 'ArrowUp');
    await expect(0, 0, rows / 2 - 1, 1);
    assert.match(await other.text('#live'), /^unit \d+, row 13, column 1, t −?\d/);
    await press('End', 'ArrowRight');
    await expect(0, 2, rows / 2 - 1, 0);  // over the edge: the next layer's attention
    await press('PageDown');
    await expect(0, 3, rows / 2 - 1, 0);
    await press('Shift+ArrowRight', 'Shift+ArrowRight', 'Shift+ArrowDown');
    assert.equal(await other.text('#selected'), '6 units selected');
    await press('Escape', 'ArrowDown', 'Enter');
    assert.equal(await other.focus(), 'panel');
    await expect(0, 3, rows / 2 + 1, 2);
    await press('Escape');
    assert.equal(await other.focus(), 'sheet');
    await other.page.locator('#contrast input').first().focus();
    await press('ArrowRight');
    assert.match(await other.panel(), /noun-verb/);
    await other.close();
  });

  test('a sheet’s name enlarges it; arrows and Escape', async () => {
    const before = await page.box(1, 5);
    await page.page.locator('section').nth(1).locator('.name').nth(5).click();
    await page.settle();
    assert.equal(await page.page.locator('.sheet:visible').count(), 2);
    assert.ok((await page.box(1, 5)).width > 3 * before.width);
    await page.page.click('#next');
    await page.settle();
    assert.equal(await page.text('#large-name'), json.sites[6]);
    await page.sheet(0, 6).focus();
    await page.page.keyboard.press('PageDown');
    await page.settle();
    assert.equal(await page.text('#large-name'), json.sites[7]);
    assert.equal(await page.focus(), 'sheet');
    await page.page.keyboard.press('Escape');
    await page.settle();
    assert.equal(await page.page.locator('.sheet:visible').count(), 2 * data.sites);
  });

  test('the address is the state', async () => {
    await page.radio('contrast', 2), await page.radio('fwhm', 2), await page.set('step', 9), await page.threshold('t'), await page.set('tmin', 4.5);
    await page.page.click('#outline');
    await page.page.waitForFunction(() => location.hash.includes('clusters=1'));
    const hash = await page.page.evaluate(() => location.hash), pixels = await page.pixels(0, 4);
    assert.equal(hash, `#contrast=concrete-abstract&fwhm=2&threshold=t4.5&step=${json.models[0].checkpoints[9].step}&clusters=1`);
    const other = await Page.open(browser, kFull, { hash });
    await other.page.waitForFunction(() => document.querySelector('#outline').checked);
    assert.deepEqual(await other.pixels(0, 4), pixels);
    assert.equal(await other.page.locator('#tmin-value').innerText(), '4.5');
    await other.close();
    const wrong = await Page.open(browser, kFull, { hash: '#contrast=no&fwhm=x&threshold=p7&step=1&range=-1&site=h.99.attn' });
    assert.equal(await wrong.page.locator('#contrast input:checked').inputValue(), '0');
    await wrong.close();
  });

  test('what is saved: the selection as CSV, the view as PNG', async () => {
    const other = await Page.open(browser, kFull);
    const saved = async (selector) => {
      const [download] = await Promise.all([other.page.waitForEvent('download'), other.page.click(selector)]);
      return { name: download.suggestedFilename(), bytes: readFileSync(await download.path()) };
    };
    await other.lasso(data, 1, 4, [[0.1, 0.1], [1.9, 0.1], [1.9, 1.9], [0.1, 1.9]]);
    const csv = await saved('#panel button:has-text("CSV")');
    assert.equal(csv.name, 'atlas-control-h.2.attn.csv');
    const lines = csv.bytes.toString().trim().split('\r\n').map((line) => line.split(','));
    assert.equal(lines.length, 5);
    [0, 1, cols, cols + 1].forEach((cell, k) => {
      const row = Object.fromEntries(lines[0].map((name, i) => [name, lines[k + 1][i]]));
      assert.equal(Number(row.unit), data.unit(1, 4, cell));
      assert.ok(Math.abs(row['t noun-verb'] - data.sheet({ model: 1, site: 4, contrast: 1 }).t[cell]) < 1e-4);
      assert.equal(Number(row['cluster noun-verb']), data.sheet({ model: 1, site: 4, contrast: 1 }).cluster[cell]);
    });
    const png = await saved('#png');
    assert.equal(png.bytes.subarray(1, 4).toString(), 'PNG');
    assert.ok(png.bytes.readUInt32BE(16) > 1600 && png.bytes.length > 50_000);
    await other.close();
  });

  test('a finger draws a lasso where that is switched on', async () => {
    const phone = await Page.open(browser, kFull, { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true });
    const cdp = await phone.context.newCDPSession(phone.page);
    await phone.page.locator('#lasso').tap();
    const touch = async (type, point) => cdp.send('Input.dispatchTouchEvent', { type, touchPoints: point ? [{ x: point[0], y: point[1] }] : [] });
    const points = [];
    for (const p of [[2.1, 2.1], [4.9, 2.1], [4.9, 4.9], [2.1, 4.9]]) points.push(await phone.at(0, 0, p, json));
    await touch('touchStart', points[0]);
    for (const p of points.slice(1)) await touch('touchMove', p);
    await touch('touchEnd');
    await phone.settle();
    assert.equal(await phone.text('#selected'), '9 units selected');
    await phone.close();
  });

  test('dark and light: text is readable; no motion where none is wanted', async () => {
    for (const colorScheme of ['light', 'dark']) {
      const other = await Page.open(browser, kSmall, { colorScheme, reducedMotion: 'reduce' });
      const ratios = await other.page.evaluate(() => {
        const luminance = (css) => css.match(/[\d.]+/g).slice(0, 3).map((v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)).reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
        const paper = luminance(getComputedStyle(document.body).backgroundColor);
        return [...document.querySelectorAll('h1, h2, .facts, .moran, .name, label, dd, .ticks')].map((e) => {
          const ink = luminance(getComputedStyle(e).color);
          return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
        });
      });
      assert.ok(Math.min(...ratios) >= 4.5, `${colorScheme}: ${Math.min(...ratios)}`);
      await other.sheet(0, 0).click();
      assert.equal(await other.page.evaluate(() => document.getAnimations().length), 0);
      await other.close();
    }
  });

  test('without DecompressionStream: one sentence', async () => {
    const old = await Page.open(browser, kSmall, { script: 'delete window.DecompressionStream', ready: false });
    assert.match(await old.text('[role=alert]'), /^This browser cannot unpack the maps .*newer\.$/);
    assert.equal(await old.page.locator('.sheet').count(), 0);
    await old.close();
  });

  test('two models of base size with 5 contrasts are at most 10 MB', () => {
    writeFileSync(kBase, atlasPage(syntheticData({ checkpoints: 1 })));
    const { size } = statSync(kBase);
    console.log(`size: ${(size / 1e6).toFixed(2)} MB at base size, ${(statSync(kFull).size / 1e6).toFixed(1)} MB with 20 checkpoints (packed loosely)`);
    assert.ok(size <= 10e6);
  });
});
