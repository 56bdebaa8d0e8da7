"""The four ways in which a worker is started."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import epsagon_fast as epsagon
from epsagon_fast.commands.demo.load.work import work


@dataclass
class StartedWorker:
    """A worker that runs. `wait` returns its exit status, negative for a signal, and is called once."""

    pid: int
    wait: Callable[[], int]
    is_ended: bool = False

    def ended(self) -> str:
        """Wait for it, and return how it ended."""
        code = self.wait()
        self.is_ended = True
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def end(self) -> None:
        """End it, if it runs still."""
        if not self.is_ended:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.wait()


# Of the file for its notes, its packages, and how many events in one trace it lives for (0: for all).
Way = Callable[[str, dict[str, list[str]], int], StartedWorker]


def raw_fork(notes: str, packages: dict[str, list[str]], die_after: int) -> StartedWorker:
    """Fork as gunicorn does: os.fork, and os._exit at the end, so that no exit hook of Python runs."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work(notes, packages, die_after)
            epsagon.shutdown()
            status = 0
        finally:
            os._exit(status)
    return StartedWorker(pid, lambda: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _multiprocessing(method: str) -> Way:
    def start(notes: str, packages: dict[str, list[str]], die_after: int) -> StartedWorker:
        context = multiprocessing.get_context(method)
        process = context.Process(target=work, args=(notes, packages, die_after))  # type: ignore[attr-defined]
        process.start()

        def wait() -> int:
            process.join()
            return int(process.exitcode)

        return StartedWorker(process.pid, wait)

    return start


def unrelated(notes: str, packages: dict[str, list[str]], die_after: int) -> StartedWorker:
    """Run a program that shares only the environment with this one."""
    listed = notes + ".packages"
    with open(listed, "w", encoding="utf-8") as out:
        json.dump(packages, out)
    program = subprocess.Popen([sys.executable, "-m", work.__module__, notes, listed, str(die_after)])
    return StartedWorker(program.pid, program.wait)


WAYS: dict[str, Way] = {
    "os.fork": raw_fork,
    "multiprocessing fork": _multiprocessing("fork"),
    "multiprocessing spawn": _multiprocessing("spawn"),
    "subprocess": unrelated,
}
