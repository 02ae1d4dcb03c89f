// What tests wait for: facts, with a deadline.

import assert from 'node:assert';
import { Client } from '../valtronics.js';

const DEADLINE_MS = 20_000;

export const sleep = (delay) => new Promise((resolve) => setTimeout(resolve, delay));

/** Resolves when `fact()` is true. */
export async function until(what, fact, within = DEADLINE_MS) {
  const end = Date.now() + within;
  while (!fact()) {
    if (Date.now() > end) assert.fail(`waited in vain for ${what}`);
    await sleep(5);
  }
}

/** Opens a client that comes back fast and closes with the test; it notes what happens to it. */
export function open(test, url, options) {
  const client = new Client(url, { token: 'fake', backoff: { min: 20, max: 200 }, ...options });
  client.statuses = [];
  client.errors = [];
  client.addEventListener('status', ({ detail }) => client.statuses.push(detail));
  client.addEventListener('error', ({ detail }) => client.errors.push(detail));
  test.after(() => client.close());
  return client;
}

/** Subscribes and notes every message. */
export function record(client, channel, options) {
  const messages = [];
  const subscription = client.subscribe(channel, options, (message) => messages.push(message));
  return {
    messages,
    subscription,
    seqs: () => messages.filter((one) => !one.snapshot).map((one) => one.seq),
  };
}
