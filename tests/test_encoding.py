"""Events, exceptions and labels become the wire's JSON, whatever they hold."""

import copy
import json
import math
import re
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hostile import BrokenMapping, Count, Faceless, HostileError, HostileExit, Loud, ViewOf, Word
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import anything, complete_events, loose_events, loose_exceptions, metadata_values, wild_text

from epsagon_fast.backend.shape import Summary, summarize
from epsagon_fast.collector.formats.epsagon import envelope
from epsagon_fast.producer import encoding
from epsagon_fast.producer.encoding import (
    complete_copy,
    encode_error,
    encode_event,
    encode_exception,
    encode_label,
    exception_of,
    metadata_text,
)
from epsagon_fast.producer.exceptions import MAX_MESSAGE_BYTES, MAX_TRACEBACK_BYTES
from epsagon_fast.producer.plain import type_name
from epsagon_fast.protocol import (
    EVENT_FIELDS,
    EXCEPTION_FIELDS,
    FROM_RUNNER,
    IS_TRIMMED_KEY,
    LABELS_KEY,
    RESOURCE_FIELDS,
    STRONG_KEYS,
    ErrorCode,
)

GOLDEN = Path(__file__).parent / "golden" / "trace_vectors.jsonl"
VECTORS = [json.loads(line) for line in GOLDEN.read_bytes().split(b"\n") if line]
SENT = [vector for vector in VECTORS if vector["expected"]["sent"]]
UNSENT = [vector for vector in VECTORS if not vector["expected"]["sent"]]

BLANK_RESOURCE = {"name": "", "type": "", "operation": "", "metadata": {}}
BLANK = {
    "id": "made",
    "start_time": 0,
    "resource": BLANK_RESOURCE,
    "origin": "",
    "duration": 0,
    "error_code": 0,
    "exception": None,
}


def complete(**fields: Any) -> dict[str, Any]:
    resource = {"name": "n", "type": "t", "operation": "o", "metadata": {"k": "v"}}
    event = {"id": "1", "start_time": 1.5, "resource": resource, "origin": "sdk", "duration": 0.5, "error_code": 0}
    return {**event, "exception": None, **fields}


