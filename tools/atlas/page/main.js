// The state, its controls, its address after the '#', and the frame that draws what has changed.

const $ = (id) => document.getElementById(id);

const state = {
  contrast: 0,
  fwhm: 0,
  threshold: atlas.levels.length ? 0 : 'none',  // a level's index, 't' for |t| >= tmin, or 'none'
  tmin: 3,
  range: null,  // null: the 99th percentile
  step: kSteps.at(-1),
  outline: false,
  lasso: false,
  site: null,  // the one that is enlarged
};
/// What the sheets are drawn from: state, looked up.
let view = null;
const tip = {
  x: 0,
  y: 0,
  follows: false
};  // the mouse; keys and touch have the panel
let playing = 0;

// ---- frames

const dirty = new Set();
function schedule(...what) {
  if (!dirty.size) requestAnimationFrame(draw);
  for (const part of what) dirty.add(part);
}

function set(changes) {
  Object.assign(state, changes);
  schedule(...('site' in changes ? ['layout'] : []), 'maps', 'over', 'panel', 'controls');
  clearTimeout(set.timer);
  set.timer = setTimeout(writeAddress, 200);  // browsers refuse an address that changes too often
}

function look() {
  const {p99, max} = spread(state.contrast, state.fwhm), range = Math.min(state.range ?? p99, max * 2);
  return {
    contrast: state.contrast,
    fwhm: state.fwhm,
    range,
    p99,
    max,
    blank: pixelOf(kBlank),
    smallest: state.threshold === 't' ? state.tmin : 0,
    needed: typeof state.threshold === 'number' ? state.threshold + 1 : 0,
    checkpoints: models.map((m) => m.checkpointAt(state.step)),
  };
}

function draw() {
  const todo = new Set(dirty);
  dirty.clear();
  if (todo.has('layout')) {
    document.documentElement.style.setProperty('--head', `${$('controls').offsetHeight + 14}px`);
    sections.forEach((section) => section.layout(state.site));
    todo.add('over');
  }
  if (todo.has('maps')) {
    const next = look(), missing = models.filter((m, i) => !m.maps[next.checkpoints[i]]);
    // Until it is unpacked the page keeps what it shows.
    if (missing.length)
      Promise.all(missing.map((m) => m.load(next.checkpoints[m.index])))
          .then(() => schedule('maps', 'over', 'panel', 'controls'));
    else
      view = next, drawMaps(), prefetch();
  }
  if (!view) return;
  if (todo.has('controls')) showControls();
  if (todo.has('over')) drawOver(todo.has('maps'));
  if (todo.has('panel')) drawPanel();
  if (todo.has('tip')) drawTip();
}

/// The checkpoints beside the one that is shown, for who moves the slider.
function prefetch() {
  for (const m of models)
    for (const k of [1, -1].map((d) => view.checkpoints[m.index] + d))
      if (m.json.checkpoints[k]) m.load(k);
}

function drawMaps() {
  const contrast = atlas.contrasts[view.contrast];
  const all = models.map((m) => m.steps.map((_, k) => m.meanMoran(k, view.contrast, view.fwhm)));
  const known = all.flat().filter((x) => x !== null),
        scale = [Math.min(0, ...known), Math.max(0.1, ...known)];
  sections.forEach((section, m) => {
    const shown = section.sheets.map((sheet) => sheet.paint(view));
    const total = (sign) => shown.reduce((sum, s) => sum + s[sign], 0) / (kSites * kCells),
          now = view.checkpoints[m];
    section.facts.replaceChildren(
        h('span', {}, 'mean Moran’s ', h('em', {}, 'I'), ' ', h('b', {}, number(all[m][now]))),
        h('span', {title: 'of all units are above the threshold, with t > 0 and t < 0'}, swatch(1),
          percent(total('positive')), swatch(-1), percent(total('negative'))));
    if (kSteps.length > 1)
      section.spark.replaceChildren(sparkline(models[m].steps, all[m], now, scale, (step) => set({step})));
  });
  colorbar($('colorbar'), contrast, view.range, view.smallest);
}

/// Over each sheet lies what concerns it; a sheet is drawn again when that has changed.
function drawOver(all) {
  const {hover, pinned, selection, lasso} = point;
  for (const section of sections)
    for (const sheet of section.sheets) {
      if (sheet.figure.hidden) continue;
      const at = (x) => x && x.site === sheet.site && x.model === sheet.model.index;
      const marks = {
        outline: state.outline,
        selected: at(selection) ? selection.cells : null,
        lasso: at(lasso) ? lasso.path : null,
        hover: at(hover) ? hover.cell : undefined,
        pinned: at(pinned) ? pinned.cell : undefined,
        twin: hover && hover.site === sheet.site && !at(hover) ? hover.cell : undefined
      };
      const key = [
        sheet.cell, marks.outline, marks.selected?.length && selection.cells.join(), marks.lasso?.length,
        marks.hover, marks.pinned, marks.twin
      ].join(';');
      if (key === sheet.marks && !(all && state.outline)) continue;
      sheet.marks = key;
      sheet.figure.classList.toggle('twin', marks.twin !== undefined);
      sheet.drawOver(marks);
    }
}

