"""The page's script: values under the pointer. The page says everything without it."""

SCRIPT = """
'use strict';
const digits = (value, suffix) => Number(value.toPrecision(4)).toLocaleString('en',
  {maximumSignificantDigits: 4}) + (suffix.length > 1 ? ' ' : '') + suffix;
const tiny = value => Math.abs(value) < 1e-3 && value !== 0 ? value.toExponential(2) : null;
const axis = text => {
  const [low, high, suffix] = text.split(' ');
  return {of: place => +low + (high - low) * place / 1000,
          write: value => tiny(value) || digits(value, suffix)};
};
const make = (parent, name, style) => {
  const made = parent.appendChild(document.createElement(name));
  made.className = style;
  return made;
};
const readout = plot => {
  const line = make(plot, 'span', 'hair'), box = make(plot, 'div', 'readout');
  const hide = () => { line.hidden = box.hidden = true; };
  hide();
  plot.addEventListener('pointerleave', hide);
  return (share, rows) => {
    line.hidden = box.hidden = false;
    line.style.left = share * 100 + '%';
    box.style.left = share > .5 ? 'auto' : share * 100 + '%';
    box.style.right = share > .5 ? 100 - share * 100 + '%' : 'auto';
    box.replaceChildren();
    for (const [name, value, style] of rows) {
      const row = make(box, 'p', '');
      if (style) make(row, 'i', 'swatch ' + style);
      make(row, 'span', '').textContent = name;
      make(row, 'b', '').textContent = value;
    }
  };
};
const pointer = (plot, event) => {
  const frame = plot.getBoundingClientRect();
  return [(event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height]
    .map(share => Math.min(Math.max(share, 0), 1));
};
for (const plot of document.querySelectorAll('.plot[data-x]')) {
  const x = axis(plot.dataset.x), y = axis(plot.dataset.y), show = readout(plot);
  const lines = [...plot.querySelectorAll('path[data-name]')].map(path => {
    const numbers = path.getAttribute('d').slice(1).split(' ').map(Number);
    const points = [];
    for (let i = 0; i < numbers.length; i += 2) points.push([numbers[i], numbers[i + 1]]);
    const color = /\\bc\\d/.exec(path.getAttribute('class'));
    return {name: path.dataset.name, points, color: color ? color[0] : ''};
  });
  plot.addEventListener('pointermove', event => {
    const place = pointer(plot, event)[0] * 1000;
    const nearest = lines.map(line => line.points.reduce((best, point) =>
      Math.abs(point[0] - place) < Math.abs(best[0] - place) ? point : best));
    if (!nearest.length) return;
    const at = nearest.reduce((best, point) =>
      Math.abs(point[0] - place) < Math.abs(best[0] - place) ? point : best)[0];
    show(at / 1000, [['tokens', x.write(x.of(at)), ''], ...lines.map((line, i) =>
      [line.name, y.write(y.of(1000 - nearest[i][1])), line.color])]);
  });
}
const base64 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
const names = [...document.querySelectorAll('#layer-table tbody tr')].map(row =>
  [...row.children].slice(0, 3).map(cell => cell.textContent));
for (const plot of document.querySelectorAll('.plot[data-values]')) {
  const columns = plot.dataset.columns.split(' '), values = plot.dataset.values;
  const rows = +plot.dataset.rows, show = readout(plot);
  plot.addEventListener('pointermove', event => {
    const [across, down] = pointer(plot, event);
    const column = Math.min(Math.floor(across * columns.length), columns.length - 1);
    const row = Math.min(Math.floor(down * rows), rows - 1);
    const code = values.substr(2 * (row * columns.length + column), 2);
    const value = (base64.indexOf(code[0]) * 64 + base64.indexOf(code[1])) / 4095;
    const written = value * plot.dataset.top;
    const [layer, origin, kind] = names[row];
    show((column + .5) / columns.length, [['layer ' + layer, '', ''], [kind, origin, ''],
      ['tokens', columns[column], ''],
      ['value', code === '..' ? 'none' : tiny(written) || digits(written, ''), '']]);
  });
}
"""
