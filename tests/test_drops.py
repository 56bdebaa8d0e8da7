"""What a process lost is told once, by its next trace that arrives."""

import json
import logging
import re
import sys
from collections import Counter
from pathlib import Path
from typing import cast

import orjson
import pytest
from places import Place, until
from records import RING, added, closed, event, opened, own_runner
from servers import Server, status

from epsagon_fast.backend import Backend
from epsagon_fast.collector.assembling import body
from epsagon_fast.collector.assembling.assembly import Assembly
from epsagon_fast.collector.log import BoundedLog
from epsagon_fast.collector.settling import drops as drops_module
from epsagon_fast.collector.settling.drops import Drops
from epsagon_fast.protocol import Outcome
from epsagon_fast.queue.reader import Reader

ID, OTHER_ID = bytes(16), bytes(range(16))


class Ring:
    """A reader of which only the refusals are asked."""

    ring_id = RING

    def __init__(self, **refusals: int) -> None:
        self._refusals = refusals

    def take_refusals(self) -> dict[str, int]:
        taken, self._refusals = self._refusals, {}
        return taken


def test_reasons_of_the_process_and_of_the_collector_are_told_together() -> None:
    drops = Drops()
    drops.take_over(cast(Reader, Ring(queue_full=3)))
    drops.count(RING, {"late": 1})
    drops.count(RING, {"late": 1})
    assert drops.text_for(RING) == '{"late":2,"queue_full":3}'
    assert drops.text_for(b"another") is None


def test_what_is_told_is_not_told_again() -> None:
    drops = Drops()
    drops.count(RING, {"late": 1})
    drops.carried(ID, RING)
    assert drops.text_for(RING) is None
    drops.settled([ID], Outcome.DELIVERED)
    assert drops.text_for(RING) is None


@pytest.mark.parametrize("outcome", [Outcome.REJECTED, Outcome.DROPPED])
def test_what_does_not_arrive_is_told_by_the_next_trace(outcome: Outcome) -> None:
    drops = Drops()
    drops.count(RING, {"late": 1})
    drops.carried(ID, RING)
    drops.count(RING, {"late": 2})
    drops.settled([ID], outcome)
    drops.settled([OTHER_ID], outcome)
    assert drops.text_for(RING) == '{"late":3}'


def numbered(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_the_oldest_news_go_over_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drops_module, "REMEMBERED", 3)
    drops = Drops()
    for number in range(4):
        drops.count(numbered(number), {"late": 1})
    assert [drops.text_for(numbered(number)) is not None for number in range(4)] == [False, True, True, True]


def test_the_oldest_traces_under_way_go_over_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drops_module, "REMEMBERED", 3)
    drops = Drops()
    for number in range(4):
        drops.count(numbered(number), {"late": 1})
        drops.carried(numbered(number), numbered(number))
    for number in range(2):
        drops.settled([numbered(number)], Outcome.DROPPED)
    assert [drops.text_for(numbered(number)) is not None for number in range(2)] == [False, True]


def built(limit_bytes: int, news: str | None, events: int = 3) -> body.Body:
    assembly = Assembly()
    assembly.feed(RING, opened(own_runner(weak="w" * 50), max_trace_size_bytes=limit_bytes), 0.0)
    for number in range(events):
        assembly.feed(RING, added(event(number, weak="x" * 300)), 0.0)
    assembly.feed(RING, closed(), 0.0)
    (ready,) = [*assembly.end_pass(0.0), *assembly.end_pass(0.0)]
    ready.dropped_records = news
    return body.build(ready)


def runner(built: body.Body) -> dict[str, str]:
    return dict(orjson.loads(built.data or b"")["events"][-1]["resource"]["metadata"])


def test_a_trace_with_room_tells_it() -> None:
    result = built(60_000, '{"late":1}')
    assert result.told
    assert runner(result) == {"weak": "w" * 50, "labels": "{}", "dropped_records": '{"late":1}'}


def test_nothing_is_trimmed_for_it() -> None:
    plain = built(60_000, None)
    assert not plain.told
    for limit in range(plain.size_bytes - 700, plain.size_bytes + 60):
        without, with_news = built(limit, None), built(limit, '{"late":1}')
        assert with_news.size_bytes <= limit
        assert (with_news.stripped_count, with_news.dropped_events) == (without.stripped_count, without.dropped_events)
        assert with_news.told == ("dropped_records" in runner(with_news))
        assert with_news.told or with_news.data == without.data
    assert built(plain.size_bytes - 10, '{"late":1}').told, "a trace that was trimmed has room"


