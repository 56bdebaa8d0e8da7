"""The table of open traces does what a dict of them does."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epsagon_fast.collector.assembling.open_traces import OpenTraces
from epsagon_fast.protocol import TRACE_ID_BYTES

# So few places that many of them find theirs taken, and so many that the table grows and shrinks.
IDS = [number.to_bytes(TRACE_ID_BYTES, "big") for number in range(400)]
STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, len(IDS)), st.integers(0, 60)), max_size=30)


def trace() -> Any:
    """Return what a table needs of a trace."""
    return SimpleNamespace(stream=SimpleNamespace(events=[]))


def entered(traces: Any, known: dict[bytes, Any], ids: list[bytes]) -> None:
    for trace_id in ids:
        traces[trace_id] = known[trace_id] = trace()


def left(traces: Any, known: dict[bytes, Any], ids: list[bytes]) -> None:
    for trace_id in ids:
        if known.pop(trace_id, None) is not None:
            del traces[trace_id]
        with pytest.raises(KeyError):
            del traces[trace_id]


@given(STEPS)
def test_table_is_a_dict_of_traces(steps: list[tuple[bool, int, int]]) -> None:
    traces: Any = OpenTraces()
    known: dict[bytes, Any] = {}
    for enters, first, count in [*steps, (True, 0, len(IDS)), *steps, (False, 0, len(IDS) - 5)]:
        (entered if enters else left)(traces, known, IDS[first : first + count])
        assert dict(traces.items()) == known and len(traces) == len(known)
        assert sorted(map(id, traces.values())) == sorted(map(id, known.values()))
        assert [traces.get(each) for each in IDS] == [known.get(each) for each in IDS]
        assert [each in traces for each in IDS] == [each in known for each in IDS]
        assert all(traces[each] is it for each, it in known.items())


@pytest.mark.parametrize("other", [b"", IDS[0][:-1], IDS[0] + b"\0", "x" * TRACE_ID_BYTES, None, 0])
def test_what_is_no_id_is_not_in_it(other: Any) -> None:
    traces: Any = OpenTraces()
    entered(traces, {}, IDS[:9])
    assert other not in traces and traces.get(other) is None
    with pytest.raises(KeyError):
        traces[other]
    with pytest.raises(KeyError):
        del traces[other]


def test_table_holds_each_trace_once() -> None:
    traces: Any = OpenTraces()
    once = trace()
    before = sys.getrefcount(once)
    for trace_id in IDS:
        traces[trace_id] = traces[trace_id] = once
    assert sys.getrefcount(once) == before + len(IDS)
    for trace_id in IDS[1:]:
        del traces[trace_id]
    assert sys.getrefcount(once) == before + 1
    del traces
    assert sys.getrefcount(once) == before
