"""GLM's own SDKs for Python: zai-sdk and its elder, zhipuai. They have the same words."""

import json

import kit
from kit import LANE, MODEL, OPERATOR, TOOL, equal, pieces_of, same, told_by, until


def messages(prompt):
    return [{"role": "user", "content": prompt}]


class Zhipu(kit.Client):
    def __init__(self, sdk):
        self.sdk = sdk

    def at_place(self, at, timeout=None, retries=None, **options):
        if timeout is not None:
            options["timeout"] = timeout
        if retries is not None:
            options["max_retries"] = retries
        return self.sdk(base_url=f"{at.root}/api/paas/v4", api_key=at.key, **options)

    def plain(self, at, prompt, model=MODEL, **options):
        answer = self.at_place(at, **options).chat.completions.create(model=model, messages=messages(prompt))
        return told_by(answer)

    def stream(self, at, prompt, model=MODEL, **options):
        client = self.at_place(at, **options)
        return pieces_of(client.chat.completions.create(model=model, messages=messages(prompt), stream=True))

    def rich(self, at, prompt):
        return pieces_of(self.at_place(at).chat.completions.create(
            model=MODEL, messages=messages(prompt), stream=True, tools=[TOOL], thinking={"type": "enabled"}))

    def a_signed_token_opens(self):
        """As the SDK does it by itself where the key is not to be sent: it signs with the secret."""
        at = kit.Place(LANE.root, kit.new_key(jwt=True))
        client = self.at_place(at, disable_token_cache=False)
        answer = client.chat.completions.create(model=MODEL, messages=messages(f"{kit.NAME} signed"))
        assert answer.choices[0].message.content

    def the_asynchronous_pair_is_glms(self):
        def ask(at):
            client = self.at_place(at)
            task = client.chat.asyncCompletions.create(model=MODEL, messages=messages(f"{kit.NAME} task"))
            assert task.id and task.request_id and task.task_status == "PROCESSING", task
            def ended():
                answer = client.chat.asyncCompletions.retrieve_completion_result(id=task.id)
                return answer if answer.task_status != "PROCESSING" else None
            answer = until("the task", ended)
            choice = answer.choices[0]
            return answer.task_status, choice.message.content, choice.finish_reason, answer.usage.total_tokens
        status, text, _, _ = same(ask)
        assert status == "SUCCESS" and text, (status, text)

    def a_task_that_nobody_knows_is_refused_as_by_glm(self):
        def ask(at):
            client = self.at_place(at, retries=0)
            told = kit.refusal(client.chat.asyncCompletions.retrieve_completion_result, id="nobody-knows-it")
            return told.error, told.status
        equal(same(ask)[1], 400)

    def embeddings_are_glms(self):
        def ask(at):
            answer = self.at_place(at).embeddings.create(model="embedding-3", input=["one", "two"])
            return [one.embedding for one in answer.data]
        equal(len(same(ask)), 2)

    def a_file_of_chats_is_worked_off_as_a_batch(self):
        client = self.at_place(OPERATOR)
        lines = [{"custom_id": f"line-{n}", "method": "POST", "url": "/v4/chat/completions",
                  "body": {"model": MODEL, "messages": messages(f"{kit.NAME} line {n}")}} for n in range(3)]
        content = "\n".join(map(json.dumps, lines)).encode()
        file = client.files.create(file=("chats.jsonl", content), purpose="batch")
        equal(client.files.content(file.id).content, content)
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v4/chat/completions", completion_window="24h", auto_delete_input_file=True)
        def ended():
            known = client.batches.retrieve(batch.id)
            return known if known.status == "completed" else None
        batch = until("the end of the batch", ended)
        equal((batch.request_counts.completed, batch.request_counts.failed), (3, 0))
        results = [json.loads(line) for line in client.files.content(batch.output_file_id).content.splitlines()]
        equal([result["custom_id"] for result in results], ["line-0", "line-1", "line-2"])
        assert batch.id in [known.id for known in client.batches.list(limit=10)]
        assert file.id not in [known.id for known in client.files.list().data], "it was to be deleted"


def run(sdk):
    client = Zhipu(sdk)
    checks = [
        client.a_signed_token_opens, client.the_asynchronous_pair_is_glms, client.a_task_that_nobody_knows_is_refused_as_by_glm,
        client.embeddings_are_glms, client.a_file_of_chats_is_worked_off_as_a_batch,
    ]
    kit.run(client, *checks)
