// Both SDKs for Node, Messages and chat completions. Arguments: folder of the modules, base URL, key, `current` or `older`
// (the line of SDKs that speaks the older API version), statuses to be refused with, and `errors` for nothing else.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import path from "node:path";

const [modules, baseURL, apiKey, line, statuses, only] = process.argv.slice(2);
const require = createRequire(path.join(modules, "any.js"));
const claudePackage = line === "older" ? "anthropic-sdk-older" : "@anthropic-ai/sdk";
const Anthropic = require(claudePackage).default ?? require(claudePackage);
const OpenAI = require("openai").default ?? require("openai");

const claude = (more = {}) => new Anthropic({ apiKey, baseURL, maxRetries: 0, timeout: 20_000, ...more });
const chat = (more = {}) => new OpenAI({ apiKey, baseURL: `${baseURL}/v1`, maxRetries: 0, timeout: 20_000, ...more });
const ask = (name, more = {}) => ({
  model: "claude-sonnet-5-5",
  max_tokens: 64,
  messages: [{ role: "user", content: `CASE:${name} grüß` }],
  ...more,
});
const askChat = (name, more = {}) => ({ model: "gpt-5", messages: [{ role: "user", content: `CASE:${name}` }], ...more });
const textOf = (message) => message.content.filter((it) => it.type === "text").map((it) => it.text).join("");
const tools = [{ name: "get_weather", description: "weather", input_schema: { type: "object", properties: { city: { type: "string" } } } }];

async function messages() {
  const message = await claude().messages.create(ask("text"));
  assert.equal(textOf(message), "hello world");
  const pieces = [];
  const stream = claude().messages.stream(ask("text")).on("text", (text) => pieces.push(text));
  const final = await stream.finalMessage();
  assert.deepEqual(pieces, ["hello", " world"]);
  assert.equal(textOf(final), "hello world");
  assert.equal(final.usage.output_tokens, 3);
}

async function toolsAndThinking() {
  const used = await claude().messages.stream(ask("tools", { tools })).finalMessage();
  const inputs = used.content.filter((it) => it.type === "tool_use").map((it) => it.input);
  assert.deepEqual(inputs, [{ city: "Oslo" }, { city: "Bern" }]);
  const thought = await claude().messages.stream(ask("thinking", { thinking: { type: "enabled", budget_tokens: 1024 } })).finalMessage();
  assert.equal(thought.content[0].thinking, "let me see");
  assert.equal(thought.content[0].signature, "c2lnbmF0dXJl");
}

async function imagesAndCounts() {
  const data = Buffer.alloc(100_000, 7).toString("base64");
  const content = [
    { type: "image", source: { type: "base64", media_type: "image/png", data } },
    { type: "text", text: "CASE:text what is this?" },
  ];
  assert.equal(textOf(await claude().messages.create(ask("text", { messages: [{ role: "user", content }] }))), "hello world");
  const counted = await claude().messages.countTokens({ model: "claude-sonnet-5-5", messages: [{ role: "user", content: "CASE:text" }] });
  assert.equal(counted.input_tokens, 42);
}

async function rejects(kind, status, call) {
  await assert.rejects(call, (error) => {
    assert.ok(error instanceof kind, `${status}: ${error?.constructor?.name}: ${error}`);
    assert.equal(error.status, status);
    return true;
  });
}

async function errors() {
  const kinds = {
    400: Anthropic.BadRequestError,
    401: Anthropic.AuthenticationError,
    404: Anthropic.NotFoundError,
    413: Anthropic.APIError,
    429: Anthropic.RateLimitError,
    529: Anthropic.InternalServerError,
  };
  const chatKinds = { 400: OpenAI.BadRequestError, 401: OpenAI.AuthenticationError, 404: OpenAI.NotFoundError, 429: OpenAI.RateLimitError };
  for (const status of statuses.split(",").map(Number)) {
    // A provider's 401 is never the caller's; the caller's own comes from a wrong key.
    const key = status === 401 ? { apiKey: "wrong" } : {};
    await rejects(kinds[status], status, () => claude(key).messages.create(ask(status)));
    await rejects(kinds[status], status, () => claude(key).messages.create(ask(status, { stream: true })));
    if (chatKinds[status]) await rejects(chatKinds[status], status, () => chat(key).chat.completions.create(askChat(status)));
  }
}

async function timeouts() {
  await assert.rejects(() => claude({ timeout: 600 }).messages.create(ask("silent")), Anthropic.APIConnectionTimeoutError);
}

async function chats() {
  const reply = await chat().chat.completions.create(askChat("text"));
  assert.equal(reply.choices[0].message.content, "hello world");
  for (const include_usage of [undefined, false, true]) {
    const options = include_usage === undefined ? {} : { stream_options: { include_usage } };
    const chunks = [];
    for await (const chunk of await chat().chat.completions.create(askChat("text", { stream: true, ...options }))) chunks.push(chunk);
    assert.equal(chunks.flatMap((it) => it.choices).map((it) => it.delta.content ?? "").join(""), "hello world");
    assert.equal(chunks.filter((it) => it.usage).length, include_usage ? 1 : 0);
  }
}

for (const check of only === "errors" ? [errors] : [messages, toolsAndThinking, imagesAndCounts, errors, timeouts, chats]) await check();
console.log("all checks passed");
