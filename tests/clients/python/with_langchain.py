"""LangChain on OpenAI's SDK."""

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

import kit
from kit import LANE, MODEL, TOOL, Told, equal, same


def at_place(at, model=MODEL, timeout=None, retries=None, **options):
    if timeout is not None:
        options["timeout"] = timeout
    if retries is not None:
        options["max_retries"] = retries
    return ChatOpenAI(base_url=f"{at.root}/v1", api_key=at.key, model=model, **options)


def told_by(message, pieces=0):
    usage = message.usage_metadata
    return Told(
        message.text,
        calls=[(call["name"], call["args"]) for call in message.tool_calls],
        finish=message.response_metadata["finish_reason"],
        usage=(usage["input_tokens"], usage["output_tokens"]),
        pieces=pieces,
    )


def pieces_of(stream):
    whole, pieces = None, 0
    for piece in stream:
        whole = piece if whole is None else whole + piece
        pieces += 1
    return told_by(whole, pieces)


class LangChain(kit.Client):
    # It reads nothing but what OpenAI's own chats have.
    shows_reasoning = False

    def plain(self, at, prompt, model=MODEL, **options):
        return told_by(at_place(at, model, **options).invoke(prompt))

    def stream(self, at, prompt, model=MODEL, **options):
        return pieces_of(at_place(at, model, stream_usage=True, **options).stream(prompt))

    def rich(self, at, prompt):
        client = at_place(at, stream_usage=True, extra_body={"thinking": {"type": "enabled"}}).bind_tools([TOOL])
        return pieces_of(client.stream(prompt))


def a_tools_result_goes_back():
    def ask(at):
        client = at_place(at).bind_tools([TOOL])
        question = HumanMessage("langchain: how is the weather?")
        called = client.invoke([question])
        call = called.tool_calls[0]
        result = ToolMessage("It rains.", tool_call_id=call["id"])
        return client.invoke([question, called, result]).text
    assert same(ask)


def a_batch_of_prompts_is_served_one_by_one():
    answers = at_place(LANE).batch([f"langchain batch {n}" for n in range(5)])
    assert all(answer.text for answer in answers)


def embeddings_are_glms():
    def ask(at):
        # Its own way to count tokens would have to be fetched from elsewhere.
        embeddings = OpenAIEmbeddings(
            base_url=f"{at.root}/v1", api_key=at.key, model="embedding-3", check_embedding_ctx_length=False)
        return embeddings.embed_documents(["one", "two"])
    equal(len(same(ask)), 2)


checks = [a_tools_result_goes_back, a_batch_of_prompts_is_served_one_by_one, embeddings_are_glms]
kit.run(LangChain(), *checks)
