// The pods that wait for GPUs, and why each does.

import { by, byName, count, h } from './dom.js';
import { askJson } from './stream.js';
import { verdict } from './try.js';

const REASONS = {
  fits: ['has room', 'Some node has room: its turn has not come, or it waits for something else than GPUs.'],
  full: ['all in use', 'What it asks for is in use, or what is free does not fit together.'],
  unhealthy: ['unhealthy', 'What is free is unhealthy.'],
  policy: ['policy', 'Its own policy is in the way, or that of pods that are there.'],
  nodes_unknown: ['not known', 'It fits no node that is known; of some nothing is known.'],
  too_large: ['share too large', 'No GPU is as large as the share that it asks for.'],
  too_few: ['too many', 'No node has as many, even if it were empty.'],
  not_offered: ['not offered', 'No node offers what it asks for.'],
};
const LISTED = 200;

let open = '';
/** Why the open one waits, as an element: it lives through changes of the list. */
let why = null;
let shown = [];

const word = (reason) => REASONS[reason]?.[0] ?? reason;

/** Lists them. `matches` is the filter's text and namespace. */
export function list(model, state) {
  const { cluster, names } = model;
  // A list that is made anew would swallow the click that it comes in between.
  const now = [cluster, names, state.q, state.ns, open];
  if (now.length === shown.length && now.every((one, at) => one === shown[at])) return;
  shown = now;
  by('tab-waiting').textContent = `Waiting ${cluster.waiting.toLocaleString('en')}`;
  const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  const meant = cluster.pods.filter(([, namespace, name]) => (!state.ns || namespace === state.ns)
    && words.every((part) => `${namespace}/${name}`.toLowerCase().includes(part)));
  meant.sort((one, two) => two[3] - one[3] || byName(`${one[1]}/${one[2]}`, `${two[1]}/${two[2]}`));
  const chips = Object.entries(cluster.reasons).filter(([, pods]) => pods > 0)
    .map(([reason, pods]) => h('li', { title: REASONS[reason]?.[1] }, h('b', {}, pods.toLocaleString('en')), ` ${word(reason)}`));
  const pod = ([uid, namespace, name, priority, what, reason, node]) => h('li', {},
    h('button', { type: 'button', class: 'pod', 'data-uid': uid, 'aria-expanded': String(uid === open), onclick: () => toggle(uid, name, model, state) },
      h('b', {}, name), h('small', { class: `reason ${reason}`, title: REASONS[reason]?.[1] }, word(reason)),
      h('small', {}, `${namespace} · ${what}${priority ? ` · priority ${priority}` : ''}${node ? ` · room kept on ${node}` : ''}`)),
    uid === open && why);
  const unlisted = cluster.waiting - cluster.pods.length;
  const focus = document.activeElement;
  by('panel-waiting').replaceChildren(
    cluster.waiting === 0 ? h('p', { class: 'hint' }, 'No pod waits for GPUs.') : h('ul', { class: 'chips', 'aria-label': 'What they wait for' }, chips),
    h('ul', { class: 'list', 'aria-label': 'Pods that wait' }, meant.slice(0, LISTED).map(pod)),
    meant.length > LISTED ? h('p', { class: 'hint' }, `and ${count(meant.length - LISTED, 'more')} that the filter lets through`) : '',
    names && unlisted > 0 ? h('p', { class: 'hint' }, `${count(unlisted, 'more pod')} not listed`) : '',
    names ? '' : h('p', { class: 'hint' }, 'Which pods wait is for those who may list pods in all namespaces.'));
  // Whatever was taken out has lost the focus, though it stands there again.
  if (why?.contains(focus)) focus.focus({ preventScroll: true });
  else if (focus?.dataset.uid) by('panel-waiting').querySelector(`[data-uid="${CSS.escape(focus.dataset.uid)}"]`)?.focus({ preventScroll: true });
}

async function toggle(uid, name, model, state) {
  open = open === uid ? '' : uid;
  why = open ? h('div', { class: 'why', id: 'why', role: 'region', 'aria-label': `Why ${name} waits` }, h('p', { class: 'hint' }, 'Asking every node …')) : null;
  const mine = why;
  list(model, state);
  if (!open) return;
  let content;
  try {
    const said = await askJson(`/api/v1/waiting/${encodeURIComponent(uid)}`);
    content = verdict(said, true);
  } catch (error) {
    content = [h('p', { class: 'warning' }, error.message)];
  }
  mine.replaceChildren(...content);
}
