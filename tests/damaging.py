"""What a compiled module is given to break it: damaged events, records of all kinds, requests that no server sends.

sanitizing.py runs this file with a module that the sanitizers watch: its part in compiled.MODULES, its file, how many
times, a seed. Prints how many times, and in how many the module did what it is for.
"""

import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from events_to_damage import corpus, named_events

# Tries something once; returns whether the module did what it is for.
Attempt = Callable[[random.Random], bool]
TEXTS = ["", "a", "é", "日" * 99, "\ud800", "x" * 5000, "\0", "a=b&c", "/a b/%41", "200 OK", "7", "1" * 32]
NUMBERS = [0, 1, -1, 7, 200, 2**31, 2**63, 2**64, -(2**70), 0.5, 1e300, -0.0, 1_700_000_000.123456]
ODD = [None, True, b"", b"x", (), (1,), [], ["a", 1], {}, {"a": {}}, object(), *NUMBERS, *TEXTS]


def damage(event: bytes, dice: random.Random) -> bytearray:
    """Return a part of an event with another byte in it."""
    damaged = bytearray(event)
    del damaged[len(damaged) - int(len(damaged) * max(0, dice.random() - 0.5)) :]
    damaged[dice.randrange(len(damaged))] = dice.randrange(256)
    return damaged


@contextmanager
def trimmer() -> Iterator[Attempt]:
    """Strip and shorten damaged events."""
    from epsagon_fast.trimming import _compiled

    events = corpus()

    def attempt(dice: random.Random) -> bool:
        damaged, count = damage(dice.choice(events), dice), 0
        with suppress(ValueError):
            count = _compiled.trim([bytes(damaged)], len(damaged) - 1).stripped_count
        with suppress(ValueError):
            _compiled.shorten([bytes(damaged), dice.choice(events)], dice.randrange(2 * len(damaged)))
        return count > 0

    yield attempt


@contextmanager
def search() -> Iterator[Attempt]:
    """Search damaged events for the names that are secret by default."""
    from epsagon_fast.masking._search import Search
    from epsagon_fast.masking.keys import DEFAULT_KEYS, Keys
    from epsagon_fast.masking.search import tables

    search, events = Search(*tables(Keys(DEFAULT_KEYS).fragments or ())), named_events()
    yield lambda dice: search.may_hold(bytes(damage(dice.choice(events), dice))) in (True, False)


@contextmanager
def feeding() -> Iterator[Attempt]:
    """Take records of all kinds, some of them damaged, into traces.

    Payloads and records go as soon as nothing holds them, so that a reference too few is a read of freed memory.
    """
    from epsagon_fast.collector.assembling import _feeding

    def attempt(dice: random.Random) -> bool:
        take_any(_feeding, dice)
        return take_whole(_feeding, dice)

    yield attempt


def take_any(feeding: Any, dice: random.Random) -> None:
    """Take in events of several traces, among which something else may stand."""
    from collections import Counter

    from epsagon_fast.collector.assembling.accounts import Accounts
    from epsagon_fast.protocol import Kind, Record

    traces = feeding.OpenTraces()
    for name in range(3):
        traces[bytes([name]) * 16] = open_trace()
    records: list[Any] = [
        Record(Kind.EVENT, 0, at, bytes([dice.randrange(3)]) * 16, bytes(dice.randrange(1, 60))) for at in range(9)
    ]
    others = [None, 1, (1, 2), ("x",) * 5, Record(Kind.EVENT, 0, 0, b"a" * 16, "text")]
    others.append(Record(Kind.EVENT, dice.randrange(2), 0, bytes(dice.randrange(17)), b""))
    others += [Record(kind, 0, 0, bytes(16), payload) for kind in Kind for payload in (b"", b"{}", b"[]", "text", None)]
    if dice.randrange(2):
        records[dice.randrange(1, 9)] = dice.choice(others)
    with suppress(TypeError, ValueError):
        feeding.take(records, dice.randrange(-1, 2), b"ring", traces, {}, [], bool, Accounts(), Counter(), [])