@pytest.fixture(autouse=True, scope="module")
def no_ids() -> Iterator[None]:
    """An event without an id always gets the same one here, so that events can be compared; see test_tracer.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "span_id", lambda: "made")
        yield


def with_metadata(metadata: Any) -> dict[str, Any]:
    return complete(resource={"name": "n", "type": "t", "operation": "o", "metadata": metadata})


def encoded(event: Any) -> dict[str, Any]:
    return parsed(encode_event(event)[0])


def malformed(event: Any) -> int:
    return encode_event(event)[2]


def parsed(data: bytes) -> dict[str, Any]:
    # orjson takes neither NaN nor invalid UTF-8, but reads ints over 64 bits as floats.
    orjson.loads(data)
    value = json.loads(data)
    assert isinstance(value, dict)
    return value


def assert_is_event(event: dict[str, Any]) -> None:
    assert tuple(event) == EVENT_FIELDS
    assert tuple(event["resource"]) == RESOURCE_FIELDS
    resource = event["resource"]
    texts = [event["id"], event["origin"], resource["name"], resource["type"], resource["operation"]]
    assert {type(text) for text in texts} == {str}
    assert_are_texts(resource["metadata"])
    assert_is_number(event["start_time"])
    assert_is_number(event["duration"])
    assert type(event["error_code"]) is int
    if event["exception"] is not None:
        assert_is_exception(event["exception"])


def assert_is_exception(exception: dict[str, Any]) -> None:
    assert tuple(exception) == EXCEPTION_FIELDS
    assert {type(exception[name]) for name in ("type", "message", "traceback")} == {str}
    assert_is_number(exception["time"])
    assert_are_texts(exception["additional_data"])


def assert_are_texts(texts: Any) -> None:
    assert type(texts) is dict
    assert {type(text) for text in texts.values()} <= {str}


def assert_is_number(value: Any) -> None:
    # Row json-forms: NaN and infinities are null.
    assert value is None or type(value) in (int, float)


# epsagon-go's vectors.


@pytest.mark.parametrize("vector", SENT, ids=lambda vector: vector["case"]["name"])
def test_events_are_what_epsagon_go_sent(vector: dict[str, Any]) -> None:
    """All but what labels, error, masking and trimming do to them later, in the collector."""
    case, body = vector["case"], orjson.loads(vector["expected"]["body"])
    assert len(case["events"]) == len(body["events"])
    runner = next((event for event in body["events"] if event["origin"] == "runner"), None)
    for given_event, sent in zip(case["events"], body["events"], strict=True):
        event = encoded(given_event)
        assert_is_event(event)
        ours, theirs = event["resource"].pop("metadata"), sent["resource"].pop("metadata")
        assert comparable(ours, case, sent is runner) == comparable(theirs, case, sent is runner)
        if case["error"] and sent is runner:
            del event["exception"], event["error_code"], sent["exception"], sent["error_code"]
        # Row event-id.
        assert event == {**sent, "id": sent["id"] or "made"}


def comparable(metadata: dict[str, str], case: dict[str, Any], of_runner: bool) -> dict[str, str]:
    if case["config"].get("ignored_keys"):
        return dict.fromkeys(metadata.keys() - {LABELS_KEY}, "")
    if "EPSAGON_MAX_TRACE_SIZE" in case["env"]:
        metadata = {key: value for key, value in metadata.items() if key in STRONG_KEYS}
    late = {LABELS_KEY} if of_runner else set()
    return {key: value for key, value in metadata.items() if key not in late}


@pytest.mark.parametrize("vector", SENT, ids=lambda vector: vector["case"]["name"])
def test_exceptions_are_what_epsagon_go_sent(vector: dict[str, Any]) -> None:
    body = orjson.loads(vector["expected"]["body"])
    ours = [parsed(encode_exception(exception).data) for exception in vector["case"]["exceptions"]]
    assert ours == body["exceptions"]
    for exception in ours:
        assert_is_exception(exception)


@pytest.mark.parametrize("vector", UNSENT, ids=lambda vector: vector["case"]["name"])
def test_events_that_epsagon_go_did_not_send_are_encoded(vector: dict[str, Any]) -> None:
    """Rows no-panic (nil resource, nil metadata), too-big, disabled-free."""
    for given_event in vector["case"]["events"]:
        event = encoded(given_event)
        assert_is_event(event)
        resource = {**BLANK_RESOURCE, **(given_event.get("resource") or {})}
        resource["metadata"] = resource["metadata"] or {}
        assert event == {**BLANK, **given_event, "resource": resource}


def test_the_marker_of_trimming_is_the_users_until_a_trace_is_trimmed() -> None:
    assert encoded(with_metadata({IS_TRIMMED_KEY: "no"}))["resource"]["metadata"] == {IS_TRIMMED_KEY: "no"}


# Complete events.


@given(complete_events())
def test_a_complete_event_is_what_orjson_makes_of_it(event: dict[str, Any]) -> None:
    before = copy.deepcopy(event)
    assert complete_copy(event) == event
    assert encode_event(event) == (orjson.dumps(event), FROM_RUNNER if event["origin"] == "runner" else 0, 0, 0)
    assert repr(event) == repr(before)
    assert_is_event(encoded(event))


@given(complete_events())
def test_an_event_in_another_order_is_written_in_wire_order(event: dict[str, Any]) -> None:
    resource = dict(reversed(event["resource"].items()))
    shuffled = dict(reversed({**event, "resource": resource}.items()))
    assert encode_event(shuffled) == encode_event(event)


def test_what_is_not_finite_is_null() -> None:
    """Row json-forms: epsagon-go wrote the strings "NaN" and "Infinity"."""
    event = complete(start_time=math.nan, duration=-math.inf)
    assert encoded(event) == {**event, "start_time": None, "duration": None}
    assert malformed(event) == 0
    assert malformed({"start_time": math.nan, "id": "\ud800"}) == 0


def test_characters_are_raw_utf_8() -> None:
    """Row json-forms: epsagon-go escaped <, > and &."""
    assert "<é€😀&>\u2028".encode() in encode_event(complete(id="<é€😀&>\u2028"))[0]


def test_later_changes_of_the_event_have_no_effect() -> None:
    event = complete()
    data = encode_event(event)[0]
    event["resource"]["metadata"]["k"] = "changed"
    assert parsed(data)["resource"]["metadata"] == {"k": "v"}


# Incomplete and wrong ones.


@given(loose_events())
@example({"id": Word("\ud800"), "origin": Word("runner"), "error_code": Count(2)})
@example(complete(start_time=2**64, error_code=2**70))
@example({"exception": ValueError("\ud800"), "resource": ViewOf({"metadata": BrokenMapping()})})
def test_any_event_becomes_one_of_the_wire(event: Any) -> None:
    data, flags, count, _ = encode_event(event)
    assert_is_event(parsed(data))
    assert flags == (FROM_RUNNER if parsed(data)["origin"] == "runner" else 0)
    assert 0 <= count <= 20


@given(loose_exceptions() | anything())
def test_any_exception_becomes_one_of_the_wire(exception: Any) -> None:
    assert_is_exception(parsed(encode_exception(exception).data))


@pytest.mark.parametrize("name", EVENT_FIELDS)
def test_a_missing_or_null_field_gets_its_default_and_is_not_malformed(name: str) -> None:
    for event in ({key: value for key, value in complete().items() if key != name}, complete(**{name: None})):
        assert encoded(event) == complete(**{name: BLANK[name]})
        assert malformed(event) == 0


@pytest.mark.parametrize("name", RESOURCE_FIELDS)
def test_a_missing_or_null_field_of_the_resource_gets_its_default(name: str) -> None:
    whole = complete()["resource"]
    for resource in ({key: value for key, value in whole.items() if key != name}, {**whole, name: None}):
        assert encoded(complete(resource=resource))["resource"] == {**whole, name: BLANK_RESOURCE[name]}
        assert malformed(complete(resource=resource)) == 0


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("id", [1, b"x", uuid.UUID(int=1), ["x"]]),
        ("start_time", ["1", True, [1.0], 10**400]),
        ("resource", ["x", 1, [("name", "n")]]),
        ("origin", [1, {"x": 1}]),
        ("duration", ["1", False]),
        ("error_code", ["1", 1.0, True]),
        ("exception", ["x", 1, []]),
    ],
)
def test_a_field_of_a_wrong_type_gets_its_default_and_is_counted(name: str, values: list[Any]) -> None:
    for value in values:
        assert encoded(complete(**{name: value})) == complete(**{name: BLANK[name]})
        assert malformed(complete(**{name: value})) == 1


def test_every_wrong_field_is_counted() -> None:
    resource = {"name": 1, "type": 2, "operation": 3, "metadata": 4}
    assert malformed(complete(id=1, resource=resource, exception={"type": 1, "time": "now"})) == 7
    assert encode_event(7) == (orjson.dumps(BLANK), 0, 1, 0)  # type: ignore[arg-type]
    assert encode_event(Faceless()) == (orjson.dumps(BLANK), 0, 1, 0)  # type: ignore[arg-type]
    assert encode_event(complete(id=Faceless(), resource=Faceless()))[2] == 2
    assert_is_exception(parsed(encode_exception(Faceless()).data))  # type: ignore[arg-type]
    assert encode_event(BrokenMapping())[2] == len(EVENT_FIELDS)


def test_fields_that_the_wire_does_not_know_are_left_out() -> None:
    event = complete(span=1)
    event["resource"]["colour"] = "red"
    assert encoded(event) == complete()
    assert malformed(event) == 0


def test_an_int_over_64_bits_is_a_double_as_a_time() -> None:
    assert encoded(complete(start_time=10**30))["start_time"] == 1e30


def test_an_error_code_may_be_a_member_of_the_enum() -> None:
    assert encoded(complete(error_code=ErrorCode.EXCEPTION)) == complete(error_code=2)
    assert malformed(complete(error_code=ErrorCode.EXCEPTION)) == 0


def test_an_event_takes_a_python_exception() -> None:
    exception = encoded(complete(exception=ValueError("bad")))["exception"]
    assert (exception["type"], exception["message"]) == ("ValueError", "bad")


def test_metadata_values_become_strings() -> None:
    metadata = {"n": 1, "t": True, "l": [1, {"a": None}], "none": None, 5: "five", ("a", 1): Loud, "\ud800": "\udfff"}
    assert encoded(with_metadata(metadata))["resource"]["metadata"] == {
        "n": "1",
        "t": "true",
        "l": '[1,{"a":null}]',
        "none": "null",
        "5": "five",
        '["a",1]': "<class 'hostile.Loud'>",
        "\ufffd": "\ufffd",
    }
    assert malformed(with_metadata(metadata)) == 0


def test_typed_metadata_keep_their_types() -> None:
    kept = {"n": 1, "most": 2**63 - 1, "f": 0.5, "t": True, "l": ["a", 1, False, 0.5], "none": [], "s": "5"}
    event = {"resource": {"metadata": kept}}
    assert parsed(encode_event(event, typed=True).data)["resource"]["metadata"] == kept
    texts = {
        "big": 2**63,
        "nan": math.nan,
        "null": None,
        "d": {"a": 1},
        "l": [1, None],
        "deep": [[1]],
        "u": uuid.UUID(int=1),
    }
    written = parsed(encode_event(with_metadata(texts), typed=True).data)
    assert written["resource"]["metadata"] == {key: metadata_text(value) for key, value in texts.items()}
    like = {"count": Count(3), "word": Word("w"), 5: (1, 2)}
    written = parsed(encode_event(with_metadata(like), typed=True).data)
    assert written["resource"]["metadata"] == {"count": 3, "word": "w", "5": [1, 2]}
    thrown = parsed(encode_exception({"additional_data": {"order": 7}}, typed=True).data)
    assert thrown["additional_data"] == {"order": 7}


class Meta(type):
    __module__ = property(lambda cls: 1 / 0)  # type: ignore[assignment]


class NoMoney(Exception):
    """One with a module."""


class Odd(Exception, metaclass=Meta):
    """One whose metaclass gets in the way."""


@pytest.mark.parametrize(
    ("error", "full", "short"),
    [
        (ValueError(), "ValueError", "ValueError"),
        (NoMoney(), f"{__name__}.NoMoney", "NoMoney"),
        (json.JSONDecodeError("m", "d", 0), "json.decoder.JSONDecodeError", "JSONDecodeError"),
        (Odd(), f"{__name__}.Odd", "Odd"),
    ],
)
def test_a_class_has_its_module_where_the_backend_wants_it(error: Exception, full: str, short: str) -> None:
    for typed, name in ((True, full), (False, short)):
        assert parsed(encode_exception(error, typed).data)["type"] == name
        assert parsed(encode_error(short, error, typed).data)["type"] == name
        assert parsed(encode_error("mine", error, typed).data)["type"] == "mine"
        assert parsed(encode_event({"exception": error}, typed=typed).data)["exception"]["type"] == name


@given(st.dictionaries(st.text(max_size=3), metadata_values(), max_size=3))
def test_typed_metadata_say_what_their_texts_say(metadata: dict[str, Any]) -> None:
    typed, texts = (encode_event(with_metadata(metadata), typed=typed) for typed in (True, False))
    told = {key: metadata_text(value) for key, value in parsed(typed.data)["resource"]["metadata"].items()}
    assert told == parsed(texts.data)["resource"]["metadata"]
    assert typed[1:] == texts[1:]


def test_an_event_of_nothing_but_bad_text_keeps_its_shape() -> None:
    metadata = {f"\ud800{n}": "\udfff" for n in range(20_000)}
    event = encoded(with_metadata(metadata))
    assert_is_event(event)
    assert event["origin"] == "sdk"
    assert len(event["resource"]["metadata"]) == 20_000


@given(wild_text())
def test_the_flag_follows_the_origin_that_is_written(origin: str) -> None:
    data, flags, _, _ = encode_event({"origin": origin})
    assert (flags == FROM_RUNNER) == (parsed(data)["origin"] == "runner")


def test_an_event_is_encoded_up_to_the_recursion_limit() -> None:
    results: list[bytes] = []

    def descend() -> None:
        try:
            descend()
        except RecursionError:
            return
        try:
            results.append(encode_event({"id": "\ud800", "resource": {"metadata": {"n": [2**70]}}})[0])
            results.append(encode_exception(ValueError("x")).data)
        except RecursionError:
            # Not even the call itself had room.
            pass

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(400)
    try:
        descend()
    finally:
        sys.setrecursionlimit(limit)
    assert len(results) > 200
    for result in results:
        parsed(result)


# Exceptions.


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_an_exception_brings_its_own_traceback() -> None:
    exception = parsed(encode_exception(raised(KeyError("x"))).data)
    assert_is_exception(exception)
    assert (exception["type"], exception["message"], exception["additional_data"]) == ("KeyError", "'x'", {})
    assert exception["traceback"].startswith("Traceback (most recent call last):\n")
    assert "in raised" in exception["traceback"]
    assert exception["traceback"].endswith("KeyError: 'x'\n")
    assert exception["time"] > 1.6e9


def test_a_cause_and_a_group_are_in_the_traceback() -> None:
    try:
        raise ValueError("outer") from raised(KeyError("inner"))
    except ValueError as error:
        text = exception_of("ValueError", error)["traceback"]
    assert text.index("KeyError: 'inner'") < text.index("ValueError: outer")
    group = exception_of("G", raised(ExceptionGroup("several", [OSError("one"), OSError("two")])))
    assert "OSError: two" in group["traceback"]


def test_an_exception_that_was_not_raised_has_its_reporters_stack() -> None:
    traceback = exception_of("ValueError", ValueError("x"))["traceback"]
    assert traceback.startswith("Stack (most recent call last):\n")
    last = traceback.rstrip().splitlines()[-2]
    assert "test_encoding.py" in last
    assert sys._getframe().f_code.co_name in last


def test_a_type_and_a_message_have_the_callers_stack() -> None:
    exception = exception_of("CustomError", "something <failed>")
    assert tuple(exception) == EXCEPTION_FIELDS
    assert (exception["type"], exception["message"]) == ("CustomError", "something <failed>")
    assert sys._getframe().f_code.co_name in exception["traceback"]
    assert "producer" not in exception["traceback"].rsplit("File", 1)[1]


def test_an_exception_that_cannot_be_printed_is_reported() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

        __repr__ = __str__

    exception = parsed(encode_exception(raised(Mute())).data)
    assert exception["type"] == "Mute"
    assert "Mute object at" in exception["message"]
    assert "in raised" in exception["traceback"]


def test_a_long_message_and_traceback_keep_both_ends() -> None:
    def descend(levels: int) -> None:
        if levels == 0:
            raise ValueError("é" * 100_000 + "end")
        # Two calls in turn, or the traceback would say "repeated" by itself.
        (descend if levels % 2 else lambda n: descend(n))(levels - 1)

    try:
        descend(600)
    except ValueError as error:
        exception = exception_of("ValueError", error)
    sizes = [len(orjson.dumps(exception[name])) - 2 for name in ("message", "traceback")]
    assert sizes[0] <= MAX_MESSAGE_BYTES < sizes[0] + 50
    assert sizes[1] <= MAX_TRACEBACK_BYTES < sizes[1] + 500
    for name in ("message", "traceback"):
        assert re.search(r"\.\.\. \d+ characters left out \.\.\.", exception[name])
        assert exception[name].rstrip().endswith("end")
        assert "\ufffd" not in exception[name]
    assert exception["traceback"].startswith("Traceback")


def test_what_is_no_exception_becomes_a_message() -> None:
    assert parsed(encode_exception("boom").data) == {  # type: ignore[arg-type]
        "type": "",
        "message": "boom",
        "traceback": "",
        "time": 0,
        "additional_data": {},
    }


# Labels and parts.


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("x", '"x"'),
        ("", '""'),
        (",null]", '",null]"'),
        (Word("\ud800"), '"\ufffd"'),
        (1, "1"),
        (-(2**63) + 1, "-9223372036854775807"),
        (Count(3), "3"),
        (ErrorCode.ERROR, "1"),
        (1.5, "1.5"),
        (True, "true"),
        (False, "false"),
    ],
    ids=repr,
)
def test_a_label_keeps_its_type(value: Any, written: str) -> None:
    assert encode_label("key", value) == f'["key",{written}]'.encode()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, [1], {}, b"x", 1j, 2**64, Loud()])
def test_what_is_no_label_is_refused(value: Any) -> None:
    """Row labels-kept: that label alone. epsagon-go lost all labels to one NaN."""
    assert encode_label("key", value) is None


def test_a_label_needs_a_string_as_its_key() -> None:
    assert encode_label("key", Faceless()) is None
    assert encode_label(Faceless(), "x") is None  # type: ignore[arg-type]
    assert encode_label(1, "x") is None  # type: ignore[arg-type]
    assert encode_label("\ud800", "x") == '["\ufffd","x"]'.encode()


@given(anything())
def test_any_label_is_encoded_or_refused(value: Any) -> None:
    data = encode_label("key", value)
    if data is not None:
        assert orjson.loads(data)[0] == "key"
        assert type(orjson.loads(data)[1]) in (str, int, float, bool)


# What the encoder gives, the backend takes.


def summarized(events: list[bytes], exceptions: list[bytes]) -> Summary:
    return summarize(envelope("app", "token", "python").around(events, exceptions))


@given(loose_events() | anything())
@example(complete(error_code=2**31))
@example({"error_code": -(2**31) - 1, "start_time": 10**400, "exception": {"time": 2**70}})
def test_any_event_is_one_for_the_backend(event: Any) -> None:
    assert summarized([encode_event(event).data], []).event_count == 1


@given(loose_exceptions() | anything())
def test_any_exception_is_one_for_the_backend(exception: Any) -> None:
    assert summarized([], [encode_exception(exception).data]).exception_count == 1


@pytest.mark.parametrize(
    ("code", "sent", "counted"),
    [
        (2**31 - 1, 2**31 - 1, 0),
        (-(2**31), -(2**31), 0),
        (0x80070005, 0x80070005 - 2**32, 0),
        (2**32 - 1, -1, 0),
        (2**32, ErrorCode.ERROR, 1),
        (-(2**31) - 1, ErrorCode.ERROR, 1),
        (2**64, ErrorCode.ERROR, 1),
    ],
)
def test_an_error_code_has_32_bits_and_an_error_stays_one(code: int, sent: int, counted: int) -> None:
    assert encoded(complete(error_code=code))["error_code"] == sent
    assert malformed(complete(error_code=code)) == counted


# Nothing that an exception does takes its place.


@pytest.mark.parametrize("kind", [HostileError, HostileExit], ids=["error", "exit"])
def test_an_exception_that_answers_no_question_is_reported(kind: type[BaseException]) -> None:
    exception = parsed(encode_exception(raised(kind())).data)
    assert_is_exception(exception)
    assert exception["type"] == type_name(kind()) in ("HostileError", "HostileExit")
    assert " object at 0x" in exception["message"]
    assert "in raised" in exception["traceback"]
    assert metadata_text([kind(), 1]).startswith('["<hostile.Hostile')


def test_lost_fields_of_an_exception_are_counted() -> None:
    lost = {"type": ValueError, "message": ValueError("x"), "time": "now", "additional_data": ["a"]}
    assert encode_exception(lost).malformed == 4
    assert encode_exception({"additional_data": {"list": [0] * 10_002}}).left_out == 2
    assert encode_event({"resource": {"metadata": {"list": [0] * 10_002}}}).left_out == 2
    assert encode_event({"id": 1, "resource": {"metadata": {"list": [0] * 10_002}}})[1:] == (0, 1, 2)