function drawPanel() {
  const {hover, pinned, selection} = point, at = hover ?? pinned, panel = $('panel'), shown = selection ?? at;
  if (panel.shown?.view === view && panel.shown.at === shown) return;
  const focused = panel.contains(document.activeElement);
  panel.shown = {view, at: shown};
  const actions = {select, clear, copy, csv: (s) => saveCsv(s, view)};
  const content = () => {
    if (selection) return selectionPanel(selection, view, actions);
    return at ? unitPanel(at, view, actions) : introduction(view);
  };
  panel.replaceChildren(
      h('button', {className: 'close', type: 'button', 'aria-label': 'Close the details', onclick: clear},
        '×'),
      ...content());
  const chosen = selection ?? pinned;
  panel.classList.toggle('open', Boolean(chosen));
  // Over the sheets, as on a phone, it must not hide what it tells of.
  if (chosen && getComputedStyle(panel).position === 'fixed')
    sheetOf(chosen).box.scrollIntoView({block: 'nearest'});
  if (focused) panel.focus();
}

function drawTip() {
  const {hover} = point, element = $('tip');
  element.hidden = !hover || !tip.follows;
  if (element.hidden) return;
  const {model, site, cell} = hover, {t, level, scale} = models[model].maps[view.checkpoints[model]];
  const i = mapOffset(view.contrast, view.fwhm, site) + cell;
  element.replaceChildren(
      h('b', {}, `unit ${models[model].unitAt(site, cell)}`), h('span', {}, `t = ${number(t[i] * scale)}`),
      h('small', {}, levelText(level[i])));
  const left = tip.x + 190 > innerWidth ? tip.x - 14 - element.offsetWidth : tip.x + 14;
  element.style.transform = `translate(${left}px, ${Math.max(4, tip.y - 34)}px)`;
}

async function copy(text, button) {
  text.select();
  try {
    await navigator.clipboard.writeText(text.value);
  } catch {
    document.execCommand('copy');  // a page of file:// may have no clipboard
  }
  button.textContent = 'Copied';
  setTimeout(() => (button.textContent = 'Copy'), 1500);
}

// ---- controls

function thresholdText() {
  if (state.threshold === 'none') return 'no threshold';
  if (state.threshold === 't') return `|t| ≥ ${number(state.tmin, 1)}`;
  return `adjusted p < ${p(atlas.levels[state.threshold])}`;
}

function radios(place, name, labels, change) {
  place.append(...labels.map(
      (label, i) =>
          h('label', {}, h('input', {type: 'radio', name, value: String(i), onchange: () => change(i)}),
            h('span', {}, label))));
}

function buildControls() {
  document.title = atlas.title ? `${atlas.title} · Atlas` : 'Atlas';
  $('subtitle').textContent = atlas.title;
  radios($('contrast'), 'contrast', atlas.contrasts.map((c) => c.name), (contrast) => set({contrast}));
  radios($('fwhm'), 'fwhm', atlas.fwhm.map(fwhmText), (fwhm) => set({fwhm}));
  $('threshold')
      .append(
          h('option', {value: 'none'}, 'none'),
          ...atlas.levels.map((level, i) => h('option', {value: String(i)}, `adjusted p < ${p(level)}`)),
          h('option', {value: 't'}, '|t| at least'));
  $('threshold').onchange = (e) =>
      set({threshold: ['none', 't'].includes(e.target.value) ? e.target.value : Number(e.target.value)});
  $('tmin').oninput = (e) => set({tmin: Number(e.target.value)});
  $('range').oninput = (e) => set({range: Number(e.target.value)});
  $('auto').onchange = (e) => set({range: e.target.checked ? null : view.range});
  $('outline').onchange = (e) => set({outline: e.target.checked});
  $('lasso').onchange = (e) => set({lasso: e.target.checked});
  $('time').hidden = kSteps.length < 2;
  $('step').max = kSteps.length - 1;
  $('step').oninput = (e) => play(false) ?? set({step: kSteps[e.target.value]});
  $('play').onclick = () => play(!playing);
  $('png').onclick = () => savePng(view);
  $('skip').onclick = openPanel;
  $('controls').onsubmit = (e) => e.preventDefault();
  $('all').onclick = () => set({site: null});
  $('previous').onclick = () => set({site: (state.site + kSites - 1) % kSites});
  $('next').onclick = () => set({site: (state.site + 1) % kSites});
  $('models').append(...sections.map((section) => section.element));
  for (const section of sections)
    for (const sheet of section.sheets) {
      sheet.name.onclick = () => set({site: state.site === null ? sheet.site : null});
      watchPointer(sheet);
      watchKeys(sheet);
    }
}

