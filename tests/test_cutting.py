"""Texts are cut to a length in JSON, at line ends, with a mark; events are made to fit before they are given up."""

import json
import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import event_fields, exception_fields

from epsagon_fast import cutting
from epsagon_fast.backend.shape import summarize
from epsagon_fast.collector.formats.epsagon import envelope

MARK = re.compile(r"\s?\.\.\. (\d+) characters left out \.\.\.\s?")
PIECES = ["x", "é", "€", "😀", '"', "\\", "\n", "\x01", "line\n", "a longer line that goes on\n"]
TEXTS = st.lists(st.tuples(st.sampled_from(PIECES), st.integers(1, 400)), max_size=6).map(
    lambda parts: "".join(piece * count for piece, count in parts)
)


@given(TEXTS, st.integers(0, 3000))
def test_a_text_fits_and_says_how_much_of_it_is_missing(text: str, limit_bytes: int) -> None:
    cut = cutting.text(text, limit_bytes)
    assert cutting.json_bytes(cut) <= limit_bytes
    if cutting.json_bytes(text) <= limit_bytes:
        assert cut is text
    elif limit_bytes >= 1000:
        head, missing, tail = MARK.split(cut)
        assert text.startswith(head) and text.endswith(tail)
        # A line end may be part of what is missing or of the mark.
        assert 0 <= len(text) - len(head) - len(tail) - int(missing) <= 2


def test_lines_stay_whole() -> None:
    text = "".join(f'  File "app.py", line {number}, in ping\n    pong("{number}")\n' for number in range(5000))
    cut = cutting.text(text, 4096).splitlines()
    assert set(cut) - set(text.splitlines()) == {line for line in cut if MARK.fullmatch(line)}
    assert len(cutting.text(text, 4096)) > 3000


def test_a_text_that_was_cut_before_keeps_count() -> None:
    text = "x" * 100_000
    twice = MARK.search(cutting.text(cutting.text(text, 5000), 500))
    once = MARK.search(cutting.text(text, 500))
    assert once and twice
    assert once[1] == twice[1]


def test_a_text_may_look_as_if_it_were_cut() -> None:
    """No number of so many digits is read: Python would refuse it."""
    cut = cutting.text(f"{'x' * 5000}... {'1' * 5000} characters left out ...{'x' * 5000}", 500)
    missing = MARK.search(cut)
    assert missing and 14_000 < int(missing[1]) < 16_000


@given(TEXTS, st.integers(1, 100_000))
def test_however_long_a_text_is_it_is_cut_as_if_it_were_read_as_a_whole(text: str, limit_bytes: int) -> None:
    value = {"traceback": text, "rest": [text, {"message": text}]}
    tries = (orjson.dumps(cutting.texts(value, level)) for level in cutting.LEVELS)
    assert cutting.fitted(value, limit_bytes) == next((data for data in tries if len(data) <= limit_bytes), None)


def accepted(event: bytes) -> Any:
    assert summarize(envelope("", "", "").around([event], [])).event_count == 1
    return json.loads(event)


@pytest.mark.parametrize("limit_bytes", [300, 700, 3000, 20_000, 200_000])
@pytest.mark.parametrize(
    "fields",
    [
        {"exception": exception_fields(message='"' * 50_000, traceback="a\n" * 50_000)},
        {"exception": {**exception_fields(), "additional_data": {str(key): "x" for key in range(5000)}}},
        {"id": "x" * 50_000, "origin": "\x01" * 50_000},
        {"resource": {"name": "é" * 50_000, "type": "t", "operation": "o", "metadata": {}}},
        {"resource": {"name": "n", "type": "t", "operation": "o", "metadata": {"labels": "x" * 50_000, "weak": "y"}}},
    ],
    ids=range(5),
)
def test_an_event_is_sent_in_part_before_it_is_given_up(fields: dict[str, Any], limit_bytes: int) -> None:
    event = {**event_fields(), **fields, "error_code": 2, "duration": 1.5}
    data = cutting.fitted_event(event, limit_bytes)
    assert data is not None and len(data) <= limit_bytes
    kept = accepted(data)
    assert (kept["error_code"], kept["duration"], kept["start_time"]) == (2, 1.5, event["start_time"])
    assert limit_bytes < 700 or kept["exception"] is None or kept["exception"]["type"]


def test_texts_are_cut_before_metadata_go() -> None:
    resource = {"name": "n", "type": "t", "operation": "o", "metadata": {"card": "visa"}}
    event = {**event_fields(), "resource": resource, "exception": exception_fields(traceback="line\n" * 20_000)}
    kept = accepted(cutting.fitted_event(event, 10_000) or b"")
    assert kept["resource"] == resource
    assert MARK.search(kept["exception"]["traceback"])


def test_what_cannot_be_a_stub_is_nothing() -> None:
    assert cutting.fitted_event(event_fields(), 100) is None
