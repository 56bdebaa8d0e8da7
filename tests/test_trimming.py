import ast
import collections
import inspect
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st
from waiting import TIMEOUT_S

import epsagon_fast.trimming
from epsagon_fast.pages import see
from epsagon_fast.protocol import STRONG_KEYS
from epsagon_fast.trimming import TraceTooBig, Trimmed, _reference

Trimmer = Callable[..., Trimmed]
TRIMMERS: dict[str, Trimmer] = {"reference": _reference.trim}
if os.environ.get("EPSAGON_FAST_PURE") != "1" and os.environ.get("EPSAGON_FAST_IMPL") != "reference":
    # A build that is missing is an error here, never a test left out.
    from epsagon_fast.trimming import _compiled

    TRIMMERS["compiled"] = _compiled.trim

VECTORS = [
    json.loads(line)
    for line in (Path(__file__).parent / "golden" / "trim_vectors.jsonl").read_text("utf-8").split("\n")
    if line
]


@pytest.fixture(params=TRIMMERS.values(), ids=TRIMMERS, scope="module")
def trimmer(request: pytest.FixtureRequest) -> Trimmer:
    """Each implementation in turn."""
    return request.param


def event(metadata: str, before: str = "", after: str = "") -> bytes:
    """Return an event around the text of its metadata."""
    return f'{{{before}"resource":{{"name":"n","metadata":{metadata}}}{after}}}'.encode()


# Something to strip, so that a limit can ask for every event before it to be stripped.
BALLAST = event('{"weak":"' + "w" * 50 + '"}')


def stripped_size(trimmer: Trimmer, events: list[bytes]) -> int:
    """Return the size with every event stripped."""
    with pytest.raises(TraceTooBig) as too_big:
        trimmer([*events, BALLAST], 0)
    return too_big.value.size_bytes


def stripped(trimmer: Trimmer, *events: bytes) -> list[bytes]:
    """Return these events, each stripped."""
    result = trimmer([*events, BALLAST], stripped_size(trimmer, [*events]))
    assert result.stripped_count == len(events) + 1
    return result.events[:-1]


def answer(trimmer: Trimmer, *args: Any, **sizes: Any) -> Any:
    """Return what a trimmer gives, or the type and text of its error."""
    try:
        return trimmer(*args, **sizes)
    except Exception as error:
        text, page, more = str(error).partition(see("trimming"))
        # Python itself says what is no number and no sequence.
        assert not more and (page or isinstance(error, TypeError))
        return type(error), text


def answers(*args: Any, **sizes: Any) -> list[Any]:
    """Return each trimmer's answer."""
    return [answer(trimmer, *args, **sizes) for trimmer in TRIMMERS.values()]


def size_of(events: list[bytes]) -> int:
    return len(b",".join(events))


# ---- against epsagon-go


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_trims_as_epsagon_go_did(trimmer: Trimmer, vector: dict[str, Any]) -> None:
    events = [text.encode() for text in vector["events"]]
    got = answer(trimmer, events, vector["limit_bytes"], envelope_bytes=vector["envelope_bytes"])
    if vector["expected"] is None:
        assert got[0] is TraceTooBig
    else:
        assert got.events == [text.encode() for text in vector["expected"]]
        assert (got.stripped_count > 0) == vector["trimmed"]


def test_there_are_sixty_vectors() -> None:
    assert len(VECTORS) == 60


# ---- what it promises, on any trace


def pairs(text: bytes) -> Any:
    """Parse JSON with nothing lost: objects as lists of pairs, numbers as text."""
    return json.loads(text, object_pairs_hook=Pairs, parse_int=Number, parse_float=Number)


class Pairs(list[tuple[str, Any]]):
    """An object's members, in order, the same key perhaps twice."""

    def first(self, key: str) -> int | None:
        return next((i for i, (name, _) in enumerate(self) if name == key), None)


class Number(str):
    """A number's text."""


def strip_parsed(event: Any) -> Any:
    """Strip a parsed event: the rule once more, with no bytes in sight."""
    within = event
    for key in ("resource", "metadata"):
        if not isinstance(within, Pairs) or (found := within.first(key)) is None:
            return event
        within = within[found][1]
    if isinstance(within, Pairs):
        within[:] = [member for member in within if member[0] in STRONG_KEYS]
    return event


