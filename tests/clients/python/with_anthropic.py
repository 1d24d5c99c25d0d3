"""Anthropic's SDK for Python."""

import anthropic

import kit
from kit import LANE, MODEL, TOOL, Told, equal, same

TOKENS = 2048


def at_place(at, timeout=None, retries=None):
    options = {}
    if timeout is not None:
        options["timeout"] = timeout
    if retries is not None:
        options["max_retries"] = retries
    return anthropic.Anthropic(base_url=at.root, api_key=at.key, **options)


def asked(prompt, model=MODEL):
    return {"model": model, "max_tokens": TOKENS, "messages": [{"role": "user", "content": prompt}]}


def told_by(message, pieces=0):
    told = Told(finish=message.stop_reason, usage=(message.usage.input_tokens, message.usage.output_tokens), pieces=pieces)
    for block in message.content:
        match block.type:
            case "text":
                told.text += block.text
            case "thinking":
                told.reasoning += block.thinking
            case "tool_use":
                told.calls.append((block.name, block.input))
    return told


class Anthropic(kit.Client):
    def plain(self, at, prompt, model=MODEL, **options):
        return told_by(at_place(at, **options).messages.create(**asked(prompt, model)))

    def stream(self, at, prompt, model=MODEL, **options):
        with at_place(at, **options).messages.stream(**asked(prompt, model)) as stream:
            pieces = sum(event.type == "content_block_delta" for event in stream)
            return told_by(stream.get_final_message(), pieces)

    def rich(self, at, prompt):
        function = TOOL["function"]
        tool = {"name": function["name"], "description": function["description"], "input_schema": function["parameters"]}
        thinking = {"type": "enabled", "budget_tokens": 1024}
        with at_place(at).messages.stream(**asked(prompt), tools=[tool], thinking=thinking) as stream:
            pieces = sum(event.type == "content_block_delta" for event in stream)
            return told_by(stream.get_final_message(), pieces)


def events_come_as_glm_sends_them():
    def ask(at):
        stream = at_place(at).messages.create(**asked("anthropic events"), stream=True)
        return [event.type for event in stream]
    events = same(ask)
    assert events[0] == "message_start" and events[-1] == "message_stop", events


def tokens_are_counted_without_a_call():
    client = at_place(LANE)
    words = "anthropic count: how many tokens have these words?"
    counted = client.messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": words}])
    assert 5 < counted.input_tokens < 50, counted
    kit.equal_calls(words, 0)


def a_bearer_token_opens():
    client = anthropic.Anthropic(base_url=LANE.root, auth_token=LANE.key, api_key=None)
    assert client.messages.create(**asked("anthropic bearer")).content[0].text


def models_are_listed():
    assert MODEL in [model.id for model in at_place(LANE).models.list()]
    equal(at_place(LANE).models.retrieve(MODEL).id, MODEL)


checks = [events_come_as_glm_sends_them, tokens_are_counted_without_a_call, a_bearer_token_opens, models_are_listed]
kit.run(Anthropic(), *checks)
