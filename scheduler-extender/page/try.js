// A pod that does not exist yet: where it would go, and what it would take away. Nothing is held for it.

import { by, count, h, milli } from './dom.js';
import { askJson } from './stream.js';

let showOnMap = () => {};

const quoted = (text) => JSON.stringify(String(text));

/** The manifest that the form's fields make. */
function manifest({ resource, devices, memory, namespace, placement, models, distinct, alone }) {
  const annotations = [
    memory && `    stowage.dev/gpu-memory: ${quoted(memory)}`,
    placement === 'spread' && '    stowage.dev/placement: spread',
    models && `    stowage.dev/gpu-model: ${quoted(models)}`,
    distinct && '    stowage.dev/distinct-gpus: "true"',
    alone && '    stowage.dev/share-with: namespace',
  ].filter(Boolean);
  return [
    'apiVersion: v1',
    'kind: Pod',
    'metadata:',
    '  name: tried',
    `  namespace: ${quoted(namespace || 'default')}`,
    ...(annotations.length > 0 ? ['  annotations:', ...annotations] : []),
    'spec:',
    '  schedulerName: stowage-scheduler',
    '  containers:',
    '    - name: main',
    '      resources:',
    '        limits:',
    `          ${quoted(resource || 'nvidia.com/gpu')}: ${quoted(devices || 1)}`,
    '',
  ].join('\n');
}

const FORM = [
  ['resource', 'Resource', { type: 'text', value: 'nvidia.com/gpu', list: 'resources', spellcheck: 'false' }],
  ['devices', 'How many', { type: 'number', value: '1', min: '1', max: '1024' }],
  ['memory', 'Memory of a share', { type: 'text', placeholder: 'such as 3Gi' }],
  ['namespace', 'Namespace', { type: 'text', placeholder: 'default', spellcheck: 'false' }],
  ['models', 'GPU model', { type: 'text', placeholder: 'such as *A100*|*H100*', spellcheck: 'false' }],
];

/** Puts the form into its panel. `show(node, devices)` shows a placement on the map. */
export function prepare(show) {
  showOnMap = show;
  const field = (id) => by(`t-${id}`);
  const text = h('textarea', { id: 't-manifest', rows: '16', spellcheck: 'false', 'aria-describedby': 't-hint' });
  const write = () => {
    text.value = manifest({
      ...Object.fromEntries(FORM.map(([id]) => [id, field(id).value.trim()])),
      placement: field('placement').value,
      distinct: field('distinct').checked,
      alone: field('alone').checked,
    });
  };
  const form = h('form', { class: 'try', oninput: (event) => event.target !== text && write(), onsubmit: (event) => send(event, text) },
    h('div', { class: 'fields' },
      FORM.map(([id, name, properties]) => h('label', {}, h('span', {}, name), h('input', { id: `t-${id}`, ...properties }))),
      h('label', {}, h('span', {}, 'Placement'), h('select', { id: 't-placement' }, new Option('binpack'), new Option('spread')))),
    h('label', { class: 'check' }, h('input', { id: 't-distinct', type: 'checkbox' }), 'each device on another GPU'),
    h('label', { class: 'check' }, h('input', { id: 't-alone', type: 'checkbox' }), 'no other namespace beside it'),
    h('datalist', { id: 'resources' }),
    h('label', { class: 'area' }, h('span', {}, 'Or paste a manifest'), text),
    h('p', { id: 't-hint', class: 'hint' }, 'YAML or JSON of a Pod, Deployment, StatefulSet, Job or CronJob; of several pods the first. Nothing is made or held.'),
    h('button', { type: 'submit', class: 'primary', id: 't-go' }, 'Where would it go?'));
  by('panel-try').replaceChildren(form, h('div', { id: 't-answer', role: 'region', 'aria-live': 'polite', 'aria-label': 'Answer' }));
  write();
}

/** Offers the resource names that there are. */
export function offerResources(kinds) {
  const names = [...new Set(kinds.flatMap((kind) => kind.offers.map((offer) => offer.resource)))].sort();
  const list = by('resources');
  if (list && list.options.length !== names.length) list.replaceChildren(...names.map((name) => new Option(name, name)));
}

async function send(event, text) {
  event.preventDefault();
  const go = by('t-go');
  go.disabled = true;
  let content;
  try {
    const body = JSON.stringify({ manifest: text.value });
    content = verdict(await askJson('/api/v1/what-if', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body }), false);
  } catch (error) {
    content = [h('p', { class: 'warning' }, error.message)];
  }
  go.disabled = false;
  by('t-answer').replaceChildren(...content);
  by('t-answer').scrollIntoView({ block: 'nearest' });
}

function costs({ cost, before, after }) {
  const strands = after.stranded - before.stranded;
  const lines = [
    `${milli(after.inUse - before.inUse)} GPU in use more`,
    strands > 0 ? `${milli(strands)} GPU stranded more` : strands < 0 ? `${milli(-strands)} GPU stranded less` : 'strands nothing more',
    cost.lost > 0 && `pods to come lose room worth ${milli(cost.lost)} GPU`,
    cost.wakesNode && 'breaks into a node that nobody uses',
    !cost.wakesNode && cost.wakesGpus > 0 && `breaks into ${count(cost.wakesGpus, 'GPU')} that nobody uses`,
    `the node could take ${cost.roomLeft.toLocaleString('en')} more of the same`,
  ];
  return h('ul', { class: 'costs' }, lines.filter(Boolean).map((line) => h('li', {}, line)));
}

function device([gpu, , resource, profile, start]) {
  return `GPU ${gpu}: ${profile ? `${profile} at ${start}` : resource}`;
}

/** What the nodes say to a pod, as elements. */
export function verdict({ beingBound, said }, waits) {
  const { best, fits, next, doesNotFit } = said;
  const all = [h('p', { class: 'asks' }, said.asks, said.policy && h('small', {}, said.policy))];
  if (beingBound) all.push(h('p', {}, `It is being bound to ${beingBound}.`));
  if (best) {
    const devices = best.devices.map(([gpu, , , profile, start]) => ({ gpu, profile, start }));
    all.push(
      h('p', { class: 'goes' }, waits ? `It fits ${count(fits, 'node')}; the best is ` : `It would fit ${count(fits, 'node')} and go to `, h('b', {}, best.node)),
      h('ul', { class: 'devices' }, best.devices.map((one) => h('li', {}, device(one)))),
      h('button', { type: 'button', class: 'show', onclick: () => showOnMap(best.node, devices) }, 'Show on the map'),
      costs(best),
      next.length > 0 ? h('p', { class: 'hint' }, `Next best: ${next.join(', ')}`) : '');
    if (waits) all.push(h('p', { class: 'hint' }, 'So GPUs are not what it waits for: its turn has not come, or kube-scheduler finds too little cpu or memory, a taint or the like (kubectl describe pod).'));
  } else {
    all.push(h('p', { class: 'nofit' }, 'It fits no node.'));
  }
  if (doesNotFit.length > 0) {
    all.push(h('h3', {}, best ? 'Where it does not fit' : 'Why not'), h('ul', { class: 'reasons' }, doesNotFit.map((group) => h('li', {},
      h('b', {}, count(group.nodes, 'node')), ` ${group.text}`,
      group.numbers.map((line) => h('small', {}, line)),
      h('small', {}, `${group.some.join(', ')}${group.nodes > group.some.length ? ' …' : ''}`)))));
  }
  all.push(h('p', { class: 'hint' }, 'GPUs alone are looked at: not cpu, memory, taints or affinity.'));
  return all.filter((one) => one !== '');
}
