// The panel: what one unit is, and what a selection of units shares. Functions from the state to elements.

const kContext = 8;  // tokens shown on each side

const visible = (token) => token.replaceAll('\n', '↵').replaceAll('\t', '⇥');

/// A token where it stands in the text.
function inContext(model, position) {
  const {tokens} = model, from = Math.max(0, position - kContext),
        to = Math.min(tokens.length, position + kContext + 1);
  const between = (a, b) => tokens.slice(a, b).map(visible).join('');
  const [, space, token] = visible(tokens[position] ?? '').match(/^( *)(.*)$/su);
  return h(
      'span', {className: 'context'}, from ? '…' : '', between(from, position), token && space,
      h('mark', {}, token || space), between(position + 1, to), to < tokens.length ? '…' : '');
}

/// The conditions, those of one set together; the sides of the contrast in its colours.
function conditionRows(view, valueOf) {
  const contrast = atlas.contrasts[view.contrast], sets = [...new Set(atlas.conditions.map((c) => c.set))];
  const rows = [];
  for (const set of sets) {
    if (sets.length > 1) rows.push({heading: set});
    atlas.conditions.forEach(({name, items, example, set: own}, k) => {
      if (own !== set) return;
      const side =
          set === contrast.set ? contrast.positive.includes(name) - contrast.negative.includes(name) : 0;
      const color = side ? colorOf(0.72 * side) : 'var(--bar)';
      rows.push({name, title: `${items} items, such as “${example}”`, color, ...valueOf(k)});
    });
  }
  return rows;
}

/// The usual range, and more where a value would leave it.
const wide = (values, usual) => Math.max(usual, ...values.map(Math.abs));
const stepText = (step) => (kSteps.length > 1 ? h('small', {}, `step ${step}`) : null);
const clusterName = (n) => (n > 0 ? `+${n}` : minus(String(n)));

function unitPanel({model: index, site, cell}, view, actions) {
  const model = models[index], row = Math.floor(cell / kCols), col = cell % kCols;
  const maps = model.maps[view.checkpoints[index]],
        at = (contrast) => mapOffset(contrast, view.fwhm, site) + cell;
  const cluster = maps.cluster[at(view.contrast)];
  const members = cluster ? clusterCells(index, site, cluster, view) : [];
  const responses = atlas.conditions.map((_, k) => model.responseAt(k, site, cell));
  const activeAt = ({position, value}) =>
      h('li', {}, h('span', {className: 'number'}, number(value, 1)), inContext(model, position));
  return [
    h('h2', {id: 'unit'}, `Unit ${model.unitAt(site, cell)}`),
    h('p', {className: 'where'}, h('b', {}, atlas.sites[site]),
      ` · row ${row}, column ${col} · ${model.name}`),
    barTable(
        ['t by contrast', stepText(model.steps[view.checkpoints[index]])],
        atlas.contrasts.map((contrast, c) => {
          const t = maps.t[at(c)] * maps.scale;
          return {
            name: contrast.name,
            value: t,
            range: view.range,
            color: colorOf(t / view.range),
            note: levelText(maps.level[at(c)]),
            current: c === view.contrast
          };
        }),
        'contrasts'),
    h('p', {className: 'cluster'},
      cluster ?
          [
            `In cluster ${clusterName(cluster)} of ${count(members.length, 'unit')}. `,
            h('button', {className: 'link', onclick: () => actions.select(index, site, members)}, 'Select it')
          ] :
          'In no cluster of this contrast.'),
    barTable(
        ['Mean response', stepText(model.steps.at(-1))],
        conditionRows(
            view, (k) => ({value: responses[k], range: wide(responses, model.responseRange(site))})),
        'plain'),
    h('h3', {}, 'Most active at'),
    h('ol', {className: 'tokens'}, model.strongestAt(site, cell).map(activeAt)),
  ];
}

function clusterCells(model, site, cluster, view) {
  const of = models[model].maps[view.checkpoints[model]].cluster;
  const from = mapOffset(view.contrast, view.fwhm, site);
  return Array.from({length: kCells}, (_, i) => i).filter((i) => of[from + i] === cluster);
}

/// What the units of a selection have in common.
function shared({model: index, site, cells}, view) {
  const model = models[index], maps = model.maps[view.checkpoints[index]];
  const summary = (values) => ({value: mean(values), spread: deviation(values)});
  const contrasts = atlas.contrasts.map(
      (_, c) => summary(cells.map((i) => maps.t[mapOffset(c, view.fwhm, site) + i] * maps.scale)));
  const conditions = atlas.conditions.map((_, k) => summary(cells.map((i) => model.responseAt(k, site, i))));

  const clusters = new Map(), from = mapOffset(view.contrast, view.fwhm, site);
  for (const i of cells)
    clusters.set(maps.cluster[from + i], (clusters.get(maps.cluster[from + i]) ?? 0) + 1);

  // A unit counts once for a token, wherever in the text it responds to it.
  const tokens = new Map();
  for (const i of cells) {
    const own = new Set();
    for (const {position} of model.strongestAt(site, i)) {
      const token = model.tokens[position];
      if (!tokens.has(token)) tokens.set(token, {units: 0, positions: new Map()});
      const entry = tokens.get(token);
      if (!own.has(token)) own.add(token), ++entry.units;
      entry.positions.set(position, (entry.positions.get(position) ?? 0) + 1);
    }
  }
  // A token is shown where most of them respond to it.
  const often = ([, {units, positions}]) => ({units, position: most(positions, (n) => n)[0][0]});
  const most = (map, value) => [...map].sort((a, b) => value(b[1]) - value(a[1]));
  return {
    contrasts,
    conditions,
    clusters: most(clusters, (n) => n),
    tokens: most(tokens, (t) => t.units).slice(0, 6).map(often),
  };
}

