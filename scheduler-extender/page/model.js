// What the server has told, and what is reckoned from it. Nothing here knows of the page.

import { byName } from './dom.js';

/** How far a pod has come with a device. */
export const HELD = 0;
export const PROMISED = 1;
export const ASSUMED = 2;
export const NOMINATED = 3;
export const STAGES = ['in use', 'promised: bound to the node', 'planned: being bound', 'planned: room is kept'];

const IDLE = { f: 'free', s: 'stranded', u: 'unhealthy', x: 'foreign' };

function readKind({ model, memoryMib, offers }) {
  const read = offers.map(([resource, profile, start, size, replicas]) => ({
    resource, profile, start, size, replicas, whole: size === 0,
  }));
  const slices = read.filter((offer) => !offer.whole);
  const overlap = slices.some((one, at) => slices.slice(at + 1).some((two) =>
    one.start < two.start + two.size && two.start < one.start + one.size));
  // Slices that are there, side by side, and nothing that they could make room for.
  const fixed = slices.length === read.length && slices.length > 0 && !overlap;
  return { model, memoryMib, offers: read, fixed, short: model.replace(/^NVIDIA /, '') };
}

function readGpu([kind, index, uuid, cells, uses, ill, foreign, sick], kinds) {
  const read = [];
  for (let at = 0; at < uses.length; at += 4) {
    read.push({ offer: kinds[kind].offers[uses[at]], stage: uses[at + 1], pod: uses[at + 2], mib: uses[at + 3] });
  }
  const sickOffers = (sick ?? []).map(([offer, why]) => ({ offer: kinds[kind].offers[offer], why }));
  return { kind: kinds[kind], index, uuid, cells, uses: read, ill: ill || '', foreign: foreign ?? [], sick: sickOffers };
}

/** How much of a GPU is what, in GPUs. */
export function amounts(gpu) {
  const { cells, uses } = gpu;
  const sum = { used: 0, free: 0, stranded: 0, unhealthy: 0, foreign: 0, planned: 0 };
  const used = new Array(cells.length).fill(0);
  for (const { offer, stage } of uses) {
    if (stage !== HELD) sum.planned += 1;
    if (stage === NOMINATED) continue;
    const part = 1 / Math.max(1, offer.replicas);
    const [from, to] = offer.whole ? [0, cells.length] : [offer.start, offer.start + offer.size];
    for (let at = from; at < to && at < used.length; at += 1) used[at] += part;
  }
  for (let at = 0; at < cells.length; at += 1) {
    const part = Math.min(1, used[at]);
    sum.used += part / cells.length;
    const idle = IDLE[cells[at]];
    if (idle) sum[idle] += (1 - part) / cells.length;
  }
  return sum;
}

function readNode([name, why, gpus, pods], kinds) {
  const named = Array.isArray(pods) ? pods : new Array(pods).fill(null);
  const node = {
    name,
    why: why || '',
    gpus: gpus.map((gpu) => readGpu(gpu, kinds)),
    pods: named.map((pod) => (pod ? { namespace: pod[0], name: pod[1] || '(a pod)' } : { namespace: '', name: '(a pod)' })),
    sum: { used: 0, free: 0, stranded: 0, unhealthy: 0, foreign: 0, planned: 0 },
    models: new Set(),
    namespaces: new Set(),
    haystack: null,
  };
  for (const gpu of node.gpus) {
    const sum = amounts(gpu);
    for (const key of Object.keys(sum)) node.sum[key] += sum[key];
    node.models.add(gpu.kind.model);
  }
  for (const pod of node.pods) if (pod.namespace) node.namespaces.add(pod.namespace);
  return node;
}

/** Everything that is known. */
export class Model {
  constructor() {
    this.clear();
  }

  clear() {
    this.kinds = [];
    this.nodes = new Map();
    this.order = [];
    this.sorted = true;
    this.names = true;
    this.ready = false;
    this.cluster = { plainNodes: 0, waiting: 0, reasons: {}, pods: [] };
    this.sum = { used: 0, free: 0, stranded: 0, unhealthy: 0, foreign: 0, planned: 0, gpus: 0, unknown: 0 };
    this.models = new Map();
    this.namespaces = new Map();
  }

  /** Takes an event in; the names of the nodes that changed, if any did. */
  take(event, data) {
    switch (event) {
      case 'begin':
        this.clear();
        this.names = data.names;
        return [];
      case 'cluster':
        this.cluster = data;
        return [];
      case 'ready':
        this.ready = true;
        return [];
      case 'gone':
        data.forEach((name) => this.remove(name));
        return data;
      case 'nodes':
        this.kinds.push(...data.kinds.map(readKind));
        return data.nodes.map((node) => this.put(readNode(node, this.kinds)));
      default:
        return [];
    }
  }

  put(node) {
    const before = this.nodes.get(node.name);
    if (before) this.count(before, -1);
    else this.sorted = false;
    this.nodes.set(node.name, node);
    this.count(node, 1);
    return node.name;
  }

  remove(name) {
    const node = this.nodes.get(name);
    if (!node) return;
    this.count(node, -1);
    this.nodes.delete(name);
    this.sorted = false;
  }

  count(node, sign) {
    for (const key of Object.keys(node.sum)) this.sum[key] += sign * node.sum[key];
    this.sum.gpus += sign * node.gpus.length;
    if (node.why) this.sum.unknown += sign;
    const tally = (map, key) => {
      const now = (map.get(key) ?? 0) + sign;
      if (now > 0) map.set(key, now);
      else map.delete(key);
    };
    node.models.forEach((model) => tally(this.models, model));
    node.namespaces.forEach((namespace) => tally(this.namespaces, namespace));
  }

  /** The nodes by name, as people order names. */
  inOrder() {
    if (!this.sorted) {
      this.order = [...this.nodes.keys()].sort(byName);
      this.sorted = true;
    }
    return this.order;
  }
}

/** What of a GPU others could still get: `[resource, devices]`, each by itself. */
export function room(gpu) {
  if (gpu.ill) return [];
  const taken = (offer) => gpu.uses.filter((use) => use.stage !== NOMINATED && use.offer === offer).length;
  const conflicts = (one, two) => one !== two && (one.whole || two.whole
    || (one.start < two.start + two.size && two.start < one.start + one.size));
  const isFree = (offer) => !gpu.sick.some((sick) => sick.offer === offer)
    && !gpu.uses.some((use) => use.stage !== NOMINATED && conflicts(use.offer, offer));
  const rooms = new Map();
  const counted = new Map();
  // From the last to the first, as the packing core counts.
  for (const offer of [...gpu.kind.offers].reverse()) {
    const beside = counted.get(offer.resource) ?? [];
    const left = Math.max(1, offer.replicas) - taken(offer);
    if (left <= 0 || !isFree(offer) || beside.some((other) => conflicts(other, offer))) continue;
    rooms.set(offer.resource, (rooms.get(offer.resource) ?? 0) + left);
    counted.set(offer.resource, [...beside, offer]);
  }
  return [...rooms].sort(([one], [two]) => byName(one, two));
}
