// The client: a connection that is kept, and what comes over it, to whom it is for.
//
// What the program wants stands on the board and among the requests, connected or not; whenever a
// connection is authenticated all of it is sent. So the first connection and the hundredth are one path.

import { Board } from './board.js';
import { Backoff, Ending, INVALID_TOKEN } from './ending.js';
import { ValtronicsError, refusal } from './error.js';
import { Requests } from './requests.js';
import { Subscription } from './subscription.js';
import { Tokens } from './token.js';

/** How soon to ask whether a snapshot is over. */
const SETTLE_MS = 1000;
/** How soon to renew a token again: the server gives a minute and a half, and tokens may live shorter. */
const REFRESH_MS = 10_000;
/** A connection that lived so long has worked: the next backoff begins anew. */
const WORKED_MS = 10_000;

export class Client extends EventTarget {
  status = 'waiting';
  expiresAt;

  #options;
  #tokens;
  #backoff;
  #board = new Board();
  #requests = new Requests();
  #socket;
  #openedAt;
  #refreshedAt = -Infinity;
  #retryAfter = 0;
  #beats = 0;
  /** Subscriptions whose snapshot is over if none of it comes before the pong of the last beat. */
  #calm = [];
  #timers = new Map();

  constructor(url, { token, backoff, WebSocket = globalThis.WebSocket, ...options }) {
    super();
    if (!WebSocket) throw new TypeError('no WebSocket here: Node has one from 22 on, or pass one');
    this.url = new URL(url).href;
    this.#options = { heartbeat: 25_000, timeout: 20_000, WebSocket, ...options };
    this.#tokens = new Tokens(token);
    this.#backoff = new Backoff(backoff);
    this.#connect();
  }

  subscribe(channel, options = {}, onMessage) {
    const unsubscribe = (it) => this.#unsubscribe(it);
    const subscription = new Subscription(channel, options, onMessage, unsubscribe);
    if (this.status === 'closed') {
      subscription.end(new ValtronicsError('closed', 'the client is closed'));
      return subscription;
    }
    for (const replaced of this.#board.put(subscription)) {
      this.#requests.cancel(replaced.asked);
      replaced.end(new ValtronicsError('replaced', 'a newer subscription took its place'));
    }
    if (this.#openedAt) this.#ask(subscription);
    return subscription;
  }

  ping() {
    const message = { type: 'ping', timestamp: new Date().toISOString() };
    return new Promise((done, fail) => this.#requests.ask(message, { done, fail }));
  }

  reportError(error, data) {
    const message = { type: 'error_report', error: String(error), data };
    this.#requests.ask(message, { fail: (why) => this.#report(why) });
  }

  close() {
    this.#stop();
  }

  // Subscriptions.

  #ask(subscription) {
    const done = (response) => {
      subscription.accepted(response);
      this.#emit('subscribed', { subscription, response });
      if (subscription.unsettled) this.#after('beat', SETTLE_MS, () => this.#beat());
    };
    const fail = (error) => this.#fail(subscription, error);
    // On the next connection it is asked for anew, from where it is then.
    const gone = () => {};
    subscription.asked = this.#requests.ask(subscription.request(), { done, fail, gone });
  }

  async #unsubscribe(subscription, error) {
    if (subscription.ended) return;
    this.#drop(subscription, error);
    if (!this.#openedAt) return;
    const { channel, devices } = subscription;
    const message = { type: 'unsubscribe', channel, ...(devices && { device_id: [...devices] }) };
    // However it ends, nothing of it is subscribed any more.
    const over = new Promise((end) => this.#requests.ask(message, { done: end, fail: end, gone: end }));
    if (!devices) {
      // It was told as the whole channel: what else there is of it is asked for again.
      for (const other of this.#board.of(channel)) this.#ask(other);
    }
    await over;
  }

  /** Ends a subscription of which the server holds nothing any more. */
  #fail(subscription, error) {
    this.#drop(subscription, error);
    this.#report(error);
  }

  #drop(subscription, error) {
    this.#board.remove(subscription);
    this.#requests.cancel(subscription.asked);
    subscription.end(error);
  }

  // What comes.

  #receive(message) {
    switch (message.type) {
      case 'batch':
        return message.messages.forEach((one) => this.#receive(one));
      case 'auth_response':
        return message.success ? this.#authenticated(message) : this.#unauthenticated(message);
      case 'auth_expiring':
        return this.#refreshSoon();
      case 'subscribe_response':
        // What has no id the server did by itself; a refusal is a right that a new token took away.
        return message.id === undefined && !message.success ? this.#revoked(message) : this.#answer(message);
      case 'unsubscribe_response':
      case 'error':
        return this.#answer(message);
      case 'pong':
        if (message.timestamp === `${this.#beats}`) this.#calm.forEach((one) => one.settle());
        return this.#answer(message);
      case 'lagged':
        return this.#emit('lagged', message);
      default:
        return this.#deliver(message);
    }
  }

  #answer(response) {
    const error = this.#requests.answer(response);
    if (error) this.#report(error);
  }

