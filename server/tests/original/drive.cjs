// Lets the original's JavaScript client, unchanged, see one of everything: drive.cjs URL TOKEN READY_FILE
//
// Touches READY_FILE once it is subscribed to all of it; then somebody must raise a warning and a
// critical alert and take a device away. Exits 0 when every kind has come as the documentation shows it.
const assert = require('node:assert');
const fs = require('node:fs');

// A browser brings WebSocket along; node from version 22 on.
globalThis.WebSocket ??= require('ws');
const { ValtronicsWebSocket } = require('./valtronics_client.js');

const SECONDS = 60;
const [url, token, ready] = process.argv.slice(2);
const missing = new Set(['telemetry', 'system', 'alert', 'device']);

setTimeout(() => assert.fail(`never came: ${[...missing]}`), SECONDS * 1000);

const client = new ValtronicsWebSocket(url, token);

function saw(kind) {
  missing.delete(kind);
  if (!missing.has('telemetry') && !missing.has('system')) fs.writeFileSync(ready, '');
  if (missing.size === 0) process.exit(0);
}

// The documentation prints this one as a function of its own; the class calls it.
client.handleAuthResponse = (data) => {
  assert(data.success, 'authentication failed');
  client.subscribe('telemetry', { device_id: 1 });
  client.subscribe('alerts', { severity: 'critical' });
  client.subscribe('devices');
  client.subscribe('system');
  client.send({ type: 'ping', timestamp: new Date().toISOString() });
};

client.onTelemetryUpdate = (data) => {
  assert.strictEqual(data.device_id, 1, 'asked for device 1 only');
  for (const metric of Object.values(data.telemetry)) {
    for (const key of ['value', 'unit', 'timestamp']) assert(key in metric, key);
  }
  saw('telemetry');
};

client.onAlert = (data) => {
  assert.strictEqual(data.severity, 'critical', 'asked for critical alerts only');
  if (data.snapshot) return;
  assert.strictEqual(data.title, 'Boiler too hot');
  assert.strictEqual(data.metadata.actual_value, 95);
  saw('alert');
};

client.onDeviceStatusUpdate = (data) => {
  if (data.snapshot || data.new_status !== 'offline') return;
  assert.strictEqual(data.old_status, 'online');
  assert(data.reason);
  saw('device');
};

client.onSystemStatusUpdate = (data) => {
  for (const key of ['cpu_usage', 'memory_usage', 'disk_usage', 'active_connections']) {
    assert(key in data.metrics, key);
  }
  saw('system');
};

client.connect();
