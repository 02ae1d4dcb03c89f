// A server that does what a script says, for what a real one cannot be made to do at will.

import { createHash } from 'node:crypto';
import { createServer } from 'node:http';

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';

export class Fake {
  /** Frames and connections so far: what came, parsed, and when. */
  frames = [];
  connects = [];

  /** Starts one whose connections are given to `script(connection)`; it ends with the test. */
  static async start(test, script) {
    const fake = new Fake();
    const sockets = new Set();
    const server = createServer();
    server.on('upgrade', (request, socket) => {
      sockets.add(socket);
      socket.on('error', () => {});
      const accept = createHash('sha1')
        .update(request.headers['sec-websocket-key'] + GUID)
        .digest('base64');
      socket.write(
        `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
      );
      fake.connects.push(Date.now());
      const connection = new Connection(socket, fake);
      script?.(connection, fake.connects.length);
    });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    test.after(() => {
      sockets.forEach((socket) => socket.destroy());
      server.close();
    });
    fake.url = `ws://127.0.0.1:${server.address().port}/ws`;
    return fake;
  }
}

class Connection {
  /** What it does with each request, those of a batch one by one; by default, what a server does. */
  answer = (request) => {
    if (request.type === 'auth')
      return { type: 'auth_response', success: true, expires_at: '2100-01-01T00:00:00Z' };
    if (request.type === 'ping') return { type: 'pong', timestamp: request.timestamp, id: request.id };
    const seq = ['alerts', 'devices'].includes(request.channel) ? { seq: 10, log: 'l' } : {};
    return {
      type: `${request.type}_response`,
      success: true,
      channel: request.channel,
      ...seq,
      id: request.id,
    };
  };

  #socket;
  #bytes = Buffer.alloc(0);

  constructor(socket, fake) {
    this.#socket = socket;
    socket.on('data', (data) => {
      this.#bytes = Buffer.concat([this.#bytes, data]);
      for (let frame; (frame = this.#next());) this.#take(frame, fake);
    });
  }

  send(message) {
    this.#write(0x1, Buffer.from(JSON.stringify(message)));
  }

  close(code, reason = '') {
    const payload = Buffer.alloc(2);
    payload.writeUInt16BE(code);
    this.#write(0x8, Buffer.concat([payload, Buffer.from(reason)]));
    this.#socket.end();
  }

  #take({ opcode, payload }, fake) {
    if (opcode === 0x8) return this.#socket.end(Buffer.from([0x88, 0]));
    const message = JSON.parse(payload);
    fake.frames.push(message);
    for (const request of message.messages ?? [message]) {
      const response = this.answer(request);
      if (response) this.send(response);
    }
  }

  #next() {
    const bytes = this.#bytes;
    if (bytes.length < 2) return undefined;
    const short = bytes[1] & 0x7f;
    const start = short === 126 ? 8 : 6;
    const length = short === 126 ? (bytes.length < 4 ? Infinity : bytes.readUInt16BE(2)) : short;
    if (bytes.length < start + length) return undefined;
    const payload = Buffer.from(bytes.subarray(start, start + length));
    const mask = bytes.subarray(start - 4, start);
    payload.forEach((byte, at) => (payload[at] = byte ^ mask[at % 4]));
    this.#bytes = bytes.subarray(start + length);
    return { opcode: bytes[0] & 0xf, payload };
  }

  #write(opcode, payload) {
    const long = payload.length > 125;
    const head = Buffer.from(
      long
        ? [0x80 | opcode, 126, payload.length >> 8, payload.length & 0xff]
        : [0x80 | opcode, payload.length],
    );
    this.#socket.write(Buffer.concat([head, payload]));
  }
}
