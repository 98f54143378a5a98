// How fast the page is at full size: figures, not tests; they depend on what else the machine does.
import {launch, Page, readData} from './browser.mjs';

const file = `${process.env.PLAYWRIGHT}/full.html`, data = readData(file), browser = await launch();
const page = await Page.open(browser, file);

/// Frame times while `act` goes on, as the page's own frames see them.
async function frames(what, act) {
  await page.page.evaluate(() => {
    const times = (window.frameTimes = []);
    const tick = (now) => (times.push(now), window.frameTimes === times && requestAnimationFrame(tick));
    requestAnimationFrame(tick);
  });
  await act();
  const times = await page.page.evaluate(() => {
    const t = window.frameTimes;
    window.frameTimes = null;
    return t.slice(1).map((x, i) => x - t[i]);
  });
  times.sort((a, b) => a - b);
  const at = (q) => times[Math.floor(q * (times.length - 1))].toFixed(1);
  console.log(`frames: ${what}: median ${at(0.5)} ms, 95 % ${at(0.95)} ms, longest ${at(1)} ms, ${
      times.filter((t) => t > 34).length} of ${times.length} dropped`);
}

const start = await page.page.evaluate(() => performance.now());
const b = await page.box(0, 3);
await frames('pointing', async () => {
  for (let i = 0; i < 240; ++i)
    await page.page.mouse.move(b.x + (b.width * (i % 60)) / 60, b.y + (b.height * ((i * 7) % 97)) / 97);
});
await frames('lasso', async () => {
  await page.page.mouse.move(b.x + 70, b.y + 42), await page.page.mouse.down();
  for (let i = 0; i < 240; ++i)
    await page.page.mouse.move(b.x + 42 + 30 * Math.cos(i / 40), b.y + 42 + 30 * Math.sin(i / 40));
  await page.page.mouse.up(), await page.page.keyboard.press('Escape');
});
const slide = (n) => page.page.evaluate(async (count) => {
  const slider = document.getElementById('step');
  for (let i = 0; i < count; ++i) {
    slider.value = i % 20, slider.dispatchEvent(new Event('input'));
    await new Promise(requestAnimationFrame);
  }
}, n);
await frames('checkpoints, first time', () => slide(20));
await page.page.waitForTimeout(1500);
await frames('checkpoints', () => slide(160));
await page.page.click('#outline');
await frames('checkpoints, clusters outlined', () => slide(160));
const {heap} = await page.page.evaluate(() => ({heap: performance.memory.usedJSHeapSize}));
console.log(
    `load: ${start.toFixed(0)} ms; memory: ${(heap / 1e6).toFixed(0)} MB of JavaScript heap with all ${
        data.json.models[0].checkpoints.length} checkpoints unpacked`);
await page.close();
await browser.close();
