// Mouse, touch and keyboard on the sheets. They change `point` and ask for a frame; they draw nothing.
//
//   hover      {model, site, cell} that is pointed at
//   pinned     the same, kept by a click
//   selection  {model, site, cells}, cells in ascending order
//   lasso      {model, site, path: [[x, y], ...]} in cells, while it is drawn

const point = {
  hover: null,
  pinned: null,
  selection: null,
  lasso: null
};

/// Where the keyboard is, and where a box began.
let cursor = {model: 0, site: 0, cell: Math.floor(kRows / 2) * kCols + Math.floor(kCols / 2)};
let anchor = null;

const say = (text) => (document.getElementById('live').textContent = text);

/// The cells whose centres the polygon goes around; where it crosses itself there is no hole.
function inside(path) {
  const cells = [];
  for (let i = 0; i < kCells; ++i) {
    const x = (i % kCols) + 0.5, y = Math.floor(i / kCols) + 0.5;
    let turns = 0;
    for (let a = 0, b = path.length - 1; a < path.length; b = a++) {
      const [ax, ay] = path[a], [bx, by] = path[b];
      if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) turns += by > ay ? 1 : -1;
    }
    if (turns) cells.push(i);
  }
  return cells;
}

function box(a, b) {
  const [ra, ca, rb, cb] = [a, b].flatMap((i) => [Math.floor(i / kCols), i % kCols]), cells = [];
  for (let r = Math.min(ra, rb); r <= Math.max(ra, rb); ++r)
    for (let c = Math.min(ca, cb); c <= Math.max(ca, cb); ++c) cells.push(r * kCols + c);
  return cells;
}

function select(model, site, cells) {
  point.selection = cells.length ? {model, site, cells} : null;
  point.pinned = null;
  say(cells.length ? `${count(cells.length, 'unit')} of ${atlas.sites[site]} selected` : 'nothing selected');
  schedule('over', 'panel');
}

function clear() {
  Object.assign(point, {selection: null, pinned: null, lasso: null});
  anchor = null;
  schedule('over', 'panel');
}

function pin(at) {
  Object.assign(point, {pinned: at, selection: null});
  schedule('over', 'panel');
}

function watchPointer(sheet) {
  const {box: element, site} = sheet, model = sheet.model.index;
  const touch = (event) => event.pointerType === 'touch';
  let drag = null;
  const inCells = (event) => {
    const r = element.getBoundingClientRect();
    return [((event.clientX - r.left) / r.width) * kCols, ((event.clientY - r.top) / r.height) * kRows];
  };
  const cellAt = ([x, y]) => Math.min(kRows - 1, Math.max(0, Math.floor(y))) * kCols +
      Math.min(kCols - 1, Math.max(0, Math.floor(x)));
  const hover = (event) => {
    const cell = cellAt(inCells(event));
    tip.x = event.clientX, tip.y = event.clientY;
    if (point.hover?.cell === cell && point.hover.site === site && point.hover.model === model)
      return schedule('tip');
    point.hover = cursor = {model, site, cell};
    schedule('over', 'panel', 'tip');
  };

  element.addEventListener('pointerdown', (event) => {
    if (event.button !== 0) return;
    drag = {
      x: event.clientX,
      y: event.clientY,
      path: [inCells(event)],
      before: event.shiftKey ? point.selection : null
    };
    if (!touch(event) || state.lasso) element.setPointerCapture(event.pointerId);
  });
  element.addEventListener('pointermove', (event) => {
    tip.follows = !touch(event);
    if (!drag && !touch(event)) hover(event);
    if (!drag || (touch(event) && !state.lasso)) return;
    for (const e of event.getCoalescedEvents?.() ?? []) drag.path.push(inCells(e));
    drag.path.push(inCells(event));
    if (Math.hypot(event.clientX - drag.x, event.clientY - drag.y) > 4) drag.moved = true;
    if (!drag.moved) return;
    point.lasso = {model, site, path: drag.path};
    point.hover = null;
    schedule('over', 'tip');
  });
  element.addEventListener('pointerup', (event) => {
    if (!drag) return;
    const {moved, path, before} = drag;
    drag = point.lasso = null;
    if (moved) {
      let cells = inside(path);
      if (before?.model === model && before.site === site)
        cells = [...new Set([...before.cells, ...cells])].sort((a, b) => a - b);
      return select(model, site, cells);
    }
    const cell = cellAt(inCells(event)), at = {model, site, cell};
    cursor = at;
    const same = point.pinned?.model === model && point.pinned.site === site && point.pinned.cell === cell;
    pin(same ? null : at);
  });
  element.addEventListener('pointercancel', () => {
    drag = point.lasso = null;
    schedule('over');
  });
  element.addEventListener('pointerleave', () => {
    if (drag) return;
    point.hover = null;
    schedule('over', 'panel', 'tip');
  });
  element.addEventListener('dblclick', (event) => {
    const cell = cellAt(inCells(event)), cluster = sheet.cluster[cell];
    if (cluster) select(model, site, clusterCells(model, site, cluster, view));
  });
}

