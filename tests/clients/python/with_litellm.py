"""LiteLLM, by OpenAI's words, and by those that it has for GLM and for Anthropic."""

import asyncio

import litellm

import kit
from kit import LANE, MODEL, TOOL, equal, pieces_of, same, told_by

litellm.telemetry = False
litellm.suppress_debug_info = True


def options_of(at, timeout=None, retries=None):
    options = {"api_base": f"{at.root}/v1", "api_key": at.key}
    if timeout is not None:
        options["timeout"] = timeout
    if retries is not None:
        options["max_retries"] = retries
    return options


def asked(prompt, model=MODEL, provider="openai"):
    return {"model": f"{provider}/{model}", "messages": [{"role": "user", "content": prompt}]}


class LiteLlm(kit.Client):
    shows_codes = False

    def plain(self, at, prompt, model=MODEL, **options):
        return told_by(litellm.completion(**asked(prompt, model), **options_of(at, **options)))

    def stream(self, at, prompt, model=MODEL, **options):
        return pieces_of(litellm.completion(**asked(prompt, model), stream=True, **options_of(at, **options)))

    def rich(self, at, prompt):
        return pieces_of(litellm.completion(
            **asked(prompt), **options_of(at), stream=True, stream_options={"include_usage": True}, tools=[TOOL],
            extra_body={"thinking": {"type": "enabled"}}))


def its_words_for_glm_are_served():
    def ask(at):
        options = {**options_of(at), "api_base": f"{at.root}/api/paas/v4"}
        plain = told_by(litellm.completion(**asked("litellm zai", provider="zai"), **options))
        return plain, pieces_of(litellm.completion(**asked("litellm zai", provider="zai"), stream=True, **options))
    plain, stream = same(ask)
    equal(stream.text, plain.text)


def its_words_for_anthropic_are_served():
    def ask(at):
        options = {**options_of(at), "api_base": at.root}
        plain = told_by(litellm.completion(**asked("litellm anthropic", provider="anthropic"), **options))
        stream = pieces_of(litellm.completion(**asked("litellm anthropic", provider="anthropic"), stream=True, **options))
        return plain, stream
    plain, stream = same(ask)
    equal(stream.text, plain.text)


def the_async_call_is_served_as_well():
    answer = asyncio.run(litellm.acompletion(**asked("litellm async"), **options_of(LANE)))
    assert told_by(answer).text


def responses_are_glms():
    def ask(at):
        answer = litellm.responses(model=f"openai/{MODEL}", input="litellm responses", **options_of(at))
        return answer.output[-1].content[0].text, answer.status
    text, status = same(ask)
    assert text and status == "completed", (text, status)


def embeddings_are_glms():
    def ask(at):
        answer = litellm.embedding(model="openai/embedding-3", input=["one", "two"], **options_of(at))
        return [one["embedding"] for one in answer.data]
    equal(len(same(ask)), 2)


checks = [
    its_words_for_glm_are_served, its_words_for_anthropic_are_served, the_async_call_is_served_as_well,
    responses_are_glms, embeddings_are_glms,
]
kit.run(LiteLlm(), *checks)