function showControls() {
  for (const name of ['contrast', 'fwhm']) $(name).querySelectorAll('input')[state[name]].checked = true;
  $('threshold').value = String(state.threshold);
  $('tmin-label').hidden = state.threshold !== 't';
  const top = Math.max(1, Math.ceil(view.max));
  $('tmin').max = top, $('tmin').value = state.tmin, $('tmin-value').textContent = number(state.tmin, 1);
  $('range').max = top, $('range').value = view.range,
  $('range-value').textContent = `± ${number(view.range, 1)}`;
  $('auto').checked = state.range === null;
  $('outline').checked = state.outline, $('lasso').checked = state.lasso;
  document.body.classList.toggle('lassoing', state.lasso);
  const k = kSteps.indexOf(state.step);
  $('step').value = k, $('step-value').textContent = state.step.toLocaleString('en');
  $('step').setAttribute('aria-valuetext', `step ${state.step}`);
  $('play').classList.toggle('playing', Boolean(playing));
  $('play').setAttribute('aria-label', playing ? 'Pause' : 'Play the checkpoints');
  $('large').hidden = state.site === null;
  $('models').classList.toggle('enlarged', state.site !== null);
  $('large-name').textContent = atlas.sites[state.site] ?? '';
}

/// From checkpoint to checkpoint, about two a second; from the beginning when it stands at the end.
function play(on) {
  clearInterval(playing);
  playing = 0;
  if (on) {
    if (state.step === kSteps.at(-1)) set({step: kSteps[0]});
    playing = setInterval(() => {
      const k = kSteps.indexOf(state.step) + 1;
      if (k < kSteps.length) set({step: kSteps[k]});
      if (k >= kSteps.length - 1) play(false);
    }, 450);
  }
  schedule('controls');
}

// ---- the address: what was changed, by name, so that it means the same when contrasts are added

function writeAddress() {
  const q = new URLSearchParams();
  q.set('contrast', atlas.contrasts[state.contrast].name);
  q.set('fwhm', atlas.fwhm[state.fwhm]);
  const level = atlas.levels[state.threshold];  // undefined for 'none' and 't'
  q.set('threshold', level ? `p${level}` : state.threshold === 't' ? `t${state.tmin}` : 'none');
  if (kSteps.length > 1) q.set('step', state.step);
  if (state.range !== null) q.set('range', Number(state.range.toFixed(2)));
  if (state.outline) q.set('clusters', 1);
  if (state.site !== null) q.set('site', atlas.sites[state.site]);
  history.replaceState(null, '', `#${q}`);
}

/// What makes no sense is left as it is.
function readAddress() {
  const q = new URLSearchParams(location.hash.slice(1)), changes = {};
  const put = (name, index) => {
    if (index >= 0) changes[name] = index;
  };
  put('contrast', atlas.contrasts.findIndex((c) => c.name === q.get('contrast')));
  put('fwhm', atlas.fwhm.indexOf(Number(q.get('fwhm') ?? NaN)));
  const [, kind, value] = q.get('threshold')?.match(/^([pt])([\d.]+)$/) ?? [];
  if (kind === 'p')
    put('threshold', atlas.levels.indexOf(Number(value)));
  else if (kind === 't')
    Object.assign(changes, {threshold: 't', tmin: Number(value) || 0});
  else if (q.get('threshold') === 'none')
    changes.threshold = 'none';
  if (kSteps.includes(Number(q.get('step') ?? NaN))) changes.step = Number(q.get('step'));
  changes.range = Number(q.get('range')) > 0 ? Number(q.get('range')) : null;
  changes.outline = q.get('clusters') === '1';
  const site = atlas.sites.indexOf(q.get('site'));
  changes.site = site < 0 ? null : site;
  Object.assign(state, changes);
}

async function start() {
  if (typeof DecompressionStream === 'undefined') {
    $('models').append(
        h('p', {className: 'sorry', role: 'alert'},
          'This browser cannot unpack the maps (it has no DecompressionStream); please open the page in ' +
              'Chrome or Edge 103, Firefox 113, Safari 16.4 or newer.'));
    return;
  }
  buildControls();
  readAddress();
  await Promise.all(models.flatMap((m) => [m.loadUnits(), m.load(m.steps.length - 1)]));
  document.documentElement.dataset.ready = '';
  schedule('layout', 'maps', 'over', 'panel', 'controls');
  addEventListener(
      'hashchange', () => (readAddress(), schedule('layout', 'maps', 'over', 'panel', 'controls')));
  addEventListener('keydown', escape);
  new ResizeObserver(() => schedule('layout')).observe($('models'));
}

start();
