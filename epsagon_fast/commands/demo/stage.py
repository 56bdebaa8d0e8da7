"""What both scenes stand on: folders of their own, a backend, the collector between, and an end that leaves nothing."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from epsagon_fast.backend.store import Store
from epsagon_fast.backend.timeline import build
from epsagon_fast.commands.show import as_text
from epsagon_fast.queue.folder import SHARED_MEMORY, resolve
from epsagon_fast.queue.overview import look

# Each wait for another process ends after this time.
TIMEOUT_S = 60.0
# What a program may take to leave when it is asked to; then it is killed.
END_TIMEOUT_S = 5.0
POLL_S = 0.05
_URL = "export EPSAGON_COLLECTOR_URL="
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Settings of the user's own tracing would change what the scenes show.
_OWN_PREFIXES = ("EPSAGON_", "DISABLE_EPSAGON", "OTEL_", "GUNICORN_CMD_ARGS", "CELERY_", "PYTHONSAFEPATH")


Program = subprocess.Popen[bytes]


class Failed(Exception):
    """The demo cannot go on; the text says why."""


class Stage(NamedTuple):
    """A backend at `url`, and the folders of everything that runs beside it."""

    scratch: str
    runtime: str
    url: str

    @property
    def database(self) -> str:
        """The backend's file."""
        return _database(self.scratch)

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a program whose traces go to this backend."""
        return {
            **_foreign(),
            "EPSAGON_COLLECTOR_URL": self.url,
            "EPSAGON_TOKEN": "demo",
            "EPSAGON_RUNTIME_DIR": self.runtime,
            "EPSAGON_STATE_DIR": self.scratch,
            "EPSAGON_SEND_TIMEOUT_SEC": "5",
            # What a killed program leaves in it is removed, too.
            "TMPDIR": self.scratch,
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            **more,
        }

    def kill_collector(self) -> int:
        """Kill the collector as soon as there is one, and return its pid. Raises Failed if there is none."""
        folder = resolve(self.runtime).path
        until(lambda: look(folder).pid is not None)
        pid = look(folder).pid
        if pid is None:
            raise Failed(f"no collector runs: {end_of(os.path.join(folder, 'log'))}")
        os.kill(pid, signal.SIGKILL)
        return pid

    def stop_collector(self) -> dict[str, int]:
        """Ask the collector to leave. Return what all of them counted."""
        folder = resolve(self.runtime).path
        until(lambda: not _is_asked_to_leave(folder))
        return look(folder).counters

    def show(self, request_id: str) -> None:
        """Print a request as `epsagon-fast show` does, and where it is in the viewer."""
        with Store(self.database) as store:
            rows = store.request(request_id, 100) or [{"trace_id": request_id}]
            bodies = [(row["trace_id"], body) for row in rows if (body := store.body(row["trace_id"])) is not None]
        print(f"\n{as_text(build(bodies))}\nIn the viewer: {self.url}/requests/{request_id}")


# What waits at the end of a scene, while all of it is up.
Stay = Callable[[Stage], None]
# Its exit code: 0 if nothing is missing.
Scene = Callable[[Stage, Stay | None], int]


@contextmanager
def stage() -> Iterator[Stage]:
    """Build a stage, and take it down: no process, socket or file of it stays."""
    memory = SHARED_MEMORY if os.path.isdir(SHARED_MEMORY) else None
    with _folder() as scratch, _folder(memory) as runtime:
        words = [sys.executable, "-m", "epsagon_fast", "backend", "--port", "0", "--database", _database(scratch)]
        log = os.path.join(scratch, "backend.log")
        with running(words, log, _foreign()) as backend:
            built = Stage(scratch, runtime, _url(backend, log))
            try:
                yield built
            finally:
                with undisturbed():
                    built.stop_collector()


def _folder(place: str | None = None) -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="epsagon-fast-demo-", dir=place, ignore_cleanup_errors=True)


@contextmanager
def running(words: Sequence[str], log: str, environment: Mapping[str, str], **options: Any) -> Iterator[Program]:
    """Run a program while the block lasts; its output goes to the file `log`. `options`: of Popen."""
    with ExitStack() as end:
        # A signal between the start and the block would leave it behind.
        with undisturbed(), open(log, "wb") as out:
            # In a session of its own Ctrl-C does not reach it: the demo ends its programs in their order.
            program = subprocess.Popen(
                words,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                **options,
            )
            end.callback(_end, program)
        yield program


def until(is_so: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> bool:
    """Wait until it is so, at most for so long; return whether it is."""
    deadline = time.monotonic() + timeout_s
    while not (answer := is_so()) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return answer


class Signals:
    """What becomes of a signal that asks the demo to end: an exception, once, and where nothing is left half done."""

    def __init__(self) -> None:
        self._busy = 0
        self._came = 0
        self._is_told = False

    def take(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal, as Python calls a handler."""
        self._came = self._came or number
        self._tell()

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Let the exception wait for the end of the block."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            self._tell()

    def _tell(self) -> None:
        if self._came and not self._busy and not self._is_told:
            self._is_told = True
            raise KeyboardInterrupt if self._came == signal.SIGINT else SystemExit(128 + self._came)


_signals = Signals()
undisturbed = _signals.held_back


@contextmanager
def ends_by_signals() -> Iterator[None]:
    """End the block by an exception at the first SIGINT, SIGTERM or SIGHUP; at the next ones it is ending already."""
    before = {each: signal.signal(each, _signals.take) for each in _SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _database(scratch: str) -> str:
    return os.path.join(scratch, "backend.sqlite")


def _foreign() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_OWN_PREFIXES)}


def _url(backend: Program, log: str) -> str:
    def said() -> list[str]:
        return [line for line in Path(log).read_text().splitlines() if line.startswith(_URL)]

    until(lambda: bool(said()) or backend.poll() is not None)
    if not said():
        raise Failed(f"the backend did not start: {end_of(log)}")
    return said()[0].removeprefix(_URL)


def _end(program: Program) -> None:
    with undisturbed():
        program.terminate()
        with suppress(subprocess.TimeoutExpired):
            program.wait(END_TIMEOUT_S)
        # What is left of its session, if it did not leave or left its children behind.
        with suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()


def _is_asked_to_leave(folder: str) -> bool:
    pid = look(folder).pid
    if pid is None:
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    return True


def end_of(log: str) -> str:
    """Return the last lines of a log, in one."""
    with suppress(OSError):
        return " ".join(Path(log).read_text(errors="replace").splitlines()[-3:])
    return "it wrote nothing"
