// Clients of the Valtronics WebSocket API, for browsers and Node.

import { Client } from './client.js';

export { Client };
export { ValtronicsError } from './error.js';
export { Subscription } from './subscription.js';

/** url -> token -> the client that is open, and how many have it. */
const pool = new Map();

/** One user's hold on a shared client: given back once, however often it is closed. */
function hold(shared) {
  shared.users += 1;
  let held = true;
  const close = () => {
    if (!held) return;
    held = false;
    shared.users -= 1;
    if (shared.users === 0) shared.client.close();
  };
  return new Proxy(shared.client, {
    get(client, key) {
      if (key === 'close') return close;
      const value = Reflect.get(client, key, client);
      // A method reaches for what is private to the client itself.
      return typeof value === 'function' ? value.bind(client) : value;
    },
  });
}

/** Opens a client, or shares the one that is open to this URL with this token. */
export function connect(url, options) {
  const { href } = new URL(url);
  if (!pool.has(href)) pool.set(href, new Map());
  const clients = pool.get(href);
  const open = clients.get(options.token);
  if (open) return hold(open);
  const client = new Client(href, options);
  const shared = { client, users: 0 };
  clients.set(options.token, shared);
  client.addEventListener('status', ({ detail }) => {
    if (detail.status === 'closed') clients.delete(options.token);
  });
  return hold(shared);
}
