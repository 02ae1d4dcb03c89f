// The client and a server that does what a real one does only when something is wrong.

import assert from 'node:assert';
import { test } from 'node:test';
import { Backoff, Ending } from '../ending.js';
import { Client, connect } from '../valtronics.js';
import { Fake } from './fake.js';
import { open, record, sleep, until } from './watch.js';

const alert = (seq, more) => ({ type: 'alert', channel: 'alerts', device_id: 1, seq, ...more });

for (const [code, error] of [
  [4403, 'forbidden'],
  [1002, 'protocol_error'],
  [1007, 'protocol_error'],
  [1009, 'protocol_error'],
]) {
  test(`close code ${code} is the end`, async (t) => {
    const fake = await Fake.start(
      t,
      (connection) => (connection.answer = () => connection.close(code, 'why not')),
    );
    const client = open(t, fake.url);
    const alerts = client.subscribe('alerts');
    await assert.rejects(
      async () => {
        for await (const _ of alerts);
      },
      { code: error, message: 'why not', closeCode: code },
    );
    await assert.rejects(client.ping(), { code: error });
    assert.strictEqual(client.status, 'closed');
    await sleep(300);
    assert.strictEqual(fake.connects.length, 1);
  });
}

test('after any other close code it comes back, apart from others', async (t) => {
  const codes = [1000, 1001, 1011, 4408, 4413];
  const fake = await Fake.start(t, (connection, nth) => {
    const answer = connection.answer;
    connection.answer = (request) => (codes[nth - 1] ? connection.close(codes[nth - 1]) : answer(request));
  });
  const client = open(t, fake.url);
  await until('the last connection', () => client.status === 'open');
  const waits = client.statuses.filter(({ status }) => status === 'waiting');
  assert.deepStrictEqual(
    waits.map(({ error }) => error.closeCode),
    codes,
  );
  const limits = [20, 200, 80, 160, 200];
  assert.ok(
    waits.every(({ delay }, at) => delay <= limits[at]),
    JSON.stringify(waits),
  );
});

test('it comes back when the server said, not before', async (t) => {
  const fake = await Fake.start(t, (connection, nth) => {
    if (nth === 1) connection.answer = () => connection.close(4429, 'too many; retry_after=1');
    if (nth !== 2) return;
    connection.answer = () => {
      setTimeout(() => connection.close(4429), 10);
      return {
        type: 'auth_response',
        success: false,
        error: 'connection_limit',
        message: 'close some',
        retry_after: 1,
      };
    };
  });
  const client = open(t, fake.url);
  await until('the third connection', () => client.status === 'open');
  const [first, second, third] = fake.connects;
  assert.ok(second - first >= 990 && third - second >= 990, `${fake.connects}`);
  assert.deepStrictEqual(
    client.errors.map(({ code }) => code),
    ['connection_limit'],
  );
});

test('it tries for ever, more and more slowly', async (t) => {
  const fake = await Fake.start(t, (connection) => connection.close(1011));
  const client = open(t, fake.url, { backoff: { min: 1, max: 40 } });
  await until('twelve connections', () => fake.connects.length >= 12);
  const delays = client.statuses.filter(({ delay }) => delay).map(({ delay }) => delay);
  delays.slice(0, 11).forEach((delay, at) => {
    const most = Math.min(40, 2 ** at);
    assert.ok(delay >= most / 2 && delay <= most, `${delays}`);
  });
});

test('a server that goes away is come back to at any moment of some seconds', () => {
  const delays = Array.from({ length: 1000 }, () => new Backoff().delay(Ending.closed(1001, '', 0)));
  assert.ok(Math.min(...delays) < 250 && Math.max(...delays) > 4500 && Math.max(...delays) <= 5000);
});

