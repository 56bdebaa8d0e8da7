"""Surroundings in which tracing cannot work: one clear warning, every refusal counted, and the application goes on."""

import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from arrivals import await_traces, ids
from places import Place, give_away, until
from waiting import TIMEOUT_S

from epsagon_fast.backend import Backend
from epsagon_fast.queue import folder as folders
from epsagon_fast.queue.names import CORRUPT

TRACES, EVENTS = 10, 3
# What an application that cannot be traced still does, to its end.
APPLICATION = f"""
import json, logging, os, signal, sys
import epsagon_fast as epsagon
from epsagon_fast.producer.process import process

warnings = []
class Kept(logging.Handler):
    def emit(self, record):
        warnings.append(record.getMessage())
logging.getLogger("epsagon_fast").addHandler(Kept())

def work(name, events={EVENTS}, metadata=""):
    with epsagon.trace(name) as tracer:
        for number in range(events):
            tracer.add_event({{"id": f"{{name}}-{{number}}", "resource": {{"metadata": {{"text": metadata}}}}}})
    return tracer

def report(tracer, timeout_s=0.2):
    outcome = str(tracer.stop(timeout_s))
    print(json.dumps({{"warnings": warnings, "refused": dict(process.refusals()), "outcome": outcome}}), flush=True)
"""
ALL_TRACES = f"""
for number in range({TRACES}):
    tracer = work(f"trace{{number}}")
report(tracer)
"""
ALL_DELIVERED = ALL_TRACES.replace("report(tracer)", "report(tracer, 10)")
# With no trace open: its OPEN and its events.
ALL_REFUSED = TRACES * (1 + EVENTS)


class Report(NamedTuple):
    """What the application saw."""

    warnings: list[str]
    refused: dict[str, int]
    outcome: str | None


@pytest.fixture
def place(place: Place) -> Place:
    # No exit should take long, and none need.
    place.env["EPSAGON_SHUTDOWN_TIMEOUT_SEC"] = "0.2"
    return place


def run(place: Place, script: str = ALL_TRACES, *arguments: str, before: str = "", **options: Any) -> Report:
    out = place.run(before + APPLICATION + script, *arguments, **options)
    return Report(**json.loads(out.splitlines()[-1]))


def all_is_refused(report: Report, reason: str, *said: str) -> None:
    (warning,) = report.warnings
    assert all(part in warning for part in said), warning
    assert report.refused == {reason: ALL_REFUSED}
    assert report.outcome == f"DROPPED ({reason})"


# Runtime directories.


def a_file(path: pathlib.Path) -> None:
    path.write_text("")


def a_symbolic_link(path: pathlib.Path) -> None:
    (path.parent / "elsewhere").mkdir(0o700)
    path.symlink_to("elsewhere")


