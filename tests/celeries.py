"""celery for tests: a broker, an application whose tasks write down each of their runs, and workers of every kind."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import redis
from celery import Celery
from places import Place, free_port, until
from waiting import TIMEOUT_S

from epsagon_fast.backend import Backend

SHOP = """
import json, logging, os, signal, time
from types import SimpleNamespace
from celery import Celery
from celery.signals import worker_ready
from celery.worker import control
import epsagon_fast as epsagon
from epsagon_fast.integrations import logging as logs
from epsagon_fast.integrations.celery import instrument

app = Celery("shop", include=["shop"])
if "late" not in os.environ.get("INSTRUMENT", ""):
    instrument(app)

class Runs(logging.Handler):
    def emit(self, record):
        # One write, so a line is whole even if the process is killed next.
        line = json.dumps({**record.msg, "trace": record.trace_id})
        fd = os.open(os.environ["RUNS"], os.O_WRONLY | os.O_APPEND)
        os.write(fd, line.encode() + b"\\n")
        os.close(fd)

logs.instrument()
log = logging.getLogger("runs")
log.setLevel(logging.INFO)
log.propagate = False
log.addHandler(Runs())

def ran(task):
    log.info({"task": task.request.id, "retries": task.request.retries})

@app.task(bind=True)
def add(self, *numbers):
    ran(self)
    return sum(map(int, numbers))

@app.task(bind=True)
def total(self, numbers):
    ran(self)
    return sum(numbers)

@app.task(bind=True)
def fails(self):
    ran(self)
    raise KeyError("missing")

@app.task(bind=True, max_retries=2)
def flaky(self):
    ran(self)
    raise self.retry(exc=ConnectionError("no answer"), countdown=0)

@app.task(bind=True)
def outer(self):
    ran(self)
    with epsagon.event("inside"):
        add.delay(1, 2)

@app.task(bind=True)
def slow(self, seconds):
    ran(self)
    time.sleep(seconds)

@app.task(bind=True, acks_late=True, reject_on_worker_lost=True)
def dies_once(self):
    ran(self)
    if len(open(os.environ["RUNS"]).readlines()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)

@app.task(bind=True)
def deaf(self, seconds):
    # As a library written in C may be.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    ran(self)
    time.sleep(seconds)

@worker_ready.connect
def listen(sender, **_):
    def revoke(*_):
        task, terminate = json.load(open("revoke"))
        control.revoke(SimpleNamespace(consumer=sender, tset=set), [task], terminate=terminate)
    signal.signal(signal.SIGUSR2, revoke)

if "late" in os.environ.get("INSTRUMENT", ""):
    instrument(app)
"""
EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
# How many tasks each pool runs; `make soak` asks for more.
TASKS = int(os.environ.get("EPSAGON_TEST_TASKS", "12"))
START_TIMEOUT_S = 10.0


@contextmanager
def broker() -> Iterator[dict[str, Any]]:
    """Yield the part of celery's configuration that leads to a broker of its own: a Redis, or files on a laptop."""
    directory = tempfile.mkdtemp(prefix="epsagon-broker-")
    program = shutil.which("redis-server")
    try:
        if program is None:
            assert not os.environ.get("CI"), "redis-server is not installed"
            yield _files(pathlib.Path(directory))
        else:
            with _redis(program, directory) as url:
                yield {"broker_url": url, "result_backend": url}
    finally:
        shutil.rmtree(directory)


def _files(directory: pathlib.Path) -> dict[str, Any]:
    for name in ("messages", "control", "results"):
        (directory / name).mkdir()
    options = {
        "data_folder_in": str(directory / "messages"),
        "data_folder_out": str(directory / "messages"),
        "control_folder": str(directory / "control"),
        "polling_interval": 0.1,
    }
    return {
        "broker_url": "filesystem://",
        "broker_transport_options": options,
        "result_backend": f"file://{directory / 'results'}",
    }


@contextmanager
def _redis(program: str, directory: str) -> Iterator[str]:
    port = free_port()
    words = ["--bind", "127.0.0.1", "--port", str(port), "--dir", directory, "--save", "", "--appendonly", "no"]
    server = subprocess.Popen([program, *words], stdout=subprocess.DEVNULL)
    try:
        until(lambda: _answers(port), "Redis serves", START_TIMEOUT_S)
        assert server.poll() is None, "another program took the port"
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.kill()
        server.wait()


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"PING\r\n")
        return client.recv(7) == b"+PONG\r\n"
    return False