test('when the token has expired it comes back with a new one only', async (t) => {
  const expired = (connection, nth) => {
    if (nth === 1) connection.answer = () => connection.close(4401);
  };
  const fake = await Fake.start(t, expired);
  const reasons = [];
  const token = (reason) => `${Math.floor(reasons.push(reason) / 3)}`;
  const client = open(t, fake.url, { token });
  await until('a connection', () => client.status === 'open');
  assert.deepStrictEqual(reasons, ['connect', 'refused', 'refused']);
  assert.deepStrictEqual(
    fake.frames.map((frame) => frame.token),
    ['0', '1'],
  );
  const stubborn = open(t, (await Fake.start(t, expired)).url);
  await until('the end', () => stubborn.status === 'closed');
});

test('requests of one moment share a batch of at most fifty', async (t) => {
  const fake = await Fake.start(t);
  const client = open(t, fake.url);
  const begin = Date.now();
  const some = Array.from({ length: 120 }, (_, at) => client.subscribe('telemetry', { device_id: at + 1 }));
  await Promise.all(some.map(({ response }) => response));
  assert.deepStrictEqual(
    fake.frames.map(({ type, messages }) => messages?.length ?? type),
    ['auth', 50, 50, 20],
  );
  // The server takes a hundred a second.
  assert.ok(Date.now() - begin >= 1000);
  await client.ping();
  assert.strictEqual(fake.frames.at(-1).type, 'ping');
});

test('what was rate limited is sent again', async (t) => {
  let refused = 0;
  const fake = await Fake.start(t, (connection) => {
    const answer = connection.answer;
    connection.answer = (request) =>
      request.type === 'subscribe' && refused++ === 0
        ? {
            type: 'subscribe_response',
            success: false,
            error: 'rate_limited',
            message: 'slower',
            id: request.id,
          }
        : answer(request);
  });
  const client = open(t, fake.url);
  await client.subscribe('alerts').response;
  assert.strictEqual(refused, 2);
  assert.deepStrictEqual(client.errors, []);
});

test('batches are unpacked, repeats left out, snapshots never', async (t) => {
  let connection;
  const fake = await Fake.start(t, (it) => (connection = it));
  const client = open(t, fake.url);
  const { subscription, seqs, messages } = record(client, 'alerts');
  const lagged = [];
  client.addEventListener('lagged', ({ detail }) => lagged.push(detail.dropped));
  await subscription.response;
  const shown = [alert(7, { snapshot: true }), alert(12, { snapshot: true })];
  connection.send({
    type: 'batch',
    messages: [...shown, alert(11), alert(12), alert(13), alert(13), alert(9)],
  });
  connection.send({ type: 'lagged', channel: 'telemetry', dropped: 3 });
  connection.send({ type: 'unheard_of' });
  await until('the rest', () => lagged.length === 1);
  assert.deepStrictEqual(seqs(), [11, 13]);
  assert.strictEqual(messages.length, 4);
  assert.strictEqual(subscription.since, 13);
});

test('after a snapshot that broke off it asks for another', async (t) => {
  const fake = await Fake.start(t, (connection, nth) => {
    const answer = connection.answer;
    if (nth > 2) return;
    connection.answer = (request) => {
      if (request.type !== 'subscribe') return answer(request);
      connection.send(answer(request));
      connection.send(alert(5, { snapshot: true }));
      if (nth === 2) connection.send(alert(11));
      return connection.close(1011);
    };
  });
  const client = open(t, fake.url);
  client.subscribe('alerts', {}, () => {});
  await until('three requests', () => fake.frames.filter(({ type }) => type === 'subscribe').length === 3);
  const asked = fake.frames
    .filter(({ type }) => type === 'subscribe')
    .map(({ since, log }) => ({ since, log }));
  assert.deepStrictEqual(
    asked,
    [{}, {}, { since: 11, log: 'l' }].map(({ since, log }) => ({ since, log })),
  );
});

test('a subscription that nobody reads ends, others go on', async (t) => {
  let connection;
  const fake = await Fake.start(t, (it) => (connection = it));
  const client = open(t, fake.url);
  const unread = client.subscribe('alerts');
  await unread.response;
  for (let seq = 11; seq <= 10_012; seq++) connection.send(alert(seq));
  await until('the end', () => unread.ended);
  let read = 0;
  await assert.rejects(
    async () => {
      for await (const _ of unread) read++;
    },
    { code: 'overflow' },
  );
  assert.strictEqual(read, 10_001);
  await client.ping();
});

