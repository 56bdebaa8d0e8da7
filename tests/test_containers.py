"""Servers as process 1 of a container: what their workers closed is delivered before process 1, and all others, end.

One server in every run; with EPSAGON_SOAK=1 and EPSAGON_TEST_SERVERS=all, which `make soak` sets, all of them, twenty
stops each.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from signal import SIGINT, SIGTERM, Signals
from typing import NamedTuple

import pytest
from gunicorns import APP, CONF, Load, children_of, fetch
from places import Place, free_port, need_root, times, until
from servers import Server
from waiting import TIMEOUT_S

ALL = os.environ.get("EPSAGON_TEST_SERVERS") == "all"
STOPS = times(20, 1)
# A container's runtime kills what has not ended by then, if it is told so.
GRACE_S = 30.0
CONTAINER = ("unshare", "-m", "-p", "-f", "--mount-proc", "--kill-child")
TRACED = """
from webapp import aapp, app
from epsagon_fast.integrations import asgi, wsgi
asgi_app, wsgi_app = asgi.TracingMiddleware(aapp), wsgi.TracingMiddleware(app)
"""


class Stopped(NamedTuple):
    """A server with two processes if it can have them, and how a container's runtime asks it to end."""

    name: str
    words: Callable[[int], list[str]]
    # A program that leaves SIGTERM as it is does not get it as process 1: the kernel sees to that.
    signal: Signals = SIGTERM
    is_fast: bool = False
    processes: int = 2
    # It sometimes does not end, without our middleware either.
    may_hang: bool = False


def gunicorn(*options: str) -> Callable[[int], list[str]]:
    """Return gunicorn's command; its last option is the application."""
    return lambda port: ["gunicorn", "-b", f"127.0.0.1:{port}", "-w", "2", "--no-control-socket", *options]


def granian(interface: str) -> Callable[[int], list[str]]:
    """Return Granian's command for an interface."""
    options = ("--workers", "2", "--interface", interface, "--no-log")
    return lambda port: ["granian", "--port", str(port), *options, f"traced:{interface}_app"]


SERVERS = [
    Stopped("uvicorn", lambda port: ["uvicorn", "--port", str(port), "traced:asgi_app"], processes=1),
    Stopped(
        "uvicorn --workers",
        lambda port: ["uvicorn", "--port", str(port), "--workers", "2", "traced:asgi_app"],
        is_fast=True,
    ),
    Stopped("hypercorn", lambda port: ["hypercorn", "-b", f"127.0.0.1:{port}", "-w", "2", "traced:asgi_app"]),
    Stopped("granian asgi", granian("asgi")),
    Stopped("granian wsgi", granian("wsgi"), may_hang=True),
    Stopped(
        "waitress", lambda port: ["waitress", f"--listen=127.0.0.1:{port}", "traced:wsgi_app"], SIGINT, processes=1
    ),
    Stopped("gunicorn", gunicorn("traced:wsgi_app")),
    Stopped("gunicorn with our conf", gunicorn("-c", CONF, "webapp:app")),
    Stopped("gunicorn with uvicorn", gunicorn("-c", CONF, "-k", "uvicorn_worker.UvicornWorker", "webapp:aapp")),
]


def stop_under_load(server: Stopped, place: Place) -> int:
    """Let process 1 of a new container serve, stop it, and return how many requests reached the application.

    Raises TimeoutExpired if it does not end.
    """
    need_root()
    port = free_port()
    (place.scratch / "webapp.py").write_text(APP)
    (place.scratch / "traced.py").write_text(TRACED)
    reached, log = place.scratch / "reached", place.scratch / "server.log"
    reached.touch()
    with log.open("w") as out:
        process = subprocess.Popen(
            [*CONTAINER, sys.executable, "-m", *server.words(port)],
            env={
                **place.env,
                "REACHED": str(reached),
                "PYTHONPATH": str(place.scratch),
                "EPSAGON_ENDPOINTS_TO_IGNORE": "/pid",
            },
            cwd=place.scratch,
            stdout=out,
            stderr=out,
        )
        try:
            pids: set[bytes] = set()

            def all_answer() -> bool:
                # One that is being made does not hear the signal.
                with suppress(OSError, HTTPException):
                    pids.add(fetch(port, "/pid")[1])
                return len(pids) == server.processes

            until(all_answer, lambda: f"all answer\n{log.read_text()}")
            with Load(port) as load:
                load.more(50)
                [first] = children_of(process.pid)
                os.kill(first, server.signal)
                process.wait(GRACE_S)
        finally:
            process.kill()
            process.wait(TIMEOUT_S)
    return len(reached.read_text().splitlines())


@pytest.mark.root
@pytest.mark.parametrize("server", [each for each in SERVERS if ALL or each.is_fast], ids=lambda each: each.name)
def test_what_was_answered_is_delivered_before_the_container_ends(server: Stopped) -> None:
    missing = []
    for _ in range(STOPS):
        with Server() as backend:
            place = Place(backend.url)
            try:
                reached = stop_under_load(server, place)
                missing.append(reached - len(backend.requests))
            except subprocess.TimeoutExpired:
                if not server.may_hang:
                    raise
            finally:
                place.close()
    assert missing == [0] * len(missing) and missing
