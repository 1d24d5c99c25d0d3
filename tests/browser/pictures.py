"""Takes the pictures of the desk that docs/desk.md shows, of a lane in the middle of its work.

usage: pictures.py ONELANE DIRECTORY
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from drive import ADMIN, Daemon, Desk

WIDTH, HEIGHT = 1280, 860
BYTES_MAX = 150_000
# Answers differ in length and some fail, as GLM's do; a pause and a busy hour would be others' pictures.
GLM = {
    "rules": [
        {"promptContains": "a word that is filtered", "fault": {"error": {"code": "1301"}}},
        {"promptContains": "a busy moment", "times": 2, "fault": {"error": {"code": "1302"}}},
    ],
    "latencyMs": {"min": 250, "max": 1800},
}
LANE = """
[lane]
max_concurrency = 2

[retry]
throttle_base_ms = 1000

[money.budgets.team]
amount = "20"
currency = "CNY"
"""
USERS = ("ada", "grace", "edsger")
MODELS = ("glm-4.7", "glm-5", "glm-4.7")


def job(n, prompt):
    user, model = USERS[n % 3], MODELS[n % 3]
    return {"prompt": prompt, "userId": user, "model": model, "priority": (0, 10, 0, -5)[n % 4]}


def main(program, directory):
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        (work / "glm.json").write_text(json.dumps(GLM))
        (work / "lane.toml").write_text(LANE)
        daemon = Daemon(program, work, work / "glm.json", work / "lane.toml")
        try:
            take(daemon, directory)
        finally:
            daemon.stop()


def take(daemon, directory):
    prompts = [f"Summarise report {n} in three sentences." for n in range(70)]
    prompts[5], prompts[9], prompts[14] = "Say a word that is filtered.", "Ask at a busy moment.", "Name one river."
    daemon.ask("POST", "/api/glm/jobs", [job(n, prompt) for n, prompt in enumerate(prompts)])
    end = time.monotonic() + 60
    while daemon.ask("GET", "/api/admin/glm/metrics")["jobs"]["completed"] < 24 and time.monotonic() < end:
        time.sleep(0.2)
    # A picture has no use for a scroll bar.
    desk = Desk(daemon.url, words=("--hide-scrollbars",))
    try:
        desk.driver.set_window_size(WIDTH, HEIGHT)
        desk.log_in(ADMIN)
        desk.until("the overview", lambda: desk.all("#line"))
        shoot(desk, directory / "overview.png")
        failed = daemon.ask("GET", "/api/glm/jobs?status=failed")["jobs"]
        ended = daemon.ask("GET", "/api/glm/jobs?status=completed")["jobs"]
        tried = [job for job in ended if job.get("throttles") or job["retryCount"]] or failed or ended
        desk.open(f"/desk/jobs/{tried[0]['id']}")
        shoot(desk, directory / "job.png")
        desk.open("/")
        desk.press("details:has(button[name=theme]) summary")
        desk.press("button[name=theme][value=dark]")
        desk.until("dark", lambda: desk.one("html").get_attribute("data-theme") == "dark")
        desk.open("/desk/jobs")
        shoot(desk, directory / "jobs-dark.png")
    finally:
        desk.close()


def shoot(desk, path):
    # What is drawn by scripts is there, and no menu is open.
    desk.until("the page", lambda: desk.driver.execute_script("return document.readyState") == "complete")
    time.sleep(0.5)
    picture = desk.driver.get_screenshot_as_png()
    assert len(picture) <= BYTES_MAX, f"{path.name} has {len(picture)} bytes"
    path.write_bytes(picture)
    print(f"{path}: {len(picture)} bytes")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
