// What every client of Node's is checked for, as python/kit.py has it for those of Python's.

import assert from "node:assert/strict";
import net from "node:net";

// No client may reach anything beyond this machine.
const hostOf = ([first, second]) => {
  if (Array.isArray(first)) return hostOf(first);
  return typeof first === "object" ? first.host : second;
};
const connect = net.Socket.prototype.connect;
net.Socket.prototype.connect = function (...words) {
  const host = hostOf(words);
  if (host !== "127.0.0.1") throw new Error(`a client connects to ${host}`);
  return connect.apply(this, words);
};

const PLACES = JSON.parse(process.env.CLIENT_PLACES);
export const NAME = PLACES.client;

export const MODEL = "glm-4.7";
// Lanes of their own, of one slot each.
const BEHIND = "glm-4.6";
const IMPATIENT = "glm-4.5-air";

const BEHIND_S = 20;
// An SDK's timeout, and how long the lane is busy: by then the SDK has long asked again, and is far from giving up.
const TIMEOUT_S = 3;
const BUSY_S = 5.5;
const PATIENCE_S = 60;

export const TOOL = {
  name: "weather",
  description: "The weather of a city.",
  parameters: {
    type: "object",
    properties: { city: { type: "string", enum: ["Bonn"] } },
    required: ["city"],
  },
};