@st.composite
def asked(draw: st.DrawFn) -> tuple[list[bytes], int, dict[str, int]]:
    """A trace, a limit near a size that matters, an envelope and a reserve."""
    events = draw(strategies.traces())
    envelope, reserve = draw(st.sampled_from([0, 1, 100])), draw(st.sampled_from([0, 0, 1, 20, 10**6]))
    after = [len(stripped(_reference.trim, event)[0]) - len(event) for event in events]
    visited = draw(st.integers(0, len(events)))
    near = envelope + size_of(events) + sum(after[:visited]) + draw(st.sampled_from([0, reserve]))
    limit = max(0, near + draw(st.sampled_from([0, 0, 1, -1, -20])))
    return events, limit, {"envelope_bytes": envelope, "reserve_bytes": reserve}


@given(asked())
def test_both_give_the_same_which_fits_and_strip_no_event_more_than_they_must(
    asked: tuple[list[bytes], int, dict[str, int]],
) -> None:
    events, limit, sizes = asked
    # One trace for both and for all that is asked of them, since drawing one takes longer than trimming it.
    first, *others = answers(events, limit, **sizes)
    assert all(other == first for other in others)
    for got in (first, *others):
        if isinstance(got, Trimmed):
            assert_trimmed(got, events, limit, **sizes)
        else:
            assert got[0] is TraceTooBig


def assert_trimmed(got: Trimmed, events: list[bytes], limit: int, *, envelope_bytes: int, reserve_bytes: int) -> None:
    """Assert that a trace fits its limit, that it is as big as it says, and that no event was stripped without need."""
    assert got.size_bytes == envelope_bytes + size_of(got.events)
    assert got.size_bytes <= limit - (reserve_bytes if got.stripped_count else 0)
    assert (got.stripped_count == 0) == (envelope_bytes + size_of(events) <= limit)
    untouched = slice(got.stripped_count, None)
    assert all(kept is given for kept, given in zip(got.events[untouched], events[untouched], strict=True))
    if got.stripped_count > 0:
        last = got.stripped_count - 1
        before = envelope_bytes + size_of(got.events[:last] + events[last:])
        assert last == 0 or before > limit - reserve_bytes


@given(strategies.traces())
def test_what_fits_comes_back_as_the_same_objects(trimmer: Trimmer, events: list[bytes]) -> None:
    got = trimmer(events, size_of(events), reserve_bytes=10**9)
    assert got.stripped_count == 0
    assert got.events is not events
    assert [id(event) for event in got.events] == [id(event) for event in events]


@given(strategies.traces())
def test_one_byte_over_is_trimmed(trimmer: Trimmer, events: list[bytes]) -> None:
    events = [BALLAST, *events]
    got = trimmer(events, size_of(events) - 1)
    assert got.stripped_count == 1
    assert got.events[0] == event("{}")


@given(strategies.event_texts())
def test_strips_what_the_parsed_event_says_and_nothing_else(trimmer: Trimmer, event: bytes) -> None:
    assert pairs(stripped(trimmer, event)[0]) == strip_parsed(pairs(event))


@given(strategies.framed_metadata(), strategies.spaces())
def test_strong_members_and_all_outside_metadata_keep_their_bytes(
    trimmer: Trimmer, parts: tuple[str, list[str], str], space: str
) -> None:
    before, members, behind = parts
    metadata = "{" + space + f"{space},{space}".join(members) + space + "}"
    strong = [member for member in members if json.JSONDecoder().raw_decode(member)[0] in STRONG_KEYS]
    assert stripped(trimmer, (before + metadata + behind).encode()) == [
        (before + "{" + ",".join(strong) + "}" + behind).encode()
    ]


@given(strategies.traces())
def test_trimming_twice_changes_nothing(trimmer: Trimmer, events: list[bytes]) -> None:
    once = stripped(trimmer, *events)
    twice = stripped(trimmer, *once)
    assert twice == once
    assert all(second is first for second, first in zip(twice, once, strict=True))


# ---- events that are hard to read