  #revoked(response) {
    for (const device of response.filters?.device_id ?? [undefined]) {
      for (const subscription of this.#board.release(response.channel, device)) {
        this.#fail(subscription, refusal(response));
      }
    }
  }

  #deliver(message) {
    const subscription = this.#board.holderOf(message);
    const isNew = subscription?.isNew(message) ?? true;
    if (message.snapshot) this.#calm = [];
    else if (message.seq !== undefined) {
      for (const one of this.#board.of(message.channel)) one.advance(message.seq);
    }
    if (!isNew) return;
    this.#emit('message', message);
    if (subscription && !subscription.push(message)) {
      const error = new ValtronicsError('overflow', 'its messages were not read');
      this.#unsubscribe(subscription, error);
      this.#report(error);
    }
  }

  // The token.

  #authenticated({ expires_at }) {
    this.expiresAt = expires_at;
    if (this.#openedAt) return;
    this.#cancel('deadline');
    this.#openedAt = performance.now();
    for (const subscription of this.#board) this.#ask(subscription);
    this.#requests.open((message) => this.#send(message));
    this.#after('beat', this.#options.heartbeat, () => this.#beat());
    this.#setStatus('open');
  }

  #unauthenticated(response) {
    this.#retryAfter = response.retry_after ?? 0;
    this.#report(refusal(response));
    if (response.error !== 'invalid_token') return;
    this.#tokens.refuse();
    if (this.#openedAt) this.#refreshSoon();
  }

  #refreshSoon() {
    const delay = Math.max(0, this.#refreshedAt + REFRESH_MS - performance.now());
    if (this.#tokens.renewable) this.#after('refresh', delay, () => this.#refresh());
  }

  /** Renews the token of a live connection; until that succeeds the old one holds, then 4401 comes. */
  async #refresh() {
    const socket = this.#socket;
    this.#refreshedAt = performance.now();
    try {
      const token = await this.#tokens.toRenew();
      if (socket === this.#socket) this.#authenticate(token);
    } catch (error) {
      if (socket !== this.#socket) return;
      this.#report(error);
      this.#refreshSoon();
    }
  }

  #authenticate(token) {
    this.#tokens.sent = token;
    this.#send({ type: 'auth', token });
  }

  // The connection.

  async #connect() {
    this.#setStatus('connecting');
    try {
      const token = await this.#tokens.toConnect();
      if (this.status === 'closed') return;
      const socket = new this.#options.WebSocket(this.url);
      this.#socket = socket;
      socket.onopen = () => {
        socket.onerror = null;
        this.#authenticate(token);
      };
      // Some WebSockets that never opened do not close, either.
      socket.onerror = () =>
        this.#lost(new Ending(new ValtronicsError('connection_lost', 'there is no connection')));
      socket.onclose = ({ code, reason }) => this.#lost(Ending.closed(code, reason, this.#retryAfter));
      socket.onmessage = ({ data }) => this.#read(data);
      this.#deadline('no connection, or no answer to auth');
    } catch (error) {
      if (this.status !== 'closed') this.#lost(new Ending(error));
    }
  }

  #read(data) {
    if (this.#openedAt) this.#cancel('deadline');
    try {
      this.#receive(JSON.parse(data));
    } catch (error) {
      this.#lost(new Ending(error));
    }
  }

  #send(message) {
    this.#socket.send(JSON.stringify(message));
  }

  /** Asks whether the connection lives, and so whether a snapshot is over. */
  #beat() {
    this.#calm = [...this.#board].filter((subscription) => subscription.unsettled);
    this.#beats += 1;
    this.#send({ type: 'ping', timestamp: `${this.#beats}` });
    if (!this.#timers.has('deadline')) this.#deadline('no answer to a ping');
    const delay = this.#calm.length > 0 ? SETTLE_MS : this.#options.heartbeat;
    this.#after('beat', delay, () => this.#beat());
  }

  #deadline(what) {
    const error = new ValtronicsError('timeout', what);
    this.#after('deadline', this.#options.timeout, () => this.#lost(new Ending(error)));
  }

  /** Goes on after a connection that has ended, or is given up, or did not come about. */
  #lost(ending) {
    if (this.#openedAt && performance.now() - this.#openedAt >= WORKED_MS) this.#backoff.reset();
    if (ending.closeCode === INVALID_TOKEN) this.#tokens.refuse();
    const { error } = ending;
    if (ending.final || this.#tokens.spent) return this.#stop(error);
    this.#disconnect();
    const delay = this.#backoff.delay(ending);
    this.#after('retry', delay, () => this.#connect());
    return this.#setStatus('waiting', { delay, error });
  }

  #disconnect() {
    const socket = this.#socket;
    this.#cancel();
    this.#socket = this.#openedAt = undefined;
    this.#refreshedAt = -Infinity;
    this.#retryAfter = 0;
    this.#calm = [];
    for (const subscription of this.#board) subscription.live = false;
    this.#requests.pause();
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onerror = socket.onclose = null;
    socket.close();
  }

  #stop(error) {
    if (this.status === 'closed') return;
    this.#disconnect();
    for (const subscription of this.#board) this.#drop(subscription, error);
    this.#requests.end(error ?? new ValtronicsError('closed', 'the client is closed'));
    this.#setStatus('closed', { error });
  }

  // Timers and events.

  #after(name, delay, act) {
    this.#cancel(name);
    // A listener may have closed the client in the middle of anything.
    if (this.status === 'closed') return;
    const timer = setTimeout(() => {
      this.#timers.delete(name);
      act();
    }, delay);
    this.#timers.set(name, timer);
  }

  /** Cancels a timer, or all. */
  #cancel(name) {
    for (const one of name ? [name] : [...this.#timers.keys()]) {
      clearTimeout(this.#timers.get(one));
      this.#timers.delete(one);
    }
  }

  #setStatus(status, detail) {
    this.status = status;
    this.#emit('status', { status, ...detail });
  }

  #report(error) {
    this.#emit('error', error);
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
