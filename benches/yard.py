"""Real processes for a measurement: a collector of its own, producers that do as they are told, a sink."""

import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from measure import cpu_clock_ns
from places import Place
from sink import Sink, sink


class Spent(NamedTuple):
    """Processor time of a collector, in nanoseconds."""

    # The thread that reads, keeps and assembles.
    loop_ns: int
    total_ns: int

    @property
    def others_ns(self) -> int:
        """What its other threads used, also those that have ended."""
        return max(0, self.total_ns - self.loop_ns)

    def since(self, before: "Spent") -> "Spent":
        return Spent(self.loop_ns - before.loop_ns, self.total_ns - before.total_ns)


class Producer:
    """A process that runs producing.py, or another of these programs that take a command a line."""

    def __init__(self, place: Place, program: str) -> None:
        script = pathlib.Path(__file__).with_name(program)
        self._process = subprocess.Popen(
            [sys.executable, script], env=place.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def tell(self, name: str, *arguments: Any) -> None:
        """Have a command carried out."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """Wait until it is done; return what it answers."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, "the producer failed"
        return json.loads(line)

    def do(self, name: str, *arguments: Any) -> Any:
        self.tell(name, *arguments)
        return self.answer()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Yard:
    """A place with its collector and its producers."""

    def __init__(self, place: Place, backend: Sink) -> None:
        self.place = place
        self.backend = backend
        self._producers: list[Producer] = []

    def producer(self, program: str = "producing.py") -> Producer:
        made = Producer(self.place, program)
        self._producers.append(made)
        return made

    def collector(self) -> int:
        """Return the collector's pid."""
        return self.place.the_collector()

    def spent(self, pid: int) -> Spent:
        """Return what the collector's loop, and all of it, have used of the processor."""
        # Of the first thread alone, which is the loop's.
        loop_ns = int(pathlib.Path(f"/proc/{pid}/schedstat").read_text().split()[0])
        return Spent(loop_ns, cpu_clock_ns(pid))

    def memory_kb(self, pid: int) -> dict[str, int]:
        """Return the collector's resident memory by kind."""
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
        return {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("Rss", "VmRSS"))}

    def rolled_up_mb(self, pid: int) -> dict[str, float]:
        """Return the collector's memory as the kernel sums it up over all mappings."""
        lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        return {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}

    def close(self) -> None:
        for producer in self._producers:
            producer.close()
        self.place.close()


@contextmanager
def yard(delay_s: float = 0.0, form: str = "", keeps: bool = False, **settings: str) -> Iterator[Yard]:
    """Open a yard. `form`: what stands before the backend's URL, as in otlp+http. `keeps`: the sink keeps bodies."""
    with sink(delay_s, keeps=keeps) as backend:
        made = Yard(Place(form + backend.url, **settings), backend)
        try:
            yield made
        finally:
            made.close()
