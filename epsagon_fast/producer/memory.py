"""Takes the place of the queue in test mode: keeps the records in this process and sends nothing."""

import os
from collections import Counter

from epsagon_fast.protocol import MAX_TRACE_BYTES, Kind, Outcome, Record
from epsagon_fast.queue.layout import END, PUSHED, apart


class MemoryWriter:
    """Takes every record and keeps those of open traces, by trace id."""

    leads_to_backend = False
    lacking: str | None = None
    overflowed = False
    record_limit_bytes = MAX_TRACE_BYTES

    # The outcome of every closed trace.
    outcome = Outcome.DISABLED.because("test_mode")

    def __init__(self) -> None:
        self.path = f"memory of process {os.getpid()} at {id(self):#x}"
        self.records: dict[bytes, list[Record]] = {}
        self._refusals: Counter[str] = Counter()

    def push(self, kind: int, flags: int, trace_id: bytes, payload: bytes, /) -> int:
        """Keep a record. A CLOSE hands all records of its trace to `finish`."""
        for record in apart(Record(kind, flags, int(kind in (Kind.CLOSE, END)), trace_id, payload)):
            if record.kind == Kind.OPEN:
                self.records[trace_id] = [record]
            elif trace_id in self.records:
                self.records[trace_id].append(record)
            if record.kind == Kind.CLOSE:
                self.finish(self.records.pop(trace_id, []))
        return PUSHED

    def finish(self, records: list[Record]) -> None:
        """Take the records of a trace that was closed."""

    def share(self, start: bytes) -> None:
        """Do nothing, because records are kept whole."""

    def attend(self, code: int, kind: int, flags: int, trace_id: bytes, payload: bytes) -> bool:
        """Return whether the record was taken; there is never more to do."""
        return code == PUSHED

    def refuse(self, reason: str, count: int = 1) -> None:
        """Count records that were refused for `reason`."""
        self._refusals[reason] += count

    def leave_out(self, count: int) -> None:
        """Nothing shows how many traces the head has left out."""

    def refusals(self) -> dict[str, int]:
        """Return how many records were refused, by reason."""
        return dict(self._refusals)

    def settlement(self, trace_id: bytes) -> Outcome | None:
        """Return the outcome of a closed trace, None for an open one."""
        return None if trace_id in self.records else self.outcome

    def recent_settlements(self) -> list[tuple[bytes, Outcome]]:
        """Return nothing, because no outcome is news."""
        return []

    def collector_may_come(self) -> bool:
        """Return True: a wait for one ends at once."""
        return True

    def ensure_collector(self) -> None:
        """None is needed."""
