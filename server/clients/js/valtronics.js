// Clients of the Valtronics WebSocket API, for browsers and Node.

import { Client } from './client.js';

export { Client };
export { ValtronicsError } from './error.js';
export { Subscription } from './subscription.js';

/** url -> token -> the client that is open. */
const pool = new Map();

/** A client that several share: it closes with the last of them. */
class SharedClient extends Client {
  users = 1;

  close() {
    this.users -= 1;
    if (this.users === 0) super.close();
  }
}

/** Opens a client, or shares the one that is open to this URL with this token. */
export function connect(url, options) {
  const { href } = new URL(url);
  if (!pool.has(href)) pool.set(href, new Map());
  const clients = pool.get(href);
  const open = clients.get(options.token);
  if (open) {
    open.users += 1;
    return open;
  }
  const client = new SharedClient(href, options);
  clients.set(options.token, client);
  client.addEventListener('status', ({ detail }) => {
    if (detail.status === 'closed') clients.delete(options.token);
  });
  return client;
}
