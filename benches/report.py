"""The report of a run: tables as they are measured; at the end benches/RESULTS.md, the README's chart and its table."""

import datetime
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import NamedTuple

from chart import Bar, Line, chart, growth

HERE = pathlib.Path(__file__).parent
README = HERE.parent / "README.md"
MARKS = ("<!-- Written by make bench: {} -->\n", "<!-- to here -->\n")
SECTIONS = {
    "worker": "1. In the worker",
    "collector": "2. In the collector",
    "delivery": "3. Delivery",
    "start": "4. Import and start",
    "trimming": "5. Trimming",
    "queue": "6. The queue",
    "web": "7. A web request",
    "otlp": "8. OTLP",
    "collectors": "9. Through a Collector",
    "survival": "10. What survives",
    "seen": "11. What is seen",
    "pressure": "1. Under pressure",
    "steady": "2. A steady load",
    "growth": "3. How cost grows",
}
# The pages, with the target of the Makefile that writes each.
PAGES = {"RESULTS.md": "make bench", "SCALE.md": "make scale"}
# What the second page shows; the rest is on the first.
SCALE = ("bench_pressure.py", "bench_steady.py", "bench_growth.py")
Cell = str | float | int


class Target(NamedTuple):
    """Something that was to be reached, and whether it was. `why`: what stands between, if not."""

    what: str
    measured: str
    met: bool
    why: str


class Report:
    """What a run has found so far."""

    def __init__(self) -> None:
        self._tables: dict[str, list[str]] = {name: [] for name in SECTIONS}
        self._targets: list[Target] = []
        self._bars: list[Bar] = []
        self._charts: dict[str, str] = {}
        self._leading: dict[str, str] = {}

    def table(
        self, section: str, title: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]], note: str = ""
    ) -> str:
        """Add a table; what is a number is right-aligned, with three digits that count. Print it as well."""
        lines = [f"**{title}**", "", f"| {' | '.join(columns)} |", f"|---|{'---:|' * (len(columns) - 1)}"]
        lines += [f"| {' | '.join(map(shown, row))} |" for row in rows]
        text = "\n".join([*lines, "", note, ""] if note else [*lines, ""])
        self._tables[section].append(text)
        print(f"\n{text}")
        return text

    def leading(
        self, section: str, title: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]], note: str = ""
    ) -> None:
        """Add the section's table that stands in the README too."""
        self._leading[section] = self.table(section, title, columns, rows, note)

    def growth(
        self,
        name: str,
        title: str,
        across: str,
        unit: str,
        lines: Sequence[Line],
        columns: Sequence[str],
        rows: Iterable[Sequence[Cell]],
        note: str,
    ) -> None:
        """Add a chart and its table. name: of the chart's file; across: what there is more and more of."""
        self._charts[f"{name}.svg"] = growth(title, across, unit, lines)
        exponents = "; ".join(f"{line.name} {line.exponent:.2f}" for line in lines)
        self._tables["growth"].append(f"![{title}]({name}.svg)\n")
        self.table("growth", title, columns, rows, f"{note} Exponents of the upper two decades: {exponents}.")

    def target(self, what: str, measured: str, met: bool, why: str = "") -> None:
        """Note whether a target was reached."""
        self._targets.append(Target(what, measured, met, why))

    def bar(self, name: str, here_us: float, helper_us: float, ours: bool) -> None:
        """Put a bar into the chart."""
        self._bars.append(Bar(name, here_us, helper_us, ours))

    def write(self, folder: pathlib.Path, page: str) -> None:
        """Write a page and its charts; and the README's table, if these are what it shows."""
        if self._bars:
            (folder / "chart.svg").write_text(chart(self._bars))
        for name, svg in self._charts.items():
            (folder / name).write_text(svg)
        known = {"machine": machine(), "date": datetime.date.today(), "versions": versions(), "command": PAGES[page]}
        parts = [HEAD.format(title=TITLES[page], **known)]
        if self._targets:
            parts += ["## Targets\n", "| target | measured | |\n|---|---|---|"]
            parts += [
                f"| {each.what} | {each.measured} | {'met' if each.met else 'missed'} |" for each in self._targets
            ]
            parts += [""] + [f"Missed: {each.what}. {each.why}\n" for each in self._targets if not each.met]
        for name, heading in SECTIONS.items():
            if self._tables[name]:
                parts += [f"## {heading}\n", *self._tables[name]]
        (folder / page).write_text("\n".join(parts).rstrip() + "\n")
        for name, table in self._leading.items() if folder == HERE else ():
            README.write_text(led(README.read_text(), name, table))


TITLES = {
    "RESULTS.md": "# What it costs\n\nUnder pressure, and how that grows: [SCALE.md](SCALE.md).",
    "SCALE.md": "# What it costs under pressure, and how that grows\n\nAll else: [RESULTS.md](RESULTS.md).",
}
HEAD = """{title}

Written by `{command}` on {date}. Each table compares within one run, its rows by turns, so that a busy moment of the
machine falls on all of them; medians unless it says otherwise. Ratios say more than figures.

Machine: {machine}.

Versions: {versions}.
"""


def led(page: str, name: str, table: str) -> str:
    """Return the page with this table between its marks. Raises ValueError if it has none."""
    before, mark, rest = page.partition(MARKS[0].format(name))
    _, end, behind = rest.partition(MARKS[1])
    if not mark or not end:
        raise ValueError(f"the page has no place for the table: {MARKS}")
    return f"{before}{mark}\n{table}{end}{behind}"


def shown(cell: Cell) -> str:
    """Return a number with three digits that count."""
    if isinstance(cell, str):
        return cell
    if abs(cell) >= 100 or cell == int(cell):
        return f"{cell:,.0f}".replace(",", " ")
    return f"{cell:.3g}"


def machine() -> str:
    """Return what this runs on, and how busy that is."""
    cpu = platform.processor()
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), cpu)
    load = os.getloadavg()[0]
    return f"{len(os.sched_getaffinity(0))} processors ({cpu}), Linux {platform.release()}, load {load:.1f} at the end"


def versions() -> str:
    """Return the versions of all that was measured."""
    ours = [
        f"CPython {platform.python_version()}",
        *(f"{name} {version(name)}" for name in ("epsagon-fast", "orjson", "urllib3")),
    ]
    python = peers_python()
    if python:
        code = f"from importlib.metadata import version; print(*(f'{{n}} {{version(n)}}' for n in {PEERS}), sep=', ')"
        ours.append(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip())
    return ", ".join(ours)


PEERS = ("opentelemetry-sdk", "ddtrace", "sentry-sdk", "epsagon")


def peers_python() -> str | None:
    """Return the Python that has the peers, which would not all go into the environment of development; or None."""
    python = HERE.parent / ".venv-bench" / "bin" / "python"
    return str(python) if python.exists() else None


def main() -> int:
    """Run the benches of a page, the first one unless it is named, and write it."""
    import pytest

    # pytest-benchmark's own cases are not timed by turns, so they are for looking closer; here each runs once.
    options = ["-q", "--benchmark-disable", "--timeout=400", "-o", "faulthandler_timeout=390", "-p", "no:cacheprovider"]
    words = sys.argv[1:]
    page = next((word for word in words if word in PAGES), "RESULTS.md")
    files = sorted(HERE.glob("bench_*.py"))
    chosen = [str(each) for each in files if (each.name in SCALE) == (page == "SCALE.md")]
    rest = [word for word in words if word not in PAGES]
    return int(pytest.main([*options, f"--results={HERE}", f"--page={page}", *chosen, *rest]))


if __name__ == "__main__":
    sys.exit(main())
