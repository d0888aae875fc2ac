// Event streams as another reader takes them. Arguments: folder of the modules, a file with one stream a line: its pieces in
// hexadecimal and the events that are expected, in JSON.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const [modules, file] = process.argv.slice(2);
const { createParser } = createRequire(path.join(modules, "any.js"))("eventsource-parser");

let events = 0;
for (const line of readFileSync(file, "utf8").trim().split("\n")) {
  const { pieces, expected } = JSON.parse(line);
  const found = [];
  const parser = createParser({ onEvent: ({ event, data }) => found.push([event || null, data]) });
  const decoder = new TextDecoder();
  for (const piece of pieces) parser.feed(decoder.decode(Buffer.from(piece, "hex"), { stream: true }));
  assert.deepEqual(found, expected, line);
  events += found.length;
}
assert(events > 1000, `${events} events`);
console.log(`${events} events; all checks passed`);
