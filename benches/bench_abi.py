"""What the stable ABI costs: the compiled modules as the wheels have them, beside a build for this Python alone.

`python benches/bench_abi.py` builds both in a folder of their own and prints the table of docs/releasing.md. Both are
loaded into one process and take turns, so that a busy moment of the machine falls on both alike.
"""

import importlib.util
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns
from types import ModuleType
from typing import Any

import bench_encoding
from bench_ring import SIZES, TRACE
from bench_trim import WORKLOADS, all_stripped, event

from epsagon_fast.protocol import Kind
from epsagon_fast.queue import ring

SOURCES = Path(__file__).parents[1]
STABLE, SINGLE = "abi3", "one version"
TURNS = 1000
RING_BYTES = 512 * 1024
# So few bytes that little but calls and objects is left.
TRIMS = {**WORKLOADS, "10 x 200 B": all_stripped([event(190, value_size=20) for _ in range(10)])}
# Does its work once and returns how many nanoseconds it took.
Round = Callable[[], int]


def build(folder: Path, is_stable: bool) -> Path:
    """Build the compiled modules from copies of their sources."""
    for name in ("_ext", "epsagon_fast"):
        shutil.copytree(SOURCES / name, folder / name, ignore=shutil.ignore_patterns("*.so", "*.c", "__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(SOURCES / name, folder)
    environment = os.environ | {"EPSAGON_FAST_STABLE_ABI": str(int(is_stable))}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=sys.stderr)
    return folder


def load(folder: Path, name: str) -> ModuleType:
    """Load a compiled module beside the other build's, whose name it would else take."""
    (path,) = folder.glob(f"epsagon_fast/*/{name}.*so")
    spec = importlib.util.spec_from_file_location(f"{folder.name}.{name}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def timed(work: Callable[[], object]) -> int:
    start = perf_counter_ns()
    work()
    return perf_counter_ns() - start


def trim_round(folder: Path, workload: str) -> Round:
    trim = load(folder, "_compiled").trim
    events, limit_bytes = TRIMS[workload]
    return lambda: timed(lambda: trim(events, limit_bytes))


def both_ends(folder: Path) -> tuple[Any, Any]:
    """Return the producer and the consumer of a ring, of this build."""
    module = load(folder, "_ring")
    directory = os.open(folder, os.O_RDONLY)
    fd = ring.create(directory, "a.ring", RING_BYTES, pid=1, start_time=1, checksummed=False)
    os.unlink("a.ring", dir_fd=directory)
    ends = module.Producer(fd), module.Consumer(fd)
    os.close(fd)
    os.close(directory)
    return ends


def read_all(consumer: Any) -> None:
    consumer.read(RING_BYTES)
    consumer.commit()


def push_round(folder: Path, size: str, times_reading: bool) -> Round:
    producer, consumer = both_ends(folder)
    size_bytes, count = SIZES[size]
    payload, push, kind = bytes(size_bytes), producer.push, int(Kind.EVENT)

    def push_many() -> None:
        for _ in range(count):
            push(kind, 0, TRACE, payload)

    def round() -> int:
        pushing, reading = timed(push_many), timed(lambda: read_all(consumer))
        return reading if times_reading else pushing

    return round


def add_round(folder: Path, event_name: str) -> Round:
    fast_path = load(folder, "_fast_path").FastPath
    producer, consumer = both_ends(folder)

    class Tracer(fast_path):
        def _add_slowly(self, event: object, code: int) -> None:
            assert code == ring.layout.LOOK

    tracer = Tracer()
    tracer._open_path(producer.push, TRACE, RING_BYTES, False)
    events = [bench_encoding.EVENTS[event_name](number) for number in range(bench_encoding.EVENTS_PER_ROUND)]

    def add_all() -> None:
        for one in events:
            tracer.add_event(one)

    def round() -> int:
        adding = timed(add_all)
        read_all(consumer)
        return adding

    return round


CASES: dict[str, Callable[[Path], Round]] = {
    **{f"trim {name}": lambda folder, name=name: trim_round(folder, name) for name in TRIMS},
    "256 pushes of 200 B": lambda folder: push_round(folder, "200 B", False),
    "256 pushes of 1 KB": lambda folder: push_round(folder, "1 KB", False),
    "reading 256 records of 200 B": lambda folder: push_round(folder, "200 B", True),
    "reading 256 records of 1 KB": lambda folder: push_round(folder, "1 KB", True),
    "add_event, 100 of 200 B": lambda folder: add_round(folder, "complete, 200 B"),
    "add_event, 100 of 1 KB": lambda folder: add_round(folder, "complete, 1 KB"),
}


def medians(rounds: list[Round]) -> list[float]:
    """Return the median time of each, in ns; who comes first in a turn changes."""
    times: list[list[int]] = [[] for _ in rounds]
    for turn in range(TURNS):
        for place in range(len(rounds)):
            which = (place + turn) % len(rounds)
            times[which].append(rounds[which]())
    return [statistics.median(taken) for taken in times]


def main() -> None:
    print(f"| CPython {sys.version.split()[0]} | {STABLE} us | {SINGLE} us | {STABLE} / {SINGLE} |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as place:
        folders = [Path(place, name) for name in ("stable", "single")]
        for folder in folders:
            build(folder, folder.name == "stable")
        for name, case in CASES.items():
            stable, single = medians([case(folder) for folder in folders])
            print(f"| {name} | {stable / 1000:.1f} | {single / 1000:.1f} | {stable / single:.3f} |", flush=True)


if __name__ == "__main__":
    main()
