// The nodes as rows of a grid. Only those on the screen are elements: a cluster has thousands.

import { amount, by, h } from './dom.js';
import { describe, draw } from './cells.js';

const GPUS_A_LINE = 8;
const BEYOND = 4;

/** The grid. `open(node, gpu)` is called where somebody opens one. */
export class List {
  constructor(model, open) {
    this.model = model;
    this.open = open;
    this.scroll = by('scroll');
    this.grid = by('grid');
    this.names = [];
    this.tops = [0];
    this.rows = new Map();
    this.active = { name: '', gpu: -1 };
    this.chosen = { name: '', gpu: -1 };
    this.preview = null;
    this.dim = null;
    this.compact = false;
    this.scroll.addEventListener('scroll', () => this.paint(), { passive: true });
    new ResizeObserver(() => this.paint()).observe(this.scroll);
    this.grid.addEventListener('keydown', (event) => this.key(event));
    this.grid.addEventListener('click', (event) => this.click(event));
    this.grid.addEventListener('focusin', (event) => this.focused(event.target));
  }

  height(name) {
    const node = this.model.nodes.get(name);
    const lines = Math.max(1, Math.ceil((node?.gpus.length ?? 1) / GPUS_A_LINE));
    return this.compact ? 7 + 19 * lines : 14 + 40 * lines;
  }

  /** Shows these nodes. */
  show(names, dim) {
    this.dim = dim;
    this.names = names;
    this.place = new Map(names.map((name, at) => [name, at]));
    this.tops = new Array(names.length + 1);
    this.tops[0] = 0;
    for (let at = 0; at < names.length; at += 1) this.tops[at + 1] = this.tops[at] + this.height(names[at]);
    this.grid.style.height = `${this.tops[names.length]}px`;
    this.grid.setAttribute('aria-rowcount', names.length);
    this.grid.setAttribute('aria-colcount', GPUS_A_LINE + 1);
    this.paint();
  }

  /** The rows of these nodes say something else now. */
  changed(names) {
    for (const name of names) this.rows.get(name)?.classList.add('old');
  }

  /** All rows do, when they are painted next. */
  outdate() {
    this.rows.forEach((row) => row.classList.add('old'));
  }

  /** All rows do, now. */
  allChanged() {
    this.outdate();
    this.paint();
  }