async function ask(url, { body, token } = {}) {
  const headers = { "content-type": "application/json" };
  if (token) headers.authorization = `Bearer ${token}`;
  const method = body ? "POST" : "GET";
  const answer = await fetch(url, { method, headers, body: body && JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${url}: ${answer.status} ${await answer.text()}`);
  return answer.json();
}

// A call of the operator's to the lane.
const admin = (path, body) => ask(PLACES.lane + path, { body, token: PLACES.admin });

const made = await admin("/api/admin/glm/keys", { name: NAME });
export const GLM = { root: PLACES.glm, key: PLACES.glmKey };
export const LANE = { root: PLACES.lane, key: made.key };
export const OPERATOR = { root: PLACES.lane, key: PLACES.admin };
const REFUSING = { root: PLACES.refusing, key: PLACES.admin };

// That so many calls with this prompt reached GLM.
export async function equalCalls(prompt, number) {
  const { arrivals } = await ask(`${GLM.root}/__sim/stats?arrivals=100000`);
  const calls = arrivals.filter((arrival) => arrival.prompt.startsWith(prompt));
  assert.equal(calls.length, number, `${calls.length} calls reached GLM instead of ${number}: ${JSON.stringify(calls)}`);
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Looks until there is something; what never comes is named.
export async function until(what, look) {
  const end = Date.now() + PATIENCE_S * 1000;
  while (Date.now() < end) {
    const found = await look();
    if (found) return found;
    await sleep(50);
  }
  throw new Error(`${what} did not come within ${PATIENCE_S} s`);
}

// Keeps the lane of this model busy from now on.
async function block(model, seconds) {
  const { id } = await admin("/api/glm/jobs", { model, prompt: `[[sim latency_ms=${seconds * 1000}]] others` });
  await until("the call of the others", async () => (await admin(`/api/glm/jobs/${id}`)).status === "processing");
}

// Asks GLM and the lane the same; gives the answer, which is one.
export async function same(asked) {
  const ofGlm = await asked(GLM);
  assert.deepEqual(await asked(LANE), ofGlm);
  return ofGlm;
}

// The error that a call ends with, as the client words it: by `told`, which gives its class, status and code.
export async function refusal(client, asked) {
  try {
    await asked();
  } catch (error) {
    return client.told(error);
  }
  throw new Error("it was answered, not refused");
}

async function check(name, run) {
  const began = Date.now();
  try {
    await run();
    console.log(`ok ${name} (${((Date.now() - began) / 1000).toFixed(1)} s)`);
  } catch (error) {
    console.log(`FAILED ${name}: ${error.stack ?? error}`);
  }
}

// The checks of every client and its own. A client has `plain`, `stream` and `rich`, which give what they made of an
// answer, and `told`, what it made of a refusal.
export async function run(client, more) {
  const prompt = (name) => `${NAME} ${name}: name one river`;
  const checks = {
    async a_plain_answer_is_glms() {
      const told = await same((at) => client.plain(at, prompt("plain")));
      assert.ok(told.text && told.finish === "stop" && told.usage.every(Boolean), JSON.stringify(told));
    },
    async a_stream_is_glms() {
      const told = await same((at) => client.stream(at, prompt("stream")));
      assert.ok(told.text && told.pieces > 2, JSON.stringify(told));
    },
    async a_stream_with_thoughts_tools_and_usage_is_glms() {
      const told = await same((at) => client.rich(at, prompt("rich")));
      assert.deepEqual(told.calls, [["weather", { city: "Bonn" }]]);
      assert.ok(["tool_calls", "tool-calls"].includes(told.finish), told.finish);
      assert.ok(told.usage.every(Boolean) && told.reasoning, JSON.stringify(told));
    },
    async a_wrong_key_is_refused_as_by_glm() {
      const asked = (at) => () => client.plain({ ...at, key: "no-key.of-anybody" }, prompt("wrong key"), { retries: 0 });
      const ofGlm = await refusal(client, asked(GLM));
      assert.equal(ofGlm.status, 401);
      assert.deepEqual(await refusal(client, asked(LANE)), ofGlm);
    },
  };
  for (const [code, status] of [["1210", 400], ["1302", 429], ["1234", 500]]) {
    checks[`a_${status}_is_refused_as_by_glm`] = async () => {
      for (const name of ["plain", "stream"]) {
        const asked = (at) => () => client[name](at, `${NAME} ${name} is refused with ${code}`, { retries: 0 });
        const ofGlm = await refusal(client, asked(GLM));
        assert.deepEqual([ofGlm.status, ofGlm.code], [status, code]);
        assert.deepEqual(await refusal(client, asked(REFUSING)), ofGlm);
      }
    };
  }
  if (client.mindsShouldRetry) {
    checks.what_asking_again_would_not_mend_is_sent_once = async () => {
      const words = `${NAME} again is refused with 1234`;
      assert.equal((await refusal(client, () => client.plain(REFUSING, words))).status, 500);
      await equalCalls(words, 1);
    };
  }

  checks.a_stream_that_is_cut_is_not_taken_for_whole = async () => {
    const words = `${NAME} is cut half way`;
    await refusal(client, () => client.stream(REFUSING, words, { retries: 0 }));
    await equalCalls(words, 1);
  };

  const waiting = {
    async twenty_seconds_behind_others_it_is_served() {
      await block(BEHIND, BEHIND_S);
      const began = Date.now();
      const waits = async (name) => {
        const words = `${prompt("behind")} ${name}`;
        assert.ok((await client[name](LANE, words, { model: BEHIND })).text);
        const waited = (Date.now() - began) / 1000;
        assert.ok(waited > BEHIND_S - 2, `it waited ${waited} s`);
        await equalCalls(words, 1);
      };
      await Promise.all([waits("plain"), waits("stream")]);
    },
  };
  if (client.asksAgainByItself) {
    waiting.a_timeout_shorter_than_the_queue_is_served_by_one_call = async () => {
      await block(IMPATIENT, BUSY_S);
      const began = Date.now();
      const waits = async (name) => {
        const words = `${prompt("impatient")} ${name}`;
        assert.ok((await client[name](LANE, words, { model: IMPATIENT, timeout: TIMEOUT_S })).text);
        const waited = (Date.now() - began) / 1000;
        assert.ok(waited > TIMEOUT_S, `it waited ${waited} s: its timeout was never met`);
        await equalCalls(words, 1);
      };
      await Promise.all([waits("plain"), waits("stream")]);
    };
  }

  const aside = Object.entries(waiting).map(([name, one]) => check(name, one));
  for (const [name, one] of Object.entries({ ...checks, ...more })) {
    await check(name, one);
  }
  // Its lane is held from then on.
  await check("a_key_that_glm_refuses_is_told_as_the_lanes_own_fault", async () => {
    const words = `${NAME} is refused with 1000`;
    const told = await refusal(client, () => client.plain(REFUSING, words, { retries: 0 }));
    assert.deepEqual([told.status, told.code], [503, "1000"]);
    await equalCalls(words, 1);
  });
  await Promise.all(aside);
}
