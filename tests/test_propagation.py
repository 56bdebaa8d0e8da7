"""W3C trace context in request headers, along the specification's own examples and rules."""

import pickle
import uuid
from collections import UserDict
from collections.abc import Callable, MutableMapping
from typing import Any

import pytest
from fakes import FakeQueue
from hypothesis import given
from strategies import contexts

import epsagon_fast as epsagon
from epsagon_fast.propagation import TraceContext, continue_context, extract, handed_on, inject
from epsagon_fast.protocol import Kind
from epsagon_fast.testing import capture_traces

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT_ID = "00f067aa0ba902b7"
VALID = f"00-{TRACE_ID}-{PARENT_ID}-01"


def test_context_comes_from_both_headers() -> None:
    found = extract({"traceparent": VALID, "tracestate": "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"})
    assert found == TraceContext(TRACE_ID, PARENT_ID, 1, "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7")


def test_tracestate_may_be_missing() -> None:
    assert extract({"traceparent": VALID}) == (TRACE_ID, PARENT_ID, 1, "")


@pytest.mark.parametrize("name", ["traceparent", "Traceparent", "TRACEPARENT", "traceParent"])
def test_names_of_headers_have_no_case(name: str) -> None:
    assert extract({"Host": "h", name: VALID}) is not None


def test_space_around_a_value_is_none_of_it() -> None:
    assert extract({"traceparent": f" \t{VALID} ", "tracestate": " a=b\t"}) == (TRACE_ID, PARENT_ID, 1, "a=b")


def test_all_flags_are_kept() -> None:
    found = extract({"traceparent": VALID[:-2] + "fe"})
    assert found is not None and found.flags == 0xFE


def test_later_version_is_read_as_far_as_it_is_known() -> None:
    for value in (f"cc{VALID[2:]}", f"cc{VALID[2:]}-what-the-future-will-be-like"):
        assert extract({"traceparent": value}) == (TRACE_ID, PARENT_ID, 1, "")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        VALID[:-1],
        VALID + "-",
        VALID + "-00",
        VALID + "0",
        f"cc{VALID[2:]}.what",
        f"ff{VALID[2:]}",
        VALID.upper(),
        f"00-{'0' * 32}-{PARENT_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID[:-1]}g-{PARENT_ID}-01",
        f"00_{TRACE_ID}_{PARENT_ID}_01",
        f"{VALID},{VALID}",
        VALID + "\n",
        VALID.replace("4", "\N{FULLWIDTH DIGIT FOUR}"),
    ],
)
def test_what_is_no_traceparent_gives_no_context(value: str) -> None:
    assert extract({"traceparent": value, "tracestate": "a=b"}) is None


@pytest.mark.parametrize("value", [None, b"x", ["x"], 5], ids=repr)
def test_what_is_no_text_is_as_if_it_were_not_there(value: Any) -> None:
    assert extract({1: "x", "traceparent": value}) is None
    context = extract({1: "x", "Traceparent": VALID, "tracestate": value})
    assert context is not None and context.tracestate == ""


def test_no_headers_give_no_context() -> None:
    assert extract({}) is None


@pytest.mark.parametrize(
    "state", ["a=1", "a=1, b@v=2 ,,c/d*-_=!~ .", "0t@v=1", "0v=1", "a@b@c=1", ",".join(f"k{n}=v" for n in range(32))]
)
def test_tracestate_is_kept_as_it_came(state: str) -> None:
    assert extract({"traceparent": VALID, "tracestate": state}) == (TRACE_ID, PARENT_ID, 1, state)


@pytest.mark.parametrize(
    "state", ["a", "a=", "=1", "A=1", "a=1=2", "a=1\r\nX-Evil: 1", "a=ü", ",".join(f"k{n}=v" for n in range(33))]
)
def test_broken_tracestate_is_dropped_and_nothing_else(state: str) -> None:
    assert extract({"traceparent": VALID, "tracestate": state}) == (TRACE_ID, PARENT_ID, 1, "")


# What goes out.


@pytest.fixture
def recorded(queue: FakeQueue) -> FakeQueue:
    """A process that is traced."""
    return queue


def test_trace_begins_a_context_and_its_runner_tells_it(recorded: FakeQueue) -> None:
    headers: dict[str, str] = {"Host": "h"}
    with epsagon.trace("work") as tracer:
        assert inject(headers) == inject({})
    assert headers == {"Host": "h", "traceparent": f"00-{tracer.trace_id}-{tracer.trace_id[:16]}-01"}
    assert recorded.bodies(Kind.RUNNER) == [{"resource": {"metadata": {"http_trace_id": tracer.trace_id}}}]


def test_trace_that_nobody_asks_has_no_context(recorded: FakeQueue) -> None:
    with epsagon.trace("work") as tracer:
        pass
    assert tracer.context is None
    assert "RUNNER" not in recorded.kinds