DEEP = 100_000
REGION = '"region":"eu"'
ONE_WEAK = f'{{"k":1,{REGION}}}'
# An event, and the members of its metadata that stay.
HARD_EVENTS = {
    "escaped keys": (
        event(r'{"\u0061ws_account":1,"aws.servic\u0065":2,"x":3}'),
        r'"\u0061ws_account":1,"aws.servic\u0065":2',
    ),
    "escapes that only look like a strong key": (event(r'{"\\u0072egion":1,"region\n":2,"\region":3}'), ""),
    "escapes beyond ASCII with a strong key's low bits": (event(r'{"\u00f2egion":1,"\u0172egion":2}'), ""),
    "upper and lower case digits": (
        event(r'{"r\u0065gi\u006fn":1,"regi\u006Fn":2}'),
        r'"r\u0065gi\u006fn":1,"regi\u006Fn":2',
    ),
    "keys as long as a strong one, with its first byte": (event('{"reaion":1,"lacels":2,"aws-account":3}'), ""),
    "keys that are nearly strong": (event('{"region ":1,"Region":2,"regionregion":3,"regio":4}'), ""),
    "duplicate keys": (event('{"region":1,"x":2,"region":3,"x":4,"region":1}'), '"region":1,"region":3,"region":1'),
    "white space": (event('\n{ \t"region" : 1 \r\n, "x" : [ ] , "labels"\t:{ } } '), '"region" : 1,"labels"\t:{ }'),
    "only strong keys, with white space": (event('{ "region":1 , "labels":2 }'), '"region":1,"labels":2'),
    "empty metadata": (event("{}"), ""),
    "white space for metadata": (event("{ \n }"), ""),
    "brackets and commas in strings": (event(r'{"a":"}],{[\"","region":"}],{[","b":"\\"}'), r'"region":"}],{["'),
    "containers": (event('{"a":{"region":1},"labels":{"a":["]"]},"b":[[],{}]}'), '"labels":{"a":["]"]}'),
    "an empty key": (event(f'{{"":1,{REGION}}}'), REGION),
    "a key of one megabyte": (event(f'{{"{"k" * 2**20}":1,{REGION}}}'), REGION),
    "a value of one megabyte": (event(f'{{"k":"{"v" * 2**20}",{REGION}}}'), REGION),
    "a megabyte of backslashes": (event(f'{{"k":"{chr(92) * 2**20}",{REGION}}}'), REGION),
    "a megabyte of four-byte characters": (event(f'{{"k":"{"😀" * 2**18}",{REGION}}}'), REGION),
    "a lone surrogate": (event(r'{"\udc00":"\ud800","region":"\udfff"}'), r'"region":"\udfff"'),
    "an int of 5000 digits": (event(f'{{"k":{"9" * 5000},{REGION}}}'), REGION),
    "metadata before, elsewhere": (event(ONE_WEAK, before='"metadata":{"k":1},'), REGION),
    "resource and metadata again": (event(ONE_WEAK, after=',"resource":{"metadata":{"k":1}}'), REGION),
    "resource in a value": (event(ONE_WEAK, before='"a":{"resource":{"metadata":{"k":1}}},'), REGION),
    "metadata in metadata": (event(f'{{"metadata":{{"k":1}},{REGION}}}'), REGION),
    "escapes on the way": (rf'{{"r\u0065source":{{"\u006detadata":{ONE_WEAK}}}}}'.encode(), REGION),
    "deep arrays in it": (event(f'{{"k":{"[" * DEEP}{"]" * DEEP},{REGION}}}'), REGION),
    "deep objects in it": (event('{"k":' + '{"a":' * DEEP + "1" + "}" * DEEP + "," + REGION + "}"), REGION),
    "deep arrays on the way": (event(ONE_WEAK, before=f'"a":{"[" * DEEP}"]"{"]" * DEEP},'), REGION),
    "deep arrays behind it": (event(ONE_WEAK, after=f',"a":{"[" * DEEP}{"]" * DEEP}'), REGION),
}


# Each is longer than a block of 64 bytes, or has what opens in one and closes in another.
LONG_VALUES = {
    "numbers": "[" + "0.25,-1e9," * 40 + "0]",
    "an array behind numbers": "[" + "0.25," * 40 + "[" + "0.25," * 40 + "0]]",
    "numbers in objects": "[" + '{"a":[1,2.5],"b":-3},' * 12 + "[]]",
    "letters": '["' + "b" * 300 + '",{"k":"' + "é" * 200 + '"}]',
    "brackets in strings": '["' + "[{" * 60 + '",{"]":"' + "}]" * 60 + '"}]',
    "escaped quotes": '["' + r"[\"]" * 40 + '",["' + r"\\" * 70 + '"],"' + "b" * 130 + r'\"]"]',
    "an escape between letters": '"' + "b" * 200 + r"\n" + "b" * 127 + '"',
    "an escape in it between letters": '["' + "b" * 200 + r"\n" + "b" * 127 + '",[]]',
    "a backslash behind letters": "[" + ",".join(f'"{"b" * count}\\\\"' for count in range(120, 260, 7)) + "]",
    "letters between brackets": '[["'
    + '"],["'.join("b" * count for count in (62, 63, 64))
    + '"],'
    + "[" * 70
    + "]" * 71,
}


