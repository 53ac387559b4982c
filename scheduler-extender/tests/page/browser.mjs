// What a person does with the map, in a real browser. `node browser.mjs SCRIPT URL`; `main.rs` says how it is called.
//
// A line of JSON on standard output asks for a pod to be made and bound; whatever else is printed is for people.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const { chromium } = createRequire(import.meta.url)(process.env.DRIVER);
const [script, url] = process.argv.slice(2);
const out = process.env.OUT;
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Has a pod made and bound; answers with when the binding was asked for, in milliseconds since 1970. */
async function bind(pod, resource, node) {
  const asked = Date.now();
  console.log(JSON.stringify({ pod, resource, node }));
  await answers.next();
  return asked;
}

/** Notes in the page when the first row, the first paint and each name came. */
function note() {
  globalThis.noted = { firstRow: 0, whole: 0, names: {} };
  const now = () => performance.timeOrigin + performance.now();
  new MutationObserver(() => {
    if (!noted.firstRow && document.querySelector('.row')) noted.firstRow = performance.now();
    const wanted = globalThis.wantedName;
    if (wanted && !noted.names[wanted] && [...document.querySelectorAll('.box')].some((box) => box.textContent === wanted)) {
      noted.names[wanted] = now();
    }
  }).observe(document, { subtree: true, childList: true, characterData: true });
}

// A page of PAGE comes from nowhere: to Chromium this machine is then another network.
const args = ['--no-sandbox', ...(process.env.PAGE ? ['--disable-features=LocalNetworkAccessChecks'] : [])];
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args });
const trouble = [];

async function open(path = '/', options = {}, before = async () => {}) {
  const context = await browser.newContext({ viewport: { width: 1480, height: 860 }, colorScheme: 'light', ...options });
  const page = await context.newPage();
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && trouble.push(`console: ${message.text()}`));
  page.on('pageerror', (error) => trouble.push(`error: ${error.stack}`));
  page.on('request', (request) => {
    const to = new URL(request.url());
    if (to.protocol !== 'data:' && to.origin !== url) trouble.push(`a request to ${to.origin}`);
  });
  await page.addInitScript(note);
  if (process.env.PAGE) await page.route((to) => /\/$|\.(js|css)$/.test(to.pathname), fromFolder);
  await before(page);
  await page.goto(url + path, { waitUntil: 'commit' });
  await page.locator('#live[data-state="live"]').waitFor();
  return page;
}

/** Files as they are in the folder now, for who changes them: the program has those that it was built with. */
function fromFolder(route) {
  const { pathname } = new URL(route.request().url());
  const file = pathname === '/' ? 'index.html' : pathname.slice(1);
  const contentType = { html: 'text/html', css: 'text/css', js: 'text/javascript' }[file.split('.').pop()];
  return route.fulfill({ contentType, body: readFileSync(`${process.env.PAGE}/${file}`) });
}

const text = (page, selector) => page.locator(selector).innerText();
const picture = (page, name) => page.screenshot({ path: `${out}/${name}.png` });
const rows = (page) => page.locator('.row').count();
const focused = (page) => page.evaluate(() => {
  const cell = document.activeElement.closest('[data-gpu]');
  return cell && `${cell.closest('[data-node]').dataset.node}/${cell.dataset.gpu}`;
});
const settled = (page) => page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));

/** How long it takes until a pod that was just bound is seen. */
async function seen(page, pod, resource, node) {
  await page.evaluate((name) => { globalThis.wantedName = name; }, pod);
  const asked = await bind(pod, resource, node);
  await page.locator('.box', { hasText: pod }).first().waitFor({ state: 'attached' });
  return (await page.evaluate((name) => noted.names[name], pod)) - asked;
}