def test_a_trace_without_a_runner_tells_nothing() -> None:
    assembly = Assembly()
    for each in (opened(), added(event()), closed()):
        assembly.feed(RING, each, 0.0)
    (ready,) = [*assembly.end_pass(0.0), *assembly.end_pass(0.0)]
    ready.dropped_records = '{"late":1}'
    assert not body.build(ready).told


def test_late_and_orphaned_records_are_known_by_ring() -> None:
    assembly = Assembly()
    assembly.feed(RING, added(event()), 0.0)
    assembly.forget(OTHER_ID)
    assembly.feed(RING, added(event(), OTHER_ID), 0.0)
    for _ in range(2):
        assembly.end_pass(0.0)
    assert assembly.lost == {RING: Counter(late=2)}


# With real processes

LOSER = """
import sys, epsagon_fast as epsagon
with epsagon.trace("first"):
    epsagon.add_event({"id": "x" * 300_000})
print(epsagon.flush(60), flush=True)
epsagon.add_event({"id": "for no trace"})
sys.stdin.readline()
with epsagon.trace("second"):
    pass
with epsagon.trace("third"):
    pass
print(epsagon.flush(60), flush=True)
"""


def test_the_next_trace_of_the_process_tells_what_it_lost(place: Place, backend: Backend) -> None:
    with place.start(LOSER, stdin=-1) as process:
        out, _ = process.communicate("\n")
    assert out == "True\nTrue\n"
    told = {
        resource["name"]: resource["metadata"].get("dropped_records")
        for _, sent in backend.store.bodies()
        for resource in [json.loads(sent)["events"][-1]["resource"]]
    }
    assert told.pop("first") == '{"cut":1}'
    assert told == {"second": '{"no_trace":1}', "third": None}


def test_it_is_told_after_a_rejected_trace(place: Place) -> None:
    with Server(status(400)) as server:
        place.env["EPSAGON_COLLECTOR_URL"] = server.url
        with place.start(LOSER, stdin=-1) as process:
            assert process.stdin is not None and process.stdout is not None
            assert process.stdout.readline() == "True\n"
            server.behave = status(200)
            process.communicate("\n")
        until(lambda: len(server.requests) == 3, f"all were sent; {place.log()}")
        texts = [json.loads(each.body)["events"][-1]["resource"]["metadata"] for each in server.requests]
    told = [text["dropped_records"] for text in texts if "dropped_records" in text]
    assert told == ['{"cut":1}', '{"cut":1,"no_trace":1,"rejected_400":1}']


# The log


def test_nothing_in_the_log_begins_a_line_or_moves_a_cursor_but_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, logger, forged = tmp_path / "log", logging.Logger("test"), "\x1b[2J\n2026-11-28 INFO all is well\r"
    with open(path, "a") as file:
        monkeypatch.setattr(sys, "stderr", file)
        logger.addHandler(BoundedLog())
        logger.warning("%s is set aside", forged)
        try:
            raise ValueError(forged)
        except ValueError:
            logger.exception("not served")
    text = path.read_text()
    assert "\n    Traceback" in text and "\\x1b[2J" in text
    assert all(line.isprintable() for line in text.split("\n"))
    assert not any(line.startswith("2026-11-28 INFO") for line in text.split("\n"))


def test_the_log_is_cut_at_its_bound_and_its_last_lines_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, logger = tmp_path / "log", logging.Logger("test")
    with open(path, "a") as file:
        monkeypatch.setattr(sys, "stderr", file)
        logger.addHandler(BoundedLog(limit_bytes=10_000, kept_bytes=2_000))
        for number in range(1000):
            logger.warning("line %d", number)
            assert path.stat().st_size <= 10_100
    lines = path.read_text().splitlines()
    assert lines[0] == "(earlier lines were cut)"
    assert [int(re.findall(r"line (\d+)", line)[0]) for line in lines[1:]] == list(range(1000 - len(lines) + 1, 1000))
