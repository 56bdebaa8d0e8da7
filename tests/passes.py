"""One collector's passes, made by hand: rings that a test fills, a journal, and a real HTTP server."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from arrivals import runner
from places import BASE
from records import CONFIG, OPENED_AT, event, own_runner
from servers import Server
from waiting import until

from epsagon_fast.collector.loop import Loop
from epsagon_fast.protocol import CLOSE_PAYLOAD, HTTP_TRACE_ID_KEY, UNCHANGED, Kind
from epsagon_fast.queue import layout, ring
from epsagon_fast.queue.liveness import start_time
from epsagon_fast.queue.state import StatePage


class Process:
    """The producer's end of a ring."""

    def __init__(self, folder: "Folder", pid: int = 0) -> None:
        pid = pid or os.getpid()
        self.name = os.urandom(16).hex() + ".ring"
        fd = ring.create(folder.fd, self.name, 65536, pid=pid, start_time=start_time(pid))
        try:
            self.ring = ring.Producer(fd)
        finally:
            os.close(fd)
        self._url = folder.server.url
        self._state_dir = os.environ["EPSAGON_STATE_DIR"]

    def push(self, kind: Kind, trace_id: bytes, payload: bytes = b"", flags: int = 0) -> None:
        assert self.ring.push(kind, flags, trace_id, payload) in (ring.PUSHED, ring.LOOK)

    def open(self, name: str, *, shared_id: bytes = b"", **config: Any) -> bytes:
        """Open a trace, with a runner of this name; return its id. `shared_id`: of its request, if that has others."""
        trace_id = os.urandom(16)
        metadata = {HTTP_TRACE_ID_KEY: shared_id.hex()} if shared_id else {}
        resource = {"name": name, "type": "python-function", "operation": "invoke", "metadata": metadata}
        opened = {
            "config": {**CONFIG, "collector_url": self._url, "state_dir": self._state_dir, **config},
            "platform": "python 3.11.7",
            "runner": {**own_runner(), "resource": resource},
            "opened_at": OPENED_AT,
        }
        self.push(Kind.OPEN, trace_id, json.dumps(opened).encode())
        return trace_id

    def add(self, trace_id: bytes, number: int | str) -> None:
        self.push(Kind.EVENT, trace_id, event(number))

    def close(self, trace_id: bytes, duration_s: float = 1.0, error_code: int = UNCHANGED) -> None:
        self.push(Kind.CLOSE, trace_id, CLOSE_PAYLOAD.pack(duration_s, error_code))

    def fill(self, loop: Loop) -> bytes:
        """Open a trace that holds as much as one process may from now on; return its id."""
        trace_id = self.open("filler")
        for _ in range(3):
            self.push(Kind.EVENT, trace_id, event("x" * 15_000))
        loop.one_pass()
        loop.bounds.memory_bytes = loop.held_bytes
        return trace_id

    def counts(self) -> tuple[int, int]:
        """How many traces it closed, and how many of them are settled."""
        return self.ring.load(layout.CLOSED_COUNT), self.ring.load(layout.SETTLED)


class Folder:
    """One folder, its server, and its collectors, one after the other."""

    def __init__(self, path: Path, server: Server) -> None:
        self.path = path
        self.server = server
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self.state = StatePage(self.fd, create=True)
        self.loops: list[Loop] = []

    def collector(self) -> Loop:
        """Start the next collector. The one before has died, without a word."""
        loop = Loop(self.fd, str(self.path), self.state, len(self.loops) + 1)
        self.loops.append(loop)
        loop.recover()
        return loop

    def names(self, *endings: str) -> list[str]:
        return sorted(name for name in os.listdir(self.path) if name.endswith(endings))

    def arrived(self) -> dict[str, dict[str, Any]]:
        """The bodies that came, by the names of their runners; none came twice."""
        bodies = [json.loads(request.body) for request in list(self.server.requests)]
        found = {runner(body)["resource"]["name"]: body for body in bodies}
        assert len(found) == len(bodies), "a trace came twice"
        return found

    def close(self) -> None:
        """End what no test has killed."""
        for loop in self.loops:
            loop.finish()
        os.close(self.fd)


@contextmanager
def made_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    """Make a folder, in memory where that can be, with a server to which its processes send."""
    monkeypatch.setenv("EPSAGON_STATE_DIR", str(tmp_path / "state"))
    path = Path(BASE or tmp_path) / f"epsagon-test-loop-{os.getpid()}"
    path.mkdir(0o700)
    try:
        with Server() as server:
            made = Folder(path, server)
            yield made
            made.close()
    finally:
        shutil.rmtree(path)


def passes(loop: Loop, condition: Callable[[], object]) -> None:
    """Make passes until something is so."""

    def pass_once() -> object:
        loop.one_pass()
        return condition()

    until(lambda: condition() or pass_once(), lambda: f"it comes to that; counted: {dict(loop.counts)}", pause_s=0.001)
