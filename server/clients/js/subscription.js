// One subscription: what it asks for, how far it has come, and the messages that wait for its reader.
//
// It knows no socket: the client hands it responses and messages, and sends what it asks for.
//
// Events come in order, after the snapshot. So `since` alone says what has come, for asking again after
// a reconnect and for telling repeats; except while a snapshot is under way, whose end nothing marks.
// Until it is known to be over the subscription is unsettled, and would begin with a snapshot again.

import { ValtronicsError } from './error.js';

/** How many messages may wait for a reader; a subscription that is read more slowly ends. */
const MOST_WAITING = 10_000;

export class Subscription {
  /** Whether the server has answered it on the connection that is open now. */
  live = false;
  ended = false;

  #shape;
  #settled;
  /** Events beyond `since` that a snapshot has shown already. */
  #shown = new Set();
  #onMessage;
  #unsubscribe;
  #resolve;
  #reject;
  #error;
  #waiting = [];
  #wake = () => {};

  /** Filters and options stand at the top, under `filters`, or both, as in the API. */
  constructor(channel, { filters, ...top }, onMessage, unsubscribe) {
    const { device_id, since, log, ...shape } = { ...top, ...filters };
    this.channel = channel;
    /** The devices whose keys it holds; `null` for all. */
    this.devices = device_id === undefined ? null : new Set([device_id].flat());
    this.since = since;
    this.log = log;
    this.#settled = since !== undefined;
    this.#shape = { batch: true, ...shape };
    this.#onMessage = onMessage;
    this.#unsubscribe = unsubscribe;
    this.response = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Whoever does not look at it hears of a failure through the reader and the `error` event.
    this.response.catch(() => {});
  }

  unsubscribe() {
    return this.#unsubscribe(this);
  }

  /** The messages, in order. Leaving the loop unsubscribes. */
  async *[Symbol.asyncIterator]() {
    try {
      for (;;) {
        while (this.#waiting.length > 0) yield this.#waiting.shift();
        if (this.#error) throw this.#error;
        if (this.ended) return;
        await new Promise((wake) => (this.#wake = wake));
      }
    } finally {
      this.unsubscribe();
    }
  }

  /** Whether a snapshot of events is under way, as far as one can tell. */
  get unsettled() {
    return this.live && !this.#settled && this.since !== undefined;
  }

  /** The request that begins it, or goes on where it was. */
  request() {
    const devices = this.devices && { device_id: [...this.devices] };
    const position = this.#settled && { since: this.since, log: this.log };
    return { type: 'subscribe', channel: this.channel, ...this.#shape, ...devices, ...position };
  }

  /** Takes in the response to its request. */
  accepted(response) {
    this.live = true;
    this.log = response.log;
    if (!response.resumed) {
      this.since = response.seq;
      this.#settled = this.since !== undefined && this.#shape.snapshot === false;
      this.#shown.clear();
    }
    this.#resolve(response);
  }

  /** Whether a message of its own is no repeat. */
  isNew({ seq, snapshot }) {
    if (seq === undefined) return true;
    const ahead = seq > this.since;
    if (!snapshot) return ahead && !this.#shown.has(seq);
    if (ahead) this.#shown.add(seq);
    return true;
  }

  /** Notes that its snapshot is over. */
  settle() {
    this.#settled = true;
  }

  /** Notes that everything of its channel up to `seq` has come. */
  advance(seq) {
    if (!this.live) return;
    this.#settled = true;
    this.since = Math.max(this.since, seq);
    for (const shown of this.#shown) if (shown <= this.since) this.#shown.delete(shown);
  }

  /** Hands a message to the reader; false when too many wait. */
  push(message) {
    if (this.#onMessage) {
      // An exception of the callback is the program's own, and stops nothing here.
      queueMicrotask(() => this.#onMessage(message));
      return true;
    }
    this.#waiting.push(message);
    this.#wake();
    return this.#waiting.length <= MOST_WAITING;
  }

  /** Ends it; without an error its reader simply comes to an end. */
  end(error) {
    this.ended = true;
    this.live = false;
    this.#error ??= error;
    this.#reject(error ?? new ValtronicsError('closed', 'it was unsubscribed'));
    this.#wake();
  }
}
