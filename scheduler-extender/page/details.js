// One GPU or one node in words.

import { amount, by, count, h, memory } from './dom.js';
import { place, stage, who } from './cells.js';
import { room } from './model.js';

const row = (name, value) => [h('dt', {}, name), h('dd', {}, value)];

function uses(gpu, node) {
  if (gpu.uses.length === 0) return h('p', { class: 'hint' }, 'Nobody is on it.');
  const line = (use) => h('tr', {},
    h('td', {}, h('b', {}, who(node.pods[use.pod])), h('small', {}, stage(use))),
    h('td', {}, use.offer.resource, h('small', {}, use.mib > 0 ? `${place(use.offer)}, ${memory(use.mib)}` : place(use.offer))));
  return h('table', {}, h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Pod'), h('th', { scope: 'col' }, 'Has'))), h('tbody', {}, gpu.uses.map(line)));
}

function rooms(gpus) {
  const all = new Map();
  for (const gpu of gpus) for (const [resource, devices] of room(gpu)) all.set(resource, (all.get(resource) ?? 0) + devices);
  if (all.size === 0) return h('p', { class: 'hint' }, 'Nothing more can be had as things are.');
  return [
    h('ul', { class: 'rooms' }, [...all].map(([resource, devices]) => h('li', {}, h('b', {}, devices.toLocaleString('en')), ` ${resource}`))),
    all.size > 1 && h('p', { class: 'hint' }, 'Each by itself: one takes from the others.'),
  ];
}

function ofGpu(gpu, node) {
  return [
    h('h2', {}, `GPU ${gpu.index} of ${node.name}`),
    gpu.ill && h('p', { class: 'warning' }, `Unhealthy: ${gpu.ill}`),
    gpu.sick.map(({ offer, why }) => h('p', { class: 'warning' }, `${place(offer)} is unhealthy: ${why}`)),
    h('dl', {}, row('Model', gpu.kind.model), row('Memory', memory(gpu.kind.memoryMib)), row('UUID', h('code', {}, gpu.uuid)),
      gpu.foreign.length > 0 && row('Not Stowage’s', gpu.foreign.map(([profile, start]) => `${profile} at ${start}`).join(', '))),
    h('h3', {}, 'Who is on it'),
    uses(gpu, node),
    h('h3', {}, 'What can still be had'),
    rooms([gpu]),
  ];
}

function ofNode(node) {
  const { sum } = node;
  const parts = [['in use', sum.used], ['free', sum.free], ['stranded', sum.stranded], ['unhealthy', sum.unhealthy], ['not Stowage’s', sum.foreign]];
  const pods = [...new Set(node.pods.map(who))];
  return [
    h('h2', {}, node.name),
    node.why && h('p', { class: 'warning' }, node.why),
    node.gpus.length > 0 && h('dl', {}, row('GPUs', `${node.gpus.length}: ${[...node.models].join(', ')}`),
      parts.filter(([, n]) => n >= 0.05).map(([name, n]) => row(name, `${amount(n)} GPUs`))),
    node.gpus.length > 0 && h('h3', {}, count(pods.length, 'pod')),
    pods.length > 0 && h('ul', { class: 'pods' }, pods.map((pod) => h('li', {}, pod))),
    node.gpus.length > 0 && [h('h3', {}, 'What can still be had'), rooms(node.gpus)],
  ].flat();
}

let shown = {};

/** Shows a GPU, or the node where that is -1. */
export function detail(model, { name, gpu }) {
  const node = model.nodes.get(name);
  const told = node ?? model.ready;
  // What stands there stays, with whatever somebody has selected in it; also while everything is told again.
  if (shown.name === name && shown.gpu === gpu && (shown.told === told || told === false)) return;
  shown = { name, gpu, told };
  const one = node?.gpus.find((known) => known.index === gpu);
  const panel = by('panel-details');
  if (!name) {
    panel.replaceChildren(h('p', { class: 'hint' }, 'Choose a GPU or a node: by a click, or by the arrow keys and Enter.'));
  } else if (!node) {
    panel.replaceChildren(h('h2', {}, name), h('p', { class: 'hint' }, model.ready ? 'There is no such node any more.' : 'Looking at the cluster …'));
  } else {
    panel.replaceChildren(...(one ? ofGpu(one, node) : ofNode(node)).flat().filter(Boolean));
  }
}
