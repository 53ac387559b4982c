// The server-sent events of the map, by fetch: EventSource could send no bearer token.

let token = null;

/** The token that requests carry from now on. */
export function useToken(text) {
  token = text;
}

/** A request to this server, with the token if there is one. */
export function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  return fetch(path, { ...options, headers, cache: 'no-store', redirect: 'error' });
}

/** What the server says that it will not, with its status. */
export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

/** Asks for JSON; what the server says instead is thrown. */
export async function askJson(path, options) {
  const answer = await ask(path, options);
  if (!answer.ok) throw new Refused(answer.status, (await answer.text()).trim());
  return answer.json();
}

/** How long a connection may say nothing, in milliseconds: three heartbeats of the server. */
const SILENT_MAX = 45000;

/** What gives a connection up that says nothing: of one that is half open nobody would ever hear. */
function patience() {
  const controller = new AbortController();
  let timer;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => controller.abort(), SILENT_MAX);
  };
  const end = () => {
    clearTimeout(timer);
    controller.abort();
  };
  heard();
  return { signal: controller.signal, heard, end };
}

/** Calls `heard()` for each sign of life and `event(name, data)` for each event, until the stream ends. */
async function read(answer, event, heard) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    heard();
    rest += value;
    if (!value.includes('\n')) continue;
    const parts = rest.split('\n\n');
    rest = parts.pop();
    for (const part of parts) {
      let name = '';
      let data = '';
      for (const line of part.split('\n')) {
        if (line.startsWith('event: ')) name = line.slice(7);
        else if (line.startsWith('data: ')) data += line.slice(6);
      }
      if (name) event(name, JSON.parse(data));
    }
  }
}

const WAIT_MIN = 1000;
const WAIT_MAX = 20000;

/** Follows the map without end. `refused` is called where a token is wanted, and its promise is waited for. */
export async function follow(event, state, refused) {
  let wait = WAIT_MIN;
  for (;;) {
    let why = 'the connection ended';
    const { signal, heard, end } = patience();
    try {
      const answer = await ask('/api/v1/events', { signal });
      heard();
      if (answer.ok) {
        wait = WAIT_MIN;
        await read(answer, event, () => {
          heard();
          state('live');
        });
      } else {
        why = (await answer.text()).trim();
        if (answer.status === 401 || answer.status === 403) {
          state('refused', why);
          await refused(why);
          continue;
        }
      }
    } catch (error) {
      why = signal.aborted ? 'nothing was heard for a while'
        : error instanceof TypeError ? 'the extender cannot be reached' : String(error);
    } finally {
      // However it ended: the server has room for so many readers.
      end();
    }
    state('lost', why);
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(2 * wait, WAIT_MAX);
  }
}
