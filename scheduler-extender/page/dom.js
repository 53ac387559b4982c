// Elements from values. Texts of the cluster become text nodes and attributes, never markup.

/** Makes an element: `h('a', {class: 'x', onclick: f}, 'text', child)`; `false` and `null` are left out. */
export function h(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties ?? {})) {
    if (value === false || value === null || value === undefined) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children.flat().filter((child) => child !== false && child !== null && child !== undefined));
  return element;
}

/** The element of that id. */
export const by = (id) => document.getElementById(id);

/** Sets a text if it is another one: a screen reader hears each change. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const collator = new Intl.Collator('en', { numeric: true });
/** Orders names as people do: node-2 before node-10. */
export const byName = (one, two) => collator.compare(one, two);

/** A number and its noun. */
export const count = (n, noun) => `${n.toLocaleString('en')} ${noun}${n === 1 ? '' : 's'}`;

/** GPUs with one digit, where that still says something. */
export function amount(gpus) {
  return gpus.toLocaleString('en', { maximumFractionDigits: gpus < 1000 ? 1 : 0 });
}

/** Thousandths of a GPU as GPUs. */
export const milli = (n) => (n / 1000).toLocaleString('en', { maximumFractionDigits: 3 });

/** MiB as people say it. */
export function memory(mib) {
  return mib >= 1024 ? `${(mib / 1024).toLocaleString('en', { maximumFractionDigits: 1 })} GiB` : `${mib} MiB`;
}

/** Calls at the next frame, once for all that ask before it. */
export function atNextFrame(f) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    // A page that is not shown has no frames.
    const run = () => {
      asked = false;
      f();
    };
    if (document.hidden) setTimeout(run, 250);
    else requestAnimationFrame(run);
  };
}
