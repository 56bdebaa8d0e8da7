"""What the backend finds, forgets, and takes over from an older file."""

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import event_fields, exception_fields

from epsagon_fast.backend import filters, terms
from epsagon_fast.backend.filters import BadQuery
from epsagon_fast.backend.retention import Retention
from epsagon_fast.backend.shape import summarize
from epsagon_fast.backend.store import Store

STARTED_AT = 1_700_000_000.0


def body(started_at: float = STARTED_AT, duration: float = 0.1, error: str = "", **metadata: str) -> bytes:
    exception = {**exception_fields(), "type": error} if error else None
    runner = event_fields("web-1", "runner", exception, **metadata)
    runner = {**runner, "start_time": started_at, "duration": duration, "error_code": 2 if error else 0}
    runner["resource"] = {**runner["resource"], "type": "http", "operation": "GET"}
    events = [{**event_fields(), "id": "e1"}, runner]
    trace = {"app_name": metadata.get("app", "shop"), "token": "t", "events": events, "exceptions": []}
    return json.dumps({**trace, "version": "1", "platform": "p"}).encode()


def keep(store: Store, trace_id: str, data: bytes) -> None:
    store.keep(trace_id, b"t", data, summarize(data))


@pytest.fixture
def store() -> Iterator[Store]:
    with Store() as made:
        yield made


@pytest.fixture
def found(store: Store) -> Callable[..., list[str]]:
    """What a query finds among some traces, newest first."""
    labels = json.dumps({"user": 42, "plan": "gold"})
    for trace_id, data in {
        "fast": body(STARTED_AT, 0.02, path="/health"),
        "orders": body(STARTED_AT + 1, 0.3, route="/orders/{id}", path="/orders/7", labels=labels),
        "slow": body(STARTED_AT + 2, 1.5, app="Büro", path="/report", query="SELECT näme FROM orders"),
        "failed": body(STARTED_AT + 3, 0.3, "KeyError", path="/cart", http_trace_id="a" * 32),
        "died": body(STARTED_AT + 4, 4.0, "ProcessDied", path="/cart", http_trace_id="a" * 32, is_trimmed="true"),
    }.items():
        keep(store, trace_id, data)

    def find(*pairs: tuple[str, str]) -> list[str]:
        return [row["trace_id"] for row in store.page(10, 0, filters.parse(pairs, now=STARTED_AT + 100))]

    return find


@pytest.mark.parametrize(
    ("pairs", "wanted"),
    [
        ([], "died failed slow orders fast"),
        ([("app", "shop")], "died failed orders fast"),
        ([("app", "sho")], ""),
        ([("name", "GET /orders/{id}")], "orders"),
        ([("name", "GET /cart"), ("error_type", "KeyError")], "failed"),
        ([("status", "ok")], "slow orders fast"),
        ([("status", "error")], "failed"),
        ([("status", "error"), ("status", "died")], "died failed"),
        ([("status", "error,died")], "died failed"),
        ([("status", "trimmed")], "died"),
        ([("status", "timeout")], ""),
        ([("min_duration", "0.3")], "died failed slow orders"),
        ([("min_duration", "300ms"), ("max_duration", "0.3")], "failed orders"),
        ([("max_duration", "20ms")], "fast"),
        ([("min_duration", "2"), ("max_duration", "1")], ""),
        ([("label.user", "42")], "orders"),
        ([("label.plan", "gold"), ("label.user", "43")], ""),
        ([("attr.path", "/cart"), ("status", "error")], "failed"),
        ([("http_trace_id", "a" * 32)], "died failed"),
        ([("since", str(STARTED_AT + 3))], "died failed"),
        ([("since", "98s"), ("until", "97s")], "failed slow"),
        ([("until", "2023-11-14T22:13:21+00:00")], "orders fast"),
        ([("text", "näme")], "slow"),
        ([("text", "ORDERS näm*")], "slow"),
        ([("text", "orders")], "slow orders"),
        ([("text", "sele*"), ("app", "shop"), ("status", "ok"), ("min_duration", "0.1")], "orders"),
        ([("text", '" OR terms:* NOT ()')], ""),
        ([("text", "näm")], ""),
        ([("text", "?! *")], ""),
        ([("app", ""), ("status", "")], "died failed slow orders fast"),
    ],
)
def test_each_filter_finds_what_it_says(
    found: Callable[..., list[str]], pairs: list[tuple[str, str]], wanted: str
) -> None:
    assert found(*pairs) == wanted.split()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("colour", "red"),
        ("label.", "x"),
        ("", "x"),
        ("status", "fine"),
        ("status", "ok,"),
        ("min_duration", "-1"),
        ("min_duration", "1e9"),
        ("max_duration", "soon"),
        ("since", "yesterday"),
        ("since", "-5"),
        ("until", "9" * 12 + "d"),
        ("text", "x" * 501),
        ("x" * 501, "x"),
    ],
)
def test_a_filter_that_says_nothing_clear_is_refused(name: str, value: str) -> None:
    with pytest.raises(BadQuery):
        filters.parse([(name, value)])


