// OpenAI's SDK for Node.

import assert from "node:assert/strict";

import OpenAI, { toFile } from "openai";

import * as kit from "./kit.mjs";
import { LANE, MODEL, OPERATOR, TOOL, same, until } from "./kit.mjs";

function atPlace(at, { timeout, retries } = {}) {
  return new OpenAI({
    baseURL: `${at.root}/v1`,
    apiKey: at.key,
    ...(timeout && { timeout: timeout * 1000 }),
    ...(retries !== undefined && { maxRetries: retries }),
  });
}

const messages = (content) => [{ role: "user", content }];

// A stream, put together.
async function pieces(stream) {
  const told = { text: "", reasoning: "", calls: [], finish: "", usage: [], pieces: 0 };
  for await (const chunk of stream) {
    if (chunk.usage) told.usage = [chunk.usage.prompt_tokens, chunk.usage.completion_tokens];
    for (const { delta, finish_reason } of chunk.choices) {
      told.pieces += 1;
      told.text += delta.content ?? "";
      told.reasoning += delta.reasoning_content ?? "";
      told.finish = finish_reason ?? told.finish;
      for (const call of delta.tool_calls ?? []) {
        const known = (told.calls[call.index] ??= ["", ""]);
        known[0] += call.function.name ?? "";
        known[1] += call.function.arguments ?? "";
      }
    }
  }
  told.calls = told.calls.map(([name, given]) => [name, JSON.parse(given)]);
  return told;
}

const client = {
  asksAgainByItself: true,
  mindsShouldRetry: true,

  async plain(at, prompt, { model = MODEL, ...options } = {}) {
    const { choices, usage } = await atPlace(at, options).chat.completions.create({ model, messages: messages(prompt) });
    const [{ message, finish_reason: finish }] = choices;
    return { text: message.content, finish, usage: [usage.prompt_tokens, usage.completion_tokens] };
  },

  async stream(at, prompt, { model = MODEL, ...options } = {}) {
    return pieces(await atPlace(at, options).chat.completions.create({ model, messages: messages(prompt), stream: true }));
  },

  async rich(at, prompt) {
    return pieces(await atPlace(at).chat.completions.create({
      model: MODEL,
      messages: messages(prompt),
      stream: true,
      stream_options: { include_usage: true },
      tools: [{ type: "function", function: TOOL }],
      thinking: { type: "enabled" },
    }));
  },

  told: (error) => ({ error: error.constructor.name, status: error.status, code: error.code ?? null }),
};

await kit.run(client, {
  async the_headers_of_the_lane_are_readable() {
    const { response } = await atPlace(LANE).chat.completions
      .create({ model: MODEL, messages: messages("node headers") }).withResponse();
    for (const name of ["x-onelane-job", "x-onelane-wait-ms", "x-onelane-cost"]) assert.ok(response.headers.get(name), name);
    assert.equal(response.headers.get("x-onelane-model"), MODEL);
  },

  async models_are_listed() {
    const ids = [];
    for await (const model of atPlace(LANE).models.list()) ids.push(model.id);
    assert.ok(ids.includes(MODEL), ids.join());
    assert.equal((await atPlace(LANE).models.retrieve(MODEL)).id, MODEL);
  },

  async embeddings_are_glms() {
    const data = await same(async (at) =>
      (await atPlace(at).embeddings.create({ model: "embedding-3", input: ["one", "two"] })).data);
    assert.ok(data.length === 2 && data[0].embedding.length > 0, JSON.stringify(data));
  },

  async responses_are_glms() {
    const told = await same(async (at) => {
      const answer = await atPlace(at).responses.create({ model: MODEL, input: "node responses" });
      return [answer.output_text, answer.status, answer.usage.output_tokens];
    });
    assert.ok(told[0] && told[1] === "completed", told.join());
  },

  async a_stream_of_a_response_is_glms() {
    const events = await same(async (at) => {
      const all = [];
      const stream = await atPlace(at).responses.create({ model: MODEL, input: "node stream of a response", stream: true });
      for await (const event of stream) all.push([event.type, event.delta]);
      return all;
    });
    assert.equal(events.at(0)[0], "response.created");
    assert.equal(events.at(-1)[0], "response.completed");
  },

  async a_response_in_the_background_is_fetched_later() {
    const lane = atPlace(LANE);
    const begun = await lane.responses.create({ model: MODEL, input: "node background", background: true });
    assert.ok(["queued", "in_progress"].includes(begun.status), begun.status);
    const answer = await until("the response", async () => {
      const known = await lane.responses.retrieve(begun.id);
      return known.status === "completed" && known;
    });
    assert.ok(answer.output_text);
  },

  async a_file_of_chats_is_worked_off_as_a_batch() {
    const lane = atPlace(OPERATOR);
    const lines = [0, 1, 2].map((n) => JSON.stringify({
      custom_id: `line-${n}`,
      method: "POST",
      url: "/v1/chat/completions",
      body: { model: MODEL, messages: messages(`node line ${n}`) },
    }));
    const file = await lane.files.create({ file: await toFile(Buffer.from(lines.join("\n")), "chats.jsonl"), purpose: "batch" });
    const begun = await lane.batches.create({
      input_file_id: file.id, endpoint: "/v1/chat/completions", completion_window: "24h" });
    const batch = await until("the end of the batch", async () => {
      const known = await lane.batches.retrieve(begun.id);
      return known.status === "completed" && known;
    });
    assert.deepEqual([batch.request_counts.completed, batch.request_counts.failed], [3, 0]);
    const results = await (await lane.files.content(batch.output_file_id)).text();
    const ids = results.trim().split("\n").map((line) => JSON.parse(line).custom_id);
    assert.deepEqual(ids, ["line-0", "line-1", "line-2"]);
  },
});
