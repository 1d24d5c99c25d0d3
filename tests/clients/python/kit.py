"""What every client is checked for, and how a check is told.

A client of Python's is an object with the methods of `Client` that it has a way for; what both GLM and the lane can be
asked is asked of both, and must come to the same.
"""

import json
import os
import re
import sys
import threading
import time
import traceback
import urllib.request
from dataclasses import dataclass, field


def _stay_here(event, arguments):
    """No client may look anything up or reach anything beyond this machine."""
    if event == "socket.getaddrinfo" and arguments[0] not in ("127.0.0.1", "localhost", None):
        raise PermissionError(f"a client looks up {arguments[0]!r}")
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] != "127.0.0.1":
        raise PermissionError(f"a client connects to {arguments[1]!r}")


sys.addaudithook(_stay_here)

PLACES = json.loads(os.environ["CLIENT_PLACES"])
NAME = PLACES["client"]

MODEL = "glm-4.7"
# Lanes of their own, of one slot each.
BEHIND = "glm-4.6"
IMPATIENT = "glm-4.5-air"
CLOSED = "glm-4.5-x"

BEHIND_S = 20
# An SDK's timeout, and how long the lane is busy: by then the SDK has long asked again, and is far from giving up.
TIMEOUT_S = 3
BUSY_S = 5.5
PATIENCE_S = 60

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Bonn"]}},
            "required": ["city"],
        },
    },
}


@dataclass(frozen=True)
class Place:
    """Where a client goes, with which key."""

    root: str
    key: str


def _ask(url, body=None, token=None):
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers)
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        return json.load(answer)


def admin(path, body=None):
    """A call of the operator's to the lane."""
    return _ask(PLACES["lane"] + path, body, PLACES["admin"])


def new_key(**rights):
    """A client key of the lane."""
    return admin("/api/admin/glm/keys", {"name": NAME, **rights})["key"]


GLM = Place(PLACES["glm"], PLACES["glmKey"])
LANE = Place(PLACES["lane"], new_key())
OPERATOR = Place(PLACES["lane"], PLACES["admin"])
REFUSING = Place(PLACES["refusing"], PLACES["admin"])


def calls_of(prompt):
    """The calls with this prompt that reached GLM."""
    arrivals = _ask(f"{GLM.root}/__sim/stats?arrivals=100000")["arrivals"]
    return [arrival for arrival in arrivals if arrival["prompt"].startswith(prompt)]


def equal_calls(prompt, number):
    calls = calls_of(prompt)
    assert len(calls) == number, f"{len(calls)} calls reached GLM instead of {number}: {json.dumps(calls, indent=1)}"


