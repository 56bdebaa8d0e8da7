"""The servers whose answers are compared, and how each is started: `Serving` runs one on a port of its own.

They serve `wsgi` or `asgi` of served.py, with the middleware if `traced`. In `make test` run those that install fast;
`make servers` runs all, in an environment of its own.
"""

import os
import pathlib
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from gunicorns import connects
from places import Place, descendants, free_port, until
from waiting import TIMEOUT_S

HERE = pathlib.Path(__file__).parent
BINARIES = pathlib.Path(sys.executable).parent
# Set by `make servers`.
ALL = os.environ.get("EPSAGON_TEST_SERVERS") == "all"
Words = Callable[[int], list[object]]


class Server(NamedTuple):
    """One server: its name, what it takes ("wsgi" or "asgi"), the command for a port, whether `make test` runs it.

    unsteady: the paths at which it never answers, or now so and now so, whatever the application. reads_on: an
    application may read past the end of a request's body. notices: it tells the application that its client has left.
    """

    name: str
    interface: str
    words: Words
    is_fast: bool = False
    unsteady: tuple[str, ...] = ()
    reads_on: bool = False
    notices: bool = True

    def __str__(self) -> str:
        return f"{self.name}-{self.interface}"


def python(*words: object) -> list[object]:
    """Return the command of a program of this interpreter."""
    return [sys.executable, *words]


def gunicorn(kind: str, app: str = "wsgi") -> Words:
    """Return the command of gunicorn with one of its workers."""
    options = ("-w", "1", "-k", kind, "--no-control-socket", "--log-level", "error")
    return lambda port: python("-m", "gunicorn", "-b", f"127.0.0.1:{port}", *options, f"served:{app}")


def module(name: str, *words: str) -> Words:
    """Return the command of a server that is a module; ADDRESS and PORT stand for where it is to listen."""

    def command(port: int) -> list[object]:
        address = f"127.0.0.1:{port}"
        return python("-m", name, *(word.replace("ADDRESS", address).replace("PORT", str(port)) for word in words))

    return command


def granian(interface: str) -> Words:
    """Return Granian's command for an interface."""
    options = ("--workers", "1", "--no-log")
    return lambda port: [
        BINARIES / "granian",
        "--interface",
        interface,
        "--port",
        port,
        *options,
        f"served:{interface}",
    ]


def uwsgi(port: int) -> list[object]:
    """Return uWSGI's command."""
    options = ("--master", "--need-app", "--disable-logging", "--die-on-term", "--enable-threads")
    where = ("--http-socket", f"127.0.0.1:{port}", "--virtualenv", sys.prefix, "--module", "served:wsgi")
    return [BINARIES / "uwsgi", *where, *options]


SERVERS = [
    Server("wsgiref", "wsgi", lambda port: python("served.py", "wsgiref", port), True, reads_on=True),
    Server("gevent.pywsgi", "wsgi", lambda port: python("served.py", "gevent", port), True),
    Server("waitress", "wsgi", module("waitress", "--listen=ADDRESS", "served:wsgi"), True),
    Server("cheroot", "wsgi", module("cheroot", "--bind", "ADDRESS", "served:wsgi"), True, ("/reads/line",), True),
    Server("gunicorn-sync", "wsgi", gunicorn("sync"), True),
    Server("gunicorn-gthread", "wsgi", gunicorn("gthread")),
    Server("gunicorn-gevent", "wsgi", gunicorn("gevent"), True),
    # It drops what it has not sent yet when a body fails.
    Server("granian", "wsgi", granian("wsgi"), unsteady=("/fails/late",)),
    Server(
        "hypercorn",
        "wsgi",
        module("hypercorn", "-b", "ADDRESS", "wsgi:served:wsgi"),
        False,
        ("/is/over",),
        False,
        False,
    ),
    Server("uwsgi", "wsgi", uwsgi),
    Server("uvicorn", "asgi", module("uvicorn", "--port", "PORT", "served:asgi"), True),
    Server("gunicorn-asgi", "asgi", gunicorn("asgi", "asgi"), True),
    Server("gunicorn-uvicorn", "asgi", gunicorn("uvicorn_worker.UvicornWorker", "asgi")),
    Server("granian", "asgi", granian("asgi")),
    Server("hypercorn", "asgi", module("hypercorn", "-b", "ADDRESS", "asgi:served:asgi")),
    Server("hypercorn-trio", "asgi", module("hypercorn", "-k", "trio", "-b", "ADDRESS", "asgi:served:asgi")),
    Server("daphne", "asgi", module("daphne", "-v", "0", "-p", "PORT", "served:asgi")),
]


def chosen(interface: str) -> list[Server]:
    """Return the servers of an interface that this run is about."""
    return [server for server in SERVERS if server.interface == interface and (ALL or server.is_fast)]


class Serving:
    """A server that runs, with the middleware or without, until the `with` ends."""

    def __init__(self, server: Server, place: Place, traced: bool) -> None:
        self.port = free_port()
        self._log = place.scratch / f"{server}-{traced}.log"
        self._out = open(self._log, "w")  # noqa: SIM115 - closed at the end of the `with`
        words = [*map(str, server.words(self.port))]
        self._reached = place.scratch / f"{server}-{traced}.reached"
        self._reached.touch()
        env = {**place.env, "ANSWERS_TRACED": str(int(traced)), "ANSWERS_REACHED": str(self._reached)}
        # Some answers hold a set.
        env["PYTHONHASHSEED"] = "0"
        self._process = subprocess.Popen(
            words, env=env, cwd=HERE, stdout=self._out, stderr=self._out, start_new_session=True
        )

    def __enter__(self) -> "Serving":
        def serves() -> bool:
            assert self._process.poll() is None, self.log()
            return connects(self.port)

        until(serves, lambda: f"the server listens\n{self.log()}", TIMEOUT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(TIMEOUT_S)
        self._out.close()

    def log(self) -> str:
        """What the server printed."""
        return self._log.read_text()

    def reached(self) -> Counter[str]:
        """The paths of all requests that reached a WSGI application."""
        return Counter(self._reached.read_text().split())

    def peak_bytes(self) -> int:
        """How much memory the server's processes ever had at once, each for itself, added up."""
        return sum(map(peak_bytes, (self._process.pid, *descendants(self._process.pid))))


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process ever had."""
    with suppress(OSError):
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
