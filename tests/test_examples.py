"""The examples, each served by the command that it names itself."""

import contextlib
import json
import pathlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from gunicorns import TIMEOUT_S, connects, fetch
from places import Place, free_port, until

from epsagon_fast.backend import Backend

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
COMMAND = re.compile(r"gunicorn -c \S+ .*:\w+")


def commands() -> list[str]:
    """Return every command that an example's docstring names."""
    return [line for path in sorted(EXAMPLES.glob("*.py")) for line in COMMAND.findall(path.read_text())]


@contextlib.contextmanager
def served(place: Place, command: str) -> Iterator[int]:
    port = free_port()
    words = [sys.executable, "-m", *shlex.split(command), "-b", f"127.0.0.1:{port}", "--no-control-socket"]
    with (place.scratch / "log").open("w+") as log:
        process = subprocess.Popen(words, cwd=EXAMPLES, env=place.env, stdout=log, stderr=log)
        try:
            until(lambda: process.poll() is not None or connects(port), "the example serves", TIMEOUT_S)
            assert process.poll() is None, (place.scratch / "log").read_text()
            yield port
        finally:
            process.terminate()
            process.wait(TIMEOUT_S)


def test_every_web_framework_has_an_example() -> None:
    named = {command.rpartition(" ")[2] for command in commands()}
    assert named == {"flask_app:app", "django_app:app", "django_app:asgi", "fastapi_app:app"}


@pytest.mark.parametrize("command", commands(), ids=lambda command: command.rpartition(" ")[2])
def test_example_is_traced(backend: Backend, place: Place, command: str) -> None:
    with served(place, command) as port:
        assert json.loads(fetch(port, "/items/7")[1]) == {"number": 7}
        assert fetch(port, "/broken")[0] == 500
        assert fetch(port, "/nowhere")[0] == 404
        until(lambda: backend.store.counts()["traces"] == 3, f"the traces arrive: {place.log()}")
    bodies = [json.loads(body) for _, body in backend.store.bodies()]
    by_path = {body["events"][-1]["resource"]["metadata"]["path"]: body["events"] for body in bodies}
    item, broken, nowhere = by_path["/items/7"], by_path["/broken"], by_path["/nowhere"]
    assert item[0]["resource"]["name"] == "look up"
    assert metadata(item)["labels"] == '{"item":7}'
    assert "items/" in metadata(item)["route"] and "number" in metadata(item)["route"]
    assert broken[-1]["error_code"] == 2
    assert broken[-1]["exception"]["type"] == "LookupError"
    assert 'raise LookupError("no such shelf")' in broken[-1]["exception"]["traceback"]
    assert (metadata(nowhere)["status_code"], nowhere[-1]["error_code"]) == ("404", 0)


def metadata(events: list[dict[str, Any]]) -> dict[str, str]:
    """Return the metadata of a trace's runner."""
    found: dict[str, str] = events[-1]["resource"]["metadata"]
    return found
