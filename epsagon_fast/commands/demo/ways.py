"""The four ways in which the demo starts a worker."""

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable

import epsagon_fast as epsagon
from epsagon_fast.commands.demo.work import work

# A function that starts a worker and returns another one, which waits for it and returns its exit status (negative: a
# signal).
Way = Callable[[str, dict[str, list[str]], int], Callable[[], int]]


def raw_fork(notes: str, packages: dict[str, list[str]], die_after: int) -> Callable[[], int]:
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
    return lambda: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _multiprocessing(method: str) -> Way:
    def start(notes: str, packages: dict[str, list[str]], die_after: int) -> Callable[[], int]:
        context = multiprocessing.get_context(method)
        process = context.Process(target=work, args=(notes, packages, die_after))  # type: ignore[attr-defined]
        process.start()

        def wait() -> int:
            process.join()
            return int(process.exitcode)

        return wait

    return start


def unrelated(notes: str, packages: dict[str, list[str]], die_after: int) -> Callable[[], int]:
    """Run a program that shares only the environment with this one."""
    listed = notes + ".packages"
    with open(listed, "w", encoding="utf-8") as out:
        json.dump(packages, out)
    command = [sys.executable, "-m", "epsagon_fast.commands.demo.work", notes, listed, str(die_after)]
    return subprocess.Popen(command).wait


WAYS: dict[str, Way] = {
    "os.fork": raw_fork,
    "multiprocessing fork": _multiprocessing("fork"),
    "multiprocessing spawn": _multiprocessing("spawn"),
    "subprocess": unrelated,
}