def until(what, look):
    """Looks until there is something; what never comes is named."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come within {PATIENCE_S} s")


def block(model, seconds):
    """Keeps the lane of this model busy from now on."""
    prompt = f"[[sim latency_ms={seconds * 1000:.0f}]] others"
    job = admin("/api/glm/jobs", {"model": model, "prompt": prompt})["id"]
    until("the call of the others", lambda: admin(f"/api/glm/jobs/{job}")["status"] == "processing")


@dataclass
class Told:
    """What a client made of an answer."""

    text: str = ""
    reasoning: str = ""
    # Names with arguments.
    calls: list = field(default_factory=list)
    finish: str = ""
    # Prompt and completion.
    usage: tuple = ()
    # How many of them had something to tell.
    pieces: int = 0


def pieces_of(stream):
    """A stream of a chat, put together."""
    told, calls = Told(), {}
    for chunk in stream:
        if usage := getattr(chunk, "usage", None):
            told.usage = (usage.prompt_tokens, usage.completion_tokens)
        for choice in chunk.choices:
            told.pieces += 1
            told.text += choice.delta.content or ""
            told.reasoning += getattr(choice.delta, "reasoning_content", None) or ""
            told.finish = choice.finish_reason or told.finish
            for call in choice.delta.tool_calls or []:
                known = calls.setdefault(call.index, ["", ""])
                known[0] += call.function.name or ""
                known[1] += call.function.arguments or ""
    told.calls = [(name, json.loads(arguments)) for name, arguments in calls.values()]
    return told


def told_by(answer):
    """A chat that was answered at once."""
    choice, usage = answer.choices[0], answer.usage
    return Told(choice.message.content, finish=choice.finish_reason, usage=(usage.prompt_tokens, usage.completion_tokens))


@dataclass(frozen=True)
class Refused:
    """What a client made of a refusal."""

    error: str
    status: int | None
    code: str | None
    # With neither ids nor times in them.
    words: str = field(compare=False)


def refusal(ask, *words, **options):
    """The error that a call ends with."""
    try:
        ask(*words, **options)
    except Exception as error:
        status = getattr(error, "status_code", None)
        found = re.search(r"['\"]code['\"]: ?['\"]?(\d+)|\[(\d{4})\]", str(error))
        code = (found and (found[1] or found[2])) or getattr(error, "code", None)
        words = re.sub(r"[0-9a-zA-Z-]{24,}", "ID", str(error))
        return Refused(type(error).__name__, status, code, words)
    raise AssertionError("it was answered, not refused")


def equal(is_so, should_be):
    assert is_so == should_be, f"{is_so!r}\n  instead of {should_be!r}"


def same(ask):
    """Asks GLM and the lane the same; gives the answer, which is one."""
    of_glm = ask(GLM)
    equal(ask(LANE), of_glm)
    return of_glm


_told = threading.Lock()


def check(name, run):
    """Runs a check and tells how it ended."""
    began = time.monotonic()
    why = None
    try:
        run()
    except AssertionError as error:
        why = str(error) or traceback.format_exc()
    except BaseException:
        why = traceback.format_exc()
    with _told:
        if why is None:
            print(f"ok {name} ({time.monotonic() - began:.1f} s)", flush=True)
        else:
            print(f"FAILED {name}: {why}", flush=True)


class Client:
    """A client, as the checks want it."""

    shows_reasoning = True
    # Whether its errors have GLM's code.
    shows_codes = True

    def plain(self, at, prompt, model=MODEL, **options):
        """A chat that is answered at once. Options: `timeout` in seconds, `retries`."""
        raise NotImplementedError

    def stream(self, at, prompt, model=MODEL, **options):
        """The same in pieces."""
        raise NotImplementedError

    def rich(self, at, prompt):
        """A stream with thoughts, a tool and usage."""
        raise NotImplementedError


def run(client, *more):
    """The checks of every client and its own, those that wait beside the others."""
    def prompt(name):
        return f"{NAME} {name}: name one river"

    def a_plain_answer_is_glms():
        told = same(lambda at: client.plain(at, prompt("plain")))
        assert told.text and told.finish in ("stop", "end_turn"), told
        assert all(told.usage), told

    def a_stream_is_glms():
        told = same(lambda at: client.stream(at, prompt("stream")))
        assert told.text and told.pieces > 2, told

    def a_stream_with_thoughts_tools_and_usage_is_glms():
        told = same(lambda at: client.rich(at, prompt("rich")))
        equal(told.calls, [("weather", {"city": "Bonn"})])
        assert told.finish in ("tool_calls", "tool_use") and all(told.usage), told
        equal(bool(told.reasoning), client.shows_reasoning)

    def refused_as_by_glm(code, status):
        def refused():
            for name in ("plain", "stream"):
                words = f"{NAME} {name} is refused with {code}"
                ask = getattr(client, name)
                of_glm = refusal(ask, GLM, words, retries=0)
                of_lane = refusal(ask, REFUSING, words, retries=0)
                equal(of_glm.status, status)
                if client.shows_codes:
                    equal(of_glm.code, str(code))
                equal(of_lane, of_glm)
                equal(of_lane.words, of_glm.words)
        return refused

    def a_wrong_key_is_refused_as_by_glm():
        of_glm, of_lane = (refusal(client.plain, Place(at.root, "no-key.of-anybody"), prompt("wrong key"), retries=0)
                           for at in (GLM, LANE))
        equal(of_glm.status, 401)
        equal(of_lane, of_glm)

    def what_asking_again_would_not_mend_is_sent_once():
        words = f"{NAME} again is refused with 1234"
        equal(refusal(client.plain, REFUSING, words).status, 500)
        equal_calls(words, 1)

    def a_stream_that_is_cut_is_not_taken_for_whole():
        words = f"{NAME} is cut half way"
        refusal(client.stream, REFUSING, words, retries=0)
        equal_calls(words, 1)

    def a_key_that_glm_refuses_is_told_as_the_lanes_own_fault():
        words = f"{NAME} is refused with 1000"
        told = refusal(client.plain, REFUSING, words, retries=0)
        equal(told.status, 503)
        if client.shows_codes:
            equal(told.code, "1000")
        equal_calls(words, 1)

    def twenty_seconds_behind_others_it_is_served():
        block(BEHIND, BEHIND_S)
        began = time.monotonic()
        def waits(ask):
            assert ask(LANE, prompt("behind"), model=BEHIND).text
            waited = time.monotonic() - began
            assert waited > BEHIND_S - 2, f"it waited {waited:.1f} s"
        both([lambda: waits(client.plain), lambda: waits(client.stream)])
        equal_calls(prompt("behind"), 2)

    def a_timeout_shorter_than_the_queue_is_served_by_one_call():
        block(IMPATIENT, BUSY_S)
        began = time.monotonic()
        def waits(ask, words):
            assert ask(LANE, words, model=IMPATIENT, timeout=TIMEOUT_S).text
            waited = time.monotonic() - began
            assert waited > TIMEOUT_S, f"it waited {waited:.1f} s: its timeout was never met"
            equal_calls(words, 1)
        both([lambda: waits(client.plain, prompt("impatient plain")),
              lambda: waits(client.stream, prompt("impatient stream"))])

    def both(asks):
        """At once; the first that goes wrong is told."""
        wrong = []
        def one(ask):
            try:
                ask()
            except BaseException as error:
                wrong.append(error)
        threads = [threading.Thread(target=one, args=(ask,)) for ask in asks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if wrong:
            raise wrong[0]

    waiting = [twenty_seconds_behind_others_it_is_served, a_timeout_shorter_than_the_queue_is_served_by_one_call]
    aside = [threading.Thread(target=check, args=(wait.__name__, wait)) for wait in waiting]
    for thread in aside:
        thread.start()
    for one in (a_plain_answer_is_glms, a_stream_is_glms, a_stream_with_thoughts_tools_and_usage_is_glms,
                a_wrong_key_is_refused_as_by_glm):
        check(one.__name__, one)
    for code, status in ((1210, 400), (1302, 429), (1234, 500)):
        check(f"a_{status}_is_refused_as_by_glm", refused_as_by_glm(code, status))
    # The last one holds the lane.
    for one in (what_asking_again_would_not_mend_is_sent_once, a_stream_that_is_cut_is_not_taken_for_whole, *more,
                a_key_that_glm_refuses_is_told_as_the_lanes_own_fault):
        check(one.__name__, one)
    for thread in aside:
        thread.join()
