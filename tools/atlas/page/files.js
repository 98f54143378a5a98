// What can be saved: the selection as CSV and the view as PNG.

function save(blob, name) {
  const link = h('a', {href: URL.createObjectURL(blob), download: name});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const fileName = (...parts) => `${parts.join('-').replace(/[^\w.-]+/g, '_')}`;

/// RFC 4180, and no cell that a spreadsheet would take for a formula.
const csvField = (x) => {
  const text = typeof x === 'string' && /^[=+@-]/.test(x) ? `'${x}` : String(x);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

function selectionCsv({model: index, site, cells}, view) {
  const model = models[index], maps = model.maps[view.checkpoints[index]], {contrasts, conditions} = atlas;
  const rows = [[
    'model', 'site', 'step', 'fwhm', 'unit', 'row', 'col',
    ...contrasts.flatMap(({name}) => [`t ${name}`, `p below ${name}`, `cluster ${name}`]),
    ...conditions.map(({name}) => `response ${name}`)
  ]];
  for (const i of cells) {
    const at = contrasts.map((_, c) => mapOffset(c, view.fwhm, site) + i);
    rows.push([
      model.name, atlas.sites[site], model.steps[view.checkpoints[index]], atlas.fwhm[view.fwhm],
      model.unitAt(site, i), Math.floor(i / kCols), i % kCols,
      ...at.flatMap(
          (k) =>
              [Number((maps.t[k] * maps.scale).toPrecision(6)),
               maps.level[k] ? atlas.levels[maps.level[k] - 1] : '', maps.cluster[k]]),
      ...conditions.map((_, k) => Number(model.responseAt(k, site, i).toPrecision(6)))
    ]);
  }
  return rows.map((row) => row.map(csvField).join(',') + '\r\n').join('');
}

function saveCsv(selection, view) {
  save(
      new Blob([selectionCsv(selection, view)], {type: 'text/csv'}),
      fileName('atlas', models[selection.model].name, atlas.sites[selection.site]) + '.csv');
}

/// The sheets where they lie on the page, under the models' names, on white, at twice the screen's size.
function savePng(view) {
  const scale = 2, pad = 24, top = 62, place = document.getElementById('models').getBoundingClientRect();
  const canvas =
      h('canvas', {width: scale * (place.width + 2 * pad), height: scale * (place.height + top + pad)});
  const c = canvas.getContext('2d'), {fontFamily} = getComputedStyle(document.body);
  const font = (size, weight = 400) => (c.font = `${weight} ${size}px ${fontFamily}`);
  const write = (text, x, y, align = 'left') => {
    c.textAlign = align, c.fillStyle = '#1a1c20', c.fillText(text, x, y);
  };
  const fitted = (names) => {
    let text = names.join(', ');
    while (c.measureText(text).width > 140) text = `${text.slice(0, -2)}…`;
    return text;
  };
  c.scale(scale, scale);
  c.fillStyle = '#fff';
  c.fillRect(0, 0, canvas.width, canvas.height);

  const contrast = atlas.contrasts[view.contrast], bar = {x: pad + place.width - 300, y: 24, width: 300};
  font(15, 600), write(contrast.name, pad, 28);
  const facts = [`FWHM ${fwhmText(atlas.fwhm[view.fwhm])}`, thresholdText()];
  if (kSteps.length > 1) facts.push(`step ${state.step}`);
  font(11), write(facts.join(' · '), pad, 46);
  for (let x = 0; x < bar.width; ++x) {
    const t = ((2 * x) / bar.width - 1) * view.range;
    c.fillStyle = Math.abs(t) < view.smallest ? `rgb(${kBlank})` : colorOf(t / view.range);
    c.fillRect(bar.x + x, bar.y, 1.5, 10);
  }
  const marks = ticks(view.range, 6);
  for (const t of marks.values)
    write(number(t, marks.digits), bar.x + bar.width * (0.5 + t / view.range / 2), bar.y + 24, 'center');
  font(11), write('t', bar.x + bar.width / 2, bar.y - 6, 'center');
  write(fitted(contrast.negative), bar.x, bar.y - 6);
  write(fitted(contrast.positive), bar.x + bar.width, bar.y - 6, 'right');

  c.imageSmoothingEnabled = false;
  for (const section of sections) {
    const at = (element) => {
      const r = element.getBoundingClientRect();
      return {x: r.left - place.left + pad, y: r.top - place.top + top, width: r.width, height: r.height};
    };
    const title = at(section.element.querySelector('h2'));
    font(15, 600), write(section.model.name, title.x, title.y + 15);
    const now = section.model.meanMoran(view.checkpoints[section.model.index], view.contrast, view.fwhm);
    font(11), write(`${section.model.note} · mean Moran’s I ${number(now)}`, title.x, title.y + 33);
    for (const sheet of section.sheets) {
      if (sheet.figure.hidden) continue;
      const {x, y, width, height} = at(sheet.box);
      c.drawImage(sheet.map, x, y, width, height);
      c.drawImage(sheet.over, x, y, width, height);
      c.strokeStyle = '#c9cbc8', c.strokeRect(x - 0.5, y - 0.5, width + 1, height + 1);
      font(10.5), write(atlas.sites[sheet.site], x, y + height + 14);
      write(sheet.moran.textContent, x + width, y + height + 14, 'right');
    }
  }
  canvas.toBlob(
      (blob) => save(blob, fileName('atlas', contrast.name, `fwhm${atlas.fwhm[view.fwhm]}`) + '.png'));
}