def open_trace() -> SimpleNamespace:
    """Return an open trace that takes little."""
    stream = SimpleNamespace(events=[], is_too_big=False, hold_bytes=600, floor_bytes=2, arrived_bytes=0)
    account = SimpleNamespace(open_bytes=0)
    return SimpleNamespace(
        stream=stream,
        account=account,
        runner={},
        labels={},
        _runner_bytes=0,
        _labels_bytes=0,
        is_closed=False,
        ring_id=b"",
    )


def take_whole(feeding: Any, dice: random.Random) -> bool:
    """Take in a trace in which one record may be damaged, and build its body; return whether all of it was taken."""
    from records import RING, added, closed, event, label, opened, own_runner, record

    from epsagon_fast.collector.assembling.assembly import Assembly
    from epsagon_fast.protocol import Kind

    assembly, value = Assembly(), dice.choice(["x", 7, 2**64 - 1, 0.5, None, "é" * 99])
    records = [
        opened(own_runner(weak="x" * 9)),
        label("key", value),
        added(event()),
        record(Kind.RUNNER, {"resource": {"name": value, "metadata": {"more": value}}, "value": value}),
        label(str(value), "text"),
        added(event(1)),
        closed(0.5),
    ]
    at = dice.randrange(2 * len(records))
    if at < len(records):
        records[at] = records[at]._replace(payload=bytes(damage(records[at].payload, dice)))
    books = assembly._open, assembly._open_of, assembly._closed, assembly._is_new, assembly.accounts, assembly.counters
    feeding.unmasked(records, 0, assembly.masks)
    feeding.strays(records, assembly._open)
    taken = feeding.take(records, 0, RING, *books, [])
    for trace in assembly._open.values():
        with suppress(ValueError, TypeError):
            feeding.whole(trace)
    return bool(taken > 1)


@contextmanager
def plain_spans() -> Iterator[Attempt]:
    """Write the spans of events with any metadata, some of them damaged, in both encodings."""
    from records import TRACE_ID, exception_fields

    from epsagon_fast.collector.formats import FittedTrace, otlp_json, otlp_protobuf
    from epsagon_fast.collector.formats._plain import counted, written
    from epsagon_fast.collector.formats.plain import Writing
    from epsagon_fast.collector.formats.plain_terms import TERMS

    writings = [Writing(encoding) for encoding in (otlp_json, otlp_protobuf)]
    keys = sorted({key for terms in TERMS for of_one in terms for key in of_one})

    def attempt(dice: random.Random) -> bool:
        events = [some_event(keys, dice) for _ in range(dice.randrange(5))]
        place = dice.choice([None, *range(len(events))])
        exceptions = [str(exception_fields()).replace("'", '"').encode()] * dice.choice([0, 0, 0, 1])
        parts = []
        for writing in writings:
            with suppress(ValueError, TypeError):
                parts.append(written(FittedTrace(TRACE_ID, events, place, exceptions), b"{}", writing))
        for part in filter(None, parts):
            broken = part[: dice.randrange(len(part))]
            for is_json in (True, False):
                counted(broken, is_json)
        return any(parts)

    yield attempt


def some_event(keys: list[str], dice: random.Random) -> bytes:
    """Return an event of which some metadata mean something, and that may be damaged."""
    from records import event_fields

    told = [*keys, "key", "é", "a.b"]
    values = [
        "",
        "a",
        "é",
        "{}",
        '{"a":"b"}',
        "404",
        "07",
        "1.5",
        "true",
        "1" * 32,
        "x" * 400,
        *NUMBERS[:8],
        [],
        [1],
        None,
    ]
    metadata = {dice.choice(told): dice.choice(values) for _ in range(dice.randrange(6))}
    fields = event_fields(exception=None)
    fields["resource"] |= {"metadata": metadata, "type": dice.choice(["http", "celery", "sql", ""])}
    fields |= {name: dice.choice(NUMBERS[-4:]) for name in ("start_time", "duration") if dice.randrange(2)}
    fields |= {name: dice.choice(["00f067aa0ba902b7", "7", None]) for name in ("id", "parent_id")}
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=bool(dice.randrange(2))).encode(
        errors="surrogatepass"
    )
    return text if dice.randrange(3) else bytes(damage(text, dice))


