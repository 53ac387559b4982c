// One GPU as boxes to scale, and as a sentence.

import { h, memory } from './dom.js';
import { NOMINATED, PROMISED, STAGES } from './model.js';

const IDLE = { f: 'free', s: 'stranded', u: 'unhealthy', x: 'foreign' };
const CLASSES = ['used', 'promised', 'promised', 'nominated'];

/** What a device is called: `3g.20gb at 4`, `a share`, `all of it`. */
export function place(offer) {
  const share = offer.replicas > 0 ? 'a share' : '';
  if (offer.whole) return share || 'all of it';
  return `${share ? 'a share of ' : ''}${offer.profile} at ${offer.start}`;
}

/** The boxes of a GPU: `{x, width, kind, pod, use, slices}`, in parts of it. */
export function boxes(gpu, pods) {
  const { cells, kind, uses } = gpu;
  const n = cells.length;
  const all = [];
  const covered = new Array(n).fill(false);
  const span = (offer) => (offer.whole ? [0, n] : [offer.start, Math.min(n, offer.start + offer.size)]);
  const cover = (from, to) => covered.fill(true, from, to);
  const used = (use, x, width) => all.push({ x, width, kind: CLASSES[use.stage], pod: pods[use.pod], use });
  const shared = new Map();
  for (const use of uses) {
    if (use.offer.replicas > 0) {
      shared.set(use.offer, [...(shared.get(use.offer) ?? []), use]);
      continue;
    }
    const [from, to] = span(use.offer);
    cover(from, to);
    used(use, from / n, (to - from) / n);
  }
  for (const [offer, those] of shared) {
    const [from, to] = span(offer);
    cover(from, to);
    const width = (to - from) / n;
    const parts = those.map((use) => (use.mib > 0 ? use.mib / kind.memoryMib : 1 / offer.replicas));
    const sum = parts.reduce((one, two) => one + two, 0);
    const scale = width / Math.max(1, sum);
    let x = from / n;
    those.forEach((use, at) => {
      used(use, x, parts[at] * scale);
      x += parts[at] * scale;
    });
    const idle = IDLE[cells[from]];
    const left = from / n + width - x;
    if (!idle || left < 0.001) continue;
    const equal = those.every((use) => use.mib === 0);
    const count = equal ? offer.replicas - those.length : 1;
    for (let at = 0; at < count; at += 1) all.push({ x: x + (at * left) / count, width: left / count, kind: idle, slices: 1 });
  }
  if (kind.fixed) {
    for (const offer of kind.offers) {
      const [from, to] = span(offer);
      if (covered[from]) continue;
      cover(from, to);
      const parts = Math.max(1, offer.replicas);
      const width = (to - from) / n / parts;
      for (let at = 0; at < parts; at += 1) {
        all.push({ x: from / n + at * width, width, kind: IDLE[cells[from]] ?? 'stranded', slices: 1 });
      }
    }
  }
  const only = kind.offers.length === 1 && kind.offers[0].whole ? Math.max(1, kind.offers[0].replicas) : 1;
  for (let from = 0; from < n;) {
    if (covered[from]) {
      from += 1;
      continue;
    }
    let to = from + 1;
    while (to < n && !covered[to] && cells[to] === cells[from]) to += 1;
    const width = (to - from) / n;
    for (let at = 0; at < only; at += 1) {
      all.push({ x: from / n + (at * width) / only, width: width / only, kind: IDLE[cells[from]] ?? 'used', slices: to - from });
    }
    from = to;
  }
  return all;
}

const SIGNS = { unhealthy: '!' };

/** The element of a GPU's boxes. `dim` says which pods are not meant, `preview` which offers a tried pod would get. */
export function draw(gpu, node, dim, preview) {
  const track = h('div', { class: 'track' });
  for (const box of boxes(gpu, node.pods)) {
    const faded = dim && (!box.pod || dim(box.pod));
    const element = h('span', { class: `box ${box.kind}${faded ? ' faded' : ''}` });
    element.style.left = `${box.x * 100}%`;
    element.style.width = `${box.width * 100}%`;
    if (box.slices > 1) element.style.setProperty('--slices', box.slices);
    const text = box.pod ? box.pod.name : SIGNS[box.kind];
    if (text) element.append(h('span', {}, text));
    track.append(element);
  }
  for (const { profile, start } of preview ?? []) {
    const offer = gpu.kind.offers.find((known) => known.profile === profile && (known.whole || known.start === start));
    const element = h('span', { class: 'box preview' }, h('span', {}, 'here'));
    const n = gpu.cells.length;
    element.style.left = `${offer && !offer.whole ? (offer.start / n) * 100 : 0}%`;
    element.style.width = `${offer && !offer.whole ? (offer.size / n) * 100 : 100}%`;
    track.append(element);
  }
  return track;
}

/** Who a pod is, in words. */
export const who = (pod) => (pod.namespace ? `${pod.namespace}/${pod.name}` : pod.name);

/** A GPU in a sentence, for who does not see the boxes. */
export function describe(gpu, node) {
  const parts = gpu.uses.map((use) => {
    const size = use.mib > 0 ? ` of ${memory(use.mib)}` : '';
    const how = use.stage === NOMINATED ? 'may get' : use.stage >= PROMISED ? 'is to get' : 'has';
    return `${who(node.pods[use.pod])} ${how} ${place(use.offer)}${size}`;
  });
  if (gpu.ill) parts.push(`unhealthy: ${gpu.ill}`);
  const n = gpu.cells.length;
  for (const [letter, word] of Object.entries(IDLE)) {
    const some = gpu.cells.split(letter).length - 1;
    if (some > 0 && !(letter === 'u' && gpu.ill)) parts.push(n === 1 ? (gpu.uses.length ? `the rest is ${word}` : word) : `${some} of ${n} slices ${word}`);
  }
  return `GPU ${gpu.index}, ${gpu.kind.short}: ${parts.join('; ') || 'in use'}`;
}

/** What a stage is called. */
export const stage = (use) => STAGES[use.stage];
