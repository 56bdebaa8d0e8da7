"""The fast path of an event into a ring, in both its implementations."""

import ast
import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest
import sanitizing
from fakes import FakeQueue
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import anything, complete_events, loose_events, metadata_values, sized_texts

import epsagon_fast as epsagon
from epsagon_fast import propagation
from epsagon_fast.producer import _fast_path, encoding
from epsagon_fast.producer.entering import parent_of
from epsagon_fast.producer.event import PureEvent
from epsagon_fast.producer.fast_path import FastPath, PureFastPath
from epsagon_fast.producer.place import PureBranch, PurePlace, PureStep
from epsagon_fast.producer.scope import PureBlock
from epsagon_fast.protocol import Kind
from epsagon_fast.queue.layout import FULL, FULLS_PER_LOOK, NOT_ASKED

TRACE = bytes(range(16))


class Way:
    """A fast path, what it pushed, and what it left to do."""

    def __init__(self, kind: type, limit_bytes: int = 1 << 20, answer: int = 0, typed: bool = False) -> None:
        self.pushed: list[Any] = []
        self.left: list[tuple[Any, int]] = []

        class Tracer(kind):  # type: ignore[misc]
            def _add_slowly(tracer, event: Any, code: int, parent_id: str | None) -> None:
                self.left.append((event, code))

        def push(*record: Any) -> int:
            self.pushed.append(record)
            return answer

        self.tracer = Tracer()
        self.tracer._open_path(push, TRACE, limit_bytes, typed)


@pytest.fixture(params=[_fast_path.FastPath, PureFastPath], ids=["compiled", "reference"])
def kind(request: pytest.FixtureRequest) -> type:
    found: type = request.param
    return found


def complete(**fields: Any) -> dict[str, Any]:
    resource = {"name": "n", "type": "t", "operation": "o", "metadata": {"k": "v"}}
    event = {"id": "1", "start_time": 1.5, "resource": resource, "origin": "sdk", "duration": 0.5, "error_code": 0}
    return {**event, "exception": None, **fields}


def test_complete_event_goes_straight_to_the_ring(kind: type) -> None:
    way = Way(kind)
    event = complete(duration=7)
    assert way.tracer.add_event(event) is None
    assert way.pushed == [(Kind.EVENT, 0, TRACE, orjson.dumps(event))]
    assert way.left == []


def test_of_many_refusals_some_are_told(kind: type) -> None:
    way = Way(kind, answer=FULL)
    for _ in range(4 * FULLS_PER_LOOK):
        way.tracer.add_event(complete())
    assert way.left == [(complete(), FULL)] * 4


@pytest.mark.parametrize(
    "event",
    [
        None,
        5,
        {},
        complete(origin="runner"),
        complete(exception={"type": "E"}),
        complete(error_code=True),
        complete(start_time="now"),
        complete(id=b"1"),
        complete(id=""),
        complete(more=1),
        complete(resource=None),
        complete(resource={"name": "n", "type": "t", "operation": "o", "metadata": {"k": (1,)}}),
        complete(resource={"name": "n", "type": "t", "operation": "o", "metadata": {1: "v"}}),
        complete(resource={"name": "n", "type": "t", "operation": "o"}),
        complete(id="\ud800"),
        complete(error_code=1 << 70),
        complete(error_code=1 << 31),
        complete(error_code=-(1 << 31) - 1),
        dict(reversed(complete().items())),
        {**dict(list(complete().items())[1:]), "id": "last"},
    ],
    ids=repr,
)
def test_any_other_event_is_left_to_do(kind: type, event: Any) -> None:
    way = Way(kind)
    way.tracer.add_event(event)
    assert way.pushed == []
    assert way.left == [(event, NOT_ASKED)]


def test_limit_is_of_the_events_json(kind: type) -> None:
    event = complete()
    size = len(orjson.dumps(event))
    fits, exceeds = Way(kind, size), Way(kind, size - 1)
    fits.tracer.add_event(event)
    exceeds.tracer.add_event(event)
    assert len(fits.pushed) == 1
    assert exceeds.pushed == []
    assert exceeds.left == [(event, NOT_ASKED)]


def test_what_push_answers_is_passed_on(kind: type) -> None:
    way = Way(kind, answer=FULL)
    event = complete()
    way.tracer.add_event(event)
    assert way.left == [(event, FULL)]


