"""Spans of the SDK where processes die and the backend is down: by us, and by the own exporter of the SDK beside us."""

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from places import descendants, free_port, times, until
from servers import Server
from spanning import Both
from waiting import TIMEOUT_S

WEB = """
import os, signal
from both import span, work

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path.startswith("/dies"):
        with span(path), span(path + " inner"):
            os.kill(os.getpid(), signal.SIGKILL)
    if path != "/":
        work(path)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
TASKS = """
from celery import Celery
from both import work

app = Celery("tasks")

@app.task
def run(name):
    work(name)
"""
ALONE = """
import sys
from both import provider, work
for number in range(int(sys.argv[1])):
    work(f"span {number}")
provider.shutdown()
"""


@pytest.fixture
def both() -> Iterator[Both]:
    with Server() as ours, Server() as sdk:
        scene = Both(ours, sdk)
        yield scene
        scene.place.close()


def all_arrive(both: Both) -> None:
    until(lambda: both.noted() <= both.arrived(), lambda: f"these arrive: {both.noted() - both.arrived()}")


def ask(port: int, path: str) -> bool:
    """Say whether the request was answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with suppress(OSError, http.client.HTTPException):
        connection.request("GET", path)
        return connection.getresponse().read() == b"ok"
    return False


def end(server: "subprocess.Popen[bytes]", said: Path) -> None:
    """Have a server and its processes end; if they do not, none is left, and faulthandler shows where each hangs."""
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(TIMEOUT_S)
    except subprocess.TimeoutExpired:
        for pid in (*descendants(server.pid), server.pid):
            os.kill(pid, signal.SIGABRT)
        server.wait(TIMEOUT_S)
        raise AssertionError(f"it does not end:\n{said.read_text()}") from None


def test_gunicorn_workers_that_are_killed(both: Both) -> None:
    (both.scratch / "web.py").write_text(WEB)
    port, kills = free_port(), times(40, 2)
    words = [sys.executable, "-m", "gunicorn", "--preload", "-w", "2", "-b", f"127.0.0.1:{port}", "--no-control-socket"]
    # A worker that is being made when the master ends never hears of it, and is killed after this time.
    words += ["--graceful-timeout", "10"]
    said = both.scratch / "said"
    with said.open("w") as out:
        server = subprocess.Popen([*words, "web:app"], env=both.place.env, cwd=both.scratch, stderr=out)
    try:
        until(lambda: ask(port, "/"), "gunicorn serves")
        for kill in range(kills):
            for number in range(10):
                assert ask(port, f"/{kill}/{number}")
            assert not ask(port, f"/dies/{kill}")
        all_but = {f"/dies/{kill} inner" for kill in range(kills)}
        until(lambda: both.noted() - all_but <= both.arrived(), lambda: f"{both.noted() - both.arrived()} arrive")
    finally:
        end(server, said)
    both.tell("gunicorn's workers, killed by SIGKILL in a request")


def test_children_of_celery_that_are_recycled(both: Both, broker: dict[str, Any]) -> None:
    (both.scratch / "tasks.py").write_text(TASKS)
    conf = {**broker, "task_default_queue": both.scratch.name}
    (both.scratch / "celeryconfig.py").write_text("".join(f"{name} = {value!r}\n" for name, value in conf.items()))
    words = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-c", "2", "--max-tasks-per-child", "3"]
    env = {**both.place.env, "CELERY_CONFIG_MODULE": "celeryconfig"}
    said = both.scratch / "said"
    with said.open("w") as out:
        worker = subprocess.Popen(words, env=env, cwd=both.scratch, stderr=out, stdout=out)
    sender = Celery("outside", set_as_current=False)
    sender.conf.update(conf)
    tasks = times(90, 12)
    try:
        for number in range(tasks):
            sender.send_task("tasks.run", [f"task {number}"])
        until(lambda: len(both.noted()) == 2 * tasks, lambda: f"{sorted(both.noted())} ran; {said.read_text()}")
    finally:
        end(worker, said)
        sender.close()
    all_arrive(both)
    both.tell("celery's children, recycled after three tasks")


def test_a_backend_that_is_down(both: Both) -> None:
    ports = both.ours.port, both.sdk.port
    both.ours.close()
    both.sdk.close()
    both.place.run(ALONE, str(times(1000, 20)))
    with Server(port=ports[0]) as both.ours, Server(port=ports[1]) as both.sdk:
        all_arrive(both)
    both.tell("the backend, down while a program runs and ends")