@pytest.mark.parametrize("name", LONG_VALUES)
def test_a_long_value_ends_where_it_does_wherever_it_begins(trimmer: Trimmer, name: str) -> None:
    value = LONG_VALUES[name]
    assert json.loads(value)
    for places in range(64):
        given = event(f'{{"k{"k" * places}":{value},"labels":{value},"l":{value},{REGION}}}')
        assert stripped(trimmer, given) == [event(f'{{"labels":{value},{REGION}}}')]


@pytest.mark.parametrize("name", HARD_EVENTS)
def test_hard_events_keep_their_strong_members(trimmer: Trimmer, name: str) -> None:
    given, strong = HARD_EVENTS[name]
    (left,) = stripped(trimmer, given)
    # Each of them has its metadata as the resource's last member.
    resource = re.search(rb'(?<!:.)"r(e|.u0065)source":{', given).end()
    metadata = re.compile(rb'etadata":\s*{').search(given, resource).end()
    assert left.startswith(given[:metadata] + strong.encode() + b"}")


NOTHING_TO_STRIP = [
    b"null",
    b"0",
    b' "resource" ',
    b'[{"resource":{"metadata":{"k":1}}}]',
    b"{}",
    b" { } ",
    b'{"metadata":{"k":1}}',
    b'{"resource":null,"a":{"metadata":{"k":1}}}',
    b'{"resource":[{"metadata":{"k":1}}]}',
    b'{"resource":"\\"metadata\\":{}"}',
    b'{"resource":{}}',
    b'{"resource":{"metadata":null,"k":{"k":1}}}',
    b'{"resource":{"metadata":[{"k":1}]}}',
    b'{"resource":{"metadata":"{}"}}',
    b'{"resource":{"metadata":-1}}',
    b'{"resource":{"metadatas":{"k":1},"metatada":{"k":1}}}',
    b'{"resounce":{"metadata":{"k":1}}}',
    # Only the first of a name counts, whatever the others are.
    b'{"resource":1,"resource":{"metadata":{"k":1}}}',
    b'{"resource":{"metadata":1,"metadata":{"k":1}}}',
    b'{"resource":{"name":1},"resource":{"metadata":{"k":1}}}',
    event('{"region":1,"labels":"{}"}'),
    # Bytes above 0x7F inside strings are nobody's business here, be they UTF-8 or not.
    b'{"\xff":"\x80","resource":{"metadata":{"region":"\xc3"}}}',
]


@pytest.mark.parametrize("given", NOTHING_TO_STRIP)
def test_an_event_with_nothing_to_strip_is_the_same_object(trimmer: Trimmer, given: bytes) -> None:
    assert stripped(trimmer, given)[0] is given


def test_runs_of_backslashes_end_strings_at_any_place_of_a_block(trimmer: Trimmer) -> None:
    endings = [chr(92) * run + quote for run in range(4) for quote in ("", '"')]
    strings = [json.dumps("a" * before + ending) for before in range(64, 133) for ending in endings]
    events = [event(f'{{"k":{string},"region":{string}}}') for string in strings]
    assert stripped(trimmer, *events) == [event(f'{{"region":{string}}}') for string in strings]


def test_an_event_of_any_length_is_read_to_its_end(trimmer: Trimmer) -> None:
    texts = ["v" * length for length in range(200)]
    events = [event(f'{{"k":"{text}","labels":"{text}"}}') for text in texts]
    assert stripped(trimmer, *events) == [event(f'{{"labels":"{text}"}}') for text in texts]


# ---- arguments and errors


@pytest.mark.parametrize("kind", [list, tuple, collections.deque, lambda events: collections.UserList(events)])
def test_takes_any_sequence(trimmer: Trimmer, kind: Callable[[list[bytes]], Any]) -> None:
    events = kind([BALLAST, b"{}"])
    assert trimmer(events, 10**6).events == [BALLAST, b"{}"]
    assert trimmer(events, size_of(list(events)) - 1).events == [event("{}"), b"{}"]
    assert list(events) == [BALLAST, b"{}"]


