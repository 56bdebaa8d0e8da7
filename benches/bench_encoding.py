"""What encode_event costs, beside orjson.dumps of the same event.

`pytest benches/bench_encoding.py` prints a table per event; the number in brackets is the ratio. The strings are made
anew for each event, as a program makes them, and a round goes over many events: one event again and again would be read
from the cache of the first level and its hashes be known.
"""

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from events import event
from pytest_benchmark.fixture import BenchmarkFixture

from epsagon_fast.producer.encoding import encode_event

EVENTS_PER_ROUND = 100
ENCODERS: dict[str, Callable[[Any], Any]] = {"orjson.dumps": orjson.dumps, "encode_event": encode_event}


def without_defaults(number: int) -> dict[str, Any]:
    whole = event(number, 10, 80)
    return {key: whole[key] for key in ("id", "start_time", "resource", "origin", "duration")}


def with_other_values(number: int) -> dict[str, Any]:
    whole = event(number, 10, 80)
    whole["resource"]["metadata"] |= {"status": 200, "cached": True, "tags": ["a", "b"], "at": {"line": 7}}
    return whole


EVENTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "complete, 200 B": lambda number: event(number, 1, 20),
    "complete, 1 KB": lambda number: event(number, 10, 80),
    "complete, 16 KB": lambda number: event(number, 20, 800),
    "without error_code and exception, 1 KB": without_defaults,
    "with numbers and lists, 1 KB": with_other_values,
}


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("kind", EVENTS)
def test_encoding(benchmark: BenchmarkFixture, kind: str, encoder: str) -> None:
    benchmark.group = f"{kind}, {EVENTS_PER_ROUND} events"
    events = [EVENTS[kind](number) for number in range(EVENTS_PER_ROUND)]
    encode = ENCODERS[encoder]

    def round_of_events() -> None:
        for one in events:
            encode(one)

    benchmark(round_of_events)