@contextmanager
def add_event() -> Iterator[Attempt]:
    """Answer WSGI requests, of which the server, the application and the client may do anything."""
    import pytest
    from in_ring import recorded

    from epsagon_fast.integrations import wsgi
    from epsagon_fast.producer.entering import current

    with tempfile.TemporaryDirectory() as folder, recorded(pytest.MonkeyPatch(), Path(folder)) as read:
        wsgi.TracingMiddleware(None)  # type: ignore[arg-type]

        def attempt(dice: random.Random) -> bool:
            body: Any = None
            with suppress(Exception):
                body = wsgi._answered(application(dice), environ(dice), server(dice))
                iterate(body, dice)
            current.set(None)
            read()
            return body is not wsgi._UNUSUAL

        yield attempt


def environ(dice: random.Random) -> Any:
    """Return an environ, usually a whole one."""
    found: Any = {"REQUEST_METHOD": "GET", "PATH_INFO": "/a", "HTTP_HOST": "h.example", "SERVER_SOFTWARE": "a server"}
    more = ["SCRIPT_NAME", "CONTENT_LENGTH", "HTTP_TRACEPARENT", "HTTP_TRANSFER_ENCODING", "wsgi.input", "SERVER_NAME"]
    for _ in range(dice.choice([0, 1, 1, 2])):
        found[dice.choice([*found, *more])] = dice.choice(ODD)
    if not dice.randrange(4):
        found["HTTP_TRACEPARENT"] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    if not dice.randrange(9):
        del found[dice.choice([*found])]
    return found if dice.randrange(50) else dice.choice([None, [], type("Environ", (dict,), {})(found)])


def application(dice: random.Random) -> Callable[..., Any]:
    """Return an application that may do what none does."""
    import epsagon_fast as epsagon

    statuses = ["200 OK", "204 x", "304 é", "404 No", "500 x", "2000", "20 OK", *TEXTS]
    bodies: list[Any] = [[b"hello"], [], [b""] * 9, [b"x", "y"], (b"x",), iter([b"x"]), [bytearray(b"x")], None, b"xy"]

    def app(environ: Any, start_response: Any) -> Any:
        step = dice.randrange(20)
        if step == 0:
            raise ValueError("no")
        if step == 1:
            environ.clear()
        if step == 2:
            epsagon.event(name=dice.choice(TEXTS), resource_type="sql")
        if step == 3:
            epsagon.label(dice.choice(TEXTS), dice.choice(NUMBERS))
        if step == 4:
            start_response(*[dice.choice(ODD) for _ in range(dice.randrange(5))])
        if step == 5:
            start_response(status=dice.choice(statuses), headers=dice.choice(ODD))
        if step == 6:
            environ["SCRIPT_NAME"] = dice.choice(ODD)
        for _ in range(dice.choice([1, 1, 1, 0, 2])):
            write = start_response(dice.choice(statuses) if step < 12 else "200 OK", [("a", "b")])
        if step == 7:
            write(dice.choice([b"x", "x", None]))
        return dice.choice(bodies) if step < 14 else [b"hello"]

    return app


def server(dice: random.Random) -> Any:
    """Return the server's start_response."""

    def start_response(status: Any, headers: Any, exc_info: Any = None) -> Any:
        if not dice.randrange(20):
            raise OSError("gone")
        return lambda data: None

    return start_response if dice.randrange(50) else None


def iterate(body: Any, dice: random.Random) -> None:
    try:
        for _ in body:
            if not dice.randrange(9):
                break
    finally:
        if hasattr(body, "close"):
            body.close()


# By the module's part in compiled.MODULES.
DAMAGED = {each.__name__: each for each in (trimmer, search, feeding, plain_spans, add_event)}


class Watched:
    """Finds a module of the package in a file of its own."""

    def __init__(self, path: str) -> None:
        self.path, self.last_name = path, Path(path).name.partition(".")[0]

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        is_it = name.startswith("epsagon_fast.") and name.endswith(f".{self.last_name}")
        return spec_from_file_location(name, self.path) if is_it else None


def main(part: str, module: str, tries: int, seed: int) -> None:
    # Before the package is imported, which imports some of its modules.
    sys.meta_path.insert(0, Watched(module))
    with DAMAGED[part]() as attempt:
        dice = random.Random(seed)
        print(tries, sum(attempt(dice) for _ in range(tries)))
    from epsagon_fast.compiled import MODULES

    assert sys.modules[MODULES[part]].__file__ == module


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