def test_no_events_fit_if_the_envelope_does(trimmer: Trimmer) -> None:
    assert trimmer([], 5, envelope_bytes=5) == Trimmed([], 5, 0)
    with pytest.raises(TraceTooBig) as too_big:
        trimmer([], 4, envelope_bytes=5)
    assert too_big.value.size_bytes == 5


def test_a_trace_too_big_says_how_big(trimmer: Trimmer) -> None:
    with pytest.raises(TraceTooBig, match=r"^\d+ bytes with every event stripped; see ") as too_big:
        trimmer([BALLAST, b"{}"], 10, envelope_bytes=7)
    assert too_big.value.size_bytes == 7 + len(event("{}")) + 1 + 2
    assert isinstance(too_big.value, ValueError)
    assert pickle.loads(pickle.dumps(too_big.value)).size_bytes == too_big.value.size_bytes


HUGE = 2**100
FULL, EMPTY = len(BALLAST), len(event("{}"))
ANSWERS = [
    (([BALLAST], HUGE), {}, Trimmed([BALLAST], FULL, 0)),
    (([BALLAST], HUGE), {"envelope_bytes": HUGE}, (TraceTooBig, f"{HUGE + EMPTY} bytes with every event stripped")),
    (([BALLAST], HUGE + FULL), {"envelope_bytes": HUGE}, Trimmed([BALLAST], HUGE + FULL, 0)),
    (([BALLAST], HUGE + EMPTY), {"envelope_bytes": HUGE}, Trimmed([event("{}")], HUGE + EMPTY, 1)),
    (([BALLAST], EMPTY), {"reserve_bytes": HUGE}, (TraceTooBig, f"{EMPTY} bytes with every event stripped")),
    (([BALLAST], True), {}, (TraceTooBig, f"{EMPTY} bytes with every event stripped")),
    (([BALLAST], -1), {}, (ValueError, "limit_bytes is negative: -1")),
    (([BALLAST], -HUGE), {}, (ValueError, f"limit_bytes is negative: {-HUGE}")),
    (([BALLAST], 10**6), {"envelope_bytes": -1}, (ValueError, "envelope_bytes is negative: -1")),
    (([BALLAST], 10**6), {"reserve_bytes": -2}, (ValueError, "reserve_bytes is negative: -2")),
    (([BALLAST], 1.5), {}, (TypeError, "'float' object cannot be interpreted as an integer")),
    (([BALLAST], None), {}, (TypeError, "'NoneType' object cannot be interpreted as an integer")),
    (([BALLAST], 10**6), {"reserve_bytes": "1"}, (TypeError, "'str' object cannot be interpreted as an integer")),
    ((None, 10), {}, (TypeError, "'NoneType' object is not iterable")),
    (([b"{}", "{}"], 10**6), {}, (TypeError, "event 1 is str, not bytes")),
    (([b"{}", bytearray(b"{}")], 1), {}, (TypeError, "event 1 is bytearray, not bytes")),
    ((b"{}", 1), {}, (TypeError, "event 0 is int, not bytes")),
    # Types are looked at first, sizes before events, JSON only where it is stripped.
    (([b"{", None], -1), {}, (ValueError, "limit_bytes is negative: -1")),
    (([b"{", None], 1), {}, (TypeError, "event 1 is NoneType, not bytes")),
    (([b"{}", b"{"], 1), {}, (ValueError, "event 1 is not JSON")),
    (([b"", b"x"], 10), {}, Trimmed([b"", b"x"], 2, 0)),
    (([BALLAST, b"{"], FULL), {}, Trimmed([event("{}"), b"{"], EMPTY + 2, 1)),
]  # fmt: skip


@pytest.mark.parametrize(("args", "sizes", "expected"), ANSWERS)
def test_answers_and_errors(trimmer: Trimmer, args: Any, sizes: dict[str, Any], expected: Any) -> None:
    assert answer(trimmer, *args, **sizes) == expected


NOT_JSON = [
    *(b"", b"  ", b"{", b"{k:1}", b'{"k" 1}', b'{"k":1 "l":2}', b'{"a":,}', b'{"a":[', b'{"a":"b', b'{"a":"b\\"}'),
    *(b'{"resource":{"metadata":{', b'{"resource":{"metadata":{"k":1', b'{"resource":{"metadata":{"k":1,,"l":2}}}'),
]


