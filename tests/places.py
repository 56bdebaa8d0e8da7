"""A place of its own for a test with real processes: runtime directory, state directory, environment, collectors."""

import importlib.util
import json
import os
import pathlib
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from types import ModuleType
from typing import Any

from waiting import TIMEOUT_S, until

from epsagon_fast.queue import folder as folders
from epsagon_fast.queue import state as states
from epsagon_fast.queue.folder import is_held
from epsagon_fast.queue.overview import Overview, look

BASE = "/dev/shm" if os.path.isdir("/dev/shm") else None
NOBODY = 65534
# `make soak`: the full counts.
FULL = os.environ.get("EPSAGON_SOAK", "0") == "1"


def times(full: int, quick: int) -> int:
    """Return how often something is tried: in the soak, and in every run of the tests."""
    return full if FULL else quick


class Privileges:
    """What the running test says of itself; conftest.py sets it."""

    claimed = False


def need_root() -> None:
    """Assert that the test is marked as one that mounts filesystems or changes users."""
    assert Privileges.claimed, "mark this test: @pytest.mark.root"


def give_away(path: str | pathlib.Path) -> None:
    """Make a file another user's."""
    need_root()
    os.chown(path, NOBODY, NOBODY)


def loaded_anew(name: str) -> ModuleType:
    """Return a second copy of a module, as the environment has it now; the one in use stays."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def descendants(pid: int) -> list[int]:
    """Return the children of a process and theirs; those that end meanwhile may be missing."""
    found = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in map(int, pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text().split()):
                found += [child, *descendants(child)]
    return found


def free_port() -> int:
    """Return a port that nobody listens on, for a program that must be told one.

    It is none of those that the kernel gives to clients, who could have it before the program does.
    """
    while True:
        with suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Not from a generator that a test may have seeded: two workers would get the same ports.
            probe.bind(("127.0.0.1", 10_000 + secrets.randbelow(20_000)))
            return int(probe.getsockname()[1])


class Place:
    """One test's runtime directory. `env` leads a process there; `close` ends the collectors that it has."""

    def __init__(self, backend_url: str, **settings: str) -> None:
        self.runtime_dir = tempfile.mkdtemp(prefix="epsagon-test-", dir=BASE)
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="epsagon-test-"))
        inherited = {
            name: value for name, value in os.environ.items() if "EPSAGON" not in name and not name.startswith("OTEL_")
        }
        self.settings = {
            "EPSAGON_RUNTIME_DIR": self.runtime_dir,
            "EPSAGON_STATE_DIR": str(self.scratch / "state"),
            "EPSAGON_COLLECTOR_URL": backend_url,
            "EPSAGON_TOKEN": "secret-token",
            "EPSAGON_APP_NAME": "tests",
            "EPSAGON_LINGER_SEC": "0.2",
            # On a busy machine an answer may take longer than the default allows, and its trace would come twice.
            "EPSAGON_SEND_TIMEOUT_SEC": "30",
            **settings,
        }
        # An error in a hook or a thread of the script must not pass unseen.
        self.env = {**inherited, **self.settings, "PYTHONFAULTHANDLER": "1", "PYTHONDONTWRITEBYTECODE": "1"}

    def start(self, script: str, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
        """Start a Python program, from a foreign directory.

        `options`: of Popen; `env` is added to the place's; `program`: what runs it, if not just this Python.
        """
        env = {**self.env, **options.pop("env", {})}
        program = options.pop("program", [sys.executable])
        if program[0] == "unshare":
            need_root()
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": self.scratch, **options}
        return subprocess.Popen([*program, "-c", script, *arguments], env=env, **options)

    def run(self, script: str, *arguments: str, timeout_s: float = TIMEOUT_S, **options: Any) -> str:
        """Run a Python program to its end, which must be a good one, and return what it printed."""
        process = self.start(script, *arguments, **options)
        try:
            out, errors = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            # faulthandler shows where it hangs; a child that hangs would hold the pipes.
            for pid in (*descendants(process.pid), process.pid):
                os.kill(pid, signal.SIGABRT)
            out, errors = process.communicate(timeout=timeout_s)
            raise AssertionError(f"the program hangs:\n{out}\n{errors}") from None
        assert process.returncode == 0, f"exit code {process.returncode}:\n{out}\n{errors}"
        return out

    def command(self, *words: str, timeout_s: float = TIMEOUT_S) -> "subprocess.CompletedProcess[str]":
        """Run `epsagon-fast` with these words."""
        return subprocess.run(
            [sys.executable, "-m", "epsagon_fast", *words],
            env=self.env,
            cwd=self.scratch,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    @property
    def folder(self) -> str:
        """The folder of rings, which may not be there yet."""
        return os.path.join(self.runtime_dir, folders.instance_name())

    def look(self) -> Overview:
        """What is to be seen in the folder."""
        return look(self.folder)

    def until_served(self) -> None:
        """Wait until the collector has ended a pass. One that dies before is taken for one that cannot live."""
        until(lambda: (beat := states.beat_in(self.folder)).served == beat.incarnation, "it has ended a pass")

    def status(self) -> dict[str, Any]:
        """What `epsagon-fast status --json` prints."""
        return dict(json.loads(self.command("status", "--json").stdout))

    def log(self) -> str:
        """What the collectors logged."""
        with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return (pathlib.Path(self.folder) / "log").read_text()
        return ""

    def collectors(self) -> list[int]:
        """The pids of this place's collectors, whoever started them."""
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self.is_collector(pid)]

    def the_collector(self) -> int:
        """The pid of the one collector; waits until there is one."""
        until(lambda: os.path.isdir(self.folder) and self.look().pid, "a collector serves")
        (pid,) = self.collectors()
        return pid

    def until_left(self) -> None:
        """Wait until no collector is left, as happens by itself when no producer is."""
        until(lambda: not self._is_held() and not self.collectors(), lambda: f"the collector leaves; {self.log()}")

    def until_ended(self, pid: int) -> None:
        """Wait until a collector that was told to end has, and its locks are free; another may serve by then."""
        until(lambda: not self.is_collector(pid) and not self._is_serving(pid), lambda: f"it ends; {self.log()}")

    def dismiss(self) -> None:
        """Ask the collectors to leave, however long they would linger, and wait until they have."""
        for pid in self.collectors():
            os.kill(pid, signal.SIGTERM)
        self.until_left()

    def linger(self) -> None:
        """Let collectors stay that have nothing to do. For tests that look at one: a busy machine needs its time."""
        self.env["EPSAGON_LINGER_SEC"] = self.settings["EPSAGON_LINGER_SEC"] = "60"

    def _is_held(self) -> bool:
        # A dying process loses its command line before its locks.
        return os.path.isdir(self.folder) and is_held(os.fsencode(self.folder))

    def _is_serving(self, pid: int) -> bool:
        return self._is_held() and self.look().pid == pid

    def close(self) -> None:
        """End the collectors and remove the directories."""
        for pid in self.collectors():
            for number in (signal.SIGCONT, signal.SIGKILL):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        self.until_left()
        shutil.rmtree(self.runtime_dir, ignore_errors=True)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def is_collector(self, pid: int) -> bool:
        """Say whether this process is one of this place's collectors, and not about to be gone."""
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read()
            if self.runtime_dir.encode() not in words or b"--runtime-dir" not in words.split(b"\0"):
                return False
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        return state not in "ZX"
