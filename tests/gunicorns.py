"""A real gunicorn for a test: its app writes down each request that reaches it, its load comes from threads."""

import contextlib
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from places import Place, free_port, need_root, until
from waiting import TIMEOUT_S

from epsagon_fast.backend import Backend

APP = '''
import asyncio, logging, os, signal, time
from epsagon_fast.integrations.logging import instrument

instrument()
log = logging.getLogger("webapp")
log.setLevel(logging.INFO)
handler = logging.FileHandler(os.environ["REACHED"])
handler.setFormatter(logging.Formatter("%(message)s %(trace_id)s %(http_trace_id)s"))
log.addHandler(handler)

def reached(path):
    log.info("%s", path)

def block(path):
    """Do what the path asks for: nothing, or what keeps a worker from answering."""
    what = path.split("/")[1]
    if what == "sleep":
        time.sleep(60)
    elif what == "spin":
        while True:
            pass
    elif what == "deaf":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGABRT})
        time.sleep(60)
    elif what == "slow":
        time.sleep(0.1)

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/pid":
        body = f"{os.getpid()} {os.getuid()}".encode()
    else:
        reached(path)
        block(path)
        body = b"done"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]

async def aapp(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    path = scope["path"]
    body = b"done"
    if path == "/pid":
        body = f"{os.getpid()} {os.getuid()}".encode()
    else:
        reached(path)
    if path.startswith("/slow/"):
        await asyncio.sleep(0.1)
    elif path != "/pid":
        block(path)
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
'''
CONF = "python:epsagon_fast.integrations.gunicorn"
# A worker class and the options that make sense with it.
WORKERS: dict[str, Sequence[str]] = {
    "sync": ("-k", "sync"),
    "gthread": ("-k", "gthread", "--threads", "4"),
    "gevent": ("-k", "gevent"),
    "uvicorn": ("-k", "uvicorn_worker.UvicornWorker"),
    "asgi": ("-k", "asgi"),
}
ASGI = ("uvicorn", "asgi")
# Between two requests of one client.
PAUSE_S = 0.005