def test_nothing_passes_before_opening_and_after_closing(kind: type) -> None:
    way = Way(kind)
    way.tracer._close_path()
    event = complete()
    way.tracer.add_event(event)
    assert way.pushed == []
    assert way.left == [(event, NOT_ASKED)]


def test_argument_may_be_named(kind: type) -> None:
    way = Way(kind)
    way.tracer.add_event(event=complete())
    assert len(way.pushed) == 1
    for wrong in (
        lambda: way.tracer.add_event(),
        lambda: way.tracer.add_event(1, 2),
        lambda: way.tracer.add_event(x=1),
    ):
        with pytest.raises(TypeError, match="add_event"):
            wrong()


def test_error_of_push_is_raised(kind: type) -> None:
    way = Way(kind)

    def broken(*record: Any) -> int:
        raise ValueError("closed")

    way.tracer._open_path(broken, TRACE, 1 << 20, False)
    with pytest.raises(ValueError, match="closed"):
        way.tracer.add_event(complete())


def test_keyboard_interrupt_is_not_kept(kind: type) -> None:
    way = Way(kind)

    def interrupted(*record: Any) -> int:
        raise KeyboardInterrupt

    way.tracer._open_path(interrupted, TRACE, 1 << 20, False)
    with pytest.raises(KeyboardInterrupt):
        way.tracer.add_event(complete())


@given(complete_events() | loose_events() | anything())
def test_both_implementations_take_the_same_events(event: Any) -> None:
    compiled, reference = Way(_fast_path.FastPath), Way(PureFastPath)
    compiled.tracer.add_event(event)
    reference.tracer.add_event(event)
    assert compiled.pushed == reference.pushed
    assert [code for _, code in compiled.left] == [code for _, code in reference.left]
    for *_, payload in compiled.pushed:
        assert encoding.encode_event(event) == (payload, 0, 0, 0)


@given(metadata_values())
@example(2**63 - 1)
@example(2**63)
@example(-(2**63) - 1)
@example(math.nan)
@example(["a", 1, True, 0.5])
@example([1, None])
@example(["x" * 5000])
@example([1] * 101)
def test_typed_metadata_are_written_as_the_slow_path_does(value: Any) -> None:
    event = complete(resource={"name": "n", "type": "t", "operation": "o", "metadata": {"k": value}})
    expected = encoding.encode_event(event, typed=True).data
    for kind in (_fast_path.FastPath, PureFastPath):
        way = Way(kind, typed=True)
        way.tracer.add_event(event)
        assert [payload for *_, payload in way.pushed] in ([], [expected])
    if type(value) is int:
        assert len(way.pushed) == (-(2**63) <= value < 2**63)


def sent(**fields: Any) -> Any:
    """Return what the compiled path pushes of a complete event; None if it leaves it."""
    way = Way(_fast_path.FastPath)
    way.tracer.add_event(complete(**fields))
    return way.pushed[0][-1] if way.pushed else None


@given(st.floats(allow_nan=False) | st.integers(-(2**63), 2**64 - 1))
@example(0.0)
@example(-0.0)
@example(2.0**-13)
@example(1 - 2**-53)
@example(907246441832966.25)
@example(9.999999999999999e-06)
@example(1.0000000000000003e-05)
@example(5e-324)
def test_numbers_are_written_as_orjson_writes_them(number: float) -> None:
    assert sent(start_time=number) == orjson.dumps(complete(start_time=number))


def test_no_digit_of_a_float_is_written_outside(tmp_path: Path) -> None:
    run = sanitizing.run_floats(tmp_path, 200_000, 1)
    assert sanitizing.fault({"floats": run}) is None


@given(st.lists(sized_texts(7, 8, 15, 16, 31, 64), max_size=8), st.integers(0, 20))
@example(["".join(map(chr, range(0x90)))], 3)
def test_texts_are_written_as_orjson_writes_them(texts: list[str], before: int) -> None:
    # Moved by so many bytes, each character comes to stand at each place of the blocks that are looked at.
    text = "." * before + "".join(texts)
    whole = complete(id=text or "1", resource={"name": text, "type": "", "operation": "o", "metadata": {text: text}})
    assert sent(**whole) == orjson.dumps(whole)


