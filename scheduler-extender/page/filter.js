// Which nodes are shown: by the form, which stands in the address behind the `#`, so that a view can be sent to somebody.

import { by, byName, count, say } from './dom.js';

const FIELDS = { q: 'f-q', node: 'f-node', ns: 'f-ns', model: 'f-model', with: 'f-state' };

/** What the address says: the filter, and which GPU is open. */
export function fromAddress() {
  const said = new URLSearchParams(location.hash.slice(1));
  return Object.fromEntries([...Object.keys(FIELDS), 'open'].map((key) => [key, said.get(key) ?? '']));
}

/** Says it in the address, without a step in the browser's history. */
export function toAddress(state) {
  const said = new URLSearchParams(Object.entries(state).filter(([, value]) => value));
  const hash = said.toString();
  history.replaceState(null, '', hash ? `#${hash}` : location.pathname);
}

/** Puts a filter into the form. */
export function fill(state) {
  for (const [key, id] of Object.entries(FIELDS)) {
    const field = by(id);
    if (field instanceof HTMLSelectElement && state[key] && ![...field.options].some((one) => one.value === state[key])) {
      field.append(new Option(state[key], state[key]));
    }
    if (field.value !== state[key]) field.value = state[key];
  }
}

/** What the form says. */
export function read() {
  return Object.fromEntries(Object.entries(FIELDS).map(([key, id]) => [key, by(id).value.trim()]));
}

/** Whether it leaves anything out. */
export const isOn = (state) => Object.keys(FIELDS).some((key) => state[key]);

/** Offers the namespaces and models that there are. */
export function offer(model) {
  const options = (select, names, chosen) => {
    const wanted = [...new Set([...names, ...(chosen ? [chosen] : [])])].sort(byName);
    const there = [...select.options].slice(1).map((one) => one.value);
    if (wanted.join('\n') === there.join('\n') || document.activeElement === select) return;
    select.replaceChildren(select.options[0], ...wanted.map((name) => new Option(name, name)));
    select.value = chosen;
  };
  options(by('f-ns'), model.namespaces.keys(), by('f-ns').value);
  options(by('f-model'), model.models.keys(), by('f-model').value);
  by('f-ns').disabled = !model.names;
}

function haystack(node) {
  if (node.haystack === null) {
    const pods = node.pods.map((pod) => `${pod.namespace}/${pod.name}`);
    node.haystack = [node.name, ...node.models, ...pods, ...node.gpus.map((gpu) => gpu.uuid)].join('\n').toLowerCase();
  }
  return node.haystack;
}

/** Makes ready what is searched, whenever the browser has nothing else to do: the first letter typed need not wait. */
export function prepare(model) {
  const names = [...model.nodes.keys()];
  const some = (left) => {
    while (names.length > 0 && left.timeRemaining() > 2) {
      const node = model.nodes.get(names.pop());
      if (node) haystack(node);
    }
    if (names.length > 0) requestIdleCallback(some);
  };
  // Not every browser has it; then the first search takes longer.
  if (globalThis.requestIdleCallback) requestIdleCallback(some);
}

const WITH = {
  free: (node) => !node.why && node.sum.free > 0,
  stranded: (node) => node.sum.stranded > 0,
  unhealthy: (node) => node.sum.unhealthy > 0 || node.gpus.some((gpu) => gpu.ill || gpu.sick.length > 0),
  planned: (node) => node.sum.planned > 0,
  idle: (node) => !node.why && node.gpus.length > 0 && node.pods.length === 0,
  unused: (node) => node.why !== '',
};

/** The names of the nodes that are shown, in order. */
export function shown(model, state) {
  const names = model.inOrder();
  if (!isOn(state)) return names;
  const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  const nodeName = state.node.toLowerCase();
  return names.filter((name) => {
    const node = model.nodes.get(name);
    return (!nodeName || name.toLowerCase().includes(nodeName))
      && (!state.ns || node.namespaces.has(state.ns))
      && (!state.model || node.models.has(state.model))
      && (!state.with || (WITH[state.with]?.(node) ?? true))
      && words.every((word) => haystack(node).includes(word));
  });
}

/** Which pods are not meant by a filter; `null` where it says nothing of pods. */
export function dimmed(state) {
  const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  if (!state.ns && words.length === 0) return null;
  const meant = (pod, node) => {
    if (state.ns && pod.namespace !== state.ns) return false;
    const text = `${pod.namespace}/${pod.name}`.toLowerCase();
    return words.every((word) => text.includes(word) || node.name.toLowerCase().includes(word));
  };
  return (node) => {
    // Words that mean no pod here mean the node, its model or a UUID.
    if (!node.pods.some((pod) => meant(pod, node))) return null;
    return (pod) => !meant(pod, node);
  };
}

/** Says how many are shown. */
export function tell(names, model, state) {
  const all = model.nodes.size;
  say(by('f-count'), isOn(state) ? `${names.length.toLocaleString('en')} of ${count(all, 'node')}` : count(all, 'node'));
  by('f-clear').hidden = !isOn(state);
}