async function busy() {
  const page = await open();
  await page.locator('.row').nth(7).waitFor();
  await settled(page);
  await picture(page, 'map-light');
  await page.emulateMedia({ colorScheme: 'dark' });
  await picture(page, 'map-dark');
  await page.emulateMedia({ colorScheme: 'light' });

  // What is there is told, in words too.
  assert.match(await text(page, '#summary'), /56\s+GPUs\s+on 7 nodes, 1 not used/);
  assert.match(await text(page, '[data-node="gpu-node-6"]'), /GPU node is not Ready/);
  const label = (node, gpu) => page.locator(`[data-node="${node}"] .gpu[data-gpu="${gpu}"]`).getAttribute('aria-label');
  assert.match(await label('gpu-node-5', 3), /unhealthy: XID 79/);
  assert.match(await label('gpu-node-4', 4), /chat\/llama-70b-new is to get all of it/);
  assert.match(await label('gpu-node-3', 7), /foreign/);
  assert.ok((await page.locator('[data-node="gpu-node-7"] .box.nominated').count()) > 0, 'room that is kept is shown');
  assert.equal(await page.locator('#grid [tabindex="0"]').count(), 1, 'Tab reaches one cell');
  const unnamed = await page.evaluate(() => [...document.querySelectorAll('button, input, select, textarea, [role=gridcell]')]
    .filter((one) => !(one.getAttribute('aria-label') || one.labels?.length || one.textContent.trim())).length);
  assert.equal(unnamed, 0, 'everything has a name');

  // The filter, by keyboard; it stands in the address and lives through a reload.
  await page.keyboard.press('/');
  await page.keyboard.type('ranker');
  await settled(page);
  const some = await rows(page);
  assert.ok(some > 0 && some < 8, `${some} rows`);
  assert.match(page.url(), /#q=ranker/);
  assert.ok((await page.locator('.box.faded').count()) > 0, 'who is not meant steps back');
  await page.reload();
  await page.locator('.row').first().waitFor();
  await page.waitForFunction((n) => document.querySelectorAll('.row').length === n, some);
  await page.locator('#f-clear').click();
  await page.waitForFunction(() => document.querySelectorAll('.row').length === 8);
  for (const [field, value, nodes] of [['#f-node', 'node-2', 1], ['#f-model', 'NVIDIA H100 80GB HBM3', 3], ['#f-state', 'unused', 1], ['#f-state', 'unhealthy', 1]]) {
    if (field === '#f-node') await page.fill(field, value);
    else await page.selectOption(field, value);
    await page.waitForFunction((n) => document.querySelectorAll('.row').length === n, nodes);
    await page.locator('#f-clear').click();
    await page.waitForFunction(() => document.querySelectorAll('.row').length === 8);
  }
  await page.selectOption('#f-ns', 'search');
  assert.match(page.url(), /ns=search/);
  await page.locator('#f-clear').click();

  // By keyboard alone.
  await page.locator('#f-q').focus();
  await page.keyboard.press('Escape');
  await page.keyboard.press('Control+Home');
  assert.equal(await focused(page), 'gpu-node-0/-1');
  for (const key of ['ArrowRight', 'ArrowRight', 'ArrowDown', 'ArrowDown', 'ArrowUp']) await page.keyboard.press(key);
  assert.equal(await focused(page), 'gpu-node-1/1');
  await page.keyboard.press('Enter');
  assert.match(await text(page, '#panel-details'), /GPU 1 of gpu-node-1[\s\S]*GPU-00000001-06c0-7d70-1a51-000000000001/);
  assert.match(page.url(), /open=gpu-node-1%2F1/);
  await page.keyboard.press('Escape');
  assert.equal(await page.locator('#panel-details').isVisible(), false);
  assert.equal(await focused(page), 'gpu-node-1/1');
  await page.keyboard.press('Control+End');
  assert.equal(await focused(page), 'gpu-node-7/1');

  // A click on a node and on a pod that waits.
  await page.locator('[data-node="gpu-node-4"] .head').click();
  assert.match(await text(page, '#panel-details'), /gpu-node-4[\s\S]*What can still be had/);
  await page.locator('#tab-waiting').click();
  assert.match(await text(page, '#tab-waiting'), /Waiting 6/);
  await page.locator('.pod', { hasText: 'llama-405b-0' }).click();
  await page.locator('#why .reasons').waitFor();
  assert.match(await text(page, '#why'), /It fits no node[\s\S]*no free placement for nvidia.com\/gpu[\s\S]*wants 8 on one node; the most free is \d/);
  await page.locator('.pod', { hasText: 'ctr-model-h200' }).click();
  await page.locator('#why', { hasText: 'models there' }).waitFor();
  await picture(page, 'why');

  // A pod that does not exist.
  await page.locator('#tab-try').click();
  await page.fill('#t-resource', 'nvidia.com/mig-3g.20gb');
  assert.match(await page.inputValue('#t-manifest'), /"nvidia.com\/mig-3g.20gb": "1"/);
  await page.locator('#t-go').click();
  await page.locator('#t-answer .goes').waitFor();
  assert.match(await text(page, '#t-answer'), /It would fit \d nodes? and go to gpu-node-\d[\s\S]*3g.20gb at [04][\s\S]*GPU in use more/);
  await page.locator('#t-answer .show').click();
  await page.locator('.box.preview').first().waitFor();
  await picture(page, 'try');
  for (const [manifest, error] of [['a: [', /neither YAML nor JSON/], ['kind: Pod\nspec: {containers: []}', /asks for no GPU/], ['kind: Service', /no document makes a pod/]]) {
    await page.fill('#t-manifest', manifest);
    await page.locator('#t-go').click();
    await page.locator('#t-answer .warning').waitFor();
    await page.waitForFunction(() => !document.querySelector('#t-go').disabled);
    assert.match(await text(page, '#t-answer'), error);
    trouble.splice(0, trouble.length, ...trouble.filter((one) => !one.includes('422')));
  }

  // Live.
  const took = await seen(page, 'lively', 'nvidia.com/mig-1g.5gb', 'gpu-node-0');
  console.log(`page: on 8 nodes a pod was seen ${took.toFixed(0)} ms after its binding was asked for`);

  // Light, dark, compact.
  await page.locator('#theme').click();
  await page.locator('#theme').click();
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), 'dark');
  await page.locator('#density').click();
  await settled(page);
  await picture(page, 'compact-dark');
  await page.reload();
  await page.locator('.row').first().waitFor();
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), 'dark', 'what was chosen stays');

  // Small pictures for the README.
  for (const colorScheme of ['light', 'dark']) {
    const small = await open('/', { viewport: { width: 1300, height: 666 }, colorScheme });
    await small.locator('.row').nth(7).waitFor();
    await settled(small);
    await small.screenshot({ path: `${out}/readme-${colorScheme}.png` });
    await small.close();
  }
}

