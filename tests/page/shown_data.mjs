// On any page: every number that it shows is compared with the data, which other code has decoded.
import assert from 'node:assert/strict';
import {after, before, describe, test} from 'node:test';

import {Page, readData} from './browser.mjs';

export const close = (a, b, digits = 2) =>
    assert.ok(Math.abs(Number(a) - b) <= 0.500001 * 10 ** -digits, `${a} is not ${b}`);
export const white = ([r, g, b]) => r === 255 && g === 255 && b === 255;
const mean = (x) => x.reduce((s, v) => s + v, 0) / x.length;
export const blanks = async (page, ...sheet) => (await page.pixels(...sheet)).filter(white).length;
const levelName = ({levels}, level) => (level ? `p < ${String(levels[level - 1]).slice(1)}` : 'n.s.');

/// Tests of a page that lies in `file`; `browser()` is the browser, once there is one.
export function readsItsData(name, file, browser) {
  describe(name, () => {
    const data = readData(file), {json} = data, {contrasts, models, rows, cols} = json;
    const last = {model: models.length - 1, site: data.sites - 1};
    const cells = [0, cols - 1, Math.floor(data.cells / 2) + 3, data.cells - 1];
    let page;
    before(async () => {
      page = await Page.open(browser(), file);
    });
    after(() => page.close());

    test('opens: a sheet a site and model, no complaint, no request', async () => {
      assert.equal(await page.page.locator('.sheet').count(), models.length * data.sites);
      assert.deepEqual(await page.page.locator('.name').allInnerTexts(), models.flatMap(() => json.sites));
      const moran = await page.page.locator('.moran').allInnerTexts();
      models.forEach((_, model) => json.sites.forEach((__, site) => {
        const value = data.sheet({model, site}).moran,
              shown = moran[model * data.sites + site].replace('−', '-');
        if (value === null)
          assert.equal(shown, '–');
        else
          close(shown, value);
      }));
      assert.deepEqual(page.complaints, []);
    });

    test(
        'every contrast and readout: red where t > 0, blue where t < 0, white below the threshold',
        async () => {
          for (let contrast = 0; contrast < contrasts.length; ++contrast)
            for (let fwhm = 0; fwhm < json.fwhm.length; ++fwhm) {
              await page.radio('contrast', contrast), await page.radio('fwhm', fwhm);
              const {t, level} = data.sheet({...last, contrast, fwhm});
              (await page.pixels(last.model, last.site)).forEach((pixel, i) => {
                assert.equal(white(pixel), level[i] === 0, `cell ${i} of ${contrasts[contrast].name}`);
                if (level[i])
                  assert.equal(Math.sign(pixel[0] - pixel[2]), Math.sign(t[i]), `the sign of cell ${i}`);
              });
            }
          await page.radio('contrast', 0), await page.radio('fwhm', 0);
        });

    test('thresholds: as many cells are white as the data say', async () => {
      const {t, level} = data.sheet(last);
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
        const unit = data.unit(last.model, last.site, cell), {cluster} = data.sheet(last);
        assert.match(await page.text('#tip'), new RegExp(`^unit ${unit}\\b`));
        assert.equal(await page.text('#unit'), `Unit ${unit}`);
        const panel = await page.panel();
        assert.ok(
            panel.includes(`${json.sites[last.site]} · row ${Math.floor(cell / cols)}, column ${
                cell % cols} · ${models[last.model].name}`),
            panel);
        const size = cluster.filter((c) => c === cluster[cell]).length;
        const expected = cluster[cell] ?
            `In cluster ${cluster[cell] > 0 ? '+' : ''}${cluster[cell]} of ${size} unit` :
            'In no cluster';
        assert.ok(panel.replaceAll('−', '-').includes(expected), panel);

        const byContrast = await page.rows(0);
        contrasts.forEach((contrast, c) => {
          const {t, level} = data.sheet({...last, contrast: c});
          assert.equal(byContrast[c][0], contrast.name);
          close(byContrast[c][2], t[cell]);
          assert.equal(byContrast[c][3], levelName(json, level[cell]));
        });
        const byCondition = new Map((await page.rows(1)).map((r) => [r[0], r[2]]));
        json.conditions.forEach(
            (condition, k) =>
                close(byCondition.get(condition.name), data.response(last.model, k, last.site, cell)));

        const {tokens} = models[last.model],
              marked = await page.page.locator('#panel mark').allTextContents();
        assert.deepEqual(
            marked.map((m) => m.trim()),
            data.strongest(last.model, last.site, cell)
                .map((p) => tokens[p].replaceAll('\n', '↵').replaceAll('\t', '⇥').trim()));
      }
      // The same site of the other models is marked, and no other.
      assert.deepEqual(
          await page.page.locator('.twin .name').allInnerTexts(),
          models.slice(1).map(() => json.sites[last.site]));
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
      assert.equal(
          await page.page.inputValue('#lesion'), `--lesion '${json.sites[1]}:units(${units.join(',')})'`);
      const byContrast = await page.rows(0);
      contrasts.forEach(
          (_, contrast) =>
              close(byContrast[contrast][2], mean(inside.map((i) => data.sheet({site: 1, contrast}).t[i]))));
      const byCondition = new Map((await page.rows(1)).map((r) => [r[0], r[2]]));
      json.conditions.forEach(
          (c, k) => close(byCondition.get(c.name), mean(inside.map((i) => data.response(0, k, 1, i)))));

      const {cluster} = data.sheet({site: 1}),
            shares = (await page.page.locator('.shares .number').allInnerTexts()).map((s) => parseInt(s));
      const counts = [...new Set(inside.map((i) => cluster[i]))].map(
          (n) => inside.filter((i) => cluster[i] === n).length);
      assert.deepEqual(shares, counts.sort((a, b) => b - a));

      const users = new Map();
      for (const i of inside)
        for (const token of new Set(data.strongest(0, 1, i).map((p) => models[0].tokens[p])))
          users.set(token, (users.get(token) ?? 0) + 1);
      assert.equal(
          await page.text('.tokens li:first-child .number'),
          `${Math.round((100 * Math.max(...users.values())) / 6)} %`);

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
      const site = json.sites.findIndex((_, s) => data.sheet({site: s}).cluster.some((n) => n));
      if (site < 0) return;
      await page.page.mouse.move(2, 2);
      await page.page.click('#outline');
      await page.settle();
      const {cluster} = data.sheet({site}), over = await page.pixels(0, site, 'over'),
            width = Math.sqrt((over.length * cols) / rows), cell = width / cols;
      const border = (i) => cluster[i] && [[-1, 0], [1, 0], [0, -1], [0, 1]].some(([dr, dc]) => {
        const r = Math.floor(i / cols) + dr, c = (i % cols) + dc;
        return r < 0 || r >= rows || c < 0 || c >= cols || cluster[r * cols + c] !== cluster[i];
      });
      const inked = new Set(over.flatMap(
          ([, , , alpha], k) =>
              (alpha ? [Math.floor(Math.floor(k / width) / cell) * cols + Math.floor((k % width) / cell)] :
                       [])));
      for (let i = 0; i < data.cells; ++i) {
        if (border(i)) assert.ok(inked.has(i), `cell ${i} has no line`);
        if (!cluster[i]) assert.ok(!inked.has(i), `cell ${i} of no cluster has a line`);
      }
      await page.page.click('#outline');
      await page.settle();
      assert.ok((await page.pixels(0, site, 'over')).every((p) => p[3] === 0));
    });

    test('390 pixels wide there is nothing to scroll sideways', async () => {
      const phone = await Page.open(
          browser(), file,
          {viewport: {width: 390, height: 844}, deviceScaleFactor: 2, hasTouch: true, isMobile: true});
      const fits = async (when) => assert.ok(
          await phone.page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), when);
      await fits('at first');
      await phone.sheet(0, 1).tap({position: {x: 20, y: 20}});
      await phone.settle();
      await fits('with a unit');
      assert.match(await phone.text('#panel h2'), /^Unit \d+$/);
      const panel = await phone.page.locator('#panel').boundingBox(),
            sheet = await phone.sheet(0, 1).boundingBox();
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
