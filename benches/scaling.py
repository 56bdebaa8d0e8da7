"""What the measured rates mean for many hosts: the table of docs/scaling.md, from benches/RESULTS.md.

python benches/scaling.py                        # prints it
python benches/scaling.py --write                # and puts it into docs/scaling.md
python benches/scaling.py --requests 50 --spans 20
"""

import argparse
import pathlib
import re
import sys
from typing import NamedTuple

from epsagon_fast.collector.sending.outbox.file import LIMIT_BYTES

HERE = pathlib.Path(__file__).parent
PAGE = HERE.parent / "docs" / "scaling.md"
TABLE = "A span on its way through a Collector"
IN_APPLICATION, IN_COLLECTOR, IN_OTELCOL = "in the application", "in our collector", "in the Collector"
IN_OUTBOX, IN_QUEUE = "waiting in our outbox", "waiting in the Collector's queue"
HOSTS = (1, 100, 10_000)
# What is in a backend's reach: more load than this leaves a core no room for a busy moment.
LOAD = 0.5
# decision_wait in examples/scaling; a span is no smaller in memory than in a queue's file.
WAIT_S = 30
HOUR_S, DAY_S = 3600, 86_400
MIB, GIB = 1 << 20, 1 << 30


class Measured(NamedTuple):
    """What one span costs: processor seconds, and bytes sent or stored."""

    application_s: float
    collector_s: float
    otelcol_s: float
    sent_bytes: float
    passed_on_bytes: float
    outbox_bytes: float
    queue_bytes: float
    requests_per_s: float


def measured(results: str) -> Measured:
    """Read the bench's table out of the report. Raises ValueError if it is not there."""
    found = re.search(rf"\*\*{TABLE}\*\*\n\n(.*?)\n\n", results, re.DOTALL)
    if not found:
        raise ValueError(f"no table {TABLE!r}: pytest benches/bench_collectors.py measures it")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in found[1].splitlines()]
    rows = {name: [_number(cell) for cell in cells] for name, *cells in lines[2:]}
    return Measured(
        rows[IN_APPLICATION][0] / 1e6,
        rows[IN_COLLECTOR][0] / 1e6,
        rows[IN_OTELCOL][0] / 1e6,
        rows[IN_COLLECTOR][1],
        rows[IN_OTELCOL][1],
        rows[IN_OUTBOX][1],
        rows[IN_QUEUE][1],
        rows[IN_COLLECTOR][2],
    )


def _number(cell: str) -> float:
    return 0.0 if cell == "-" else float(cell.replace("\N{NO-BREAK SPACE}", "").replace(" ", ""))


def table(cost: Measured, requests_per_s: float, spans: float) -> str:
    """Return the table in Markdown for hosts that each serve so many requests a second, of so many spans each."""
    rows = [("hosts", *(f"{hosts:,}" for hosts in HOSTS)), ("---", *("---:" for _ in HOSTS))]
    rates = [hosts * requests_per_s * spans for hosts in HOSTS]

    def row(name: str, *values: str) -> None:
        rows.append((name, *values))

    row("spans a second", *(f"{rate:,.0f}" for rate in rates))
    row("HTTP requests a second, from all hosts", *(f"{hosts * cost.requests_per_s:,.0f}" for hosts in HOSTS))
    row("from the hosts", *(f"{rate * cost.sent_bytes / MIB:,.2f} MiB/s" for rate in rates))
    row("to the backend", *(f"{rate * cost.passed_on_bytes / MIB:,.2f} MiB/s" for rate in rates))
    row("to the backend in a day", *(f"{rate * cost.passed_on_bytes * DAY_S / GIB:,.0f} GiB" for rate in rates))
    row("cores in the applications, on each host", *(f"{rates[0] * cost.application_s:.3f}" for _ in rates))
    row("cores in our collector, on each host", *(f"{rates[0] * cost.collector_s:.3f}" for _ in rates))
    row("cores in a Collector on each host", *(f"{rates[0] * cost.otelcol_s:.3f}" for _ in rates))
    row(
        "or cores in a cluster's Collectors, half used",
        *(f"{max(1, rate * cost.otelcol_s / LOAD):,.0f}" for rate in rates),
    )
    lasts_s = LIMIT_BYTES / (rates[0] * cost.outbox_bytes)
    row(f"our outbox of {LIMIT_BYTES // MIB} MiB lasts", *(f"{lasts_s:,.0f} s" for _ in rates))
    row("disk for an hour, in the queue of each host's Collector", *(_disk(rates[0] * cost.queue_bytes) for _ in rates))
    row("or in those of the cluster", *(_disk(rate * cost.queue_bytes) for rate in rates))
    row(
        f"memory of a tail sampler that waits {WAIT_S} s, at least",
        *(f"{rate * WAIT_S * cost.queue_bytes / GIB:,.2f} GiB" for rate in rates),
    )
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def _disk(bytes_per_s: float) -> str:
    return f"{bytes_per_s * HOUR_S / GIB:,.1f} GiB"


def written(page: str, text: str) -> str:
    """Return the page with this table in the place of the one that it has. Raises ValueError if it has none."""
    new, count = re.subn(r"\| hosts \|.*?\n\n", lambda _: text + "\n\n", page, flags=re.DOTALL)
    if count != 1:
        raise ValueError("the page has no table that begins with `| hosts |`")
    return new


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=float, default=200, help="requests a second on one host")
    parser.add_argument("--spans", type=float, default=5, help="spans of one request")
    parser.add_argument("--write", action="store_true", help="put the table into docs/scaling.md")
    said = parser.parse_args()
    text = table(measured((HERE / "RESULTS.md").read_text()), said.requests, said.spans)
    print(text)
    if said.write:
        PAGE.write_text(written(PAGE.read_text(), text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
