"""A queue that keeps its records in a list and answers what a test tells it to."""

import json
from collections import Counter, deque
from typing import Any

from epsagon_fast.protocol import CLOSE_PAYLOAD, Kind, Outcome, Record
from epsagon_fast.queue.layout import END, FOREIGN, FULL, LOOK, PUSHED, TOO_LARGE, apart


class FakeWriter:
    """Stands for queue.writer.Writer; `codes` are the answers to the next pushes, PUSHED when they run out."""

    leads_to_backend = True

    def __init__(self, path: str = "/fake") -> None:
        self.path = path
        self.lacking: str | None = None
        self.record_limit_bytes = 100_000
        self.records: list[Record] = []
        self.codes: deque[int] = deque()
        self.attended: list[int] = []
        self.counts: Counter[str] = Counter()
        self.outcomes: dict[bytes, Outcome] = {}
        self.news: list[tuple[bytes, Outcome]] = []
        self.starts = 0
        self.closed = self.settled = self.left_out = 0
        self.is_drained = True

    def push(self, kind: int, flags: int, trace_id: bytes, payload: bytes, /) -> int:
        code = self.codes.popleft() if self.codes else PUSHED
        if code == PUSHED and len(payload) > self.record_limit_bytes:
            code = TOO_LARGE
        if code in (PUSHED, LOOK):
            self.records += apart(Record(kind, flags, 0, trace_id, payload))
            self.closed += kind in (Kind.CLOSE, END)
        elif code == FULL:
            self.refuse("queue_full")
        return code

    def share(self, start: bytes) -> None:
        pass

    def attend(self, code: int, kind: int, flags: int, trace_id: bytes, payload: bytes) -> bool:
        assert code not in (PUSHED, FOREIGN), "there was nothing to attend to"
        self.attended.append(code)
        if code == TOO_LARGE:
            self.refuse("too_large")
        return code == LOOK

    def refuse(self, reason: str, count: int = 1) -> None:
        self.counts[reason] += count

    def leave_out(self, count: int) -> None:
        self.left_out += count

    def refusals(self) -> dict[str, int]:
        return dict(self.counts)

    @property
    def overflowed(self) -> bool:
        return self.counts["queue_full"] > 0

    def settlement(self, trace_id: bytes) -> Outcome | None:
        return self.outcomes.get(trace_id)

    def recent_settlements(self) -> list[tuple[bytes, Outcome]]:
        news, self.news = self.news, []
        return news

    def ensure_collector(self) -> None:
        self.starts += 1

    def bye(self) -> None:
        self.push(Kind.BYE, 0, bytes(16), b"")

    def drained(self) -> bool:
        return self.is_drained

    def collector_lives(self) -> bool:
        return True

    def collector_may_come(self) -> bool:
        return True

    # What tests read.

    @property
    def kinds(self) -> list[str]:
        return [Kind(record.kind).name for record in self.records]

    def bodies(self, kind: Kind) -> list[Any]:
        """The parsed payloads of all records of a kind."""
        return [
            CLOSE_PAYLOAD.unpack(record.payload) if kind == Kind.CLOSE else json.loads(record.payload)
            for record in self.records
            if record.kind == kind
        ]

    def settle(self, outcome: Outcome) -> None:
        """Settle every trace that was closed."""
        for record in self.records:
            if record.kind == Kind.CLOSE:
                self.outcomes[record.trace_id] = outcome
        self.settled = self.closed


class FakeQueue(FakeWriter):
    """The module queue.writer and this process's one writer at once; other folders get a writer of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.others: dict[str, FakeWriter] = {}

    def current(self, config: object) -> FakeWriter:
        self.asked += 1
        return self

    def at(self, path: str, ring_bytes: int = 0) -> FakeWriter:
        return self.others.setdefault(path, FakeWriter(path))

    def known(self) -> list[FakeWriter]:
        return [self, *self.others.values()] if self.asked or self.others else []
