"""Compares what the shop's clients asked for with what the backend has, and says it in words."""

import json
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import epsagon_fast.backend.summary as summary
from epsagon_fast.backend.store import Store

# How many traces each service begins for a request, and how many events all of these hold.
Steps = dict[str, tuple[int, int]]
_MAX_TRACES = 100


class Asked(NamedTuple):
    """A request by a client: `status` is that of its answer (None: there is none), `steps` what it must leave."""

    # Of its W3C trace, by which all its traces are found.
    id: str
    method: str
    path: str
    status: int | None
    steps: Steps


def asked(method: str, path: str, status: int | None, steps: Steps) -> Asked:
    """Return a request with a new id."""
    return Asked(secrets.token_hex(16), method, path, status, steps)


@dataclass
class Tally:
    """What became of all requests, with counts by "traces" and "events"."""

    requests: int
    duplicates: int
    expected: Counter[str] = field(default_factory=Counter)
    arrived: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    # What is missing of which request.
    missing: list[str] = field(default_factory=list)
    # How many traces ended in which way.
    ends: Counter[str] = field(default_factory=Counter)


def compare(requests: Sequence[Asked], store: Store) -> Tally:
    """Return the account. A trace or an event is missing if its request has fewer of a service than it must leave."""
    account = Tally(len(requests), store.counts()["duplicates"])
    for each in requests:
        found = {service: Counter[str]() for service in each.steps}
        for service, status, events in _traces(each, store):
            found.setdefault(service, Counter()).update(traces=1, events=events)
            account.ends[status] += 1
        for service, counts in found.items():
            _enter(account, each, service, counts)
    return account


def _traces(each: Asked, store: Store) -> Iterator[tuple[str, str, int]]:
    """Yield service, status and number of events of each trace of a request."""
    for row in store.request(each.id, _MAX_TRACES):
        body = store.body(row["trace_id"])
        if body is not None:
            yield row["app_name"], row["status"], len(json.loads(body)["events"])


def _enter(account: Tally, each: Asked, service: str, found: "Counter[str]") -> None:
    expected = dict(zip(("traces", "events"), each.steps.get(service, (0, 0)), strict=True))
    for what, count in expected.items():
        lost = max(0, count - found[what])
        account.expected[what] += count
        account.arrived[what] += found[what]
        account.lost[what] += lost
        if lost:
            account.missing.append(f"{lost} {what} of {service} for {each.method} {each.path}")


def table(account: Tally) -> str:
    """Return the account as a person reads it."""
    lines = [
        f"What the backend has of these {account.requests} requests:",
        "",
        f"            {'happened':>9}{'arrived':>9}{'missing':>9}",
        _row("traces", account, "one service's part in one request"),
        _row("events", account, "a request, a task, a call or an SQL statement in it"),
        "",
        f"{account.ends[summary.DIED]} trace ends with the death of its worker, and has what was done until then.",
        f"{account.ends[summary.ERROR]} trace holds an error.",
    ]
    if account.duplicates:
        lines.append(f"Sent twice around the collector's death, and kept once: {account.duplicates}.")
    return "\n".join([*lines, *(f"MISSING: {each}" for each in account.missing)])


def _row(what: str, account: Tally, meaning: str) -> str:
    counts = (account.expected[what], account.arrived[what], account.lost[what])
    return f"  {what:10}" + "".join(f"{count:>9,}" for count in counts) + f"   {meaning}"