function focusSheet({model, site}) {
  sections[model].reach(site);
  sheetOf({model, site}).box.focus();
}

function describe({model, site, cell}) {
  const {t, level, scale} = models[model].maps[view.checkpoints[model]],
                   i = mapOffset(view.contrast, view.fwhm, site) + cell;
  return `unit ${models[model].unitAt(site, cell)}, row ${Math.floor(cell / kCols)}, column ${
      cell % kCols}, t ${number(t[i] * scale)}, ${levelText(level[i])}`;
}

function goTo(at) {
  const moved = at.site !== cursor.site;
  cursor = point.hover = at;
  if (moved) {
    if (state.site === null)
      focusSheet(at);
    else
      set({site: at.site}), requestAnimationFrame(() => focusSheet(at));  // once it is shown
  }
  say((moved ? `${atlas.sites[at.site]}, ` : '') + describe(at));
  schedule('over', 'panel', 'tip');
}

function watchKeys(sheet) {
  const {box: element, site} = sheet, model = sheet.model.index;
  element.addEventListener('focus', () => {
    if (!element.matches(':focus-visible')) return;
    if (cursor.model !== model || cursor.site !== site) cursor = {model, site, cell: cursor.cell};
    tip.follows = false;
    point.hover = cursor;
    schedule('over', 'panel', 'tip');
  });
  element.addEventListener('blur', () => {
    point.hover = anchor = null;
    schedule('over', 'panel', 'tip');
  });
  element.addEventListener('keydown', (event) => {
    const arrow = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
    const r = Math.floor(cursor.cell / kCols), c = cursor.cell % kCols, here = {model, site};
    tip.follows = false;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (arrow) {
      let row = r + arrow[0], col = c + arrow[1], to = site;
      if (row < 0 || row >= kRows || col < 0 || col >= kCols) {
        // Over the edge to the next sheet, but not while a box is drawn nor where one sheet is shown.
        to = event.shiftKey || state.site !== null ? undefined : sections[model].neighbor(site, ...arrow);
        if (to === undefined)
          row = r, col = c, to = site;
        else
          row = (row + kRows) % kRows, col = (col + kCols) % kCols;
      }
      if (event.shiftKey)
        anchor ??= cursor.cell;
      else
        anchor = null;
      goTo({model, site: to, cell: row * kCols + col});
      if (event.shiftKey) select(model, site, box(anchor, cursor.cell));
    } else if (event.key === 'PageDown' || event.key === 'PageUp') {
      anchor = null;
      goTo({...here, site: (site + (event.key === 'PageDown' ? 1 : kSites - 1)) % kSites, cell: cursor.cell});
    } else if (event.key === 'Home' || event.key === 'End') {
      goTo({...here, cell: r * kCols + (event.key === 'Home' ? 0 : kCols - 1)});
    } else if (event.key === 'Enter' || event.key === ' ') {
      if (!point.selection) pin({...here, cell: cursor.cell});
      if (event.key === 'Enter') openPanel();
    } else {
      return;
    }
    event.preventDefault();
  });
}

/// To the details and, with Escape, back.
function openPanel() {
  const panel = document.getElementById('panel');
  requestAnimationFrame(() => panel.focus());
}

function escape(event) {
  if (event.key !== 'Escape') return;
  if (document.getElementById('panel').contains(document.activeElement))
    focusSheet(cursor);
  else if (point.selection || point.pinned || point.lasso)
    clear();
  else if (state.site !== null)
    set({site: null});
}
