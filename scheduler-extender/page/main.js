// The page: what is told goes into the model, and from there, once a frame, onto the screen.

import { atNextFrame, by, count, say } from './dom.js';
import { Model } from './model.js';
import { List } from './list.js';
import { detail } from './details.js';
import { describe } from './cells.js';
import { follow, useToken } from './stream.js';
import { offerResources, prepare } from './try.js';
import * as filter from './filter.js';
import * as summary from './summary.js';
import * as waiting from './waiting.js';

const ANNOUNCE_EVERY = 10000;

const model = new Model();
let state = filter.fromAddress();
let opened = readOpen(state.open);
const list = new List(model, open);

function readOpen(text) {
  const at = text.lastIndexOf('/');
  return at > 0 ? { name: text.slice(0, at), gpu: Number(text.slice(at + 1)) } : { name: '', gpu: -1 };
}

// What is on the screen.

const render = atNextFrame(() => {
  filter.offer(model);
  const names = filter.shown(model, state);
  list.show(names, filter.dimmed(state));
  filter.tell(names, model, state);
  summary.summarize(model);
  waiting.list(model, state);
  offerResources(model.kinds);
  if (opened.name) detail(model, opened);
  const empty = by('empty');
  empty.hidden = names.length > 0;
  say(empty, model.nodes.size > 0 ? 'No node is like that.' : model.ready ? 'No node has GPUs that Stowage knows of: is its device plugin running?' : 'Looking at the cluster …');
});

// What is told.

let changes = 0;
let announced = 0;

function announce() {
  if (changes === 0 || Date.now() - announced < ANNOUNCE_EVERY || document.hidden) return;
  announced = Date.now();
  const { sum, cluster } = model;
  say(by('announce'), `${count(changes, 'change')}. ${Math.round(sum.free)} GPUs free, ${count(cluster.waiting, 'pod')} waiting.`);
  changes = 0;
}

function told(event, data) {
  const ready = model.ready;
  const changed = model.take(event, data);
  if (event === 'begin') list.outdate();
  list.changed(changed);
  if (ready) {
    changes += changed.length;
    for (const name of changed) flash(name);
  }
  if (event === 'ready') {
    filter.prepare(model);
    list.choose(opened.name, opened.gpu);
    if (opened.name) list.reveal(opened.name);
  }
  render();
}

const flashed = new Map();

function flash(name) {
  clearTimeout(flashed.get(name));
  requestAnimationFrame(() => list.rows.get(name)?.classList.add('news'));
  flashed.set(name, setTimeout(() => {
    flashed.delete(name);
    list.rows.get(name)?.classList.remove('news');
  }, 1200));
}

function live(now, why) {
  const badge = by('live');
  badge.dataset.state = now;
  badge.title = why ?? '';
  say(badge, { live: 'live', lost: 'not connected', refused: 'not allowed' }[now]);
}

setInterval(announce, 1000);

let asking = false;

/** Asks for a token; the promise ends when there is one to try. */
function askWho(why) {
  const dialog = by('token');
  asking = true;
  say(by('token-why'), why);
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    by('token-form').addEventListener('submit', (event) => {
      event.preventDefault();
      asking = false;
      useToken(by('token-text').value.trim());
      by('token-text').value = '';
      dialog.close();
      resolve();
    }, { once: true });
  });
}

by('token').addEventListener('cancel', (event) => event.preventDefault());
// A second Escape closes it whatever was prevented.
by('token').addEventListener('close', () => asking && !by('token').open && by('token').showModal());

// What people do.

function remember() {
  const open = opened.name ? `${opened.name}/${opened.gpu}` : '';
  filter.toAddress({ ...state, open });
}

function open(name, gpu) {
  opened = { name, gpu };
  list.choose(name, gpu);
  detail(model, opened);
  show('details');
  remember();
  const node = model.nodes.get(name);
  const one = node?.gpus.find((known) => known.index === gpu);
  if (node) say(by('announce'), one ? describe(one, node) : `${name} opened`);
}

function close() {
  if (!opened.name && !list.preview) return;
  const { name, gpu } = opened;
  opened = { name: '', gpu: -1 };
  list.preview = null;
  list.choose('', -1);
  list.allChanged();
  detail(model, opened);
  show('waiting');
  remember();
  if (name) list.focus(name, gpu);
}

const TABS = ['waiting', 'try', 'details'];

function show(tab) {
  for (const one of TABS) {
    by(`tab-${one}`).setAttribute('aria-selected', String(one === tab));
    by(`tab-${one}`).tabIndex = one === tab ? 0 : -1;
    by(`panel-${one}`).hidden = one !== tab;
  }
}

for (const [at, tab] of TABS.entries()) {
  by(`tab-${tab}`).addEventListener('click', () => show(tab));
  by(`tab-${tab}`).addEventListener('keydown', (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = TABS[(at + step + TABS.length) % TABS.length];
    show(next);
    by(`tab-${next}`).focus();
  });
}

function filtered() {
  state = { ...state, ...filter.read() };
  list.outdate();
  list.scroll.scrollTop = 0;
  remember();
  render();
}

by('filter').addEventListener('input', filtered);
by('filter').addEventListener('submit', (event) => event.preventDefault());
by('f-clear').addEventListener('click', () => {
  filter.fill({ q: '', node: '', ns: '', model: '', with: '' });
  filtered();
  by('f-q').focus();
});

// What stands behind the `#` is the view: a jump there would forget it.
by('skip').addEventListener('click', (event) => {
  event.preventDefault();
  by('grid').focus();
  list.focus(list.active.name, list.active.gpu);
});

window.addEventListener('hashchange', () => {
  state = filter.fromAddress();
  opened = readOpen(state.open);
  filter.fill(state);
  list.choose(opened.name, opened.gpu);
  list.allChanged();
  if (opened.name) {
    detail(model, opened);
    show('details');
  }
  render();
});

document.addEventListener('keydown', (event) => {
  const typing = event.target.closest?.('input, textarea, select');
  if (event.key === 'Escape') {
    if (typing?.closest('#filter')) list.focus(list.active.name, list.active.gpu);
    else if (!typing) close();
  } else if (event.key === '/' && !typing && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    by('f-q').focus();
    by('f-q').select();
  }
});

prepare((node, devices) => {
  list.preview = { node, devices };
  if (!list.place?.has(node)) {
    filter.fill({ q: '', node: '', ns: '', model: '', with: '' });
    state = { ...state, ...filter.read() };
    list.show(filter.shown(model, state), null);
    render();
  }
  list.allChanged();
  list.reveal(node);
  say(by('announce'), `Shown on ${node}`);
});

// How it looks.

const THEMES = ['system', 'light', 'dark'];
const stored = (key) => {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
};
const store = (key, value) => {
  try {
    localStorage.setItem(key, value);
  } catch {
    // Without storage it is forgotten with the page.
  }
};

function theme(name) {
  document.documentElement.dataset.theme = name;
  by('theme').textContent = `Theme: ${name}`;
}

function density(compact) {
  list.compact = compact;
  by('density').setAttribute('aria-pressed', String(compact));
  document.documentElement.classList.toggle('compact', compact);
  list.outdate();
  render();
}

by('theme').addEventListener('click', () => {
  const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
  store('stowage-theme', next);
  theme(next);
});
by('density').addEventListener('click', () => {
  store('stowage-compact', String(!list.compact));
  density(!list.compact);
});

theme(THEMES.includes(stored('stowage-theme')) ? stored('stowage-theme') : 'system');
density(stored('stowage-compact') === 'true');
filter.fill(state);
detail(model, opened);
if (opened.name) show('details');
follow(told, live, askWho);
