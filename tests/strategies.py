"""All hypothesis strategies, by the part of the package they serve."""

import collections
import functools
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson
from hostile import Box, BrokenMapping, Colour, Count, Loud, ViewOf, Word
from hypothesis import strategies as st
from records import added, event, exception_fields, label, opened, own_runner, record

from epsagon_fast.propagation import TraceContext
from epsagon_fast.protocol import EVENT_FIELDS, RESOURCE_FIELDS, ErrorCode, Kind, Record
from epsagon_fast.queue import layout


def pushes() -> st.SearchStrategy[list[tuple[int | None, int]]]:
    """What happens to a ring: a push (kind, length of the payload), or the consumer empties it (None, 0)."""
    kinds = st.sampled_from([*[kind for kind in Kind if kind != Kind.BYE], layout.END])
    push = st.tuples(kinds, st.sampled_from([0, 1, 8, 12, 24, 25, 100, 471, 472, 473]))
    return st.lists(push | st.just((None, 0)), max_size=60)


def damage() -> st.SearchStrategy[list[tuple[int, bytes]]]:
    """Bytes to write over a ring with a few records in it, and where: slots of the header, record headers, anywhere."""
    slots = (layout.CAPACITY, layout.CHECKSUMMED, layout.HEAD, layout.CLOSED_COUNT, layout.TAIL, layout.CLOSES_READ)
    slot = st.tuples(st.sampled_from((*slots, layout.LEFT)), st.binary(min_size=1, max_size=8))
    near = st.integers(2**32 - 600, 2**32 + 600).map(lambda value: value.to_bytes(8, "little"))
    position = st.tuples(st.sampled_from((layout.HEAD, layout.TAIL)), near)
    data = st.tuples(st.integers(layout.HEADER_BYTES, layout.HEADER_BYTES + 1000), st.binary(min_size=1, max_size=24))
    start = st.tuples(st.integers(layout.STARTS, layout.STARTS + 40), st.binary(min_size=1, max_size=24))
    return st.lists(slot | position | data | start, min_size=1, max_size=3)


