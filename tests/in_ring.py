"""What a process has recorded, read from its ring: for tests that compare compiled code with what Python does."""

import json
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import epsagon_fast as epsagon
from epsagon_fast.producer.process import process
from epsagon_fast.protocol import CLOSE_PAYLOAD, Kind, Record
from epsagon_fast.queue import ring

Read = Callable[[], list[Record]]
TIMES = ("start_time", "duration", "opened_at", "time")


def told(records: list[Record]) -> list[Any]:
    """Return what records say but for times, with each id under the number of its first appearance."""
    whole = [
        (
            Kind(record.kind).name,
            record.flags,
            record.trace_id.hex(),
            [str(field) for field in CLOSE_PAYLOAD.unpack(record.payload)]
            if record.kind == Kind.CLOSE
            else json.loads(record.payload),
        )
        for record in records
    ]
    text = json.dumps(whole)
    text = re.sub(rf'"({"|".join(TIMES)})": [\d.e-]+', r'"\1": "some"', text)
    text = re.sub(r'\["\d[\d.e-]*", "(-?\d+)"\]', r'["some", "\1"]', text)
    ids: dict[str, str] = {}
    for digits in re.findall(r"\b[0-9a-f]{32}\b", text):
        ids.setdefault(digits, f"trace {len(ids)}")
        ids.setdefault(digits[:16], f"runner {len(ids)}")
    for digits in re.findall(r"\b[0-9a-f]{16}\b", text):
        ids.setdefault(digits, f"event {len(ids)}")
    found: list[Any] = json.loads(re.sub(r"\b([0-9a-f]{32}|[0-9a-f]{16})\b", lambda digits: ids[digits[0]], text))
    return found


def but_stacks(records: list[Any]) -> list[Any]:
    """Take the stacks out, which name the lines of ours that have called the application."""
    for *_, said in records:
        for holder in (said, said.get("exception")) if isinstance(said, dict) else ():
            if isinstance(holder, dict) and "traceback" in holder:
                holder["traceback"] = bool(holder["traceback"])
    return records


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Read]:
    """Make this a process that has traced, with a ring that no collector reads. Yields what reads the new records."""
    monkeypatch.setenv("EPSAGON_LAUNCH", "0")
    monkeypatch.setenv("EPSAGON_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("EPSAGON_TOKEN", "t")
    monkeypatch.setenv("EPSAGON_COLLECTOR_URL", "http://127.0.0.1:1")
    with epsagon.trace("the first one"):
        pass
    # The look that is due once a second takes the long way.
    process.own.writers._current._next_look = math.inf
    if process.own.footing is not None:
        process.own.footing.next_look_s = math.inf
    [path] = folder.glob("*/*.ring")
    fd = os.open(path, os.O_RDWR)
    consumer = ring.Consumer(fd)
    os.close(fd)

    def records() -> list[Record]:
        found = consumer.read(1 << 30)
        consumer.commit()
        return found

    records()
    yield records
    process.reset()