def open_to_others(path: pathlib.Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def a_strangers(path: pathlib.Path) -> None:
    path.mkdir(0o700)
    give_away(path)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (a_file, "not a directory"),
        (a_symbolic_link, "symbolic link"),
        (open_to_others, "open to others"),
        pytest.param(a_strangers, "belongs to user 65534", marks=pytest.mark.root),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
@pytest.mark.parametrize("where", ["base", "instance"])
def test_unusable_runtime_directory_is_refused_and_no_other_is_tried(
    place: Place, where: str, made: Callable[[pathlib.Path], None], said: str
) -> None:
    base = pathlib.Path(place.runtime_dir) / "base"
    if where == "instance":
        base.mkdir(0o700)
    made(base if where == "base" else base / folders.instance_name())
    report = run(place, env={"EPSAGON_RUNTIME_DIR": str(base)})
    all_is_refused(report, "no_folder", str(base), said, "tracing is off")
    assert place.collectors() == []


@pytest.mark.parametrize("base", ["/proc/epsagon", "/dev/null/epsagon", "/sys/epsagon"])
def test_runtime_directory_that_cannot_be_made_is_refused(place: Place, base: str) -> None:
    all_is_refused(run(place, env={"EPSAGON_RUNTIME_DIR": base}), "no_folder", base, "tracing is off")


SQUATTED = """
import os, stat
from epsagon_fast.queue import folder
folder.SHARED_MEMORY = sys.argv[1]
"""


@pytest.mark.parametrize(
    "made",
    [a_file, a_symbolic_link, open_to_others, pytest.param(a_strangers, marks=pytest.mark.root)],
    ids=lambda made: made.__name__,
)
def test_squatted_name_in_shared_memory_is_passed_by(
    backend: Backend, place: Place, made: Callable[[pathlib.Path], None]
) -> None:
    shared = pathlib.Path(place.runtime_dir)
    name = f"epsagon-fast-{os.geteuid()}"
    made(shared / name)
    report = run(place, SQUATTED + ALL_DELIVERED, str(shared), env={"EPSAGON_RUNTIME_DIR": ""})
    assert report == Report([], {}, "DELIVERED")
    (own,) = shared.glob(f"{name}-*")
    assert own.stat().st_mode & 0o777 == 0o700
    await_traces(backend, place, *(f"trace{n}" for n in range(TRACES)))


def test_no_shared_memory_to_write_to_leaves_the_temporary_directory(backend: Backend, place: Place) -> None:
    temporary = pathlib.Path(place.runtime_dir) / "tmp"
    temporary.mkdir()
    environment = {"EPSAGON_RUNTIME_DIR": "", "TMPDIR": str(temporary)}
    report = run(place, SQUATTED + ALL_DELIVERED, "/proc", env=environment)
    assert report == Report([], {}, "DELIVERED")
    await_traces(backend, place, *(f"trace{n}" for n in range(TRACES)))
    assert [path.name for path in temporary.iterdir()] == [f"epsagon-fast-{os.geteuid()}"]


# No space.


@pytest.mark.root
@pytest.mark.parametrize("size", ["16k", "1m", "3m"])
def test_full_shared_memory_gives_no_ring_and_harms_nobody(place: Place, size: str) -> None:
    # A small tmpfs, in a view of the files that is this program's own.
    script = f"""
import subprocess
subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700,size={size}", "tmpfs", {place.runtime_dir!r}], check=True)
"""
    report = run(place, before=script, program=["unshare", "-m", sys.executable])
    all_is_refused(report, "no_space", place.runtime_dir, "tracing is off")


NO_SPACE = """
import errno, os
real = os.posix_fallocate
def full(*arguments):
    raise OSError(errno.ENOSPC, "No space left on device")
"""


def test_space_that_goes_while_a_ring_is_made_is_no_space(place: Place) -> None:
    # Between the look at the free space and the reservation somebody else has taken it.
    report = run(place, NO_SPACE + "os.posix_fallocate = full\n" + ALL_TRACES)
    all_is_refused(report, "no_space", "No space left on device", "tracing is off")
    assert [name for name in os.listdir(place.folder) if name.endswith(".ring")] == []


def test_tracing_begins_when_there_is_space_again(backend: Backend, place: Place) -> None:
    report = run(
        place,
        NO_SPACE
        + """
os.posix_fallocate = full
work("lost")
os.posix_fallocate = real
import time
time.sleep(1.05)  # a process looks once a second
report(work("kept"), 10)
""",
    )
    assert len(report.warnings) == 1
    assert report.outcome == "DELIVERED"
    # The count has moved into the ring, where `status` sees it.
    assert report.refused == {"no_space": 1 + EVENTS}
    await_traces(backend, place, "kept")
    until(lambda: place.look().counters.get("refused_no_space") == 1 + EVENTS, "the count outlives the process")


# Collectors.


def blocked(place: Place, name: str) -> None:
    """Put a directory where a collector must have a file."""
    os.mkdir(place.folder, 0o700)
    os.mkdir(os.path.join(place.folder, name))


def test_collector_that_cannot_be_started_is_one_warning_and_the_traces_wait(backend: Backend, place: Place) -> None:
    blocked(place, "log")  # where the collector's output should go
    report = run(place)
    (warning,) = report.warnings
    assert "no collector could be started" in warning and place.folder in warning
    assert report[1:] == ({}, "PENDING")
    os.rmdir(place.folder + "/log")
    assert run(place, "report(work('later'), 10)").outcome == "DELIVERED"
    await_traces(backend, place, "later", *(f"trace{n}" for n in range(TRACES)))


def test_collector_that_dies_at_once_is_one_warning_and_the_traces_wait(backend: Backend, place: Place) -> None:
    # It cannot be a file, nor be set aside, so no collector can live here.
    blocked(place, "state")
    aside = pathlib.Path(place.folder, "state" + CORRUPT)
    (aside / "full").mkdir(parents=True)
    report = run(
        place,
        """
import time
end = time.monotonic() + 1.5
tracer = work("first")
while time.monotonic() < end:
    time.sleep(0.05)
    epsagon.flush(0.01)
report(work("second"))
""",
    )
    (warning,) = report.warnings
    assert "ends as soon as it is started" in warning and place.folder in warning
    assert report[1:] == ({}, "PENDING")
    until(lambda: place.log().count("Directory not empty") >= 2, "it was started twice at least")
    shutil.rmtree(aside)
    run(place, "report(work('later'), 10)")
    await_traces(backend, place, "first", "second", "later")


def test_full_queue_is_refused_and_counted_until_somebody_reads_it(backend: Backend, place: Place) -> None:
    blocked(place, "log")
    report = run(
        place,
        """
with epsagon.trace("big") as tracer:
    for number in range(2000):
        tracer.add_event({"id": str(number), "resource": {"metadata": {"text": "x" * 1000}}})
report(tracer)
""",
    )
    refused = report.refused.pop("queue_full")
    assert "Records are refused" in report.warnings[-1] and place.folder in report.warnings[-1]
    assert report.refused == {} and 1000 < refused < 2000
    os.rmdir(place.folder + "/log")
    run(place, "report(work('later'), 10)")
    # Its CLOSE had room, so it is whole but for what was counted.
    trace = await_traces(backend, place, "later", "big")["big"]
    dropped = int(trace["events"][-1]["resource"]["metadata"].get("dropped_events", 0))
    assert len(ids(trace)) + dropped + refused == 2000


def test_stopped_collector_keeps_nobody_waiting(backend: Backend, place: Place) -> None:
    process = place.start(
        APPLICATION
        + """
work("before")
assert epsagon.flush(60)
print(flush=True)
input()
import resource
before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
with epsagon.trace("stopped") as tracer:
    for number in range(3000):
        tracer.add_event({"id": str(number), "resource": {"metadata": {"text": "x" * 1000}}})
print(resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before)
report(tracer)
input()
""",
        stdin=subprocess.PIPE,
    )
    with process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "\n"
        pid = place.the_collector()
        os.kill(pid, signal.SIGSTOP)
        process.stdin.write("\n")
        process.stdin.flush()
        assert int(process.stdout.readline()) == 0, "a push that waits switches"
        report = Report(**json.loads(process.stdout.readline()))
        (warning,) = report.warnings
        assert "Records are refused" in warning
        assert report.outcome == "PENDING"
        assert place.collectors() == [pid], "nobody starts a second one beside it"
        os.kill(pid, signal.SIGCONT)
        process.communicate("\n", timeout=TIMEOUT_S)
    trace = await_traces(backend, place, "before", "stopped")["stopped"]
    dropped = int(trace["events"][-1]["resource"]["metadata"].get("dropped_events", 0))
    assert len(ids(trace)) + dropped + report.refused["queue_full"] == 3000


# Without the compiled modules.

PURE = """
import sys
names = "queue._ring queue._spawn producer._entering producer._fast_path trimming._compiled"
for name in [*names.split(), "collector.formats._plain", "masking._search"]:
    sys.modules["epsagon_fast." + name] = None
"""


@pytest.mark.parametrize("way", ["forced", "not built"])
def test_without_the_extension_it_works_and_says_so(backend: Backend, place: Place, way: str) -> None:
    if way == "forced":
        place.env["EPSAGON_FAST_IMPL"] = "reference"
    script = """
from epsagon_fast.queue import ring
from epsagon_fast import trimming
assert (ring.IMPLEMENTATION, trimming.IMPLEMENTATION) == ("reference", "reference")
pid = os.fork()
if pid == 0:
    with epsagon.trace("child"):
        pass
    epsagon.shutdown(10)
    os._exit(0)
tracer = work("main")
assert os.waitpid(pid, 0)[1] == 0
assert epsagon.flush(60)
try:
    os.wait()
except ChildProcessError:
    report(tracer, 10)
"""
    report = run(place, script, before=PURE if way == "not built" else "")
    assert report == Report([], {}, "DELIVERED")
    await_traces(backend, place, "main", "child")


@pytest.mark.parametrize("closed", [(0,), (0, 1, 2, 3)], ids=str)
def test_without_the_extension_low_descriptors_may_be_closed_too(
    backend: Backend, place: Place, closed: tuple[int, ...]
) -> None:
    place.linger()
    place.run(
        PURE
        + APPLICATION
        + f"""
for fd in {closed!r}:
    try: os.close(fd)
    except OSError: pass
work("main")
os._exit(0 if epsagon.flush(60) else 9)
"""
    )
    await_traces(backend, place, "main")
    assert os.readlink(f"/proc/{place.the_collector()}/fd/0") == "/dev/null"


def test_forced_extension_that_is_missing_says_so_at_import(place: Place) -> None:
    process = place.start(
        PURE + "import epsagon_fast.queue.ring", env={"EPSAGON_FAST_IMPL": "compiled"}, stderr=subprocess.PIPE
    )
    _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert errors.splitlines()[-1].startswith("ModuleNotFoundError: import of epsagon_fast.")


# Descriptors.


def test_process_without_a_free_descriptor_goes_on(place: Place) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft > 64 and hard > 64
    report = run(
        place,
        """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    while True: taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
for number in range(10):
    tracer = work(f"trace{number}")
for fd in taken: os.close(fd)
report(tracer)
""",
    )
    all_is_refused(report, "no_folder", "Too many open files")
