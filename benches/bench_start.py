"""Imports beside those that cannot be avoided, and how long the first trace takes when nothing runs yet."""

import json
import statistics
import subprocess
import sys
import time

from report import Report, peers_python
from waiting import until
from yard import yard

from epsagon_fast.queue import state as states

FLOOR, OURS = "import orjson, dataclasses", "import epsagon_fast"
IMPORTS = 25
STARTS = 5
IMPORT_TARGET = 1.5
SERVES_TARGET_MS = 50
MEMORY_TARGET_MB = 30
# Enough for every thread and buffer to be there.
TRACES = 20


def timed(statement: str, where: list[str]) -> list[float]:
    """Return wall and processor time of an import in a fresh Python without site."""
    code = (
        f"import sys, time; sys.path[:0] = {where!r}; wall, cpu = time.perf_counter(), time.process_time()\n"
        f"{statement}\nprint([time.perf_counter() - wall, time.process_time() - cpu])"
    )
    return list(json.loads(run(code)))


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True).stdout


def paths() -> list[str]:
    return [path for path in sys.path if path.endswith("site-packages")] + [__file__.rpartition("/benches/")[0]]


def peers_paths() -> list[str]:
    python = peers_python()
    code = "import sys; print(*(path for path in sys.path if path.endswith('site-packages')), sep='\\n')"
    return subprocess.check_output([python, "-c", code], text=True).splitlines() if python else []


def test_imports(report: Report) -> None:
    where = {FLOOR: paths(), OURS: paths()}
    if peers := peers_paths():
        where["import opentelemetry.sdk.trace"] = peers
    taken: dict[str, list[list[float]]] = {statement: [] for statement in where}
    for _ in range(IMPORTS):
        for statement, each in taken.items():
            each.append(timed(statement, where[statement]))
    medians = {
        name: [statistics.median(column) * 1000 for column in zip(*each, strict=True)] for name, each in taken.items()
    }
    rows = [[name, *found, found[1] / medians[FLOOR][1]] for name, found in medians.items()]
    pulled = run(
        f"import sys; sys.path[:0] = {paths()!r}\n{FLOOR}\nknown = set(sys.modules)\n{OURS}\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules.keys() - known} - {'epsagon_fast'}))"
    ).strip()
    note = f"Beyond orjson and dataclasses it pulls in: {pulled.replace(' ', ', ')}."
    report.table("start", "Import", ("", "wall ms", "CPU ms", "/ first, CPU"), rows, note)
    ratio = medians[OURS][1] / medians[FLOOR][1]
    why = "Of what it adds a third is spent on finding and reading 87 modules."
    report.target(
        f"import at most {IMPORT_TARGET}x `import orjson, dataclasses`", f"{ratio:.2f}x", ratio <= IMPORT_TARGET, why
    )


def serves(folder: str) -> bool:
    """Say whether a collector serves the folder.

    By its state page alone: to ask for its lock, as `status` does, makes a collector that starts wait 10 ms for it.
    """
    return states.beat_in(folder).phase == states.SERVING


def test_from_nothing_to_delivered(report: Report) -> None:
    first_call, served, arrived = [], [], []
    for _ in range(STARTS):
        with yard() as own:
            producer = own.producer()
            producer.do("refused")
            start = time.monotonic()
            [(key, closed)] = producer.do("close_one_by_one", 1, 0.0).items()
            first_call.append(closed - start)
            until(lambda: serves(own.place.folder), "a collector serves", pause_s=0.0005)
            served.append(time.monotonic() - start)
            while key not in (found := own.backend.arrivals()):
                assert time.monotonic() < start + 20, "the trace does not arrive"
                time.sleep(0.002)
            arrived.append(found[key] - start)
    rows = [
        ("the first trace, opened, filled and closed in the caller", statistics.median(first_call) * 1000),
        ("until a collector serves", statistics.median(served) * 1000),
        ("until the backend has it", statistics.median(arrived) * 1000),
    ]
    note = "No folder, no ring, no collector before; the caller goes on after the first line."
    report.table("start", "From nothing to the first trace delivered", ("", "median ms"), rows, note)
    serves_ms = statistics.median(served) * 1000
    goal = f"from nothing to a serving collector at most {SERVES_TARGET_MS} ms"
    why = "It is a Python program of its own, and imports 232 modules: nothing in it waits."
    report.target(goal, f"{serves_ms:.0f} ms", serves_ms <= SERVES_TARGET_MS, why)


def test_memory_of_a_serving_collector(report: Report) -> None:
    rows = []
    for name, form in (("epsagon's form", ""), ("OTLP in JSON", "otlp+")):
        with yard(form=form) as own:
            producer = own.producer()
            producer.do("close_one_by_one", TRACES, 0.01)
            pid = own.collector()
            time.sleep(1)
            rolled = own.rolled_up_mb(pid)
        rows.append((name, rolled["Rss"], rolled["Pss"], rolled["Anonymous"]))
    note = f"From smaps_rollup, after {TRACES} traces of one producer. Pss: what others share is divided among them."
    report.table("start", "Memory of a serving collector, in MB", ("", "RSS", "PSS", "anonymous"), rows, note)
    rss_mb = max(row[1] for row in rows)
    report.target(f"RSS at most {MEMORY_TARGET_MB} MB", f"{rss_mb:.1f} MB", rss_mb <= MEMORY_TARGET_MB)
