"""Limits and priorities that a collector inherits from the process that started it, and lets go of.

It serves all processes of a user, so the limits and the priority of one job must not hold for it. `epsagon-fast status`
shows what the kernel does not let it shed. A collector that a supervisor started keeps what it was given.
"""

import os
import resource
from collections.abc import Iterator
from contextlib import suppress

UNLIMITED = resource.RLIM_INFINITY
GIB = 1 << 30
# By name: the limit's number, and a size that a collector never comes to.
LIMITS = {
    "file size": (resource.RLIMIT_FSIZE, GIB),
    "CPU seconds": (resource.RLIMIT_CPU, 10**9),
    "address space": (resource.RLIMIT_AS, 4 * GIB),
    "data size": (resource.RLIMIT_DATA, 4 * GIB),
    "open files": (resource.RLIMIT_NOFILE, 1024),
    "processes": (resource.RLIMIT_NPROC, 256),
}
# CPUs on which the kernel runs only processes that ask for them by number.
ISOLATED = "/sys/devices/system/cpu/isolated"
MOST_CPUS = 8192
OOM_SCORE_ADJ = "/proc/self/oom_score_adj"
CGROUPS = "/proc/self/cgroup"


def shed() -> list[str]:
    """Undo everything that the kernel allows. Return a text for each thing that stays."""
    return [*_limits(), *_processors(), *_scheduling(), *_oom_score(), *_groups()]


def _limits() -> Iterator[str]:
    for name, (number, enough) in LIMITS.items():
        _raise(number, enough)
        most = resource.getrlimit(number)[0]
        if most != UNLIMITED and most < enough:
            yield f"limit of {name}: {most}"


def _raise(number: int, enough: int) -> None:
    hard = resource.getrlimit(number)[1]
    # Only a process with CAP_SYS_RESOURCE may go beyond its hard limit.
    more = [] if hard == UNLIMITED else [UNLIMITED, *([enough] if hard < enough else [])]
    for most in (*more, hard):
        with suppress(OSError, ValueError):
            resource.setrlimit(number, (most, most))
            return


def _processors() -> Iterator[str]:
    if not hasattr(os, "sched_setaffinity"):
        return
    with suppress(OSError):
        # The kernel ignores CPUs that do not exist or that the cpuset excludes.
        os.sched_setaffinity(0, set(range(MOST_CPUS)) - _isolated())
    online, mine = os.sysconf("SC_NPROCESSORS_ONLN"), len(os.sched_getaffinity(0))
    if mine < online - len(_isolated()):
        yield f"CPUs: {mine} of {online}"


def _isolated() -> set[int]:
    try:
        ranges = [part.partition("-") for part in _read(ISOLATED).strip().split(",") if part]
    except OSError:
        return set()
    return {cpu for first, _, last in ranges for cpu in range(int(first), int(last or first) + 1)}


def _scheduling() -> Iterator[str]:
    if hasattr(os, "sched_setscheduler"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        if policy := os.sched_getscheduler(0):
            yield f"scheduling policy: {policy}"
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    if nice := os.getpriority(os.PRIO_PROCESS, 0):
        yield f"nice: {nice}"


def _oom_score() -> Iterator[str]:
    try:
        with suppress(PermissionError), open(OOM_SCORE_ADJ, "w", encoding="utf-8") as file:
            file.write("0")
        score = int(_read(OOM_SCORE_ADJ))
    except OSError:
        return
    if score:
        yield f"oom_score_adj: {score}"


def _groups() -> Iterator[str]:
    """Yield the control groups. One that is frozen, limited or stopped takes the collector with it."""
    try:
        lines = _read(CGROUPS).splitlines()
    except OSError:
        return
    for group in dict.fromkeys(line.split(":", 2)[2] for line in lines):
        if group != "/":
            yield f"control group: {group}"


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
