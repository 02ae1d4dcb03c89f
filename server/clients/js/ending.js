// How a connection ended, and when to come back (WebSocket API, section 7).

import { ValtronicsError } from './error.js';

const GOING_AWAY = 1001;
const ABNORMAL = 1006;
export const INVALID_TOKEN = 4401;
/** After these coming back would not help. */
const FINAL = new Map([
  [1002, 'protocol_error'],
  [1007, 'protocol_error'],
  [1009, 'protocol_error'],
  [4403, 'forbidden'],
]);

export class Ending {
  /** One that was given up, or did not come about. `retryAfter` is what the server asked for, in seconds. */
  constructor(error, closeCode = ABNORMAL, retryAfter = 0) {
    this.error = error;
    this.closeCode = closeCode;
    this.retryAfter = retryAfter;
  }

  /** One that was closed; the close reason may say when to come back. */
  static closed(closeCode, reason, retryAfter) {
    const code = FINAL.get(closeCode) ?? (closeCode === INVALID_TOKEN ? 'invalid_token' : 'connection_lost');
    const message = reason || `the connection ended with ${closeCode}`;
    const wait = Number(/retry_after=(\d+)/.exec(reason)?.[1] ?? retryAfter);
    return new Ending(new ValtronicsError(code, message, { closeCode }), closeCode, wait);
  }

  /** Whether coming back would not help. */
  get final() {
    return FINAL.has(this.closeCode);
  }
}

/** Waits longer after each failure, up to a limit, without end. */
export class Backoff {
  #min;
  #max;
  #failures = 0;

  constructor({ min = 500, max = 30_000 } = {}) {
    this.#min = min;
    this.#max = max;
  }

  /** Begins anew, after a connection that worked. */
  reset() {
    this.#failures = 0;
  }

  /** For how many milliseconds to wait: as the server said, or as this knows better. */
  delay({ closeCode, retryAfter }) {
    const backoff = Math.min(this.#max, this.#min * 2 ** this.#failures++) * (0.5 + Math.random() / 2);
    // A server that goes away does so for everybody: they come back apart.
    if (closeCode === GOING_AWAY) return Math.random() * 10 * this.#min;
    return Math.max(backoff, retryAfter * 1000 * (1 + Math.random() / 10));
  }
}