async function many() {
  const page = await open();
  await page.waitForFunction(() => document.querySelector('#f-count').textContent === '5,000 nodes', null, { timeout: 120000 });
  const first = await page.evaluate(() => ({
    paint: performance.getEntriesByName('first-contentful-paint')[0]?.startTime, row: noted.firstRow, whole: performance.now(),
  }));
  console.log(`page: 5,000 nodes: first paint ${first.paint?.toFixed(0)} ms, first rows ${first.row.toFixed(0)} ms, all nodes ${first.whole.toFixed(0)} ms after the address was entered, the picture made anew`);
  const again = await open();
  await again.waitForFunction(() => document.querySelector('#f-count').textContent === '5,000 nodes', null, { timeout: 120000 });
  const second = await again.evaluate(() => ({
    paint: performance.getEntriesByName('first-contentful-paint')[0]?.startTime, row: noted.firstRow, whole: performance.now(),
  }));
  console.log(`page: the same where somebody watches already: first paint ${second.paint?.toFixed(0)} ms, first rows ${second.row.toFixed(0)} ms, all nodes ${second.whole.toFixed(0)} ms`);
  await again.close();
  await settled(page);
  assert.ok((await rows(page)) < 60, 'only what is on the screen is there');
  await picture(page, 'many-light');
  await page.emulateMedia({ colorScheme: 'dark' });
  await picture(page, 'many-dark');
  await page.emulateMedia({ colorScheme: 'light' });
  await page.locator('#density').click();
  await settled(page);
  await picture(page, 'many-compact');
  await page.locator('#density').click();

  const scrolled = (pixels) => page.evaluate((by) => new Promise((done) => {
    const scroll = document.getElementById('scroll');
    const took = [];
    let before = performance.now();
    let step = 0;
    const next = () => {
      const now = performance.now();
      took.push(now - before);
      before = now;
      step += 1;
      if (step > 120) return done(took.slice(1).sort((one, two) => one - two));
      scroll.scrollTop = step * by;
      requestAnimationFrame(next);
    };
    requestAnimationFrame(next);
  }), pixels);
  for (const [how, pixels] of [['by a wheel', 100], ['through all of them in 120 leaps', 2300]]) {
    const frames = await scrolled(pixels);
    console.log(`page: scrolling 5,000 nodes ${how}: a frame took ${frames[60].toFixed(0)} ms (median), ${frames.at(-2).toFixed(0)} ms (p99)`);
  }
  await page.evaluate(() => { document.getElementById('scroll').scrollTop = 0; });
  const typing = await page.evaluate(() => {
    const field = document.getElementById('f-q');
    const start = performance.now();
    field.value = 'ranker-13';
    field.dispatchEvent(new Event('input', { bubbles: true }));
    return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start))));
  });
  console.log(`page: finding a pod among 5,000 nodes took ${typing.toFixed(0)} ms to the frame after`);
  assert.match(await text(page, '#f-count'), /of 5,000 nodes/);
  await page.fill('#f-q', '');
  const took = [];
  for (let n = 0; n < 5; n += 1) {
    const free = await page.evaluate(() => {
      const row = [...document.querySelectorAll('.row')].find((one) => one.querySelector('.gpu[data-gpu="0"] .box.free') && !one.dataset.used);
      row.dataset.used = 'yes';
      return row.dataset.node;
    });
    took.push(await seen(page, `lively-${n}`, 'nvidia.com/gpu', free));
    await new Promise((done) => setTimeout(done, 400));
  }
  console.log(`page: on 5,000 nodes a pod was seen ${took.map((one) => one.toFixed(0)).join(', ')} ms after its binding was asked for`);
}

