"""A program: values that change what they are in while they are looked at, and a thread that does so all the time.

`python mutating.py ROUNDS [SEED]` prints how many events it encoded. What must not be is that it dies of a signal.
"""

import datetime
import decimal
import enum
import json
import random
import sys
import threading
import uuid
from collections import UserDict, deque
from dataclasses import dataclass
from typing import Any

from epsagon_fast.producer.encoding import encode_event, encode_exception, encode_label
from epsagon_fast.producer.plain import json_bytes
from epsagon_fast.protocol import EVENT_FIELDS

chance = random.Random(0)
# The containers that are being encoded. Whatever the encoder calls may change any of them.
live: list[Any] = []


def meddle(source: random.Random = chance) -> None:
    """Change a container that is being encoded, and what memory its content lay in."""
    for container in [source.choice(live) for _ in live[:2]]:
        change = source.randrange(5)
        try:
            if change == 0:
                container.clear()
            elif isinstance(container, dict):
                container.pop(next(iter(container), None), None)
                container[source.choice(["a", 1, None])] = [decimal.Decimal(1)] if change == 1 else "x" * 50
            elif change == 1:
                container.pop()
            else:
                container.append({"new": decimal.Decimal(2)})
        except (RuntimeError, LookupError):
            continue
    # What was freed is written over.
    [{"filler": [n]} for n in range(20)]
    if source.random() < 0.1:
        raise ArithmeticError("and it fails")


class Meddler:
    def __str__(self) -> str:
        meddle()
        return "meddler"

    __repr__ = __str__

    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        meddle()
        return self is other


class Zone(datetime.tzinfo):
    def utcoffset(self, moment: object) -> datetime.timedelta:
        meddle()
        return datetime.timedelta(hours=1)

    def dst(self, moment: object) -> None:
        meddle()


class Choice(enum.Enum):
    ONE = "one"

    @property
    def value(self) -> Any:
        meddle()
        return live[0] if live and chance.random() < 0.2 else ["one", 1]


class Faceted:
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        meddle()
        return chance.choice([dict, list, str, int, float, UserDict])


class Rows(list):  # type: ignore[type-arg]
    def __iter__(self) -> Any:
        for each in list.__iter__(self):
            meddle()
            yield each


# Not OrderedDict: CPython itself dies if a key's __eq__ changes one.
class Members(dict):  # type: ignore[type-arg]
    def items(self) -> Any:
        meddle()
        return super().items()


class Names(UserDict):  # type: ignore[type-arg]
    def __getitem__(self, key: Any) -> Any:
        meddle()
        return super().__getitem__(key)


class Text(str):
    def __eq__(self, other: object) -> bool:
        meddle()
        return str.__eq__(self, other)

    __hash__ = str.__hash__


@dataclass
class Record:
    content: Any

    @property
    def other(self) -> None:
        meddle()


def value(depth: int) -> Any:
    """Return a random tree; its containers become live."""
    if depth == 0 or chance.random() < 0.3:
        return chance.choice(SCALARS)()
    content = [value(depth - 1) for _ in range(chance.randrange(5))]
    kinds = [list, tuple, deque, Rows, lambda values: Record(values), named, named, lambda values: Names(named(values))]
    try:
        container = chance.choice(kinds)(content)
    except (ArithmeticError, LookupError):
        container = content
    if isinstance(container, (list, dict, deque)):
        live.append(container)
        if chance.random() < 0.1:
            content.append(container)
    return container


SCALARS: list[Any] = [
    lambda: chance.choice([None, True, 1, 2**70, 1.5, float("nan"), "text", "\ud800", b"bytes"]),
    Meddler,
    Faceted,
    lambda: datetime.datetime(2026, 1, 1, tzinfo=Zone()),
    lambda: datetime.datetime.min.replace(tzinfo=Zone()),
    lambda: datetime.time(1, tzinfo=Zone()),
    lambda: Choice.ONE,
    lambda: decimal.Decimal("1.5"),
    lambda: uuid.UUID(int=5),
    lambda: Text("text"),
]
KEYS: list[Any] = ["a", "b", 1, None, (1,), Choice.ONE, Text("b"), b"a", Meddler(), 2**70, b"b"]


def named(values: list[Any]) -> dict[Any, Any]:
    names: dict[Any, Any] = Members() if chance.random() < 0.2 else {}
    for each in values:
        try:
            names[chance.choice(KEYS)] = each
        except (ArithmeticError, LookupError):
            continue
    return names


def events(metadata: Any, more: Any) -> list[Any]:
    whole = {"name": "n", "type": "t", "operation": "o", "metadata": metadata}
    live.append(whole)
    fields = {"id": "1", "start_time": 1.0, "resource": whole, "origin": "o", "duration": 1.0, "error_code": 0}
    live.append(fields)
    failed = {"exception": {"message": more, "additional_data": metadata}}
    return [{**fields, "exception": None}, {"resource": whole}, {**fields, "id": more}, failed]


def encode(metadata: Any, more: Any) -> int:
    """Encode a value in every way; return how many events came out."""
    made = events(metadata, more)
    for event in made:
        assert tuple(json.loads(encode_event(event).data)) == EVENT_FIELDS
    json.loads(json_bytes(metadata))
    json.loads(encode_exception(more).data)
    json.loads(encode_label("key", more) or b"0")
    return len(made)


def thread(done: threading.Event) -> None:
    mine = random.Random(1)
    while not done.is_set():
        try:
            meddle(mine)
        except (ArithmeticError, LookupError):
            continue


def main(rounds: int, seed: int = 0) -> None:
    chance.seed(seed)
    sys.setswitchinterval(1e-6)
    done = threading.Event()
    other = threading.Thread(target=thread, args=(done,))
    other.start()
    count = 0
    try:
        for _ in range(rounds):
            live.clear()
            count += encode({"first": value(4), "second": value(3)}, value(3))
    finally:
        done.set()
        other.join()
    print(count)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
