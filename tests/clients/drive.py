"""Starts what the clients talk to, runs them all at once, and counts what they checked.

usage: drive.py ONELANE TOOLS [CLIENT...]

A client prints a line for each of its checks, `ok NAME` or `FAILED NAME: why`. All of them share one simulator of GLM;
each has lanes of its own in front of it, since some checks stop a lane or keep it busy. Everything listens on 127.0.0.1 at
ports that are free, and is gone when this ends.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
GLM_KEY = "0123456789abcdef.of-the-lane"
ADMIN = "a-token-of-the-check-of-clients"
START_S = 60
CLIENT_S = 150

# By name: the environment that it runs in, and its script.
CLIENTS = {
    "openai": ("sdks", "python/with_openai.py"),
    "zai-sdk": ("sdks", "python/with_zai.py"),
    "zhipuai": ("zhipuai", "python/with_zhipuai.py"),
    "anthropic": ("sdks", "python/with_anthropic.py"),
    "litellm": ("litellm", "python/with_litellm.py"),
    "langchain-openai": ("sdks", "python/with_langchain.py"),
    "openai-node": ("node", "node/with_openai.mjs"),
    "ai-sdk": ("node", "node/with_ai.mjs"),
}

# Nothing of the caller's: no keys, no proxies. And nothing that SDKs would tell others, or ask them.
ENVIRONMENT = {
    "PATH": os.environ.get("PATH", os.defpath),
    "LANG": "C.UTF-8",
    "NO_PROXY": "*",
    "DO_NOT_TRACK": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LANGSMITH_TRACING": "false",
    "LANGCHAIN_TRACING_V2": "false",
}


class Started:
    """A server of onelane's that has said where it listens."""

    def __init__(self, work, name, command, **environment):
        self.name = name
        self.log = work / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=work,
                env={**ENVIRONMENT, "HOME": str(work), **environment},
            )

    def address(self, field):
        """What its first line says; a server that ends or stays silent is an error."""
        timer = threading.Timer(START_S, self.process.kill)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        if not line:
            raise SystemExit(f"{self.name} did not start: {self.log.read_text()}")
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        return json.loads(line)[field]

    def faults(self):
        """What went wrong with it."""
        told = [line for line in self.log.read_text().splitlines() if "panicked" in line]
        if self.process.poll() is not None:
            told.append(f"it ended with {self.process.returncode}")
        return told

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Counted:
    """The checks of all clients, told as they end."""

    def __init__(self):
        self.passed = 0
        self.failed = 0
        self.lock = threading.Lock()

    def tell(self, client, line):
        with self.lock:
            if line.startswith("ok "):
                self.passed += 1
                print(f"ok      {client:<16} {line[3:]}", flush=True)
            elif line.startswith("FAILED "):
                self.failed += 1
                print(f"FAILED  {client:<16} {line[7:]}", flush=True)
            else:
                print(f"        {client:<16} {line}", flush=True)


def command_of(tools, client):
    environment, script = CLIENTS[client]
    if environment == "node":
        # Modules are looked up beside the script: it runs where they are installed.
        return ["node", str(tools / "node" / Path(script).name)]
    return [str(tools / environment / "bin" / "python"), str(HERE / script)]


def run(client, tools, work, places, counted, running):
    """Runs a client to its end."""
    log = work / f"{client}.stderr"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command_of(tools, client),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=work,
            env={**ENVIRONMENT, "HOME": str(work), "CLIENT_PLACES": json.dumps(places)},
        )
    running.append(process)
    timer = threading.Timer(CLIENT_S, process.kill)
    timer.start()
    for line in process.stdout:
        counted.tell(client, line.rstrip("\n"))
    code = process.wait()
    timer.cancel()
    if code != 0:
        why = log.read_text(errors="replace")[-4000:]
        counted.tell(client, f"FAILED it_runs_to_its_end: it ended with {code}\n{why}")


def main(program, tools, only):
    unknown = set(only) - set(CLIENTS)
    if unknown:
        raise SystemExit(f"no such client: {', '.join(sorted(unknown))}; there are {', '.join(CLIENTS)}")
    clients = only or list(CLIENTS)
    servers, running, counted = [], [], Counted()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="onelane-clients-") as folder:
        work = Path(folder)

        def start(name, *words, **environment):
            started = Started(work, name, [program, "--json", *words], **environment)
            servers.append(started)
            return started

        try:
            glm = start("glm", "simulate", "--listen", "127.0.0.1:0", "--latency", "0ms", "--script", str(HERE / "glm.json"))
            base = glm.address("baseUrl")
            lanes = {}
            for client in clients:
                for config in ("lane", "refusing"):
                    lanes[client, config] = start(
                        f"{client}-{config}",
                        *("serve", "--config", str(HERE / f"{config}.toml"), "--listen", "127.0.0.1:0"),
                        *("--base-url", base, "--store", str(work / f"{client}-{config}.redb")),
                        ONELANE_API_KEY=GLM_KEY,
                        ONELANE_ADMIN_TOKEN=ADMIN,
                    )
            threads = []
            for client in clients:
                places = {
                    "client": client,
                    "glm": base.removesuffix("/api/paas/v4"),
                    "glmKey": GLM_KEY,
                    "lane": lanes[client, "lane"].address("listening"),
                    "refusing": lanes[client, "refusing"].address("listening"),
                    "admin": ADMIN,
                }
                thread = threading.Thread(target=run, args=(client, tools, work, places, counted, running))
                thread.start()
                threads.append(thread)
            for thread in threads:
                thread.join()
            for server in servers:
                for fault in server.faults():
                    counted.tell(server.name, f"FAILED it_serves_to_the_end: {fault}")
        finally:
            for process in running:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            for server in servers:
                server.stop()
    print(f"\n{len(clients)} clients in {time.monotonic() - began:.0f} s")
    print(f"{counted.passed} passed, {counted.failed} failed", flush=True)
    return 1 if counted.failed or not counted.passed else 0


def leave(number, _frame):
    # An exception, so that what was started is stopped.
    raise SystemExit(128 + number)


if __name__ == "__main__":
    for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(one, leave)
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
