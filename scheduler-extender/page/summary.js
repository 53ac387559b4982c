// All GPUs together.

import { amount, by, count, h } from './dom.js';

const PARTS = [
  ['used', 'in use'],
  ['free', 'free'],
  ['stranded', 'stranded'],
  ['unhealthy', 'unhealthy'],
  ['foreign', 'not Stowage’s'],
];

/** Shows how much of all GPUs is what. */
export function summarize(model) {
  const { sum, nodes } = model;
  const percent = (n) => (sum.gpus ? Math.round((100 * n) / sum.gpus) : 0);
  const tile = (kind, value, name, more) => h('div', { class: `tile ${kind}` }, h('b', {}, value), h('span', {}, name), more && h('small', {}, more));
  const tiles = [tile('all', sum.gpus.toLocaleString('en'), 'GPUs', `on ${count(nodes.size - sum.unknown, 'node')}${sum.unknown ? `, ${sum.unknown.toLocaleString('en')} not used` : ''}`)];
  for (const [kind, name] of PARTS) {
    if (kind === 'foreign' && sum.foreign < 0.05) continue;
    tiles.push(tile(kind, amount(sum[kind]), name, `${percent(sum[kind])} %`));
  }
  tiles.push(tile('planned', sum.planned.toLocaleString('en'), sum.planned === 1 ? 'device planned' : 'devices planned'));
  const bar = h('div', { class: 'bar', 'aria-hidden': 'true' });
  for (const [kind] of PARTS) {
    const part = h('i', { class: kind });
    part.style.flexGrow = String(sum[kind]);
    bar.append(part);
  }
  by('summary').replaceChildren(h('div', { class: 'tiles' }, tiles), bar);
}
