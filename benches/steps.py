"""What each step of the WSGI middleware takes of a request: `python benches/steps.py`.

A step is a function, timed in a run of its own with two looks at the clock; what a look takes is taken off. Steps below
another one, indented, are part of it. `warm`: one request after the other. `cold`: the thread sleeps in between, as a
server's thread waits for its next request. The caches and the processor's guesses then belong to others.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import shops
import web

import epsagon_fast as epsagon
from epsagon_fast.integrations import wsgi
from epsagon_fast.integrations.web import request, wsgi_request
from epsagon_fast.producer import recorder, tracer

REQUESTS: Final = 1000
SLEEP_S: Final = 0.0003
# The function's owner and name, and what it does.
STEPS: Final = (
    (wsgi.TracingMiddleware, "__call__", "a request, with the application's block"),
    (wsgi_request.WsgiRequest, "__init__", "  begin"),
    (wsgi_request, "_known", "    the request's metadata"),
    (tracer.Tracer, "_identify", "    ids, from the kernel"),
    (tracer.Tracer, "start", "    open the trace"),
    (wsgi_request.WsgiRequest, "start_response", "  the answer's status"),
    (wsgi, "handed_on", "  the answer's body, and the end"),
    (request.RequestTrace, "end", "    end"),
    (recorder.Recorder, "update_runner", "      the RUNNER record"),
    (tracer.Tracer, "send_stop_signal", "      close the trace"),
)


@contextmanager
def timed(owner: Any, name: str) -> Iterator[list[int]]:
    """Let a function note the nanoseconds of each call."""
    whole: Callable[..., Any] = getattr(owner, name)
    took: list[int] = []

    def call(*args: Any, **kwargs: Any) -> Any:
        begin = time.perf_counter_ns()
        result = whole(*args, **kwargs)
        took.append(time.perf_counter_ns() - begin)
        return result

    setattr(owner, name, call)
    try:
        yield took
    finally:
        setattr(owner, name, whole)


def ask(app: Callable[..., Any], between: Callable[[], object]) -> None:
    for number in range(REQUESTS):
        between()
        web.drive(app, 1, number)


def measured(owner: Any, name: str, between: Callable[[], object]) -> float:
    """Return the nanoseconds of a step, of which three quarters of all calls take more."""
    app = shops.ours()
    with timed(owner, name) as took:
        ask(app, between)
    return statistics.quantiles(took)[0]


class Nothing:
    """Owns a step that does nothing: what a look at the clock takes."""

    def step(self) -> None:
        """Do nothing."""


def looks_ns(between: Callable[[], object]) -> float:
    nothing = Nothing()
    with timed(Nothing, "step") as took:
        for _ in range(REQUESTS):
            between()
            nothing.step()
    return statistics.quantiles(took)[0]


def main() -> None:
    """Print the table of docs/performance.md."""
    os.environ["EPSAGON_LAUNCH"] = "0"
    ways = (lambda: None, lambda: time.sleep(SLEEP_S))
    with tempfile.TemporaryDirectory(dir="/dev/shm" if sys.platform == "linux" else None) as folder:
        epsagon.init(token="t", collector_url="http://127.0.0.1:1", runtime_dir=folder, ring_bytes=256 << 20)
        clock = [looks_ns(between) for between in ways]
        print("| step | warm, µs | cold, µs |\n|---|---:|---:|")
        for owner, name, what in STEPS:
            took = [measured(owner, name, between) for between in ways]
            shown = [f"{(ns - look) / 1000:.1f}" for ns, look in zip(took, clock, strict=True)]
            depth = (len(what) - len(what.lstrip())) // 2
            print(f"| {'· ' * depth}{what.strip()} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()
