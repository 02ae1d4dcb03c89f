// A program that reads one message and leaves: example.js URL TOKEN

import { connect } from '../valtronics.js';

const [url, token] = process.argv.slice(2);
const client = connect(url, { token });
client.subscribe('alerts', {}, console.log);
for await (const { metrics } of client.subscribe('system')) {
  console.log(metrics);
  break;
}
client.close();
