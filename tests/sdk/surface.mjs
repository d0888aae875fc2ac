// The OpenAI surface beside chat. Arguments: folder of the modules, base URL (with /v1), key.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import path from "node:path";

const [modules, baseURL, apiKey] = process.argv.slice(2);
const require = createRequire(path.join(modules, "any.js"));
const OpenAI = require("openai").default ?? require("openai");
const { toFile } = require("openai");

const client = new OpenAI({ apiKey, baseURL, maxRetries: 0, timeout: 20_000 });
const model = "gpt-5";
const large = Buffer.alloc(700_000, 13);

async function responses() {
  const reply = await client.responses.create({ model, input: "CASE:text" });
  assert.equal(reply.output_text, "hello world");
  const kinds = [];
  for await (const event of await client.responses.create({ model, input: "CASE:text", stream: true, store: false })) kinds.push(event.type);
  assert.equal(kinds.at(0), "response.created");
  assert.equal(kinds.at(-1), "response.completed");
  assert.equal((await client.responses.create({ model, input: "CASE:text", previous_response_id: "resp_1" })).id, "resp_1");
}

async function stored() {
  assert.equal((await client.responses.retrieve("resp_1")).output_text, "hello world");
  assert.equal((await client.responses.cancel("resp_1")).status, "cancelled");
  const items = [];
  for await (const item of client.responses.inputItems.list("resp_1")) items.push(item.id);
  assert.deepEqual(items, ["msg_0"]);
  await client.responses.delete("resp_1");
  await assert.rejects(() => client.responses.retrieve("resp_2"), OpenAI.NotFoundError);
}

async function embeddings() {
  const reply = await client.embeddings.create({ model: "text-embedding-3-small", input: "CASE:text" });
  assert.deepEqual(reply.data[0].embedding, [0.5, -1]);
}

async function images() {
  assert.equal((await client.images.generate({ model: "gpt-image-1", prompt: "CASE:text" })).data[0].b64_json, "aGVsbG8=");
  // The file stands before the model, as the examples have it.
  const image = await toFile(large, "image.png", { type: "image/png" });
  assert.equal((await client.images.edit({ image, prompt: "CASE:text", model: "gpt-image-1" })).data[0].b64_json, "aGVsbG8=");
}

async function sound() {
  const speech = await client.audio.speech.create({ model: "tts-1", voice: "alloy", input: "CASE:text" });
  assert.deepEqual(Buffer.from(await speech.arrayBuffer()), Buffer.from([0xff, 0xfb, 0x90, 0x00, 0x0d, 0x0a]));
  const file = await toFile(large, "sound.wav", { type: "audio/wav" });
  assert.equal((await client.audio.transcriptions.create({ file, model: "whisper-1" })).text, "hello world");
  const small = await toFile(Buffer.alloc(100, 7), "sound.wav", { type: "audio/wav" });
  assert.equal((await client.audio.transcriptions.create({ model: "whisper-1", file: small })).text, "hello world");
}

for (const check of [responses, stored, embeddings, images, sound]) await check();
console.log("all checks passed");
