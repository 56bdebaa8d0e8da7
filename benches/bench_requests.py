"""What tracing a web request costs all processes, beside its peers: worker, collector, and what else a tracer starts.

Each tracer is set up as its documentation says (shops.py) and sends all it records to a sink on loopback, whose work
counts for none of them. Requests come in bursts, to one application after the other, so that batches, collectors and
threads are in their usual state and a busy moment of the machine falls on all. The order changes, because what ran
before has filled the caches. Every round gives each a difference to the bare application of its environment; medians of
these are shown. The bare application of the other environment is a row too: it shows how far the measure can be
believed.

Needs the peers for their rows: `make .venv-bench/.installed`. Without them the others are measured.
"""

import contextlib
import random
import statistics
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from gunicorns import children_of
from measure import cpu_clock_ns
from over_http import Web, gunicorn
from places import descendants
from report import Report, peers_python
from shops import BARE, DDTRACE, OTEL, OURS, OURS_OTLP, SENTRY, THEIR_BARE, requests_in
from yard import Yard, yard

HERE = {BARE: "", OURS: "", OURS_OTLP: "otlp+"}
THERE = (THEIR_BARE, OTEL, DDTRACE, SENTRY)
BURST, BURSTS, ROUNDS = 50, 12, 12
# OpenTelemetry sends what it has every five seconds.
PATIENCE_S = 15.0
# ddtrace would report to its maker, and ask the agent for settings; and print what it found.
QUIET = {
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "DD_TRACE_STARTUP_LOGS": "false",
}
# Of what OpenTelemetry adds.
WANTED = {OURS_OTLP: 0.5, OURS: 1.0}

pytestmark = pytest.mark.timeout(0)


class Cost(NamedTuple):
    """Processor time of a request, in microseconds."""

    worker: float
    others: float

    @property
    def total(self) -> float:
        return self.worker + self.others

    def without(self, bare: "Cost") -> "Cost":
        return Cost(self.worker - bare.worker, self.others - bare.others)


class Served:
    """One of the applications under its gunicorn, with its own sink and, if it is ours, its collector."""

    def __init__(self, own: Yard, web: Web) -> None:
        self.web = web
        self.backend = own.backend
        self._own = own
        web.ask(4 * BURST)
        (self.worker,) = children_of(web.pid)
        self._others = self._beside()
        self._arrived: set[bytes] = set()
        self._first = 0

    def _beside(self) -> list[int]:
        return sorted({self.web.pid, *descendants(self.web.pid), *self._own.place.collectors()} - {self.worker})

    def spent(self) -> tuple[int, int]:
        """Return the nanoseconds that the worker has used, and all other processes."""
        return cpu_clock_ns(self.worker), sum(map(cpu_clock_ns, self._others))

    def all_is_counted(self) -> bool:
        """Say whether no process came or went, whose time would be missing."""
        return self._beside() == self._others and children_of(self.web.pid) == [self.worker]

    def count_anew(self) -> None:
        """Leave out of the share what was asked so far."""
        self._first = self.web.asked

    def share_arrived(self) -> float:
        """Return which share of the requests has arrived by now, complete."""
        self._arrived |= requests_in(self.backend.bodies())
        return sum(int(number) >= self._first for number in self._arrived) / (self.web.asked - self._first)


@contextlib.contextmanager
def served(name: str, python: str) -> Iterator[Served]:
    with yard(form=HERE.get(name, ""), keeps=True) as own:
        scheme, _, host = own.backend.url.partition("://")
        sentry = {"SENTRY_DSN": f"{scheme}://key@{host}1"} if name == SENTRY else {}
        env = {**own.place.env, **QUIET, **sentry, "OTEL_EXPORTER_OTLP_ENDPOINT": own.backend.url}
        env["DD_TRACE_AGENT_URL"] = own.backend.url
        with gunicorn(f"shops:made({name!r})", python, env) as web:
            yield Served(own, web)