@given(st.text(), st.floats(0, 1e6))
def test_tokens_are_letters_and_digits_whatever_a_trace_says(text: str, duration_s: float) -> None:
    found = [*terms.words(text), *terms.wanted_words(text + "*"), terms.facet("attr", text, text)]
    assert all(token.isascii() and token.rstrip("*").isalnum() for token in found)
    assert terms.steps(duration_s, duration_s) == f"d1x{terms.step(duration_s)}"
    assert len(terms.steps(duration_s, 1e9).split(" OR ")) <= 12


def test_pages_follow_each_other_by_key_whatever_comes_meanwhile(store: Store) -> None:
    for number in range(5):
        keep(store, f"t{number}", body(STARTED_AT + number))
    seen, before = [], None
    while page := store.page(2, 0, None, before):
        seen += [row["trace_id"] for row in page]
        before = page[-1]["number"]
        keep(store, f"new {len(seen)}", body(STARTED_AT + 100 + len(seen)))
    assert seen == ["t4", "t3", "t2", "t1", "t0"]


def test_what_arrives_is_told_in_that_order_whenever_it_began(store: Store) -> None:
    for trace_id, started_at in (("new", 2.0), ("old", 1.0), ("without", float("nan"))):
        keep(store, trace_id, body(STARTED_AT + started_at).replace(b"NaN", b"null"))
    rows, reached = store.arrivals(0.0, 10)
    assert [row["trace_id"] for row in rows] == ["new", "old", "without"]
    assert reached == rows[-1]["received_at"] and store.arrivals(reached, 10) == ([], reached)
    assert store.arrivals(rows[0]["received_at"], 1) == ([rows[1]], rows[1]["received_at"])
    assert store.latest() == rows[-1]["received_at"]
    assert [each for each, _ in store.bodies()] == ["new", "old", "without"]
    found = store.arrivals(0.0, 10, filters.parse([("text", "sele*"), ("until", str(STARTED_AT + 1))]))
    # What does not fit is not looked at again.
    assert found == ([rows[1]], reached)


@pytest.mark.parametrize("lacking", [b"null", b"0"], ids=bytes.decode)
def test_a_trace_that_says_no_time_began_when_it_came(store: Store, lacking: bytes) -> None:
    before = time.time()
    keep(store, "t", body(float("nan")).replace(b"NaN", lacking))
    (row,) = store.page(1)
    assert before <= row["started_at"] == row["received_at"]


def test_thousands_may_begin_in_the_same_moment(store: Store) -> None:
    for number in range(300):
        keep(store, str(number), body())
    assert len({row["number"] for row in store.page(1000)}) == 300
    assert [row["trace_id"] for row in store.page(1000)][-64:] == [str(number) for number in range(63, -1, -1)]