@pytest.mark.parametrize("given", NOT_JSON)
def test_what_is_not_json_is_refused_with_its_index(trimmer: Trimmer, given: bytes) -> None:
    assert answer(trimmer, [BALLAST, given, BALLAST], 10) == (ValueError, "event 1 is not JSON")


@pytest.mark.parametrize("cut", range(len(event('{"k":"v\\"","region":[1,"x"]}')) - 2))
def test_an_event_cut_within_its_metadata_is_refused(trimmer: Trimmer, cut: int) -> None:
    whole = event('{"k":"v\\"","region":[1,"x"]}')
    assert answer(trimmer, [whole[:cut]], 0, envelope_bytes=1) == (ValueError, "event 0 is not JSON")


@given(strategies.mangled(strategies.event_texts()))
def test_damaged_events_are_refused_or_trimmed(trimmer: Trimmer, event: bytes) -> None:
    got = answer(trimmer, [event, BALLAST], len(event) + len(BALLAST))
    if isinstance(got, Trimmed):
        assert got.size_bytes == size_of(got.events)
    else:
        assert got in [(ValueError, "event 0 is not JSON"), (TraceTooBig, got[1])]


def test_a_subclass_of_bytes_is_bytes(trimmer: Trimmer) -> None:
    class Event(bytes):
        pass

    assert trimmer([Event(BALLAST)], 60).events == [event("{}")]


def test_a_subclass_of_bytes_is_what_its_bytes_are_whatever_it_says(trimmer: Trimmer) -> None:
    class Liar(bytes):
        __hash__ = bytes.__hash__

        def __len__(self) -> int:
            return 0

        def __eq__(self, other: object) -> bool:
            return False

        def decode(self, *_: str) -> str:
            return "{}"

    whole, bare = Liar(BALLAST), Liar(b"{}")
    result = trimmer([bare, whole], FULL)
    assert result.events[0] is bare
    assert result[1:] == (2 + 1 + EMPTY, 2)
    assert result.events[1] == event("{}")


# ---- which one is used


def in_python(code: str, **environment: str) -> str:
    """Run code in a new interpreter and return what it prints."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("EPSAGON")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=clean | environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    return done.stdout.strip()


WHICH = "from epsagon_fast import trimming; print(trimming.IMPLEMENTATION, trimming.trim.__module__.split('.')[-1])"
WITHOUT_COMPILED = "import sys; sys.modules['epsagon_fast.trimming._compiled'] = None; "
TRIED = "\ntry: import epsagon_fast.trimming\nexcept (ImportError, ValueError) as error: print(error)"


def test_the_reference_can_be_forced() -> None:
    assert in_python(WHICH, EPSAGON_FAST_IMPL="reference") == "reference _reference"


def test_the_reference_is_used_where_nothing_was_compiled() -> None:
    assert in_python(WITHOUT_COMPILED + WHICH) == "reference _reference"


def test_a_forced_build_that_is_missing_is_an_error() -> None:
    assert "_compiled" in in_python(WITHOUT_COMPILED + TRIED, EPSAGON_FAST_IMPL="compiled")


def test_an_unknown_implementation_is_an_error() -> None:
    said = in_python(TRIED, EPSAGON_FAST_IMPL="fast")
    assert said.startswith("EPSAGON_FAST_IMPL is 'fast', must be compiled or reference")


def test_this_process_uses_the_implementation_it_says() -> None:
    assert epsagon_fast.trimming.trim.__module__ == f"epsagon_fast.trimming._{epsagon_fast.trimming.IMPLEMENTATION}"


@pytest.mark.parametrize("name", ["trim", "shorten"])
def test_stub_and_both_implementations_have_one_signature(name: str) -> None:
    stub = ast.parse(Path(epsagon_fast.trimming.__file__).with_name("_compiled.pyi").read_text())
    (stated,) = (node for node in stub.body if isinstance(node, ast.FunctionDef) and node.name == name)
    signature = inspect.signature(getattr(_reference, name))
    assert list(signature.parameters) == [argument.arg for argument in stated.args.args + stated.args.kwonlyargs]
    used = inspect.signature(getattr(epsagon_fast.trimming, name))
    assert [(p.kind, p.default) for p in signature.parameters.values()] == [
        (p.kind, p.default) for p in used.parameters.values()
    ]


def test_strong_keys_are_what_both_trimmers_can_look_for() -> None:
    assert all(key.isascii() and key.isprintable() and '"' not in key and "\\" not in key for key in STRONG_KEYS)
