// The Atlas page in a real browser, on synthetic data at full size and, with ATLAS_HTML=FILE, on a page that
// ./atlas has written. Every number on the page is compared with the data, decoded by other code.
import assert from 'node:assert/strict';
import {mkdirSync, readFileSync, statSync, writeFileSync} from 'node:fs';
import {after, before, describe, test} from 'node:test';

import {launch, Page, readData} from './browser.mjs';
import {blanks, close, readsItsData} from './shown_data.mjs';
import {atlasPage, syntheticData} from './synthetic.mjs';

const kFolder = process.env.PLAYWRIGHT;
const kFull = `${kFolder}/full.html`, kSmall = `${kFolder}/small.html`, kBase = `${kFolder}/base.html`;
mkdirSync(kFolder, {recursive: true});
writeFileSync(kFull, atlasPage(syntheticData({level: 1})));
const small = syntheticData({layers: 2, side: 8, checkpoints: 1, fwhm: [0], models: 1, textLength: 300});
small.models[0].checkpoints[0].moran[0][0][2] = null;  // of a map without variance
writeFileSync(kSmall, atlasPage(small));

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser.close());

readsItsData('synthetic, full size', kFull, () => browser);
readsItsData('synthetic, one small model', kSmall, () => browser);
if (process.env.ATLAS_HTML) readsItsData('the page of ATLAS_HTML', process.env.ATLAS_HTML, () => browser);

