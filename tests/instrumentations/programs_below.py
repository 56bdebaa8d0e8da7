"""The programs as they are started: with `epsagon-fast run`, or with `opentelemetry-instrument` in its environment."""

import os
import pathlib
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

from gunicorns import connects
from places import free_port, until
from waiting import TIMEOUT_S

# The environment with the SDK; `make instrumentations` says where it is.
SDK = os.environ["EPSAGON_TEST_INSTRUMENTATIONS"]
PROGRAMS = pathlib.Path(__file__).parent / "programs"
RUN = (sys.executable, "-m", "epsagon_fast", "run", sys.executable)
INSTRUMENT = (f"{SDK}/bin/opentelemetry-instrument", f"{SDK}/bin/python")


class Program(NamedTuple):
    """A program that serves on a port of its own. `log`: what it printed."""

    process: "subprocess.Popen[bytes]"
    port: int
    log: pathlib.Path

    def ask(self, path: str, headers: Mapping[str, str] | None = None) -> str:
        """Ask for a path and return the answer's text."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=dict(headers or {}))
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                return str(answer.read().decode())
        except OSError as error:
            raise AssertionError(f"{path}: {error}; {self.log.read_text()}") from error


@contextmanager
def started(below: tuple[str, ...], env: Mapping[str, str], log: pathlib.Path, *words: str) -> Iterator[Program]:
    """Start a program, with PORT in `words` for its port, and wait until it serves; end it at the end.

    A program without PORT is ready at once.
    """
    port = free_port()
    command = [*below, *(word.replace("PORT", str(port)) for word in words)]
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            env={**env, "PYTHONPATH": str(PROGRAMS)},
            cwd=PROGRAMS,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    program = Program(process, port, log)
    try:
        if any("PORT" in word for word in words):
            until(lambda: connects(port) or process.poll() is not None, log.read_text)
            assert process.poll() is None, log.read_text()
        yield program
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(TIMEOUT_S)
        process.kill()
        process.wait()


@contextmanager
def shop(below: tuple[str, ...], env: Mapping[str, str], scratch: pathlib.Path) -> Iterator[tuple[Program, Program]]:
    """Start the Flask application, the FastAPI application and the worker; yield the first two."""
    flask = ("-m", "gunicorn", "-b", "127.0.0.1:PORT", "--no-control-socket", "flask_shop:app")
    fastapi = ("-m", "uvicorn", "--port", "PORT", "fastapi_shop:app")
    worker = ("-m", "celery", "-A", "tasks", "worker", "-c", "1", "--without-mingle", "--without-gossip")
    with ExitStack() as stack:
        names = (("worker", worker), ("flask", flask), ("fastapi", fastapi))
        found = [stack.enter_context(started(below, env, scratch / name, *words)) for name, words in names]
        yield found[1], found[2]
