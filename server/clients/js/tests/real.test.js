// The client and the real server.

import assert from 'node:assert';
import { execFile, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { connect } from '../valtronics.js';
import { Server } from './server.js';
import { open, record, until } from './watch.js';

const from = (first, last) => Array.from({ length: last - first + 1 }, (_, at) => first + at);

test('what is asked before the connection opens is done', async (t) => {
  const server = await Server.start(t);
  const agent = await server.agent();
  await agent.reading('boiler', 'temperature', 20.5);
  const client = open(t, server.url, { token: server.token('d') });
  const boiler = record(client, 'telemetry', { device_id: 1 });
  const system = record(client, 'system', { filters: { metrics: ['cpu_usage'], frequency: '1s' } });
  const pong = client.ping();
  assert.strictEqual(client.status, 'connecting');
  assert.deepStrictEqual((await boiler.subscription.response).filters, { device_id: [1] });
  assert.ok((await pong).server_time);
  await until('the snapshot', () => boiler.messages.length === 1);
  assert.strictEqual(boiler.messages[0].telemetry.temperature.value, 20.5);
  await agent.reading('boiler', 'temperature', 21);
  await until('the change', () => boiler.messages.length === 2);
  await until('the system', () => system.messages.length > 0);
  assert.deepStrictEqual(Object.keys(system.messages[0].metrics), ['cpu_usage']);
});

test('a refusal says why, to the response, the reader and the client', async (t) => {
  const server = await Server.start(t);
  const client = open(t, server.url, { token: server.token('d', '--scope', 'telemetry:read') });
  const alerts = client.subscribe('alerts');
  await assert.rejects(alerts.response, { code: 'forbidden', message: /alerts:read/ });
  await assert.rejects(
    async () => {
      for await (const _ of alerts);
    },
    { code: 'forbidden' },
  );
  await assert.rejects(client.subscribe('telemetry', { nonsense: 1 }).response, { code: 'invalid_filter' });
  const many = from(1, 30_000);
  await assert.rejects(client.subscribe('telemetry', { device_id: many }).response, {
    code: 'message_too_large',
  });
  assert.deepStrictEqual(
    client.errors.map(({ code }) => code),
    ['forbidden', 'invalid_filter', 'message_too_large'],
  );
  assert.strictEqual(client.status, 'open');
});

test('a server that was killed is resumed without a gap or a repeat', async (t) => {
  const server = await Server.start(t);
  let agent = await server.agent();
  for (const device of ['a', 'b']) await agent.reading(device, 'temperature', 20);
  let [let_in, gate] = [undefined, Promise.resolve()];
  const token = server.token('d');
  const client = open(t, server.url, { token: () => gate.then(() => token) });
  const devices = record(client, 'devices', { snapshot: false });
  const critical = record(client, 'alerts', { severity: 'critical', snapshot: false });
  const { seq: first } = await devices.subscription.response;
  await critical.subscription.response;

  for (let round = 0; round < 3; round++) {
    await agent.status('a', 'warning');
    await agent.status('a', 'online');
    await agent.reading('b', 'temperature', 95);
    await agent.reading('b', 'temperature', 20);
    await until('what is live', () => devices.messages.length === 4 * round + 2);
    await until('what is live', () => critical.messages.length === 4 * round + 2);
    gate = new Promise((resolve) => (let_in = resolve));
    await server.kill();
    await until('the loss', () => client.status !== 'open');
    await server.run();
    agent = await server.agent();
    await agent.status('b', 'warning');
    await agent.status('b', 'online');
    await agent.reading('a', 'temperature', 95);
    await agent.reading('a', 'temperature', 20);
    let_in();
    await until('what was missed', () => devices.messages.length === 4 * round + 4);
    await until('what was missed', () => critical.messages.length === 4 * round + 4);
  }
  assert.deepStrictEqual(devices.seqs(), from(first + 1, first + 12));
  assert.deepStrictEqual(
    critical.messages.map(({ type }) => type),
    Array(6).fill(['alert', 'alert_update']).flat(),
  );
  assert.ok(devices.messages.every(({ snapshot }) => !snapshot));
});

test('a server that lost its data sends the present state instead', async (t) => {
  const server = await Server.start(t);
  const agent = await server.agent();
  await agent.status('a', 'warning');
  const client = open(t, server.url, { token: server.token('d') });
  const responses = [];
  client.addEventListener('subscribed', ({ detail }) => responses.push(detail.response));
  const devices = record(client, 'devices');
  await until('the snapshot', () => devices.messages.length === 1);
  await agent.status('a', 'online');
  await until('the change', () => devices.messages.length === 2);
  await server.kill();
  server.loseData();
  await server.run();
  await (await server.agent()).status('other', 'warning');
  await until('a new snapshot', () => devices.messages.length === 3);
  assert.deepStrictEqual(
    responses.map(({ resumed }) => resumed),
    [undefined, false],
  );
  assert.strictEqual(devices.subscription.log, responses[1].log);
});

test('a snapshot that is over is not asked for again', async (t) => {
  const server = await Server.start(t);
  await (await server.agent()).status('a', 'warning');
  const client = open(t, server.url, { token: server.token('d') });
  const responses = [];
  client.addEventListener('subscribed', ({ detail }) => responses.push(detail.response));
  const devices = record(client, 'devices');
  await devices.subscription.response;
  await until('a quiet moment', () => !devices.subscription.unsettled);
  await server.kill();
  await server.run();
  await until('the second connection', () => responses.length === 2);
  assert.strictEqual(responses[1].resumed, true);
  assert.strictEqual(devices.messages.length, 1);
});

test('a token is renewed while the connection lives', async (t) => {
  const server = await Server.start(t);
  const reasons = [];
  const client = open(t, server.url, {
    token: async (reason) => {
      reasons.push(reason);
      return server.token('d', '--ttl', reason === 'connect' ? '5s' : '1h');
    },
  });
  await until('the second token', () => new Date(client.expiresAt) > Date.now() + 60_000);
  assert.deepStrictEqual(reasons, ['connect', 'expiring']);
  assert.deepStrictEqual(
    client.statuses.map(({ status }) => status),
    ['open'],
  );
});

test('a refused token is asked for again, and never sent twice', async (t) => {
  const server = await Server.start(t);
  const reasons = [];
  const tokens = ['a.b.c', 'a.b.c', server.token('d')];
  const client = open(t, server.url, {
    token: (reason) => (reasons.push(reason), tokens[reasons.length - 1]),
  });
  await until('a good token', () => client.status === 'open');
  assert.deepStrictEqual(reasons, ['connect', 'refused', 'refused']);
  assert.deepStrictEqual(
    client.errors.map(({ code }) => code),
    ['invalid_token'],
  );

  const stubborn = open(t, server.url, { token: 'a.b.c' });
  await until('the end', () => stubborn.status === 'closed');
  assert.strictEqual(stubborn.statuses.at(-1).error.code, 'invalid_token');
});

test('hundreds of requests at once stay below the limits', async (t) => {
  const server = await Server.start(t);
  const client = open(t, server.url, { token: server.token('d') });
  const some = from(1, 260).map((device_id) => client.subscribe('telemetry', { device_id }, () => {}));
  await Promise.all(some.map(({ response }) => response));
  await Promise.all(some.slice(0, 40).map((one) => one.unsubscribe()));
  assert.deepStrictEqual(client.errors, []);
});

test('a newer subscription to a device takes the place of the older', async (t) => {
  const server = await Server.start(t);
  const agent = await server.agent();
  for (const device of ['a', 'b', 'c']) await agent.reading(device, 'temperature', 1);
  const client = open(t, server.url, { token: server.token('d') });
  const all = record(client, 'telemetry', { snapshot: false });
  const two = record(client, 'telemetry', { device_id: [1, 2], snapshot: false });
  const one = record(client, 'telemetry', { device_id: 2, snapshot: false });
  await one.subscription.response;
  for (const device of ['a', 'b', 'c']) await agent.reading(device, 'temperature', 2);
  await until('three messages', () => [all, two, one].every(({ messages }) => messages.length === 1));
  assert.deepStrictEqual(
    [all, two, one].map(({ messages }) => messages[0].device_id),
    [3, 1, 2],
  );

  // Told to the server as the whole channel, and yet the others go on.
  await all.subscription.unsubscribe();
  await client.ping();
  for (const device of ['c', 'a', 'b']) await agent.reading(device, 'temperature', 3);
  await until('two messages', () => [two, one].every(({ messages }) => messages.length === 2));
  assert.strictEqual(all.messages.length, 1);

  const last = client.subscribe('telemetry', { device_id: [1, 2] });
  await assert.rejects(
    async () => {
      for await (const _ of two.subscription);
    },
    { code: 'replaced' },
  );
  await last.response;
});

test('a server that stands still is noticed, and found again', async (t) => {
  const server = await Server.start(t);
  const client = open(t, server.url, { token: server.token('d'), heartbeat: 100, timeout: 400 });
  const system = client.subscribe('system', { frequency: '24h' });
  await system.response;
  server.process.kill('SIGSTOP');
  await until('the loss', () => client.statuses.some(({ error }) => error?.code === 'timeout'));
  server.process.kill('SIGCONT');
  const begin = client.statuses.length;
  await until('the return', () => client.statuses.slice(begin).some(({ status }) => status === 'open'));
});

test('clients of one URL and token share a connection', async (t) => {
  const server = await Server.start(t);
  const token = server.token('d');
  const [one, two, other] = [token, token, server.token('e')].map((token) => connect(server.url, { token }));
  one.close();
  await two.ping();
  [two, other].forEach((client) => client.close());
  assert.strictEqual(one.status, 'closed');
  const again = connect(server.url, { token });
  await again.ping();
  again.close();
});

test('a process that closes its client ends', async (t) => {
  const server = await Server.start(t);
  const run = promisify(execFile);
  const script = fileURLToPath(new URL('example.js', import.meta.url));
  const { stdout } = await run(
    process.execPath,
    [...process.execArgv, script, server.url, server.token('d')],
    { timeout: 10_000 },
  );
  assert.match(stdout, /cpu_usage/);
});

test('the example in the README works', async (t) => {
  const server = await Server.start(t);
  const agent = await server.agent();
  await agent.reading('boiler', 'temp', 21.5);
  await agent.reading('boiler', 'temperature', 95);
  const [folder, token] = [new URL('..', import.meta.url), server.token('d')];
  const [, example] = /```js\n(.*?)```/s.exec(readFileSync(new URL('README.md', folder), 'utf8'));
  const code = example.replace('ws://localhost:8000/ws', server.url).replace('your-token', token);
  const node = spawn(process.execPath, [...process.execArgv, '--input-type=module', '--eval', code], {
    cwd: folder,
  });
  t.after(() => node.kill());
  let output = '';
  node.stdout.on('data', (data) => (output += data));
  await until('what it prints', () => /21\.5/.test(output) && /^alert hot active$/m.test(output));
});