  at(y) {
    let [low, high] = [0, this.names.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.tops[middle + 1] <= y) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  paint() {
    const top = this.scroll.scrollTop;
    const from = Math.max(0, this.at(top) - BEYOND);
    const to = Math.min(this.names.length, this.at(top + this.scroll.clientHeight) + 1 + BEYOND);
    const wanted = new Map();
    for (let at = from; at < to; at += 1) wanted.set(this.names[at], at);
    // Who has the focus keeps it, wherever it was scrolled to.
    const kept = this.place?.get(this.active.name);
    if (kept !== undefined) wanted.set(this.active.name, kept);
    for (const [name, row] of this.rows) {
      if (!wanted.has(name)) {
        row.remove();
        this.rows.delete(name);
      }
    }
    for (const [name, at] of wanted) {
      let row = this.rows.get(name);
      const node = this.model.nodes.get(name);
      // One that went is in the list until the next frame.
      if (node && (!row || row.classList.contains('old'))) row = this.renew(node, row);
      if (!row) continue;
      row.setAttribute('aria-rowindex', at + 1);
      const y = `translateY(${this.tops[at]}px)`;
      if (row.style.transform !== y) row.style.transform = y;
    }
    this.rove();
  }

  renew(node, before) {
    const held = before?.contains(document.activeElement) ? document.activeElement.dataset.gpu : undefined;
    const row = this.row(node);
    if (before) before.replaceWith(row);
    else this.grid.append(row);
    this.rows.set(node.name, row);
    if (held !== undefined) (row.querySelector(`[data-gpu="${held}"]`) ?? row.firstElementChild).focus({ preventScroll: true });
    return row;
  }

  row(node) {
    const { sum } = node;
    const models = [...new Set(node.gpus.map((gpu) => gpu.kind.short))].join(', ');
    const used = `${amount(sum.used)} of ${node.gpus.length} in use`;
    const stranded = sum.stranded >= 0.05 ? `, ${amount(sum.stranded)} stranded` : '';
    const said = node.why || `${used}${stranded}`;
    const head = h('div', {
      role: 'rowheader', class: 'head', 'data-gpu': '-1', tabindex: '-1', title: node.why || models, 'aria-label': `${node.name}: ${said}; ${models}`,
    }, h('b', {}, node.name), h('span', { class: 'sum' }, node.why ? 'not used' : `${amount(sum.used)} / ${node.gpus.length}`),
    h('small', {}, node.why || models));
    const dim = this.dim?.(node) ?? null;
    const cells = node.gpus.map((gpu) => h('div', {
      role: 'gridcell', class: `gpu${gpu.ill ? ' ill' : ''}`, 'data-gpu': gpu.index, tabindex: '-1', 'aria-label': describe(gpu, node),
    }, h('span', { class: 'index', 'aria-hidden': 'true' }, String(gpu.index)), this.track(gpu, node, dim)));
    const body = node.gpus.length > 0 ? cells : [h('div', { role: 'gridcell', class: 'why', 'data-gpu': '0', tabindex: '-1' }, node.why)];
    const row = h('div', { role: 'row', class: `row${node.why ? ' unknown' : ''}`, 'data-node': node.name }, head, h('div', { role: 'none', class: 'gpus' }, body));
    for (const cell of row.querySelectorAll('[data-gpu]')) {
      if (this.chosen.name === node.name && Number(cell.dataset.gpu) === this.chosen.gpu) cell.classList.add('chosen');
    }
    return row;
  }

  track(gpu, node, dim) {
    const preview = this.preview?.node === node.name ? this.preview.devices.filter((device) => device.gpu === gpu.index) : null;
    const track = draw(gpu, node, dim, preview);
    track.setAttribute('aria-hidden', 'true');
    return track;
  }

  /** One cell of all can be reached by Tab. */
  rove() {
    const first = this.names[this.at(this.scroll.scrollTop)];
    if (this.place && !this.place.has(this.active.name)) this.active = { name: first ?? '', gpu: -1 };
    for (const cell of this.grid.querySelectorAll('[tabindex="0"]')) cell.tabIndex = -1;
    const cell = this.cell(this.active.name, this.active.gpu) ?? this.rows.get(this.active.name)?.firstElementChild;
    if (cell) cell.tabIndex = 0;
  }

  cell(name, gpu) {
    return this.rows.get(name)?.querySelector(`[data-gpu="${gpu}"]`) ?? null;
  }

  focused(target) {
    const cell = target.closest('[data-gpu]');
    const row = target.closest('[data-node]');
    if (!cell || !row) return;
    this.active = { name: row.dataset.node, gpu: Number(cell.dataset.gpu) };
    this.rove();
  }

  /** Brings a node on the screen. */
  reveal(name) {
    const at = this.place?.get(name);
    if (at === undefined) return false;
    const [top, bottom] = [this.tops[at], this.tops[at + 1]];
    const { scrollTop, clientHeight } = this.scroll;
    if (top < scrollTop) this.scroll.scrollTop = top;
    else if (bottom > scrollTop + clientHeight) this.scroll.scrollTop = bottom - clientHeight;
    return true;
  }

  /** Gives a cell the focus. */
  focus(name, gpu) {
    if (!this.reveal(name)) return;
    this.active = { name, gpu };
    this.paint();
    (this.cell(name, gpu) ?? this.rows.get(name)?.firstElementChild)?.focus({ preventScroll: true });
  }

  /** Marks what is open. */
  choose(name, gpu) {
    const before = this.chosen.name;
    this.chosen = { name, gpu };
    this.changed([before, name]);
    this.paint();
  }

  click(event) {
    const cell = event.target.closest('[data-gpu]');
    const row = event.target.closest('[data-node]');
    if (!cell || !row) return;
    const [name, gpu] = [row.dataset.node, Number(cell.dataset.gpu)];
    this.focus(name, gpu);
    this.open(name, gpu);
  }

  key(event) {
    if (event.altKey || event.metaKey || this.names.length === 0) return;
    const { name, gpu } = this.active;
    const at = this.place.get(name) ?? 0;
    const gpus = this.model.nodes.get(name)?.gpus.map((one) => one.index) ?? [];
    const column = gpus.indexOf(gpu);
    const page = Math.max(1, Math.floor(this.scroll.clientHeight / this.height(name)) - 1);
    const go = (row, cell) => this.focus(this.names[Math.max(0, Math.min(this.names.length - 1, row))], cell);
    const line = column >= 0 && column + GPUS_A_LINE < gpus.length;
    const moves = {
      ArrowDown: () => (line ? go(at, gpus[column + GPUS_A_LINE]) : go(at + 1, gpu)),
      ArrowUp: () => (column >= GPUS_A_LINE ? go(at, gpus[column - GPUS_A_LINE]) : go(at - 1, gpu)),
      ArrowRight: () => go(at, gpus[Math.min(gpus.length - 1, column + 1)] ?? -1),
      ArrowLeft: () => go(at, column > 0 ? gpus[column - 1] : -1),
      PageDown: () => go(at + page, gpu),
      PageUp: () => go(at - page, gpu),
      Home: () => (event.ctrlKey ? go(0, -1) : go(at, -1)),
      End: () => (event.ctrlKey ? go(this.names.length - 1, gpu) : go(at, gpus.at(-1) ?? -1)),
      Enter: () => this.open(name, gpu),
      ' ': () => this.open(name, gpu),
    };
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    move();
  }
}
