// Small charts, and what builds elements: text goes in as text, so that no token can become markup.

function h(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in element)
      element[key] = value;
    else if (value !== null)
      element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

function svg(name, attributes, ...children) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/// A bar from 0 to value in a row from -range to range, with a whisker where there is a spread.
function bar(value, range, color, spread = 0) {
  const x = (v) => 50 + 50 * Math.min(1, Math.max(-1, v / range));
  const [from, to] = [x(0), x(value)].sort((a, b) => a - b);
  const [least, most] = [x(value - spread), x(value + spread)];
  return h(
      'span', {className: 'bar'},
      h('i', {className: 'fill', style: `left:${from}%;width:${to - from}%;background:${color}`}),
      h('i', {className: 'zero'}),
      spread ? h('i', {className: 'whisker', style: `left:${least}%;width:${most - least}%`}) : null);
}

/// Of the side of a contrast.
const swatch = (side) => h('i', {className: 'swatch', style: `background:${colorOf(0.72 * side)}`});

function barRow({name, title = '', value, range, color, spread, note = '', current, heading}) {
  if (heading) return h('tr', {className: 'heading'}, h('th', {colSpan: 4, scope: 'rowgroup'}, heading));
  return h(
      'tr', {className: current ? 'current' : ''}, h('th', {scope: 'row', title}, name),
      h('td', {}, bar(value, range, color, spread)), h('td', {className: 'number'}, number(value)),
      h('td', {className: 'note'}, note));
}

/// Rows of name, bar, number and a note.
function barTable(caption, rows, className = '') {
  return h(
      'table', {className: `bars ${className}`}, h('caption', {}, caption),
      h('colgroup', {}, ['name', 'graph', 'number', 'note'].map((column) => h('col', {className: column}))),
      h('tbody', {}, rows.map(barRow)));
}

/// Mean Moran's I over the checkpoints, with the one that is shown marked; all models have one scale.
function sparkline(steps, values, current, [low, high], go) {
  const width = 132, height = 34, pad = 4;
  const x = (step) => pad + ((width - 2 * pad) * (step - kSteps[0])) / (kSteps.at(-1) - kSteps[0] || 1);
  const y = (v) => height - pad - ((height - 2 * pad) * (v - low)) / (high - low || 1);
  const points =
      steps.map((step, i) => [x(step), y(values[i] ?? 0)].map((v) => v.toFixed(1)).join(',')).join(' ');
  const base = y(Math.max(0, low));
  const chart = svg(
      'svg', {
        class: 'spark',
        width,
        height,
        viewBox: `0 0 ${width} ${height}`,
        role: 'img',
        'aria-label':
            `Mean Moran's I over the checkpoints, from ${number(values[0])} to ${number(values.at(-1))}`
      },
      svg('line', {class: 'axis', x1: 0, x2: width, y1: base, y2: base}),
      svg('line', {class: 'now', x1: x(steps[current]), x2: x(steps[current]), y1: 0, y2: height}),
      svg('polyline', {points}), svg('circle', {cx: x(steps[current]), cy: y(values[current] ?? 0), r: 3.2}));
  const distance = (at) => (step) => Math.abs(x(step) - at);
  chart.addEventListener(
      'click', ({offsetX}) => go([...steps].sort((a, b) => distance(offsetX)(a) - distance(offsetX)(b))[0]));
  return chart;
}

/// The colour bar, which says what red and blue mean.
function colorbar(place, contrast, range, blank) {
  const at = (t) => 50 + (50 * t) / range;
  const stops = Array.from({length: 33}, (_, i) => `${colorOf(i / 16 - 1)} ${((100 * i) / 32).toFixed(2)}%`);
  const {values, digits} = ticks(range, 6);
  const side = (names, others) =>
      h('span', {title: `${names.join(', ')} more than ${others.join(', ')}`}, names.join(', '));
  place.setAttribute(
      'aria-label', `Colours of t from ${number(-range, 1)}, blue, to ${number(range, 1)}, red`);
  place.replaceChildren(
      h('div', {className: 'sides'}, side(contrast.negative, contrast.positive), h('em', {}, 't'),
        side(contrast.positive, contrast.negative)),
      h('div', {className: 'ramp', style: `background:linear-gradient(90deg,${stops})`},
        h('i', {style: `left:${at(-Math.min(blank, range))}%;right:${at(-Math.min(blank, range))}%`})),
      h('div', {className: 'ticks'},
        values.map((t) => h('span', {style: `left:${at(t)}%`}, number(t, digits)))));
}
