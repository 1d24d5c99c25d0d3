"""OpenAI's SDK for Python."""

import asyncio
import io
import json

import openai

import kit
from kit import LANE, MODEL, OPERATOR, TOOL, equal, pieces_of, same, told_by, until


def options_of(at, timeout=None, retries=None):
    options = {"base_url": f"{at.root}/v1", "api_key": at.key}
    if timeout is not None:
        options["timeout"] = timeout
    if retries is not None:
        options["max_retries"] = retries
    return options


def at_place(at, **options):
    return openai.OpenAI(**options_of(at, **options))


def messages(prompt):
    return [{"role": "user", "content": prompt}]


class OpenAi(kit.Client):
    def plain(self, at, prompt, model=MODEL, **options):
        answer = at_place(at, **options).chat.completions.create(model=model, messages=messages(prompt))
        return told_by(answer)

    def stream(self, at, prompt, model=MODEL, **options):
        return pieces_of(at_place(at, **options).chat.completions.create(model=model, messages=messages(prompt), stream=True))

    def rich(self, at, prompt):
        return pieces_of(at_place(at).chat.completions.create(
            model=MODEL, messages=messages(prompt), stream=True, stream_options={"include_usage": True},
            tools=[TOOL], extra_body={"thinking": {"type": "enabled"}, "tool_stream": True}))


def the_helper_for_streams_reads_them():
    def ask(at):
        with at_place(at).chat.completions.stream(model=MODEL, messages=messages("openai helper")) as stream:
            return stream.get_final_completion().choices[0].message.content
    assert same(ask)


def the_async_client_is_served_as_well():
    async def ask():
        async with openai.AsyncOpenAI(**options_of(LANE)) as client:
            stream = await client.chat.completions.create(model=MODEL, messages=messages("openai async"), stream=True)
            return [piece async for piece in stream]
    assert len(asyncio.run(ask())) > 2


def the_headers_of_the_lane_are_readable():
    raw = at_place(LANE).chat.completions.with_raw_response.create(model=MODEL, messages=messages("openai headers"))
    for name in ("x-onelane-job", "x-onelane-wait-ms", "x-onelane-cost"):
        assert raw.headers.get(name), name
    equal(raw.headers["x-onelane-model"], MODEL)
    equal(raw.headers["x-onelane-attempts"], "1")


def whoever_asks_again_with_the_same_key_gets_the_same_answer():
    key, prompt = {"Idempotency-Key": "openai-key-1"}, "openai idempotent"
    def ask():
        return at_place(LANE).chat.completions.create(model=MODEL, messages=messages(prompt), extra_headers=key)
    first = ask()
    equal(ask().id, first.id)
    kit.equal_calls(prompt, 1)


def models_are_listed():
    client = at_place(LANE)
    assert MODEL in [model.id for model in client.models.list()]
    equal(client.models.retrieve(MODEL).id, MODEL)
    equal(kit.refusal(client.models.retrieve, "gpt-9").error, "NotFoundError")


def embeddings_are_glms():
    def ask(at):
        return at_place(at).embeddings.create(model="embedding-3", input=["one", "two"]).data
    equal(len(same(ask)), 2)


def responses_are_glms():
    def ask(at):
        answer = at_place(at).responses.create(model=MODEL, input="openai responses")
        return answer.output_text, answer.status, answer.usage.output_tokens
    text, status, _ = same(ask)
    assert text and status == "completed", (text, status)


def a_stream_of_a_response_is_glms():
    def ask(at):
        stream = at_place(at).responses.create(model=MODEL, input="openai stream of a response", stream=True)
        return [(event.type, getattr(event, "delta", None)) for event in stream]
    events = [kind for kind, _ in same(ask)]
    assert events[0] == "response.created" and events[-1] == "response.completed", events


def a_response_with_a_tool_is_glms():
    tool = {"type": "function", "strict": False, **TOOL["function"]}
    def ask(at):
        answer = at_place(at).responses.create(model=MODEL, input="openai tool", tools=[tool], reasoning={"effort": "high"})
        return [(item.type, getattr(item, "name", None), getattr(item, "arguments", None)) for item in answer.output]
    assert ("function_call", "weather") in [item[:2] for item in same(ask)]


def a_response_in_the_background_is_fetched_later():
    client = at_place(LANE)
    begun = client.responses.create(model=MODEL, input="openai background", background=True)
    assert begun.status in ("queued", "in_progress"), begun.status
    def ended():
        answer = client.responses.retrieve(begun.id)
        return answer if answer.status == "completed" else None
    answer = until("the response", ended)
    equal(answer.id, begun.id)
    assert answer.output_text


def a_file_of_chats_is_worked_off_as_a_batch():
    client = at_place(OPERATOR)
    lines = [{"custom_id": f"line-{n}", "method": "POST", "url": "/v1/chat/completions",
              "body": {"model": MODEL, "messages": messages(f"openai line {n}")}} for n in range(3)]
    content = "\n".join(map(json.dumps, lines)).encode()
    file = client.files.create(file=("chats.jsonl", io.BytesIO(content)), purpose="batch")
    equal(client.files.content(file.id).read(), content)
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    def ended():
        known = client.batches.retrieve(batch.id)
        return known if known.status == "completed" else None
    batch = until("the end of the batch", ended)
    equal((batch.request_counts.completed, batch.request_counts.failed), (3, 0))
    results = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    equal([result["custom_id"] for result in results], ["line-0", "line-1", "line-2"])
    assert all(result["response"]["body"]["choices"][0]["message"]["content"] for result in results)
    assert batch.id in [known.id for known in client.batches.list()]
    client.files.delete(file.id)
    equal(kit.refusal(client.files.retrieve, file.id).error, "NotFoundError")


def a_batch_that_is_no_longer_wanted_is_cancelled():
    kit.block(kit.CLOSED, kit.PATIENCE_S)
    client = at_place(OPERATOR)
    line = {"custom_id": "line-1", "method": "POST", "url": "/v1/chat/completions",
            "body": {"model": kit.CLOSED, "messages": messages("openai never sent")}}
    file = client.files.create(file=("one.jsonl", json.dumps(line).encode()), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    client.batches.cancel(batch.id)
    until("the end of the batch", lambda: client.batches.retrieve(batch.id).status == "cancelled")
    kit.equal_calls("openai never sent", 0)


checks = [
    the_helper_for_streams_reads_them,
    the_async_client_is_served_as_well,
    the_headers_of_the_lane_are_readable,
    whoever_asks_again_with_the_same_key_gets_the_same_answer,
    models_are_listed,
    embeddings_are_glms,
    responses_are_glms,
    a_stream_of_a_response_is_glms,
    a_response_with_a_tool_is_glms,
    a_response_in_the_background_is_fetched_later,
    a_file_of_chats_is_worked_off_as_a_batch,
    a_batch_that_is_no_longer_wanted_is_cancelled,
]
kit.run(OpenAi(), *checks)
