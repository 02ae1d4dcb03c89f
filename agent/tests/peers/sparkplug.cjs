// Lets the agent read an edge node that others wrote (sparkplug-client), and compares what both say.
//
// sparkplug.cjs AGENT PORT: over the broker at PORT. The agent starts after the node's births, so it has to ask.

const { spawn } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const sparkplug = require("sparkplug-client");

const [agent, port] = process.argv.slice(2);
const WITHIN = 60_000; // ms, on a busy machine
const NOW = Date.now();
const HOUR_AGO = NOW - 3_600_000;
const CONTROL = { name: "Node Control/Rebirth", type: "Boolean", value: false };

// Metric, type, value in the birth, unit, value in later data.
const BOILER = [
  ["supply/temperature", "Double", 71.25, "°C", 72.5],
  ["pressure", "Float", 1.8, "bar", 230.2],
  ["tiny", "Int8", -100, "K", -13],
  ["delta", "Int16", -12, "K", -13],
  ["balance", "Int32", -70_000, "L", -2_147_483_648],
  ["level", "UInt8", 200, "%", 255],
  ["steps", "UInt16", 60_000, undefined, 65_535],
  ["starts", "UInt32", 4_000_000_000, undefined, 4_294_967_295],
  ["energy", "UInt64", 9_007_199_254_740_991, "Wh", 5],
  ["pump", "Boolean", true, undefined, false],
  ["serial", "String", "BX-99", undefined, "Ünü ±"],
  ["serviced", "DateTime", Date.UTC(2024, 0, 1, 12), undefined, Date.UTC(2025, 5, 30, 1, 2, 3, 4)],
];

const alias = (index) => index + 1;
const births = BOILER.map(([name, type, value, unit], index) => ({
  name,
  alias: alias(index),
  type,
  value,
  ...(unit && { properties: { engUnit: { type: "String", value: unit } } }),
}));
const data = BOILER.map(([, type, , , value], index) => ({ alias: alias(index), type, value }));
const shown = (type, value) =>
  type === "DateTime" ? new Date(value).toISOString().replace(".000Z", "Z") : value;

const missing = new Map();
function expect(device, metric, value, unit, timestamp) {
  missing.set(JSON.stringify([device, metric, value, unit ?? null, timestamp ?? null]), metric);
}

const failed = (why) => {
  console.log(`FAILED: ${why}`);
  process.exit(1);
};

const device = "Plant 1/gw-7/boiler";
for (const [name, type, value, unit, later] of BOILER) {
  expect(device, name, shown(type, value), unit, NOW);
  expect(device, name, shown(type, later), unit, NOW + 1);
}
expect("Plant 1/gw-7", "cpu", 48.5, "°C", NOW);
expect("Plant 1/gw-7", "cpu", 49.25, "°C", HOUR_AGO);

const node = sparkplug.newClient({
  serverUrl: `mqtt://127.0.0.1:${port}`,
  username: "",
  password: "",
  groupId: "Plant 1",
  edgeNode: "gw-7",
  clientId: "gw-7",
  version: "spBv1.0",
  publishDeath: true,
});

function publishBirths() {
  const unit = { engUnit: { type: "String", value: "°C" } };
  const cpu = { name: "cpu", alias: 100, type: "Float", value: 48.5, properties: unit };
  node.publishNodeBirth({ timestamp: NOW, metrics: [CONTROL, cpu] });
  node.publishDeviceBirth("boiler", { timestamp: NOW, metrics: births.map((metric) => ({ ...metric })) });
}

function publishData() {
  const kept = { alias: 100, type: "Float", value: 49.25, isHistorical: true, timestamp: HOUR_AGO };
  const table = { numOfColumns: 1, types: ["Int32"], columns: ["a"], rows: [[1]] };
  node.publishDeviceData("boiler", { timestamp: NOW + 1, metrics: data });
  node.publishNodeData({ timestamp: NOW + 1, metrics: [kept] });
  // Nothing of this is a reading.
  node.publishDeviceData("boiler", {
    timestamp: NOW + 1,
    metrics: [
      { name: "pressure", alias: 2, type: "Float", value: null },
      { name: "table", type: "DataSet", value: table },
      { name: "raw", type: "Bytes", value: Buffer.from([1, 2, 3]) },
    ],
  });
}

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "valtronics."));
process.on("exit", () => fs.rmSync(folder, { recursive: true }));
fs.writeFileSync(
  path.join(folder, "agent.toml"),
  `name = "peers"\n[[sparkplug]]\nurl = "mqtt://127.0.0.1:${port}"\ngroups = ["Plant 1"]\n`,
);

let asked = 0;
const statuses = [];
let reader;

function start() {
  reader = spawn(agent, ["try", "--config", path.join(folder, "agent.toml")]);
  process.on("exit", () => reader.kill());
  lines(reader.stdout, (line) => {
    const { device, metric, value, unit, timestamp } = JSON.parse(line);
    const reading = [device, metric, value, unit ?? null, Date.parse(timestamp)];
    if (!missing.delete(JSON.stringify(reading))) failed(`a reading that nobody sent: ${line}`);
    if (missing.size === 0) end();
  });
  lines(reader.stderr, (line) => {
    // Its births were missed: the first data makes it ask.
    if (line.includes("subscribed at the broker")) node.publishDeviceData("boiler", { metrics: data.slice(0, 1) });
    const status = /^(Plant 1.*): (Online|Offline): /.exec(line);
    if (status) statuses.push(`${status[1]} ${status[2]}`);
    if (statuses.length === 4) check(statuses);
  });
}

function lines(stream, each) {
  let rest = "";
  stream.setEncoding("utf8").on("data", (text) => {
    const whole = (rest + text).split("\n");
    rest = whole.pop();
    whole.forEach(each);
  });
}

// Both have to come: the readings, and then that all is gone.
function end() {
  node.publishDeviceDeath("boiler", { timestamp: NOW + 2 });
  node.stop();
}

function check(statuses) {
  const wanted = [
    "Plant 1/gw-7 Online",
    "Plant 1/gw-7/boiler Online",
    "Plant 1/gw-7/boiler Offline",
    "Plant 1/gw-7 Offline",
  ];
  if (wanted.some((status, place) => statuses[place] !== status)) failed(`statuses: ${statuses.join(", ")}`);
  if (asked !== 1) failed(`asked for births ${asked} times`);
  console.log(`${BOILER.length} types, births that were asked for, data by alias, deaths: as sparkplug-client sends them`);
  process.exit(0);
}

node.on("birth", () => {
  publishBirths();
  start();
});
node.on("ncmd", (command) => {
  if (!command.metrics.some(({ name, value }) => name === CONTROL.name && value === true)) return;
  asked += 1;
  publishBirths();
  publishData();
});
setTimeout(() => failed(`not read: ${[...missing.keys()].join(" ")}; statuses: ${statuses.join(", ")}`), WITHIN);
