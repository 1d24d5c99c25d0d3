// Vercel's AI SDK, by its provider for what is compatible with OpenAI.

import assert from "node:assert/strict";

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

import * as kit from "./kit.mjs";
import { LANE, MODEL, TOOL, same } from "./kit.mjs";

const atPlace = (at) =>
  createOpenAICompatible({ name: "glm", baseURL: `${at.root}/v1`, apiKey: at.key, includeUsage: true });

const asked = (at, prompt, { model = MODEL, retries } = {}) => ({
  model: atPlace(at)(model),
  prompt,
  ...(retries !== undefined && { maxRetries: retries }),
});

// A stream, put together; it tells its errors as parts.
async function pieces(stream) {
  const told = { text: "", reasoning: "", calls: [], finish: "", usage: [], pieces: 0 };
  for await (const part of stream.fullStream) {
    switch (part.type) {
      case "text-delta":
        told.pieces += 1;
        told.text += part.text;
        break;
      case "reasoning-delta":
        told.pieces += 1;
        told.reasoning += part.text;
        break;
      case "tool-call":
        told.calls.push([part.toolName, part.input]);
        break;
      case "finish":
        told.finish = part.finishReason;
        told.usage = [part.totalUsage.inputTokens, part.totalUsage.outputTokens];
        break;
      case "error":
        throw part.error;
    }
  }
  return told;
}

const quiet = { onError() {} };

const client = {
  // A timeout of its own ends the call.
  asksAgainByItself: false,
  // It goes by the status alone.
  mindsShouldRetry: false,

  async plain(at, prompt, options) {
    const { text, finishReason: finish, usage } = await generateText(asked(at, prompt, options));
    return { text, finish, usage: [usage.inputTokens, usage.outputTokens] };
  },

  stream: (at, prompt, options) => pieces(streamText({ ...asked(at, prompt, options), ...quiet })),

  rich(at, prompt) {
    const weather = tool({ description: TOOL.description, inputSchema: z.object({ city: z.enum(["Bonn"]) }) });
    const providerOptions = { glm: { thinking: { type: "enabled" } } };
    return pieces(streamText({ ...asked(at, prompt), ...quiet, tools: { weather }, providerOptions }));
  },

  told: (error) => ({ error: error.name, status: error.statusCode, code: error.data?.error?.code ?? null }),
};

await kit.run(client, {
  async a_tool_is_run_and_its_result_goes_back() {
    const text = await same(async (at) => {
      const weather = tool({
        description: TOOL.description,
        inputSchema: z.object({ city: z.enum(["Bonn"]) }),
        execute: async () => "It rains.",
      });
      const told = await generateText({
        ...asked(at, "ai: how is the weather?"), tools: { weather }, stopWhen: stepCountIs(3) });
      assert.equal(told.steps.length, 2);
      return told.text;
    });
    assert.ok(text);
  },

  async embeddings_are_glms() {
    const embeddings = await same(async (at) =>
      (await embedMany({ model: atPlace(at).textEmbeddingModel("embedding-3"), values: ["one", "two"] })).embeddings);
    assert.equal(embeddings.length, 2);
  },

  async twenty_calls_at_once_are_served_one_by_one() {
    const all = await Promise.all(Array.from({ length: 20 }, (_, n) => client.plain(LANE, `ai at once ${n}`)));
    assert.ok(all.every(({ text }) => text));
  },
});