@given(contexts())
def test_what_came_in_goes_out_under_the_traces_own_name(context: TraceContext) -> None:
    headers = {"traceparent": context.traceparent, "tracestate": context.tracestate}
    out: dict[str, str] = {}
    with capture_traces(), epsagon.trace("work") as tracer:
        assert continue_context(tracer, extract(headers)) == context.trace_id
        inject(out)
    assert extract(out) == context._replace(parent_id=tracer.trace_id[:16])


def test_old_context_is_replaced_whatever_its_case(recorded: FakeQueue) -> None:
    headers = {"TraceParent": VALID, "TRACESTATE": "a=1"}
    with epsagon.trace("work") as tracer:
        inject(headers)
    assert list(headers) == ["traceparent"]
    assert tracer.trace_id in headers["traceparent"]


def test_without_a_trace_headers_stay_as_they_are(recorded: FakeQueue) -> None:
    headers = {"traceparent": VALID}
    assert inject(headers) is None
    with epsagon.trace("work"):
        pass
    assert inject(headers) is None
    assert headers == {"traceparent": VALID}


# The ids of a program's own, of which no header tells a receiver that keeps to the specification.
UNNAMEABLE = [
    *(5, b"x", uuid.UUID(int=1), "\ud800", "caf\u00e9", "\u00e9" * 8),
    *("order-17", "0123456789abcde", "0123456789ABCDEF", "0123456789abcdefg"[1:], "0" * 16, "0123456789abcde\n"),
]


@pytest.mark.parametrize("mapping", [dict, UserDict])
@pytest.mark.parametrize("own_id", UNNAMEABLE, ids=repr)
def test_event_whose_id_no_header_can_carry_is_not_named(
    recorded: FakeQueue, own_id: Any, mapping: Callable[[], MutableMapping[str, str]]
) -> None:
    headers = mapping()
    with epsagon.trace("request") as tracer:
        inject({})
        with epsagon.event("call") as call:
            call.id = own_id
            context = inject(headers)
            assert context is not None and extract(headers) == context
    assert headers["traceparent"] == f"00-{tracer.trace_id}-{tracer.span_id}-01"


@pytest.mark.parametrize("mapping", [dict, UserDict])
@pytest.mark.parametrize("own_id", UNNAMEABLE, ids=repr)
def test_nearest_event_whose_id_a_header_can_carry_is_named_instead(
    recorded: FakeQueue, own_id: Any, mapping: Callable[[], MutableMapping[str, str]]
) -> None:
    headers = mapping()
    with epsagon.trace("request") as tracer, epsagon.event("far"), epsagon.event("near") as near:
        inject({})
        with epsagon.event("call") as call, epsagon.event("its own") as inner:
            call.id = inner.id = own_id
            inject(headers)
    assert headers["traceparent"] == f"00-{tracer.trace_id}-{near.id}-01"


@pytest.mark.parametrize("flags", [2**70 + 1, 0x101, -255])
def test_flags_that_are_more_than_a_header_holds_are_cut(recorded: FakeQueue, flags: int) -> None:
    headers: dict[str, str] = {}
    with epsagon.trace("request") as tracer:
        continue_context(tracer, TraceContext(TRACE_ID, PARENT_ID, flags))
        inject(headers)
    assert headers["traceparent"] == f"00-{TRACE_ID}-{tracer.span_id}-01"


def test_trace_that_is_another_than_the_current_one_names_none_of_its_events(recorded: FakeQueue) -> None:
    other = epsagon.create_tracer()
    other.start()
    with epsagon.trace("request"), epsagon.event("call"):
        context = handed_on(other, "order-17")
    assert context is not None and context.parent_id == other.span_id
    other.send_stop_signal()


def test_disabled_trace_passes_on_what_it_got_and_begins_nothing(untraced: None) -> None:
    epsagon.init(disable=True)
    with epsagon.trace("work") as tracer:
        assert inject({}) is None
        assert continue_context(tracer, None) == tracer.trace_id
        assert inject({}) is None
        continue_context(tracer, TraceContext(TRACE_ID, PARENT_ID, 0))
        out: dict[str, str] = {}
        inject(out)
    assert out == {"traceparent": f"00-{TRACE_ID}-{tracer.trace_id[:16]}-00"}


def test_global_tracer_has_a_context_too(recorded: FakeQueue) -> None:
    tracer = epsagon.create_global_tracer()
    tracer.start()
    out: dict[str, str] = {}
    inject(out)
    assert tracer.trace_id in out["traceparent"]


@pytest.mark.parametrize("context", [None, TraceContext(TRACE_ID, PARENT_ID)])
def test_process_that_joins_a_trace_joins_its_context(recorded: FakeQueue, context: TraceContext | None) -> None:
    here: dict[str, str] = {}
    there: dict[str, str] = {}
    with epsagon.trace("work") as tracer:
        if context:
            continue_context(tracer, context)
        handle = pickle.loads(pickle.dumps(tracer.handle()))
        with epsagon.attach(handle):
            inject(there)
        inject(here)
    assert here == there != {}
