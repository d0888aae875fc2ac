// Files, batches and stored responses of the mock provider. Arguments: folder of the modules, base URL, key, another key.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import path from "node:path";

const [modules, baseURL, key, other] = process.argv.slice(2);
const require = createRequire(path.join(modules, "any.js"));
const Anthropic = require("@anthropic-ai/sdk").default ?? require("@anthropic-ai/sdk");
const OpenAI = require("openai").default ?? require("openai");
const { toFile } = require("openai");

const settings = { maxRetries: 0, timeout: 20_000 };
const [claude, claudes] = [key, other].map((apiKey) => new Anthropic({ apiKey, baseURL, ...settings }));
const [chat, chats] = [key, other].map((apiKey) => new OpenAI({ apiKey, baseURL: `${baseURL}/v1`, ...settings }));
const model = "gpt-6-sol";

async function ids(list) {
  const found = [];
  for await (const it of list) found.push(it.id);
  return found;
}

async function batchesOfMessages() {
  const params = { model: "claude-opus-5-5", max_tokens: 16, messages: [{ role: "user", content: "MARK:m" }] };
  const made = await claude.messages.batches.create({ requests: [{ custom_id: "a", params }] });
  const results = [];
  for await (const it of await claude.messages.batches.results(made.id)) results.push(it);
  assert.ok(results[0].result.message.content[0].text.startsWith("MARK:m "));
  assert.ok((await ids(claude.messages.batches.list())).includes(made.id));
  assert.ok(!(await ids(claudes.messages.batches.list())).includes(made.id));
  await assert.rejects(() => claudes.messages.batches.retrieve(made.id), Anthropic.NotFoundError);
}

async function filesAndBatches() {
  const line = { custom_id: "a", method: "POST", url: "/v1/embeddings", body: { model, input: "x" } };
  const file = await chat.files.create({ file: await toFile(Buffer.from(JSON.stringify(line)), "f.jsonl"), purpose: "batch" });
  const settings = { endpoint: "/v1/embeddings", completion_window: "24h", input_file_id: file.id };
  await assert.rejects(() => chats.batches.create(settings), OpenAI.NotFoundError);
  const batch = await chat.batches.create(settings);
  assert.equal(batch.status, "completed");
  const output = await (await chat.files.content(batch.output_file_id)).text();
  assert.ok(output.includes('"embedding"'));
  await assert.rejects(() => chats.files.content(batch.output_file_id), OpenAI.NotFoundError);
  await chat.files.delete(file.id);
  await assert.rejects(() => chat.files.retrieve(file.id), OpenAI.NotFoundError);
}

async function responses() {
  const first = await chat.responses.create({ model, input: "MARK:r" });
  assert.ok(first.output_text.startsWith("MARK:r "));
  const stream = await chat.responses.create({ model, input: "x", stream: true, previous_response_id: first.id });
  let last;
  for await (const event of stream) last = event;
  assert.equal(last.type, "response.completed");
  assert.equal((await ids(chat.responses.inputItems.list(last.response.id))).length, 3);
  await assert.rejects(() => chats.responses.retrieve(last.response.id), OpenAI.NotFoundError);
  await assert.rejects(() => chats.responses.create({ model, input: "x", previous_response_id: first.id }), OpenAI.NotFoundError);
  await chat.responses.delete(first.id);
  await assert.rejects(() => chat.responses.retrieve(first.id), OpenAI.NotFoundError);
}

for (const check of [batchesOfMessages, filesAndBatches, responses]) await check();
console.log("all checks passed");