const lesionText = ({model, site, cells}) => `--lesion '${atlas.sites[site]}:units(${
    cells.map((i) => models[model].unitAt(site, i)).sort((a, b) => a - b).join(',')})'`;

function selectionPanel(selection, view, actions) {
  const {model: index, site, cells} = selection, model = models[index], n = cells.length;
  const {contrasts, conditions, clusters, tokens} = shared(selection, view);
  const clusterShare = ([cluster, k]) => {
    const color = cluster ? colorOf(0.6 * Math.sign(cluster)) : 'var(--bar)';
    return h(
        'li', {}, h('i', {style: `width:${(100 * k) / n}%;background:${color}`}),
        h('span', {}, cluster ? `cluster ${clusterName(cluster)}` : 'in none'),
        h('span', {className: 'number'}, `${k}, ${percent(k / n)}`));
  };
  const sharedToken = ({units, position}) =>
      h('li', {}, h('span', {className: 'number', title: `${units} of ${n} units`}, percent(units / n)),
        inContext(model, position));
  const lesion = h('textarea', {
    id: 'lesion',
    readOnly: true,
    rows: 3,
    value: lesionText(selection),
    'aria-label': 'The selection as a lesion, for ./infer and ./atlas'
  });
  const copy =
      h('button', {className: 'quiet', type: 'button', onclick: () => actions.copy(lesion, copy)}, 'Copy');
  return [
    h('h2', {id: 'selected'}, count(n, 'unit'), ' selected'),
    h('p', {className: 'where'}, h('b', {}, atlas.sites[site]),
      ` · ${percent(n / kCells)} of the sheet · ${model.name}`),
    h('p', {className: 'actions'},
      h('button', {className: 'quiet', type: 'button', onclick: () => actions.csv(selection)},
        'Download CSV'),
      h('button', {className: 'quiet', type: 'button', onclick: actions.clear}, 'Clear')),
    barTable(
        ['Mean t by contrast, ± SD', stepText(model.steps[view.checkpoints[index]])],
        contrasts.map(({value, spread}, c) => ({
                        name: atlas.contrasts[c].name,
                        value,
                        spread,
                        range: view.range,
                        color: colorOf(value / view.range),
                        note: `± ${number(spread, 1)}`,
                        current: c === view.contrast
                      })),
        'contrasts'),
    h('h3', {}, 'Clusters of this contrast'),
    h('ul', {className: 'shares'}, clusters.map(clusterShare)),
    barTable(
        ['Mean response, ± SD over units', stepText(model.steps.at(-1))],
        conditionRows(view, (k) => ({
                              ...conditions[k],
                              range: wide(conditions.map((c) => c.value), model.responseRange(site)),
                              note: `± ${number(conditions[k].spread)}`
                            }))),
    h('h3', {}, 'Strongest tokens they share'),
    h('ol', {className: 'tokens'}, tokens.map(sharedToken)),
    h('h3', {}, 'As a lesion'),
    lesion,
    copy,
  ];
}

/// What the page is, while nothing is pointed at.
function introduction(view) {
  const contrast = atlas.contrasts[view.contrast];
  const side = (names, sign) => names.map((name) => {
    const condition = atlas.conditions.find((c) => c.name === name && c.set === contrast.set);
    return h(
        'li', {}, swatch(sign), h('b', {}, name),
        condition ? ` · ${condition.items} items, such as “${condition.example}”` : '');
  });
  const key = (...names) => names.map((name) => h('kbd', {}, name));
  return [
    h('h2', {}, contrast.name),
    h('p', {},
      'Every cell is a unit of the model, where it lies on its sheet. Its colour is Welch’s t of its ' +
          'responses: red where it responds more to the first, blue to the second.'),
    h('ul', {className: 'sides-list'}, side(contrast.positive, 1), side(contrast.negative, -1)),
    h('p', {},
      'Moran’s I, beside each name, says how alike neighbours are: 1 for smooth maps, 0 for chance.'),
    h('h3', {}, 'Explore'),
    h('dl', {}, h('dt', {}, 'Point or tap'), h('dd', {}, 'a unit: its t, cluster, responses and tokens'),
      h('dt', {}, 'Click'), h('dd', {}, 'keeps it here'), h('dt', {}, 'Drag'),
      h('dd', {}, 'a line around units to see what they share; on a touch screen switch on “lasso” first'),
      h('dt', {}, 'Double-click'), h('dd', {}, 'selects a cluster'), h('dt', {}, 'A sheet’s name'),
      h('dd', {}, 'enlarges it'), h('dt', {}, key('←', '↑', '↓', '→')),
      h('dd', {}, 'move over units and sheets; ', key('Shift'), ' selects a box, ', key('Page ↓'),
        ' is the next site, ', key('Enter'), ' opens the details, ', key('Esc'), ' clears')),
    h('p', {className: 'command'}, 'Made by ', h('code', {}, atlas.command)),
  ];
}
