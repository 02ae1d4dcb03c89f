// The client in a real browser, and the real server.

import assert from 'node:assert';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Server } from './server.js';
import { until } from './watch.js';

const BROWSER = ['chromium', 'chromium-browser', 'google-chrome'].find(
  (name) => spawnSync(name, ['--version']).status === 0,
);

// A sandbox needs rights that a container does not give.
const ARGUMENTS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-dev-shm-usage',
  '--no-first-run',
];

/** Serves the client and a page that uses it; notes what the page tells. */
async function serve(t, page) {
  const told = [];
  const server = createServer(async ({ method, url }, response) => {
    if (method === 'POST') told.push(JSON.parse(decodeURIComponent(url.slice(2))));
    const script = url.endsWith('.js');
    response.setHeader('Content-Type', script ? 'text/javascript' : 'text/html');
    response.end(script ? readFileSync(new URL(`..${url}`, import.meta.url)) : page);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { told, origin: `http://127.0.0.1:${server.address().port}` };
}

test(
  'a page is resumed after a server that was killed',
  { skip: !BROWSER && 'no Chromium here' },
  async (t) => {
    const server = await Server.start(t);
    let agent = await server.agent();
    const page = `<!doctype html><script type="module">
    import { connect } from './valtronics.js';
    const tell = (what) => fetch('/?' + encodeURIComponent(JSON.stringify(what)), { method: 'POST' });
    const client = connect('${server.url}', { token: '${server.token('d')}', backoff: { min: 20, max: 200 } });
    client.addEventListener('status', ({ detail: { status } }) => tell({ status }));
    client.subscribe('devices', { snapshot: false }, tell).response.then(tell);
  </script>`;
    const { told, origin } = await serve(t, page);
    const profile = mkdtempSync(join(tmpdir(), 'valtronics-browser-'));
    // It has many processes: they are ended as a group.
    const options = { stdio: 'ignore', detached: true };
    const browser = spawn(BROWSER, [...ARGUMENTS, `--user-data-dir=${profile}`, origin], options);
    const gone = once(browser, 'exit');
    t.after(async () => {
      process.kill(-browser.pid, 'SIGKILL');
      await gone;
      rmSync(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
    });
    const seqs = () => told.map(({ type, seq }) => type === 'device_status_update' && seq).filter(Boolean);

    await until('the subscription', () => told.some(({ type }) => type === 'subscribe_response'), 40_000);
    const { seq: first } = told.find(({ type }) => type === 'subscribe_response');
    await agent.status('a', 'warning');
    await until('what is live', () => seqs().length === 1);
    await server.kill();
    await until('the loss', () => told.some(({ status }) => status === 'waiting'));
    await server.run();
    agent = await server.agent();
    await agent.status('a', 'online');
    await agent.status('b', 'warning');
    await until('the rest', () => seqs().length === 3);
    assert.deepStrictEqual(seqs().sort(), [first + 1, first + 2, first + 3]);
  },
);