@pytest.mark.parametrize("value", ["\x1f", '"', "x", "é"])
@pytest.mark.parametrize("place", ["value", "key", "list"])
def test_whatever_its_length_an_event_is_written_within_the_buffer_or_left(value: str, place: str) -> None:
    at_least_once = set()
    for exponent in range(5, 20):
        for size in (2**exponent - 1, 2**exponent):
            text = value * size
            metadata = {"value": {"a": text, "b": text}, "key": {text: ""}, "list": {"a": [text]}}[place]
            whole = complete(resource={"name": "n", "type": "t", "operation": "o", "metadata": metadata})
            found = sent(**whole)
            texts = {key: it if isinstance(it, str) else orjson.dumps(it).decode() for key, it in metadata.items()}
            whole["resource"]["metadata"] = texts
            assert found in (None, orjson.dumps(whole))
            at_least_once.add(found is None)
    assert at_least_once == {True, False}


@pytest.mark.parametrize(
    ("compiled", "pure"),
    [
        (_fast_path.FastPath, PureFastPath),
        (_fast_path.Place, PurePlace),
        (_fast_path.Step, PureStep),
        (_fast_path.Branch, PureBranch),
        (_fast_path.Event, PureEvent),
        (_fast_path.Block, PureBlock),
    ],
)
def test_stub_names_the_members(compiled: type, pure: Any) -> None:
    stub = ast.parse(Path(_fast_path.__file__).with_name("_fast_path.pyi").read_text())
    [stubbed] = [node for node in stub.body if isinstance(node, ast.ClassDef) and node.name == compiled.__name__]
    members = [node for node in stubbed.body if not isinstance(node, ast.Expr)]
    names = {getattr(node, "name", "") or ast.unparse(node.target) for node in members}
    public = {name for name in names if not name.startswith("__")}
    assert public == {name for name in vars(compiled) if not name.startswith("__")}
    made = {PureEvent: lambda: PureEvent("n", "t", "o", "c"), PureBlock: lambda: PureBlock("n", False)}.get(
        pure, lambda: pure
    )
    assert public - {"place"} <= {*dir(made())}


@pytest.mark.parametrize(
    "value", ["text", "\ud800", 7, 2**63, -(2**63), 2**70, True, 1.5, math.nan, None, [1], b"b"], ids=repr
)
@pytest.mark.parametrize("key", ["k", "\ud800", 5])
def test_labels_of_the_current_trace_are_those_of_the_slow_way(queue: FakeQueue, key: Any, value: Any) -> None:
    with epsagon.trace("run") as tracer:
        epsagon.label(key, value)
        tracer.add_label(key, value)
    labels = [record.payload for record in queue.records if record.kind == Kind.LABEL]
    expected = encoding.encode_label(key, value)
    assert labels == ([] if expected is None else [expected] * 2)
    assert queue.counts == ({"malformed": 2} if expected is None else {})


@pytest.mark.skipif(FastPath is PureFastPath, reason="the reference has no fast path for labels")
def test_label_that_is_refused_is_the_one_that_was_given(queue: FakeQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bytes] = []

    def push(kind: int, flags: int, trace_id: bytes, payload: bytes) -> int:
        if payload == b'["k","v"]':
            # As another thread would meanwhile.
            epsagon.label("another", 1)
        return FULL

    with epsagon.trace("run") as tracer:
        monkeypatch.setattr(type(tracer), "_attend", lambda self, code, kind, flags, payload: told.append(payload))
        tracer._open_path(push, TRACE, 1 << 20, False)
        epsagon.label("k", "v")
        monkeypatch.undo()
    assert told == [b'["another",1]', b'["k","v"]']


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Accept": "*"},
        {"TraceParent": "00-old"},
        {"tracestate": "a=b", "x": "y"},
        {"x-traceparen": "1"},
        {"é": "1"},
    ],
    ids=repr,
)
@pytest.mark.parametrize(
    "caller", [None, propagation.TraceContext("ab" * 16, "cd" * 8, 0x1B, "v=1")], ids=["none", "some"]
)
@pytest.mark.parametrize("depth", range(4))
def test_headers_are_those_of_the_slow_way(
    queue: FakeQueue, headers: dict[str, str], caller: propagation.TraceContext | None, depth: int
) -> None:
    with epsagon.trace("run") as tracer, ExitStack() as inner:
        tracer.context = caller
        if depth:
            inner.enter_context(epsagon.event("event"))
        if depth > 1:
            inner.enter_context(epsagon.trace("block"))
        for _ in range(depth - 2):
            inner.enter_context(epsagon.event("deep"))
        # The first call notes a context that the trace begins.
        first, plain = propagation.inject({}), dict(headers)
        context = propagation.inject(headers)
        assert propagation.inject_from(tracer, parent_of(tracer), plain) == context == first
    assert headers == plain
    assert type(context) is propagation.TraceContext