def sized_texts(*sizes: int) -> st.SearchStrategy[str]:
    """Texts of about these many bytes: characters of one to four bytes, what JSON escapes, JSON to be masked."""
    pieces = st.sampled_from(["x", "é", "€", "😀", '"', "\\", "\n", '{"secret":"s"}', '\\"}'])
    return st.builds(lambda piece, size: piece * (size // len(piece.encode())), pieces, st.sampled_from(sizes))


def exceptions() -> st.SearchStrategy[dict[str, Any]]:
    """Exceptions with tracebacks on both sides of the length from which they are cut."""
    return st.builds(exception_fields, sized_texts(0, 9, 200), sized_texts(0, 0, 0, 90, 90, 4095, 4096, 4097, 9000))


def metadata() -> st.SearchStrategy[dict[str, str]]:
    """Metadata that trimming keeps, that it takes away, and that is masked, in any order."""
    weak = st.tuples(st.sampled_from(["weak", "is_trimmed", "secret", "Region"]), sized_texts(0, 9, 300, 2000))
    strong = st.tuples(st.sampled_from(["region", "item_hash", "labels"]), sized_texts(0, 9, 50))
    return st.lists(weak | weak | strong, max_size=4).map(dict)


def trace_records() -> st.SearchStrategy[list[Record]]:
    """A trace without its CLOSE: with a runner of its own, with one or two among its events, or with none."""
    runners = st.none() | metadata().map(lambda fields: own_runner(**fields))
    events = st.builds(
        lambda number, origin, exception, fields: added(event(number, origin, exception, **fields)),
        st.integers(0, 999),
        st.sampled_from(["sdk"] * 5 + ["runner"]),
        st.none() | st.none() | exceptions(),
        metadata(),
    )
    values = sized_texts(0, 9, 9, 90, 90, 900, 5000) | st.integers(0, 99) | st.booleans()
    labels = st.builds(label, st.sampled_from("abc"), values)
    errors = exceptions().map(lambda fields: record(Kind.ERROR, fields))
    thrown = exceptions().map(lambda fields: record(Kind.EXCEPTION, fields))
    news = metadata().map(lambda fields: record(Kind.RUNNER, {"resource": {"metadata": fields}}))
    any_of = st.one_of(*[events] * 6, thrown, labels, errors, news)
    # Left alone, hypothesis makes few long lists.
    later = st.sampled_from([0, 5, 20]).flatmap(lambda size: st.lists(any_of, min_size=size, max_size=size + 20))
    keys = st.sampled_from([[], ["secret"]])
    return st.builds(_with_limit, runners, keys, later, st.sampled_from([120, 400, 1500]), st.integers(1, 110))


def _with_limit(runner: Any, ignored_keys: list[str], later: list[Record], base: int, percent: int) -> list[Record]:
    """Give a limit that means something to these records: so many percent of all they hold."""
    size = len(orjson.dumps(runner)) + sum(len(each.payload) for each in later)
    limit = base + size * percent // 100
    return [opened(runner, max_trace_size_bytes=limit, ignored_keys=ignored_keys), *later]


def wild_text() -> st.SearchStrategy[str]:
    """Text of every kind of character, lone surrogates too, which st.text() alone never makes."""
    special = st.sampled_from(["\ud800", "\udfff", "\ud83d\ude00", '"', "\\", "\0", "\x85", "\u2028", "é", "€", "😀"])
    return st.lists(special | st.text(max_size=5), max_size=5).map("".join)


# Made once: a strategy is never changed, and the tests' modules ask for this one a hundred times.
@functools.cache
def anything() -> st.SearchStrategy[Any]:
    """Whatever a program may hand over: scalars of the standard library, objects that fail, nested in each other."""
    scalars = st.one_of(
        st.none() | st.booleans() | st.integers() | st.integers(2**63 - 2, 2**70) | st.floats() | wild_text(),
        st.binary(max_size=20) | st.decimals() | st.fractions() | st.complex_numbers() | st.uuids(),
        st.datetimes() | st.dates() | st.times() | st.timedeltas(),
        wild_text().map(Word) | st.integers(-5, 5).map(Count) | st.sampled_from(Colour),
        st.builds(Loud) | st.builds(BrokenMapping) | st.builds(object) | st.builds(ValueError, wild_text()),
        st.sampled_from([int, ..., len, range(3), Loud, memoryview(b"x"), bytearray(b"\xff")]),
    )
    return st.recursive(scalars, _containers, max_leaves=15)


def _containers(content: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = (
        st.none() | st.booleans() | st.integers() | st.floats() | wild_text() | st.binary() | st.tuples(st.integers())
    )
    members = st.dictionaries(keys | wild_text().map(Word) | st.sampled_from(Colour), content, max_size=4)
    listed = st.lists(content, max_size=4)
    return st.one_of(
        listed,
        listed.map(tuple),
        listed.map(collections.deque),
        members,
        members.map(ViewOf),
        content.map(Box),
        st.frozensets(st.integers() | st.text(max_size=3), max_size=3),
    )


def json_shaped() -> st.SearchStrategy[Any]:
    """What JSON can say exactly; ints also over 64 bits."""
    scalars = st.none() | st.booleans() | st.integers() | st.text()
    return st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


def metadata_values() -> st.SearchStrategy[Any]:
    """What applications put into metadata: mostly scalars and lists of them, else anything."""
    scalars = st.booleans() | st.integers() | st.floats() | st.text()
    return scalars | st.lists(scalars, max_size=4) | json_shaped() | anything()


def _or_anything(right: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly what a field takes, else anything: else hardly one event in a thousand has a good field."""
    return st.one_of(right, right, right, anything())


def loose_exceptions() -> st.SearchStrategy[Any]:
    """The fields of an exception: some absent, some wrong, some unknown to the wire."""
    fields = {
        "type": _or_anything(wild_text()),
        "message": _or_anything(wild_text()),
        "traceback": _or_anything(wild_text()),
        "time": _or_anything(st.floats() | st.integers()),
        "additional_data": _or_anything(st.dictionaries(wild_text(), anything(), max_size=3)),
        "unknown": anything(),
    }
    return st.fixed_dictionaries({}, optional=fields)


def loose_events() -> st.SearchStrategy[Any]:
    """Events as a program may build them: fields absent, in any order, wrong, unknown to the wire."""
    resource = {
        "name": _or_anything(wild_text()),
        "type": _or_anything(wild_text()),
        "operation": _or_anything(wild_text()),
        "metadata": _or_anything(st.dictionaries(wild_text(), wild_text() | anything(), max_size=4)),
        "unknown": anything(),
    }
    fields = {
        "id": _or_anything(wild_text()),
        "start_time": _or_anything(st.floats() | st.integers()),
        "resource": _or_anything(st.fixed_dictionaries({}, optional=resource)),
        "origin": _or_anything(st.sampled_from(["runner", "sdk"])),
        "duration": _or_anything(st.floats() | st.integers()),
        "error_code": _or_anything(st.integers(-1, 7) | st.sampled_from(ErrorCode)),
        "exception": _or_anything(st.none() | loose_exceptions()),
        "unknown": anything(),
    }
    return (
        st.fixed_dictionaries({}, optional=fields) | st.fixed_dictionaries({}, optional=fields).map(ViewOf) | anything()
    )


def complete_events() -> st.SearchStrategy[dict[str, Any]]:
    """Events with every field, in wire order and of the right type; NaN and infinities among the numbers."""
    text = st.text(max_size=10)
    number = st.floats() | st.integers(-(2**63), 2**63 - 1)
    code = st.integers(-(2**31), 2**31 - 1)
    # In order, which fixed_dictionaries does not keep.
    resource = st.tuples(text, text, text, st.dictionaries(text, text, max_size=5))
    resource_of = resource.map(lambda values: dict(zip(RESOURCE_FIELDS, values, strict=True)))
    event_id = st.text(min_size=1, max_size=10)
    event = st.tuples(event_id, number, resource_of, st.sampled_from(["runner", "sdk", ""]), number, code, st.none())
    return event.map(lambda values: dict(zip(EVENT_FIELDS, values, strict=True)))


def spaces() -> st.SearchStrategy[str]:
    """White space as JSON allows it between tokens; mostly none."""
    return st.sampled_from(["", "", "", "", " ", "\n", "\t\r\n  "])


# As JSON text: every escape, characters of one to four bytes, runs around the 16, 32 and 64 bytes of a block.
STRING_PIECES = (
    *("\\" + letter for letter in '"\\/bfnrt'),
    *("\\u0022", "\\u005C", "\\ud83d\\ude00", "\\uDC00", "\\u0000"),
    *(" ", "a", "{", "}", "[", "]", ",", ":", "\x7f", "\x85", "é", "\u2028", "日", "😀"),
    *("a" * n for n in (7, 14, 15, 16, 31, 47, 60, 61, 62, 63, 64)),
    *("\\\\" * n for n in (2, 7, 8, 16, 31, 32)),
)


def string_texts() -> st.SearchStrategy[str]:
    """A string as JSON text."""
    return st.lists(st.sampled_from(STRING_PIECES), max_size=5).map(lambda pieces: '"' + "".join(pieces) + '"')


def key_texts(*names: str) -> st.SearchStrategy[str]:
    """One of these names as JSON text, some of its letters as escapes; or any string."""

    def spell(name: str, escaped: int) -> str:
        letters = (f"\\u{ord(c):04X}" if escaped >> i & 1 else c for i, c in enumerate(name))
        return '"' + "".join(letters) + '"'

    spelled = st.builds(spell, st.sampled_from(names), st.sampled_from([0, 0, 0, 1, 2, 2**8, 2**16 - 1]))
    return spelled | string_texts()


def member_texts(keys: st.SearchStrategy[str], values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """A member of an object as JSON text."""
    return st.builds(lambda key, space, value: f"{key}{space}:{space}{value}", keys, spaces(), values)


def container_texts(brackets: str, parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """An object or an array as JSON text. Keys may come twice."""

    def join(parts: list[str], space: str, inner: str) -> str:
        return brackets[0] + inner + f"{space},{inner}".join(parts) + space + brackets[1]

    return st.builds(join, st.lists(parts, max_size=4), spaces(), spaces())


def value_texts() -> st.SearchStrategy[str]:
    """Any value as JSON text."""
    scalars = ("null", "true", "false", "0", "-1", "1.5E+10", "-0.0e-1", "9" * 5000)
    containers = (
        "[]",
        "{ }",
        "[[{}], [[]]\n]",
        '{"region":"]}","a":[{"metadata":{"b":"\\""}}]}',
        '["\\\\",{"\\"}":0}]',
    )
    return st.sampled_from(scalars + containers) | string_texts()


def metadata_members() -> st.SearchStrategy[str]:
    """A member of some metadata as JSON text: strong, nearly strong, or neither."""
    names = [
        "region",
        "labels",
        "aws_account",
        "request_trace_id",
        "metadata",
        "resource",
        "regio",
        "region2",
        "reason",
    ]
    return member_texts(key_texts("", *names), value_texts())


def framed_metadata() -> st.SearchStrategy[tuple[str, list[str], str]]:
    """An event in three parts: the text before its metadata, the members of that, the text behind it."""
    outer = st.lists(member_texts(key_texts("id", "metadata"), value_texts()), max_size=1)
    inner = st.lists(member_texts(key_texts("name", "resource"), value_texts()), max_size=1)
    later = st.lists(member_texts(key_texts("metadata", "resource", "origin"), value_texts()), max_size=1)

    def frame(outer: list[str], inner: list[str], later: list[str], space: str) -> tuple[str, str]:
        path = [*outer, f'"resource"{space}:{space}{{' + ",".join([*inner, f'"metadata":{space}'])]
        behind = "".join("," + member for member in later)
        return space + "{" + ",".join(path), f"{space}{behind}}}{behind}{space}}}"

    frames = st.builds(frame, outer, inner, later, spaces())
    members = st.lists(metadata_members(), max_size=4)
    return st.builds(lambda frame, members: (frame[0], members, frame[1]), frames, members)


def event_texts() -> st.SearchStrategy[bytes]:
    """An event as JSON: mostly with metadata where it belongs, else elsewhere, of a wrong type, twice or nowhere."""

    def assemble(parts: tuple[str, list[str], str], space: str) -> str:
        before, members, behind = parts
        return before + "{" + space + f",{space}".join(members) + space + "}" + behind

    framed = st.builds(assemble, framed_metadata(), spaces())
    metadata = container_texts("{}", metadata_members()) | value_texts()
    resource = container_texts("{}", member_texts(key_texts("name", "metadata", "metadata"), metadata)) | value_texts()
    loose = container_texts("{}", member_texts(key_texts("id", "resource", "resource"), resource)) | value_texts()
    return st.builds(lambda event, space: (event + space).encode(), framed | framed | framed | loose, spaces())


def traces() -> st.SearchStrategy[list[bytes]]:
    """Events of one trace."""
    return st.lists(event_texts(), max_size=2)


# What stands in a value that was shortened before, and what only looks so.
MARKS = (
    *("... 7 bytes left out", "... 123456789012345 bytes left out", "... 1234567890123456 bytes left out"),
    *("... 07 bytes left out", "...7 bytes left out", "... 7 bytes left out!", "... 12 bytes left out ..."),
)


def long_string_texts() -> st.SearchStrategy[str]:
    """A string as JSON text, mostly long enough to be shortened."""

    def run(piece: str, size: int) -> str:
        return piece * (size // len(piece) + 1)

    runs = st.builds(run, st.sampled_from(STRING_PIECES), st.sampled_from([0, 0, 9, 40, 100]))
    content = st.lists(runs, max_size=4).map("".join)
    marks = st.sampled_from(("", "", "", *MARKS))
    tail = st.sampled_from(["", "", "a", "\\n" * 70])
    return st.builds(lambda head, mark, tail: f'"{head}{mark}{tail}"', content, marks, tail)


def exception_members() -> st.SearchStrategy[str]:
    """An event's exception as JSON text, or what stands in its place."""
    keys = key_texts("message", "traceback", "type")
    long = long_string_texts().map(lambda text: text[:-1] + text[1:-1] * 2 + '"')
    exception = container_texts("{}", member_texts(keys, long | value_texts())) | value_texts()
    return member_texts(key_texts("exception"), exception)


def failed_event_texts() -> st.SearchStrategy[bytes]:
    """An event as JSON, with something that may be its exception at its beginning or end."""

    def assemble(event: bytes, first: str, last: str, where: int) -> bytes:
        start, end = event.find(b"{") + 1, event.rfind(b"}")
        if not event.lstrip().startswith(b"{") or not event[start:end].strip():
            return event
        before = first.encode() + b"," if where & 1 else b""
        behind = b"," + last.encode() if where & 2 else b""
        return event[:start] + before + event[start:end] + behind + event[end:]

    return st.builds(assemble, event_texts(), exception_members(), exception_members(), st.integers(0, 3))


class Parts(NamedTuple):
    """An event in parts. members: a key as JSON text, as it is meant, and the value as JSON text."""

    members: list[tuple[str, str, str]]
    message: str
    traceback: str
    exception_is_first: bool

    def built(self, values: Sequence[str | None] | None = None) -> str:
        """Return the event, perhaps with other values: of the members, then the message, then the traceback."""
        own = [*(value for _, _, value in self.members), self.message, self.traceback]
        texts = [other or value for value, other in zip(own, values or [None] * len(own), strict=True)]
        *metadata, message, traceback = texts
        members = ", ".join(f"{key}:{value}" for (key, _, _), value in zip(self.members, metadata, strict=True))
        resource = f'"resource":{{"name":"n","metadata":{{{members}}},"metadata":{{"k":"{"x" * 90}"}}}}'
        exception = f'"exception" : {{"type":"T","message":{message},"traceback": {traceback}}}'
        middle = f"{exception},{resource}" if self.exception_is_first else f"{resource},{exception}"
        return f'{{"id":"1",{middle},"origin":"{"o" * 90}"}}'


def long_events() -> st.SearchStrategy[Parts]:
    """An event with values that may be shortened: texts, and the JSON text of what is in containers."""
    strings = long_string_texts()
    nested = st.builds(lambda text, space: f'[{{"a":{space}{text}}},{space}1, [true]]', strings, spaces())
    values = strings | strings | nested | value_texts().filter(lambda text: len(text) < 200)
    keys = st.sampled_from(['"k"', '"\\u006b"', '"region"', '"\\u0072egion"', '"labels"', '"other"'])
    members = st.lists(st.tuples(keys, values).map(lambda pair: (pair[0], json.loads(pair[0]), pair[1])), max_size=3)
    long = strings.map(lambda text: text[:-1] + text[1:-1] * 2 + '"')
    texts = st.sampled_from(['""', "null", "[1]"]) | strings | long
    return st.builds(Parts, members, texts, texts, st.booleans())


def long_traces() -> st.SearchStrategy[list[Parts]]:
    """A trace in which there is something to shorten."""
    return st.lists(long_events(), min_size=1, max_size=3)


def mangled(events: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Events cut off, with a byte changed, or with a piece of themselves put in."""

    def damage(event: bytes, how: int, at: int, to: int) -> bytes:
        at %= len(event) + 1
        if how == 0:
            return event[:at]
        return event[:at] + (bytes([to]) if how == 1 else event[to:]) + event[at + (how == 1) :]

    structure = st.sampled_from(b'"\\{}[],: \0\xff') | st.integers(0, 255)
    return st.builds(damage, events, st.integers(0, 2), st.integers(0, 2**16), structure)


def damaged_text(text: bytes) -> st.SearchStrategy[bytes]:
    """`text` with a stretch of it replaced by something else: often still JSON, hardly ever what it was."""
    news = st.sampled_from([b"", b"0", b"null", b"[]", b"{}", b'""', b'":"', b",", b"}", b"\\ud800", b"1e999", b"NaN"])
    return st.builds(
        lambda start, length, new: text[:start] + new + text[start + length :],
        st.integers(0, len(text)),
        st.integers(0, 40),
        news | st.binary(max_size=8),
    )


def contexts() -> st.SearchStrategy[TraceContext]:
    """What a request may bring from another tracer."""

    def digits(count: int) -> st.SearchStrategy[str]:
        return st.text("0123456789abcdef", min_size=count, max_size=count).filter(lambda text: text.strip("0"))

    member = st.from_regex(r"\A[a-z][_0-9a-z*/-]{0,8}=[!-+\--<>-~]{1,8}\Z")
    state = st.lists(member, max_size=4).map(",".join)
    return st.builds(TraceContext, digits(32), digits(16), st.integers(0, 255), state)