/** A server that tells what the script says; `readers` are who asked, the last one first. */
async function teller() {
  const it = { readers: [], answer: 200, at: '' };
  const server = createServer((request, response) => {
    it.readers.unshift(response);
    response.token = request.headers.authorization;
    response.on('close', () => { response.gone = true; });
    if (it.answer === 200) response.writeHead(200, { 'Content-Type': 'text/event-stream' }).write(':\n\n');
    else if (it.answer) response.writeHead(it.answer).end('whose map is it?');
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  it.at = `http://127.0.0.1:${server.address().port}/`;
  it.say = (...events) => it.readers[0].write(events.map(([event, data]) => `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`).join(''));
  return it;
}

async function until(what, so) {
  const end = Date.now() + 30000;
  while (!so()) {
    assert.ok(Date.now() < end, `it never came that ${what}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}

const WHOLE = { model: 'NVIDIA A100-SXM4-40GB', memoryMib: 40960, offers: [['nvidia.com/gpu', '', 0, 0, 1]] };
/** A node of one GPU, which a pod has where there is one. */
const node = (name, pod) => [name, 0, [[0, 0, `GPU-${name}`, pod ? '.' : 'f', pod ? [0, 0, 0, 0] : []]], pod ? [['ns', pod]] : []];
const nodes = (...all) => ['nodes', { kinds: [], nodes: all }];
const whole = (...all) => [['begin', { names: true }], ['nodes', { kinds: [WHOLE], nodes: all }], waiting('one', 'two'), ['ready', {}]];
const waiting = (...pods) => ['cluster', {
  plainNodes: 0, waiting: pods.length, reasons: { full: pods.length }, pods: pods.map((name) => [`uid-${name}`, 'ns', name, 0, '1 x nvidia.com/gpu', 'full', '']),
}];
const VERDICT = { said: {
  asks: '1 x nvidia.com/gpu', fits: 1, next: [], doesNotFit: [],
  best: { node: 'east', devices: [[0, '', 'nvidia.com/gpu', '', 0]], cost: { lost: 0, wakesNode: false, wakesGpus: 0, roomLeft: 0 }, before: { inUse: 0, stranded: 0 }, after: { inUse: 1000, stranded: 0 } },
} };

async function told() {
  const it = await teller();
  const page = await open('/', {}, async (page) => {
    await page.clock.install();
    await page.route('**/api/v1/events', (route) => route.continue({ url: it.at }));
    await page.route('**/api/v1/waiting/*', (route) => route.fulfill({ json: VERDICT }));
  });
  const live = () => page.locator('#live').getAttribute('data-state');
  const active = (selector) => page.evaluate((at) => document.activeElement.matches(at), selector);
  it.say(...whole(node('east'), node('west')));
  const row = (name) => page.locator(`[data-node="${name}"]`);
  await row('west').waitFor();
  // A change of a node, until it is seen.
  const change = async (name, pod) => {
    it.say(nodes(node(name, pod)));
    await row(name).locator('.box', { hasText: pod }).waitFor();
    await settled(page);
  };

  // A click that a change of something else falls into is a click, and the focus and a selection stay where they are.
  const pod = page.locator('.pod', { hasText: 'one' });
  await pod.hover();
  await page.mouse.down();
  await change('west', 'first');
  await page.mouse.up();
  assert.equal(await pod.getAttribute('aria-expanded'), 'true', 'the pod was clicked');
  await page.locator('#why .show').focus();
  await change('west', 'second');
  assert.ok(await active('#why .show'), 'what has the focus keeps it when a node changes');
  it.say(waiting('one', 'two', 'three'));
  await page.locator('.pod', { hasText: 'three' }).waitFor();
  assert.ok(await active('#why .show'), 'and when the list does');
  await page.keyboard.press('Enter');
  await row('east').locator('.box.preview').waitFor();

  await row('east').locator('.gpu').click();
  const heading = page.locator('#panel-details h2');
  await heading.selectText();
  await change('west', 'third');
  assert.equal(await page.evaluate(() => getSelection().toString()), 'GPU 0 of east', 'what is selected stays so');
  await change('east', 'newcomer');
  assert.match(await text(page, '#panel-details'), /newcomer/);

  // The first link leads to the GPUs, and leaves the view as it is.
  await page.fill('#f-node', 'eas');
  await row('west').waitFor({ state: 'detached' });
  await page.locator('.skip').focus();
  await page.keyboard.press('Enter');
  await settled(page);
  assert.equal(await focused(page), 'east/0');
  assert.match(page.url(), /#node=eas&open=east%2F0/);
  assert.equal(await page.inputValue('#f-node'), 'eas');
  await page.locator('#f-clear').click();
  await row('west').waitFor();

  // A node that went while nobody was connected.
  it.readers[0].end();
  await until('it comes back', () => it.readers.length === 2);
  it.say(...whole(node('east', 'newcomer')));
  await row('west').waitFor({ state: 'detached' });
  await settled(page);
  assert.equal(await live(), 'live');
  await row('east').locator('.box', { hasText: 'newcomer' }).waitFor();
  assert.match(await text(page, '#panel-details'), /newcomer/);
  assert.equal(it.readers.length, 2, 'it came back once');

  // Two heartbeats may be missed. Then the connection is closed, so that the server need not keep it, and another one made.
  const [silent] = it.readers;
  await page.clock.fastForward(30000);
  await change('east', 'heartbeat');
  await page.clock.fastForward(30000);
  await settled(page);
  assert.equal(await live(), 'live');
  assert.ok(!silent.gone);
  await page.clock.fastForward(16000);
  await until('a silent connection is closed', () => silent.gone);
  await until('there is another one', () => it.readers.length === 3);
  await page.locator('#live[data-state="live"]').waitFor();

  // So is one that cannot be understood, and one where not even an answer comes.
  it.answer = 0;
  const [garbled] = it.readers;
  garbled.write('event: nodes\ndata: {\n\n');
  await until('what cannot be read is closed', () => garbled.gone);
  await until('it asks', () => it.readers.length === 4);
  assert.equal(await live(), 'lost');
  await page.clock.fastForward(46000);
  await until('what is not answered is closed', () => it.readers[0].gone);

  // Who is asked for a token is asked until there is one.
  it.answer = 401;
  await page.locator('#token[open]').waitFor();
  await page.keyboard.type('let me');
  for (let n = 0; n < 3; n += 1) {
    await page.keyboard.press('Escape');
    await settled(page);
  }
  assert.ok(await page.locator('#token').isVisible(), 'Escape does not close it');
  it.answer = 200;
  await page.keyboard.type(' in');
  await page.keyboard.press('Enter');
  await page.locator('#live[data-state="live"]').waitFor();
  assert.equal(it.readers[0].token, 'Bearer let me in');
  assert.equal(await page.locator('#token').isVisible(), false);
  trouble.splice(0, trouble.length, ...trouble.filter((one) => !one.includes('401')));
}

try {
  await { busy, told, many }[script]();
} finally {
  await browser.close();
}
assert.deepEqual(trouble, [], 'nothing was complained about, and nobody else was asked');
console.log(`page: ${script} is as it should be`);
process.exit(0);