def test_limits_are_said_in_the_unit_that_fits() -> None:
    ages = {30.0: "30 seconds", 1.0: "1 second", 0.25: "0.25 seconds", 90.0: "90 seconds", 60.0: "1 minute"}
    ages |= {43200.0: "12 hours", 86400.0: "1 day", 604800.0: "7 days", 129600.0: "36 hours"}
    assert {age_s: str(Retention(age_s, bytes=None)) for age_s in ages} == ages


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        (Retention(traces=3), ["t9", "t8", "t7"]),
        (Retention(bytes=4 * len(body()) + 10), ["t9", "t8", "t7", "t6"]),
        (Retention(age_s=3600.0), []),
        (Retention(bytes=None), [f"t{number}" for number in range(9, -1, -1)]),
    ],
)
def test_what_is_over_a_limit_goes_the_oldest_first(limits: Retention, wanted: list[str]) -> None:
    with Store(retention=limits) as store:
        for number in range(10):
            keep(store, f"t{number}", body(STARTED_AT + number))
        assert [row["trace_id"] for row in store.page(20)] == wanted
        assert [row["trace_id"] for row in store.page(20, 0, filters.parse([("text", "sele*")]))] == wanted
        assert store.counts() == {"traces": len(wanted), "duplicates": 0, "bytes": len(wanted) * len(body())}
        assert [store.body(f"t{number}") is None for number in range(10)].count(False) == len(wanted)


def test_a_smaller_limit_holds_from_the_start(tmp_path: Path) -> None:
    path = str(tmp_path / "db")
    with Store(path) as store:
        for number in range(450):
            keep(store, f"t{number}", body(STARTED_AT + number))
    with Store(path, Retention(traces=2)) as store:
        assert [row["trace_id"] for row in store.page(20)] == ["t449", "t448"]


def test_a_trace_is_replaced_by_what_has_grown(store: Store) -> None:
    for data in (body(error=""), body(error="KeyError")):
        store.replace("t", b"t", data, summarize(data))
        assert store.body("t") == data and store.counts()["traces"] == 1
    assert store.page(9, 0, filters.parse([("status", "ok")])) == []
    assert [row["trace_id"] for row in store.page(9, 0, filters.parse([("status", "error")]))] == ["t"]


FIRST_LAYOUT = """
CREATE TABLE traces (number INTEGER PRIMARY KEY AUTOINCREMENT, trace_id TEXT NOT NULL UNIQUE, received_at REAL NOT NULL,
    token_sha256 TEXT NOT NULL, size_bytes INTEGER NOT NULL, duplicates INTEGER NOT NULL DEFAULT 0,
    app_name TEXT NOT NULL, runner TEXT, error_code INTEGER, event_count INTEGER NOT NULL,
    exception_count INTEGER NOT NULL, is_trimmed INTEGER NOT NULL);
CREATE TABLE bodies (number INTEGER PRIMARY KEY REFERENCES traces, body BLOB NOT NULL);
PRAGMA journal_mode = WAL;
PRAGMA user_version = 1;
"""


def test_a_file_of_the_first_layout_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "db"
    path.touch(0o600)
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.executescript(FIRST_LAYOUT)
        for number, data in enumerate([body(STARTED_AT + 5), body(STARTED_AT + 4, error="KeyError")], 1):
            old.execute(
                "INSERT INTO traces VALUES (?, ?, ?, 'hash', ?, 3, 'shop', 'web-1', 0, 2, 0, 0)",
                (number, f"t{number}", STARTED_AT + number, len(data)),
            )
            old.execute("INSERT INTO bodies VALUES (?, ?)", (number, data))
        old.commit()
    for _ in range(2):
        with Store(str(path)) as store:
            rows: list[dict[str, Any]] = store.page(10)
            assert [row["trace_id"] for row in rows] == ["t1", "t2"]
            assert (rows[0]["received_at"], rows[0]["token_sha256"]) == (STARTED_AT + 1, "hash")
            assert store.counts()["duplicates"] == 6
            assert dict(store.bodies()) == {"t1": body(STARTED_AT + 5), "t2": body(STARTED_AT + 4, error="KeyError")}
            assert [row["trace_id"] for row in store.page(9, 0, filters.parse([("status", "error")]))] == ["t2"]
