// The real server for tests: on a free port, in a directory of its own, with an agent that feeds it.

import { spawn, execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const PROGRAM =
  process.env.VALTRONICS_SERVER ??
  fileURLToPath(new URL('../../../../target/debug/valtronics-server', import.meta.url));

// Tests connect more often than users.
const CONFIG = `
data_dir = "data"
[limits]
connects_per_minute = 1000
handshakes_per_minute_per_address = 1000
[rules]
files = ["rules.toml"]
`;
const RULES = `
[[rule]]
name = "hot"
metric = "temperature"
kind = "threshold"
steps = [{ above = 50, severity = "warning" }, { above = 90, severity = "critical" }]
`;

export class Server {
  /** Starts a server that ends with the test. */
  static async start(test) {
    const server = new Server();
    server.dir = mkdtempSync(join(tmpdir(), 'valtronics-'));
    writeFileSync(join(server.dir, 'server.toml'), CONFIG);
    writeFileSync(join(server.dir, 'rules.toml'), RULES);
    test.after(async () => {
      await server.kill();
      rmSync(server.dir, { recursive: true });
    });
    await server.run('127.0.0.1:0');
    return server;
  }

  get url() {
    return `ws://${this.address}/ws`;
  }

  /** Runs it; again at the same address after `kill`. */
  async run(address = this.address) {
    this.process = spawn(PROGRAM, ['run', '--config', join(this.dir, 'server.toml'), '--listen', address], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    for await (const line of createInterface(this.process.stderr)) {
      const { message, address: bound } = JSON.parse(line);
      if (message !== 'listening') continue;
      this.address = bound;
      break;
    }
    this.process.stderr.resume();
  }

  async kill(signal = 'SIGKILL') {
    const { pid, exitCode, signalCode } = this.process;
    if (!pid || exitCode !== null || signalCode !== null) return;
    this.process.kill(signal);
    await once(this.process, 'exit');
  }

  /** Makes a new server of it, which knows its tokens and nothing else. */
  loseData() {
    const [data, kept] = [join(this.dir, 'data'), join(this.dir, 'secret')];
    cpSync(join(data, 'secret'), kept);
    rmSync(data, { recursive: true });
    cpSync(kept, join(data, 'secret'));
  }

  token(sub, ...options) {
    const config = ['--config', join(this.dir, 'server.toml')];
    return execFileSync(PROGRAM, ['token', '--sub', sub, ...config, ...options], { encoding: 'utf8' }).trim();
  }

  /** Connects an agent: `tell(message)` resolves when the server has committed it. */
  async agent() {
    const socket = new WebSocket(`ws://${this.address}/uplink`);
    let seq = 0;
    const waiting = new Map();
    const committed = new Promise((resolve) => waiting.set('auth', resolve));
    socket.onopen = () =>
      socket.send(JSON.stringify({ type: 'auth', token: this.token('plant', '--scope', 'uplink') }));
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.type === 'auth_response') waiting.get('auth')();
      for (const [at, resolve] of waiting) if (message.type === 'ack' && at <= message.seq) resolve();
    };
    await committed;
    const tell = (message) =>
      new Promise((resolve) => {
        waiting.set(++seq, resolve);
        socket.send(JSON.stringify({ ...message, seq }));
      });
    return {
      reading: (device, metric, value) => tell({ type: 'readings', device, readings: [{ metric, value }] }),
      status: (device, status) => tell({ type: 'status', device, status, reason: `it is ${status}` }),
      close: () => socket.close(),
    };
  }
}