test('rights that a new token takes away end their subscriptions', async (t) => {
  let connection;
  const fake = await Fake.start(t, (it) => (connection = it));
  const client = open(t, fake.url);
  const [all, one] = [client.subscribe('alerts'), client.subscribe('alerts', { device_id: 3 })];
  await Promise.all([all.response, one.response]);
  const gone = {
    type: 'subscribe_response',
    success: false,
    error: 'forbidden',
    message: 'it has ended',
    channel: 'alerts',
  };
  connection.send({ ...gone, filters: { device_id: [3] } });
  await until('the end', () => one.ended);
  assert.strictEqual(all.ended, false);
  connection.send({ ...gone, filters: {} });
  await until('the end', () => all.ended);
});

test('a token that cannot be had is asked for again', async (t) => {
  const fake = await Fake.start(t);
  let asked = 0;
  const token = async () => {
    if (++asked < 3) throw new Error('no login');
    return 'token';
  };
  const client = open(t, fake.url, { token });
  await until('a connection', () => client.status === 'open');
  assert.strictEqual(asked, 3);
});

test('tokens that live but a moment are not renewed at every moment', async (t) => {
  const fake = await Fake.start(t, (connection) => {
    const answer = connection.answer;
    connection.answer = (request) => {
      connection.send(answer(request));
      if (request.type === 'auth')
        connection.send({ type: 'auth_expiring', expires_at: '2024-01-01T00:00:00Z' });
    };
  });
  let asked = 0;
  const client = open(t, fake.url, { token: () => `${++asked}` });
  await until('the first renewal', () => fake.frames.length === 2);
  await sleep(300);
  await client.ping();
  assert.strictEqual(asked, 2);
  assert.deepStrictEqual(client.errors, []);
});

test('what is no message ends the connection, not the client', async (t) => {
  const fake = await Fake.start(t, (connection, nth) => nth === 1 && connection.send({ type: 'batch' }));
  const client = open(t, fake.url);
  await until('a connection', () => client.status === 'open');
  assert.strictEqual(fake.connects.length, 2);
});

for (const status of ['connecting', 'open', 'waiting']) {
  test(`a listener may close the client when it is ${status}`, async (t) => {
    const fake = await Fake.start(t, (connection, nth) => {
      const answer = connection.answer;
      connection.answer = (request) => (nth === 2 ? answer(request) : connection.close(1011));
    });
    const client = open(t, fake.url);
    const before = process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length;
    client.addEventListener('status', ({ detail }) => detail.status === status && client.close());
    client.subscribe('alerts');
    await until('the end', () => client.status === 'closed');
    const count = fake.connects.length;
    await sleep(50);
    assert.strictEqual(fake.connects.length, count);
    assert.ok(process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length <= before);
  });
}

test('an error report goes to the server', async (t) => {
  const fake = await Fake.start(t);
  const client = open(t, fake.url);
  client.reportError(new Error('it broke'), { at: 1 });
  await client.ping();
  const { messages } = fake.frames.at(-1);
  assert.deepStrictEqual(messages[0], { type: 'error_report', error: 'Error: it broke', data: { at: 1 } });
});

test('who closes a shared client twice takes no share of another', async (t) => {
  const fake = await Fake.start(t);
  const [one, two] = [connect(fake.url, { token: 'fake' }), connect(fake.url, { token: 'fake' })];
  const other = connect(fake.url, { token: 'other' });
  t.after(() => [one, two, other].forEach((client) => client.close()));
  await Promise.all([one.ping(), two.ping(), other.ping()]);
  assert.strictEqual(fake.connects.length, 2);
  assert.ok(one instanceof Client);
  one.close();
  one.close();
  assert.strictEqual(two.status, 'open');
  await two.ping();
  two.close();
  assert.strictEqual(two.status, 'closed');
  assert.strictEqual(other.status, 'open');
  const again = connect(fake.url, { token: 'fake' });
  t.after(() => again.close());
  two.close();
  await again.ping();
  assert.strictEqual(fake.connects.length, 3);
});