def costs(all_served: dict[str, Served]) -> dict[str, Cost]:
    """Return what a request cost each of them in a round."""
    before = {name: each.spent() for name, each in all_served.items()}
    order = list(all_served.values())
    for _ in range(BURSTS):
        random.shuffle(order)
        for each in order:
            each.web.ask(BURST)
    found = {}
    for name, each in all_served.items():
        used = [now - was for now, was in zip(each.spent(), before[name], strict=True)]
        found[name] = Cost(*(ns / 1000 / BURST / BURSTS for ns in used))
    return found


def arrived(all_served: dict[str, Served]) -> dict[str, float]:
    """Wait until all has arrived, or for some seconds; return the shares."""
    deadline = time.monotonic() + PATIENCE_S
    shares = {name: 0.0 for name in all_served if name not in (BARE, THEIR_BARE)}
    while min(shares.values()) < 1 and time.monotonic() < deadline:
        time.sleep(0.2)
        shares = {name: all_served[name].share_arrived() for name in shares}
    return shares


def added(rounds: list[dict[str, Cost]]) -> dict[str, list[Cost]]:
    """Return what each added in each round to the bare application of its environment."""
    base = {name: THEIR_BARE if name in THERE and name != THEIR_BARE else BARE for name in rounds[0]}
    return {name: [each[name].without(each[base[name]]) for each in rounds] for name in rounds[0] if name != BARE}


def middle(values: list[float]) -> str:
    """Return between which values all but the two extreme ones at either end lie."""
    ordered = sorted(values)
    return f"{ordered[2]:.0f} – {ordered[-3]:.0f}"


def shown_share(share: float | None) -> str:
    return "-" if share is None else "all" if share == 1 else f"{share:.1%}"


def row(differences: list[Cost], theirs: list[Cost] | None) -> list[str | float]:
    """Return the figures of one of them; `theirs`: OpenTelemetry's."""
    columns = zip(*((each.worker, each.others, each.total) for each in differences), strict=True)
    # To a tenth of a microsecond, without a sign for nothing.
    medians = [round(statistics.median(values), 1) + 0.0 for values in columns]
    share: str | float = added_share(differences, theirs) if theirs else "-"
    return [*medians, middle([each.total for each in differences]), share]


def added_share(differences: list[Cost], theirs: list[Cost]) -> float:
    """Return the median over the rounds of what one added, of what another did."""
    return statistics.median(own.total / other.total for own, other in zip(differences, theirs, strict=True))


def test_a_web_request(report: Report) -> None:
    peers = peers_python()
    pythons = dict.fromkeys(HERE, sys.executable) | (dict.fromkeys(THERE, peers) if peers else {})
    with contextlib.ExitStack() as stack:
        all_served = {name: stack.enter_context(served(name, python)) for name, python in pythons.items()}
        costs(all_served)
        start = time.monotonic()
        rounds = [costs(all_served) for _ in range(ROUNDS)]
        per_second = BURST * BURSTS * ROUNDS / (time.monotonic() - start)
        shares = arrived(all_served)
        assert all(each.all_is_counted() for each in all_served.values())
    differences = added(rounds)
    rows = {name: row(each, differences.get(OTEL)) for name, each in differences.items()}
    bare_us = statistics.median(each[BARE].total for each in rounds)
    columns = ("", "in the worker", "in other processes", "sum", "in most rounds", "/ OpenTelemetry's", "arrived")
    note = (
        f"One event or span inside each request; {per_second:.0f} requests a second to each, in bursts of {BURST}, "
        f"{ROUNDS} rounds of {BURST * BURSTS}. The bare request takes {bare_us:.0f} µs."
    )
    table = [[name, *figures, shown_share(shares.get(name))] for name, figures in rows.items()]
    report.leading("web", "Processor time that tracing adds to a request, all processes, µs", columns, table, note)
    for name, wanted in WANTED.items() if OTEL in rows else ():
        share = added_share(differences[name], differences[OTEL])
        what = f"a web request sent as {'OTLP' if name == OURS_OTLP else 'our own JSON'}"
        what += f" costs at most {wanted}x OpenTelemetry's, all told"
        report.target(what, f"{share:.2f}x", share <= wanted, "See section 7.")
