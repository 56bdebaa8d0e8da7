"""A scene: a place, a sink, workers that write down what they push, and the account at the end.

The law of every scene: pushed = arrived + refused(reason). What a worker noted has to be in a trace that arrived, or in
a counter that says why not.
"""

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from places import BASE, FULL, Place, until
from sink import Sink

HERE = os.path.dirname(os.path.abspath(__file__))
# After the last fault all that was accepted arrives in so long.
PATIENCE_S = 120.0 if FULL else 60.0
# Three workers that trace until `Scene.stop`.
LOAD = """
import os, sys, noting
pids = [noting.spawn(noting.until_stopped, 10, 1000, 0.004) for _ in range(3)]
codes = [os.waitpid(pid, 0)[1] for pid in pids]
assert codes == [0, 0, 0], codes
"""


@dataclass
class Row:
    """One line of the table."""

    fault: str
    tried: int = 0
    pushed: int = 0
    arrived: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    missing: int = 0
    duplicates: int = 0
    hangs: int = 0
    longest_us: float = 0.0
    # Of the calls of add_event: how often a thread gave up the processor by itself.
    switches: int = 0

    def cells(self) -> tuple[str, ...]:
        """Return the line's cells as texts."""
        refused = ", ".join(f"{reason} {count}" for reason, count in sorted(self.refused.items())) or "0"
        numbers = (self.missing, self.duplicates, self.hangs)
        return (
            self.fault,
            str(self.tried),
            f"{self.pushed:,}",
            f"{self.arrived:,}",
            refused,
            *map(str, numbers),
            f"{self.longest_us:,.0f}",
        )


HEADINGS = ("fault", "tried", "pushed", "arrived", "refused", "missing", "duplicates", "hangs", "longest add_event, us")
ROWS: list[Row] = []


def table() -> str:
    """Return all rows as a table in Markdown."""
    lines = [HEADINGS, ("---",) + ("---:",) * 3 + ("---",) + ("---:",) * 4, *(row.cells() for row in ROWS)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


class Noted:
    """What the workers of a scene wrote down."""

    def __init__(self, notes: Path) -> None:
        self.taken: set[str] = set()
        self.refused: Counter[str] = Counter()
        self.refused_traces: Counter[str] = Counter()
        self.opened: set[str] = set()
        self.closing: set[str] = set()
        self.longest_us = 0.0
        self.switches = 0
        for path in notes.iterdir():
            text = path.read_text()
            # A line that was not finished was never noted.
            for line in text[: text.rfind("\n") + 1].splitlines():
                self._read(line.split(" "))

    @property
    def pushed(self) -> int:
        """The number of events whose call returned."""
        return len(self.taken) + self.refused.total()

    def _read(self, words: list[str]) -> None:
        if words[0] == "e":
            _, event, reason, took_ns, switches = words
            if reason == "-":
                self.taken.add(event)
            else:
                self.refused[reason] += 1
            self.longest_us = max(self.longest_us, int(took_ns) / 1000)
            self.switches += int(switches)
        elif words[0] == "r":
            self.refused_traces[words[1]] += 1
        elif words[0] == "o":
            self.opened.add(words[1])
        elif words[0] == "c":
            self.closing.add(words[1])


class Scene(Place):
    """A place whose workers can `import noting`, and the sink to which it leads."""

    def __init__(
        self, fault: str, url: str = "", *, on_disk: bool = False, sink: Sink | None = None, **settings: str
    ) -> None:
        """`on_disk`: the notes are; for workers that see another /dev/shm. `sink`: where all has to arrive."""
        self.sink = sink or Sink()
        super().__init__(url or self.sink.url, **settings)
        self.row = Row(fault)
        # In memory: a note must not wait for a disk, nor end before the process that makes it.
        base = self.scratch if on_disk or not BASE else Path(BASE)
        self.paper = base / f"{os.path.basename(self.runtime_dir)}-notes"
        self.notes = self.paper / "notes"
        self.notes.mkdir(parents=True)
        path = [HERE, os.path.dirname(HERE), os.environ.get("PYTHONPATH", "")]
        self.env |= {"NOTES": str(self.notes), "PYTHONPATH": ":".join(path), **settings}

    @property
    def folder(self) -> str:
        """The folder of rings: in other namespaces it has another name, but is the only one."""
        names = os.listdir(self.runtime_dir)
        return os.path.join(self.runtime_dir, names[0]) if len(names) == 1 else super().folder

    def gauge(self, name: str) -> int:
        """Return how many there are now; 0 also where nobody has counted yet."""
        return self.look().gauges.get(name, 0) if os.path.isdir(self.folder) else 0

    def counter(self, name: str) -> int:
        """Return how many there were; 0 also where nobody has counted yet."""
        return self.look().counters.get(name, 0) if os.path.isdir(self.folder) else 0

    def stop(self) -> None:
        """Let workers come to their end that trace until they are stopped."""
        (self.paper / "stop").touch()

    def lost(self) -> Counter[str]:
        """What the collector counted that it could give to no trace."""
        counters = self.look().counters if os.path.isdir(self.folder) else {}
        lost = Counter({reason: counters.get(reason, 0) for reason in ("late", "orphan", "misplaced", "malformed")})
        return +lost

    def account(self, lost: Mapping[str, int] | None = None, patience_s: float = PATIENCE_S) -> Noted:
        """Wait until the law holds, or patience ends; enter it all into the row. `lost`: what the collector counted.

        By default that is read from the folder's state page.
        """
        noted = Noted(self.notes)

        def gone() -> Counter[str]:
            return Counter(lost) if lost is not None else self.lost()

        def is_settled() -> bool:
            absent = len(noted.taken - self.sink.ids)
            return not absent or absent <= gone().total()

        with suppress(AssertionError):
            until(is_settled, "all arrives", patience_s)
        row = self.row
        arrived = len(noted.taken & self.sink.ids)
        absent = len(noted.taken) - arrived
        row.pushed += noted.pushed
        row.arrived += arrived
        row.refused += noted.refused
        if absent:
            row.refused += gone()
        row.missing += max(0, absent - gone().total())
        row.duplicates += self.sink.duplicates
        row.longest_us = max(row.longest_us, noted.longest_us)
        row.switches += noted.switches
        if row.missing:
            examples = sorted(noted.taken - self.sink.ids)[:10]
            print(f"missing in {row.fault}: {examples}\n{self.look()}\n{self.log()}", file=sys.stderr)
        return noted

    def close(self) -> None:
        """End it all."""
        try:
            super().close()
        finally:
            self.sink.close()
            shutil.rmtree(self.paper, ignore_errors=True)


@contextmanager
def scene(fault: str, **options: Any) -> Iterator[Scene]:
    """A scene whose row is in the table, whatever comes of it."""
    made = Scene(fault, **options)
    ROWS.append(made.row)
    try:
        yield made
    except (subprocess.TimeoutExpired, AssertionError) as error:
        made.row.hangs += isinstance(error, subprocess.TimeoutExpired) or "the program hangs" in str(error)
        raise
    finally:
        made.close()


def holds(row: Row) -> None:
    """Assert the law."""
    assert (row.missing, row.hangs) == (0, 0), row
    assert row.pushed == row.arrived + row.refused.total(), row


def serving(here: Scene, after: int) -> int:
    """Return the pid of a collector that serves with a higher number; wait until there is one."""

    def pid() -> int | None:
        try:
            seen = here.look()
        except OSError:
            return None
        return seen.pid if seen.incarnation > after else None

    return until(pid, lambda: f"a collector serves after number {after}: {here.look()}\n{here.log()}", 90) or 0
