"""The demo's arithmetic, on made-up notes and bodies."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from records import event_fields, exception_fields

from epsagon_fast.backend.shape import summarize
from epsagon_fast.backend.store import Store
from epsagon_fast.commands.demo.report import WorkerNotes, compare, favourite, table


@pytest.fixture
def store() -> Iterator[Store]:
    with Store() as made:
        yield made


def noted(tmp_path: Path, *lines: dict[str, Any], torn: str = "") -> WorkerNotes:
    path = tmp_path / "notes"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + torn)
    notes = WorkerNotes()
    notes.read(str(path))
    return notes


def opened(trace: str) -> dict[str, Any]:
    return {"opened": trace, "package": f"package {trace}"}


def added(trace: str, *events: str, refused: int = 0) -> list[dict[str, Any]]:
    return [{"trace": trace, "event": event, "refused": refused} for event in events]


def arrived(store: Store, trace: str, *events: str, error: str = "", **metadata: str) -> None:
    runner = event_fields("runner", "runner", {**exception_fields(), "type": error} if error else None, **metadata)
    others = [{**event_fields(), "id": event} for event in events]
    body = {"app_name": "demo", "token": "t", "events": [*others, runner], "exceptions": [], "version": "1"}
    data = json.dumps({**body, "platform": "python"}).encode()
    store.keep(trace, b"t", data, summarize(data))


def test_what_was_noted_and_arrived_is_not_missing(tmp_path: Path, store: Store) -> None:
    notes = noted(tmp_path, opened("a"), *added("a", "1", "2"), opened("b"), *added("b", "3"))
    arrived(store, "a", "1", "2")
    arrived(store, "b", "3")
    result = compare(notes, store)
    assert (result.opened, result.delivered, result.pushed, result.arrived) == (2, 2, 3, 3)
    assert result.missing == []


def test_what_did_not_arrive_is_missing(tmp_path: Path, store: Store) -> None:
    notes = noted(tmp_path, opened("a"), *added("a", "1", "2", "3"), opened("b"), *added("b", "4"))
    arrived(store, "a", "2")
    assert compare(notes, store).missing == ["2 events of package a", "the whole trace of package b"]


def test_what_was_dropped_as_too_big_is_named_and_not_missing(tmp_path: Path, store: Store) -> None:
    notes = noted(tmp_path, opened("a"), *added("a", "1", "2", "3"))
    arrived(store, "a", "1", dropped_events="2", is_trimmed="true")
    result = compare(notes, store)
    assert result.missing == []
    assert (result.trimmed, dict(result.too_big)) == (1, {"package a": 2})


def test_what_was_refused_was_never_pushed(tmp_path: Path, store: Store) -> None:
    notes = noted(tmp_path, opened("a"), *added("a", "1"), *added("a", "2", refused=1))
    arrived(store, "a", "1")
    result = compare(notes, store)
    assert (result.pushed, result.refused, result.missing) == (1, 1, [])


def test_event_that_arrives_without_its_note_is_no_fault(tmp_path: Path, store: Store) -> None:
    # The worker was killed between its push and its note.
    notes = noted(tmp_path, opened("a"), *added("a", "1"), torn='{"trace": "a", "eve')
    arrived(store, "a", "1", "2", error="ProcessDied")
    result = compare(notes, store)
    assert (result.arrived, result.died, result.missing) == (1, 1, [])


def test_worker_that_noted_nothing_says_nothing(tmp_path: Path, store: Store) -> None:
    notes = WorkerNotes()
    notes.read(str(tmp_path / "nowhere"))
    assert compare(notes, store).opened == 0


def test_costs_are_the_last_that_each_worker_noted(tmp_path: Path) -> None:
    costs = [{"closed": "a", "add_event_ns": n, "dumps_ns": n // 2} for n in (100, 300)]
    notes = noted(tmp_path, opened("a"), *costs)
    notes.read(str(tmp_path / "notes"))
    assert (notes.add_event_ns, notes.dumps_ns) == (600, 300)


def test_table_shows_every_figure(tmp_path: Path, store: Store) -> None:
    notes = noted(tmp_path, opened("a"), *added("a", "1", "2"), {"closed": "a", "add_event_ns": 4000, "dumps_ns": 2000})
    arrived(store, "a", "1", dropped_events="1")
    rows = dict(line.split("  ", 1) for line in table(compare(notes, store), notes, 12345).splitlines())
    found = {name.strip(): value.strip() for name, value in ((n, v) for n, v in rows.items() if n.strip())}
    assert found["traces opened"] == "1"
    assert found["events dropped as too big"] == "1: package a (1)"
    assert found["bytes before trimming"] == "12,345"
    assert found["add_event"] == "2.0 us an event, 2.00 x orjson.dumps of it"
    assert found["missing"] == "0"


def test_the_trace_that_is_shown_is_of_the_worker_that_died_else_one_that_fits_a_screen(store: Store) -> None:
    assert favourite(store) is None
    arrived(store, "large", *map(str, range(100)))
    assert favourite(store) == "large"
    arrived(store, "small", "1", "2")
    assert favourite(store) == "small"
    arrived(store, "failed", "1", error="SyntaxError")
    arrived(store, "died", "1", error="ProcessDied")
    assert favourite(store) == "died"
