// Where tokens come from, and which of them the server has refused.

import { ValtronicsError } from './error.js';

/** The tokens of a client; one that was refused is never given out again. */
export class Tokens {
  /** The last one that was sent. */
  sent;

  #source;
  #refused;

  /** Takes a token, or a function that gets one. */
  constructor(source) {
    this.#source = source;
  }

  /** Whether there may be another. */
  get renewable() {
    return typeof this.#source === 'function';
  }

  /** Whether the only one was refused. */
  get spent() {
    return !this.renewable && this.#refused !== undefined;
  }

  /** Notes that the last one was refused. */
  refuse() {
    this.#refused = this.sent;
  }

  /** Gets one for a new connection. */
  toConnect() {
    const refused = this.#refused !== undefined && this.#refused === this.sent;
    return this.#get(refused ? 'refused' : 'connect', [this.#refused]);
  }

  /** Gets one in place of the one that is in use. */
  toRenew() {
    return this.#get('expiring', [this.#refused, this.sent]);
  }

  async #get(reason, useless) {
    const token = this.renewable ? await this.#source(reason) : this.#source;
    if (useless.includes(token)) throw new ValtronicsError('invalid_token', 'there is no new token');
    return token;
  }
}