class Gunicorn:
    """One master with its workers, on a port of its own. `close` ends what is left of it."""

    def __init__(self, place: Place, kind: str, *options: str, wrapper: Sequence[str] = (), port: int = 0) -> None:
        """`wrapper`: a command that runs another one; where it forks, the master is its child."""
        self.place = place
        self.port = port or free_port()
        self._reached = place.scratch / "reached"
        self._log = place.scratch / "gunicorn.log"
        self._reached.touch()
        # As another user than this one a worker writes there too.
        os.chmod(place.scratch, 0o777)
        os.chmod(self._reached, 0o666)
        (place.scratch / "webapp.py").write_text(APP)
        if wrapper:
            need_root()
        words = [*wrapper, sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{self.port}", "-c", CONF, "-w", "2"]
        # A worker that is being made when the master ends never hears of it, and is killed after this time.
        words += ["--graceful-timeout", "10"]
        words += ["--no-control-socket", "--log-level", "debug", "--log-file", str(self._log), *WORKERS[kind], *options]
        words.append("webapp:aapp" if kind in ASGI else "webapp:app")
        env = {**place.env, "REACHED": str(self._reached), "EPSAGON_ENDPOINTS_TO_IGNORE": "/pid"}
        self.process = subprocess.Popen(words, env=env, cwd=place.scratch, stderr=subprocess.STDOUT, stdout=self._out())
        self._forks = "--fork" in wrapper
        self._count = int(options[options.index("-w") + 1]) if "-w" in options else 2

    def _out(self) -> Any:
        self._printed = open(self.place.scratch / "printed", "w+")  # noqa: SIM115 - closed by `close`
        return self._printed

    def __enter__(self) -> "Gunicorn":
        self.until_serving()
        return self

    def __exit__(self, *_: object) -> None:
        # The master is among them, and first: it would start new workers.
        for pid in [self.process.pid, *self.pids()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(TIMEOUT_S)
        self._printed.close()

    def until_serving(self) -> None:
        """Wait until every worker answers: one that is being made loses the signals that it gets."""
        answered: set[int] = set()

        def all_answer() -> bool:
            assert self.process.poll() is None, self.log()
            with contextlib.suppress(OSError, http.client.HTTPException):
                answered.add(int(fetch(self.port, "/pid")[1].split()[0]))
            workers = self.workers()
            return len(workers) == self._count and {namespace_pid(pid) for pid in workers} <= answered

        until(all_answer, lambda: f"all workers answer\n{self.log()}", TIMEOUT_S)

    @property
    def master(self) -> int:
        """The arbiter's pid as seen from here, also if another program started it."""
        if not self._forks:
            return self.process.pid
        return until(lambda: children_of(self.process.pid), "the wrapper has a child")[0]

    def workers(self) -> list[int]:
        """The pids of the master's children."""
        return [pid for pid in children_of(self.master) if not self.place.is_collector(pid)]

    def pids(self) -> list[int]:
        """All processes that were started with this server's settings, the collector apart."""
        mine = f"REACHED={self._reached}\0".encode()
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if mine in pathlib.Path(f"/proc/{pid}/environ").read_bytes():
                    found.append(int(pid))
        return found

    def tell(self, number: signal.Signals) -> None:
        """Send the master a signal."""
        os.kill(self.master, number)

    def leave(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask the master to end, and wait until it has, with all of its workers."""
        self.tell(number)
        try:
            code = self.process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the master does not end\n{self.log()}") from None
        assert code == 0, self.log()
        until(lambda: not self.pids(), lambda: f"no process is left: {self.pids()}")

    def log(self) -> str:
        """What gunicorn and its workers logged and printed."""
        log = self._log.read_text() if self._log.exists() else ""
        return log + (self.place.scratch / "printed").read_text()

    def reached(self) -> Counter[str]:
        """The paths of all requests that reached the application."""
        return Counter(path for path, *_ in self.logged())

    def logged(self) -> list[list[str]]:
        """What the application logged of each request: its path, the trace's id, the id that its traces share."""
        return [line.split(" ") for line in self._reached.read_text().splitlines()]


class Load:
    """Requests from several threads, each with a path of its own, until the `with` ends or `count` were sent."""

    def __init__(self, port: int, kind: str = "r", threads: int = 4, count: int = 1_000_000) -> None:
        self._port = port
        self._kind = kind
        self._numbers = iter(range(count))
        self._numbering = threading.Lock()
        self._stop = threading.Event()
        self.answers: list[int] = []
        self._threads = [threading.Thread(target=self._ask) for _ in range(threads)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self.join()

    def join(self) -> None:
        """Wait until all requests are answered."""
        for thread in self._threads:
            thread.join(TIMEOUT_S)
            assert not thread.is_alive(), "a request hangs"

    def more(self, count: int) -> None:
        """Wait until so many more requests were answered."""
        aim = len(self.answers) + count
        until(lambda: len(self.answers) >= aim, lambda: f"answers come: {len(self.answers)} of {aim}", TIMEOUT_S)

    def _ask(self) -> None:
        while not self._stop.is_set():
            with self._numbering:
                number = next(self._numbers, None)
            if number is None:
                return
            # A server that goes away or comes up answers not all.
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.answers.append(fetch(self._port, f"/{self._kind}/{number}")[0])
            # As fast as they can, the clients would leave no processor to the collector, and full queues refuse.
            self._stop.wait(PAUSE_S)


def fetch(port: int, path: str, timeout_s: float = TIMEOUT_S) -> tuple[int, bytes]:
    """Return status and body of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", path, headers={"traceparent": f"00-{uuid.uuid4().hex}-00f067aa0ba902b7-01"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def send_only(port: int, path: str) -> socket.socket:
    """Send a request whose answer nobody waits for yet."""
    client = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    return client


def children_of(pid: int) -> list[int]:
    """Return the pids of a process's children, none if it is gone."""
    with contextlib.suppress(OSError):
        return [*map(int, pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    return []


def namespace_pid(pid: int) -> int:
    """Return the pid that a process has in its own namespace, 0 if it is gone."""
    with contextlib.suppress(OSError):
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[-1]) for line in lines if line.startswith("NSpid:"))
    return 0


def connects(port: int) -> bool:
    """Say whether somebody listens."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def runners(backend: Backend) -> Iterator[dict[str, Any]]:
    """Yield the runner of each trace that arrived."""
    for _, body in backend.store.bodies():
        yield json.loads(body)["events"][-1]


def path_of(runner: dict[str, Any]) -> str:
    """Return the path of a request's trace."""
    return str(runner["resource"]["metadata"]["path"])


def shared_id(runner: dict[str, Any], trace_id: str) -> str:
    """Return the id that a request's trace shares with its caller's: its own if the caller named none."""
    return str(runner["resource"]["metadata"].get("http_trace_id", trace_id))


def all_arrive(server: Gunicorn, backend: Backend, collector_lived: bool = True) -> None:
    """Hold that each request that reached the application is one trace, no more and no less.

    A collector that dies between the backend's answer and its own note of it leaves a trace that is sent twice.
    """
    wanted = server.reached()
    until(
        lambda: backend.store.counts()["traces"] >= wanted.total(),
        lambda: f"{wanted.total()} traces: {backend.store.counts()}, {seen(server.place)}\n{server.log()[-2000:]}",
    )
    arrived = [(json.loads(body)["events"][-1], trace_id) for trace_id, body in backend.store.bodies()]
    assert sorted(server.logged()) == sorted([path_of(runner), id_, shared_id(runner, id_)] for runner, id_ in arrived)
    assert backend.store.counts()["duplicates"] == 0 or not collector_lived


def seen(place: Place) -> str:
    """Return what the collector counted and said."""
    try:
        look = place.look()
    except OSError as error:
        return str(error)
    return f"{look.counters} {look.gauges}\n{place.log()}"