class Shop:
    """The application in one test's place, with a queue of its own, and its workers."""

    def __init__(self, place: Place, backend: Backend, conf: dict[str, Any]) -> None:
        self.place = place
        self.backend = backend
        self.queue = place.scratch.name
        (place.scratch / "shop.py").write_text(SHOP)
        self._runs = place.scratch / "runs"
        self._runs.touch()
        path = os.pathsep.join(filter(None, [str(place.scratch), place.env.get("PYTHONPATH")]))
        place.env.update(RUNS=str(self._runs), PYTHONPATH=path, BROKER_URL=conf["broker_url"])
        # Where every application looks that was told nothing else.
        place.env["CELERY_CONFIG_MODULE"] = "shopconfig"
        # Sends without being traced.
        self.app = Celery("outside", set_as_current=False)
        if conf["broker_url"].startswith("redis"):
            self._redis = redis.Redis.from_url(conf["broker_url"])
            self._redis.flushall()
        self._conf: dict[str, Any] = {}
        self.configure({**conf, "task_default_queue": self.queue})

    def configure(self, more: dict[str, Any]) -> None:
        """Add to celery's configuration, before a worker starts."""
        self._conf.update(more)
        self.app.conf.update(more)
        text = "".join(f"{name} = {value!r}\n" for name, value in self._conf.items())
        (self.place.scratch / "shopconfig.py").write_text(text)

    @property
    def is_on_files(self) -> bool:
        """Whether there is no Redis, as on a laptop."""
        return str(self._conf["broker_url"]).startswith("filesystem")

    def close(self) -> None:
        """Let go of the broker."""
        if not self.is_on_files:
            self._redis.close()

    def copy_example(self, name: str) -> None:
        """Put a program of examples/ where the worker finds it."""
        shutil.copy(EXAMPLES / name, self.place.scratch)

    def send(self, task: str, *arguments: Any, **options: Any) -> str:
        """Send a task from outside any trace; returns its id."""
        return str(self.app.send_task(f"shop.{task}", arguments, **options).id)

    def revoke(self, task: str, worker: "Worker", *, terminate: bool = False) -> None:
        """Revoke a task that the worker has received, and wait until the worker knows."""
        if self.is_on_files:
            # This broker brings no commands, so the worker is told in a way of its own.
            (self.place.scratch / "revoke").write_text(json.dumps([task, terminate]))
            worker.process.send_signal(signal.SIGUSR2)
        else:
            self.app.control.revoke(task, terminate=terminate)
        until(
            lambda: f"{'Terminating' if terminate else 'Tasks flagged as revoked:'} {task}" in worker.output(),
            worker.output,
        )

    @contextmanager
    def worker(self, *words: str, app: str = "shop") -> Iterator["Worker"]:
        """Start a worker; at the end none of its processes is left."""
        worker = Worker(self.place, app, words)
        try:
            yield worker
        finally:
            worker.close()

    def runs(self) -> list[dict[str, Any]]:
        """What the tasks wrote down about their runs."""
        return [json.loads(line) for line in self._runs.read_text().splitlines()]

    def traces(self) -> list[dict[str, Any]]:
        """The traces that have arrived."""
        return [json.loads(body) for _, body in self.backend.store.bodies()]

    def runners(self) -> list[dict[str, Any]]:
        """The runners of the shop's own tasks."""
        last = [trace["events"][-1] for trace in self.traces()]
        return [runner for runner in last if runner["resource"]["name"].startswith("shop.")]

    def until_ran(self, count: int, worker: "Worker") -> None:
        """Wait until so many runs have begun, and the worker has acknowledged them.

        When it is told to end it drops tasks of which it has not heard yet that a child took them, and that child waits
        30 seconds for an answer.
        """
        until(
            lambda: len(self.runs()) >= count and (self.is_on_files or not self._redis.hlen("unacked")),
            lambda: f"{len(self.runs())}/{count} ran: {worker.output()}",
            TIMEOUT_S,
        )

    def until_arrived(self, count: int) -> list[dict[str, Any]]:
        """Wait until so many runners have arrived and return them."""
        until(
            lambda: len(self.runners()) >= count,
            lambda: f"{len(self.runners())}/{count} arrive; {self.place.log()}",
            TIMEOUT_S,
        )
        return self.runners()

    def check(self) -> list[dict[str, Any]]:
        """Check that each run that was written down is one trace that arrived, once, and no other did."""
        ran = Counter(run["trace"] for run in self.runs())
        arrived = Counter(runner["id"] for runner in self.until_arrived(len(ran)))
        assert set(ran.values()) == {1}, "two runs in one trace"
        assert arrived == ran
        return self.runners()


class Worker:
    """One `celery worker` with the processes that it starts."""

    def __init__(self, place: Place, app: str, words: tuple[str, ...]) -> None:
        self._log = place.scratch / "worker.log"
        command = [sys.executable, "-m", "celery", "-A", app, "worker", "-l", "INFO", "--without-mingle", *words]
        with self._log.open("a") as log:
            # A session of its own, by which its children are found.
            self.process = subprocess.Popen(
                command, env=place.env, cwd=place.scratch, stdout=log, stderr=log, start_new_session=True
            )

    def output(self) -> str:
        """What it and its children printed."""
        return self._log.read_text()

    def processes(self) -> list[int]:
        """The pids of the worker and its children."""
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._is_ours(pid)]

    def end(self, number: int = signal.SIGTERM, *, group: bool = False) -> int:
        """Signal the worker, or all its processes; wait until they are gone; return its exit code."""
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        code = until(lambda: [self.process.poll()] if self.process.poll() is not None else [], self.output, TIMEOUT_S)
        until(lambda: not self.processes(), lambda: f"{self.processes()} are left: {self.output()}", TIMEOUT_S)
        return int(code[0] or 0)

    def close(self) -> None:
        """End what is left of it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _is_ours(self, pid: int) -> bool:
        try:
            return os.getsid(pid) == self.process.pid and "Z" not in _state(pid)
        except (OSError, IndexError):
            return False


def _state(pid: int) -> str:
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