describe('the page', () => {
  const data = readData(kFull), {json} = data, {cols, rows} = json;
  let page;
  before(async () => {
    page = await Page.open(browser, kFull);
  });
  after(() => page.close());

  test('text that looks like markup stays text', async () => {
    const {tokens} = json.models[0];
    for (const piece of ['</script>', '<img src=x onerror=alert(1)>', '{{data}}']) {
      const position = tokens.indexOf(piece);
      assert.ok(position > 0);
      let found;
      for (let site = 0; site < data.sites && !found; ++site)
        for (let cell = 0; cell < data.cells && !found; ++cell)
          if (data.strongest(0, site, cell).includes(position)) found = [site, cell];
      await page.hover(data, 0, ...found);
      assert.ok((await page.page.locator('#panel mark').allTextContents()).includes(piece), piece);
    }
    assert.equal(await page.page.locator('img').count(), 0);
    assert.equal(await page.page.locator('script').count(), 2);
  });

  test('colours: one range for all sheets, the 99th percentile of |t| or the slider’s', async () => {
    const all =
        json.models
            .flatMap(
                (_, model) => json.sites.flatMap((__, site) => data.sheet({model, site}).t.map(Math.abs)))
            .sort((a, b) => a - b);
    const range = all[Math.floor(0.99 * (all.length - 1))];
    close((await page.text('#range-value')).slice(2), range, 1);
    await page.threshold('none');
    const {t} = data.sheet({}), strongest = t.findIndex((x) => x >= range);
    if (strongest >= 0) assert.deepEqual((await page.pixels(0, 0))[strongest], [0x67, 0x00, 0x1f, 255]);
    const halfway = t.findIndex((x) => x > 0.2 * range && x < 0.4 * range),
          before = (await page.pixels(0, 0))[halfway];
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
    await page.page.waitForFunction(
        (text) => document.querySelector('#step-value').textContent === text, String(steps[middle]));
    await page.settle();
    const {level, moran} = data.sheet({checkpoint: middle, site: 3});
    assert.equal(await blanks(page, 0, 3), level.filter((l) => l === 0).length);
    close(await page.page.locator('.moran').nth(3).innerText(), moran);
    const marked = await page.page.locator('.spark circle').first().getAttribute('cx');
    await page.set('step', 0);
    assert.ok(Number(await page.page.locator('.spark circle').first().getAttribute('cx')) < Number(marked));
    await page.set('step', steps.length - 4);
    await page.page.click('#play');
    await page.page.waitForFunction(
        (text) => document.querySelector('#step-value').textContent === text, String(steps.at(-1)));
    await page.page.waitForSelector('#play:not(.playing)');
    await page.settle();
    assert.equal(await blanks(page, 0, 3), data.sheet({site: 3}).level.filter((l) => l === 0).length);
  });

  test('double-clicking a unit selects its cluster', async () => {
    const {cluster} = data.sheet({site: 2}), cell = cluster.findIndex((n) => n === 1);
    await page.hover(data, 0, 2, cell);
    await page.page.mouse.dblclick(
        ...(await page.at(0, 2, [(cell % cols) + 0.5, Math.floor(cell / cols) + 0.5], json)));
    await page.settle();
    assert.equal(await page.text('#selected'), `${cluster.filter((n) => n === 1).length} units selected`);
    await page.page.keyboard.press('Escape');
  });

  test('the keyboard reaches everything and does what the mouse does', async () => {
    const other = await Page.open(browser, kFull), {keyboard} = other.page;
    const reached = [];
    while (reached.length < 60 && reached.at(-1) !== 'BODY')
      await keyboard.press('Tab'), await other.settle(), reached.push(await other.focus());
    for (const what
             of ['skip', 'png', 'contrast', 'fwhm', 'threshold', 'play', 'step', 'outline', 'range', 'auto',
                 'sheet', 'name'])
      assert.ok(reached.includes(what), `${what} is not among ${reached}`);
    assert.equal(reached.filter((what) => what === 'sheet').length, 2, `one sheet a model in ${reached}`);

    await other.sheet(0, 0).focus();
    const expect = async (model, site, row, col) => assert.equal(
        (await other.panel()).split(' · ', 2).join(' '),
        `Unit ${data.unit(model, site, row * cols + col)}\n\n${json.sites[site]} row ${row}, column ${col}`);
    const press = async (...keys) => {
      for (const key of keys) await keyboard.press(key);
      await other.settle();
    };
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
    await page.page.keyboard.press('Tab');
    assert.equal(await page.focus(), 'sheet', 'the next after the button');
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
    await page.radio('contrast', 2), await page.radio('fwhm', 2), await page.set('step', 9),
        await page.threshold('t'), await page.set('tmin', 4.5);
    await page.page.click('#outline');
    await page.page.waitForFunction(() => location.hash.includes('clusters=1'));
    const hash = await page.page.evaluate(() => location.hash), pixels = await page.pixels(0, 4);
    assert.equal(
        hash,
        `#contrast=concrete-abstract&fwhm=2&threshold=t4.5&step=${
            json.models[0].checkpoints[9].step}&clusters=1`);
    const other = await Page.open(browser, kFull, {hash});
    await other.page.waitForFunction(() => document.querySelector('#outline').checked);
    assert.deepEqual(await other.pixels(0, 4), pixels);
    assert.equal(await other.page.locator('#tmin-value').innerText(), '4.5');
    await other.close();
    const wrong = await Page.open(
        browser, kFull, {hash: '#contrast=no&fwhm=x&threshold=p7&step=1&range=-1&site=h.99.attn'});
    assert.equal(await wrong.page.locator('#contrast input:checked').inputValue(), '0');
    await wrong.close();
  });

  test('what is saved: the selection as CSV, the view as PNG', async () => {
    const other = await Page.open(browser, kFull);
    const saved = async (selector) => {
      const [download] = await Promise.all([other.page.waitForEvent('download'), other.page.click(selector)]);
      return {name: download.suggestedFilename(), bytes: readFileSync(await download.path())};
    };
    await other.lasso(data, 1, 4, [[0.1, 0.1], [1.9, 0.1], [1.9, 1.9], [0.1, 1.9]]);
    const csv = await saved('#panel button:has-text("CSV")');
    assert.equal(csv.name, 'atlas-control-h.2.attn.csv');
    const lines = csv.bytes.toString().trim().split('\r\n').map((line) => line.split(','));
    assert.equal(lines.length, 5);
    [0, 1, cols, cols + 1].forEach((cell, k) => {
      const row = Object.fromEntries(lines[0].map((name, i) => [name, lines[k + 1][i]]));
      assert.equal(Number(row.unit), data.unit(1, 4, cell));
      assert.ok(Math.abs(row['t noun-verb'] - data.sheet({model: 1, site: 4, contrast: 1}).t[cell]) < 1e-4);
      assert.equal(
          Number(row['cluster noun-verb']), data.sheet({model: 1, site: 4, contrast: 1}).cluster[cell]);
    });
    const png = await saved('#png');
    assert.equal(png.bytes.subarray(1, 4).toString(), 'PNG');
    assert.ok(png.bytes.readUInt32BE(16) > 1600 && png.bytes.length > 50_000);
    await other.close();
  });

  test('a finger draws a lasso where that is switched on', async () => {
    const phone = await Page.open(
        browser, kFull, {viewport: {width: 390, height: 844}, hasTouch: true, isMobile: true});
    const cdp = await phone.context.newCDPSession(phone.page);
    await phone.page.locator('#lasso').tap();
    const touch = async (type, point) =>
        cdp.send('Input.dispatchTouchEvent', {type, touchPoints: point ? [{x: point[0], y: point[1]}] : []});
    const points = [];
    for (const p of [[2.1, 2.1], [4.9, 2.1], [4.9, 4.9], [2.1, 4.9]])
      points.push(await phone.at(0, 0, p, json));
    await touch('touchStart', points[0]);
    for (const p of points.slice(1)) await touch('touchMove', p);
    await touch('touchEnd');
    await phone.settle();
    assert.equal(await phone.text('#selected'), '9 units selected');
    await phone.close();
  });

  test('dark and light: text is readable; no motion where none is wanted', async () => {
    for (const colorScheme of ['light', 'dark']) {
      const other = await Page.open(browser, kSmall, {colorScheme, reducedMotion: 'reduce'});
      const ratios = await other.page.evaluate(() => {
        const luminance = (css) =>
            css.match(/[\d.]+/g)
                .slice(0, 3)
                .map((v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
                .reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
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
    const old = await Page.open(browser, kSmall, {script: 'delete window.DecompressionStream', ready: false});
    assert.match(await old.text('[role=alert]'), /^This browser cannot unpack the maps .*newer\.$/);
    assert.equal(await old.page.locator('.sheet').count(), 0);
    await old.close();
  });

  test('two models of base size with 5 contrasts are at most 10 MB', () => {
    writeFileSync(kBase, atlasPage(syntheticData({checkpoints: 1})));
    const {size} = statSync(kBase);
    console.log(`size: ${(size / 1e6).toFixed(2)} MB at base size, ${
        (statSync(kFull).size / 1e6).toFixed(1)} MB with 20 checkpoints (packed loosely)`);
    assert.ok(size <= 10e6);
  });
});
