// Requests that wait: for a connection, for their turn, for their answer.
//
// They go out in batches, in order, a little slower than the server's limits allow. Those of one turn of
// the event loop share a batch.

import { ValtronicsError, refusal } from './error.js';

/** What the server takes in one batch and in one message (WebSocket API, section 6). */
const BATCH_ITEMS = 50;
const MESSAGE_BYTES = 1024;
/** The server takes 100 a second; the rest is room for pings, `auth` and a network that bunches them. */
const MS_PER_ITEM = 12;
/** How long to wait when it takes fewer and says so. */
const RATE_LIMITED_MS = 1000;
/** How many may wait: twice what a server takes as subscriptions; one more fails at once. */
const MOST = 2000;

export class Requests {
  #waiting = new Map();
  #nextId = 1;
  #send;
  #timer;
  #ended;

  /**
   * Asks, now or on the next connection; returns an id for `cancel`.
   *
   * `done(response)` or `fail(error)` is called once; `gone()` instead, when the connection ends first:
   * a request without it is asked again on the next one. One without `done` has no answer.
   */
  ask(message, { done, fail, gone }) {
    const id = this.#nextId++;
    const asked = done ? { ...message, id } : message;
    if (this.#ended) {
      fail(this.#ended);
    } else if (new TextEncoder().encode(JSON.stringify(asked)).length > MESSAGE_BYTES) {
      const why = `a ${message.type} takes at most ${MESSAGE_BYTES} bytes: ask in parts`;
      fail(new ValtronicsError('message_too_large', why));
    } else if (this.#waiting.size >= MOST) {
      fail(new ValtronicsError('overflow', `${MOST} requests wait already`));
    } else {
      this.#waiting.set(id, { message: asked, sent: false, done, fail, gone });
      this.#timer ??= this.#flushAfter(0);
    }
    return id;
  }

  /** Forgets a request; its answer is nobody's. */
  cancel(id) {
    this.#waiting.delete(id);
  }

  /** Begins to send on a connection that is authenticated. */
  open(send) {
    this.#send = send;
    this.#timer ??= this.#flushAfter(0);
  }

  /** Takes in a response; returns the error of one that nobody waits for. */
  answer(response) {
    const request = this.#waiting.get(response.id);
    const error = 'error' in response ? refusal(response) : undefined;
    if (!request) return error;
    if (error?.code === 'rate_limited') {
      request.sent = false;
      clearTimeout(this.#timer);
      this.#timer = this.#flushAfter(RATE_LIMITED_MS);
      return undefined;
    }
    this.#waiting.delete(response.id);
    if (error) request.fail(error);
    else request.done(response);
    return undefined;
  }

  /** Stops sending: the connection has ended. */
  pause() {
    clearTimeout(this.#timer);
    this.#send = this.#timer = undefined;
    for (const [id, request] of this.#waiting) {
      request.sent = false;
      if (!request.gone) continue;
      this.#waiting.delete(id);
      request.gone();
    }
  }

  /** Fails all of them, and those that come later. */
  end(error) {
    this.#ended = error;
    const ended = [...this.#waiting.values()];
    this.#waiting.clear();
    this.pause();
    for (const request of ended) request.fail(error);
  }

  #flushAfter(delay) {
    return this.#send && setTimeout(() => this.#flush(), delay);
  }

  #flush() {
    this.#timer = undefined;
    const next = [...this.#waiting].filter(([, request]) => !request.sent).slice(0, BATCH_ITEMS);
    if (next.length === 0) return;
    const messages = next.map(([, request]) => request.message);
    this.#send(messages.length === 1 ? messages[0] : { type: 'batch', messages });
    for (const [id, request] of next) {
      request.sent = true;
      if (!request.done) this.#waiting.delete(id);
    }
    this.#timer = this.#flushAfter(next.length * MS_PER_ITEM);
  }
}
