"""What a collector keeps of the process that started it: as little as it may."""

import os
import resource
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from places import NOBODY, Place, until

from epsagon_fast.backend import Backend
from epsagon_fast.collector import inherited

# What a job may be under, and what of it a collector that it starts may still have.
BURDENED = """
import os, resource, signal, sys
exec(sys.argv[1])
import epsagon_fast as epsagon
with epsagon.trace("main"):
    pass
assert epsagon.flush(60)
"""
SOFT = """
for number, soft in ((resource.RLIMIT_FSIZE, 300_000), (resource.RLIMIT_CPU, 100), (resource.RLIMIT_AS, 150 << 20),
                     (resource.RLIMIT_NOFILE, 12), (resource.RLIMIT_NPROC, 7)):
    resource.setrlimit(number, (soft, resource.getrlimit(number)[1]))
"""
PRIORITY = """
os.nice(9)
os.sched_setaffinity(0, {0})
os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
open("/proc/self/oom_score_adj", "w").write("500")
open("/proc/self/timerslack_ns", "w").write("100000000")
"""
SIGNALS = """
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGXFSZ):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
signal.setitimer(signal.ITIMER_REAL, 3600)
"""


def collector_of(place: Place, burden: str) -> int:
    """The collector of a program that runs under `burden`."""
    place.linger()
    place.run(BURDENED, burden)
    return place.the_collector()


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_limits_of_a_job_are_not_the_collectors(backend: Backend, place: Place) -> None:
    pid = collector_of(place, SOFT)
    for name, (number, enough) in inherited.LIMITS.items():
        soft, hard = resource.prlimit(pid, number)
        assert soft in (hard, resource.RLIM_INFINITY), name
        assert soft == resource.RLIM_INFINITY or soft >= enough, name
    assert not [text for text in place.status()["inherited"] if "limit" in text]


def test_few_open_files_are_enough_to_begin(backend: Backend, place: Place) -> None:
    pid = collector_of(place, "resource.setrlimit(resource.RLIMIT_NOFILE, (14, 14))")
    told = "limit of open files: 14" in place.look().inherited
    assert told is (resource.prlimit(pid, resource.RLIMIT_NOFILE)[0] == 14), "more only if it may have more"


@pytest.mark.root
def test_priority_of_a_job_is_not_the_collectors(backend: Backend, place: Place) -> None:
    pid = collector_of(place, PRIORITY)
    assert os.getpriority(os.PRIO_PROCESS, pid) == 0
    assert os.sched_getscheduler(pid) == os.SCHED_OTHER
    assert os.sched_getaffinity(pid) == os.sched_getaffinity(0)
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "0\n"
    assert Path(f"/proc/{pid}/timerslack_ns").read_text() == "50000\n"


def test_signals_that_a_job_ignores_or_blocks_reach_the_collector(backend: Backend, place: Place) -> None:
    pid = collector_of(place, SIGNALS)
    seen = status_of(pid)
    # Python ignores SIGPIPE and SIGXFSZ. 32 and 33 are the C library's alone: it lets a program that posix_spawn starts
    # (as make does) ignore them, and gives them handlers when it needs them.
    ignored = sum(1 << number - 1 for number in (signal.SIGPIPE, signal.SIGXFSZ, 32, 33))
    assert int(seen["SigBlk"], 16) == 0 and int(seen["SigIgn"], 16) & ~ignored == 0


def in_child(burden: Callable[[], object]) -> list[str]:
    """What `shed` says in a process that nobody trusts with more, after `burden`."""
    back, forth = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            # Those that this process has open would count against a limit.
            forth = os.dup2(forth, 3)
            os.closerange(4, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
            burden()
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            os.write(forth, "\n".join(inherited.shed()).encode())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(forth)
    with open(back) as said:
        texts = said.read().splitlines()
    assert os.waitpid(pid, 0)[1] == 0
    return texts


def burden() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 400_000))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    # Above all that this process may have had before.
    os.setpriority(os.PRIO_PROCESS, 0, 19)
    Path(inherited.OOM_SCORE_ADJ).write_text("1000")


def test_what_the_kernel_does_not_let_go_is_told() -> None:
    said = in_child(burden)
    told = {"limit of file size: 400000", "limit of open files: 64", "nice: 19", "oom_score_adj: 1000"}
    assert told <= set(said)


def test_supervised_collector_keeps_what_it_was_given(backend: Backend, place: Place) -> None:
    place.env |= {"EPSAGON_LAUNCH": "0", "EPSAGON_LINGER_SEC": "60"}
    nice = os.getpriority(os.PRIO_PROCESS, 0) + 1
    words = [sys.executable, "-m", "epsagon_fast", "collector"]
    with subprocess.Popen(words, env=place.env, cwd=place.scratch, preexec_fn=lambda: os.nice(1)) as process:
        until(lambda: os.path.isdir(place.folder) and place.look().pid == process.pid, "it serves")
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == nice
        assert place.look().inherited == []
        process.terminate()


@pytest.mark.parametrize(
    ("text", "cpus"), [("\n", set()), ("3\n", {3}), ("1-3,7\n", {1, 2, 3, 7}), (None, set())], ids=str
)
def test_isolated_processors_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, cpus: set[int]
) -> None:
    isolated = tmp_path / "isolated"
    if text is not None:
        isolated.write_text(text)
    monkeypatch.setattr(inherited, "ISOLATED", str(isolated))
    assert inherited._isolated() == cpus


def test_control_groups_are_named_once_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    groups = tmp_path / "cgroup"
    groups.write_text("9:memory:/job\n8:freezer:/job\n7:cpu:/\n0::/system.slice/a.service\n")
    monkeypatch.setattr(inherited, "CGROUPS", str(groups))
    assert list(inherited._groups()) == ["control group: /job", "control group: /system.slice/a.service"]
