"""Protocols of the objects that register with the process, so that it need not import their modules."""

from collections.abc import Callable

from epsagon_fast.hints import Protocol
from epsagon_fast.protocol import Outcome


class RegisteredTracer(Protocol):
    """The part of a tracer that the end of a process needs."""

    owner_pid: int

    def abandon(self) -> None: ...


class TraceWriter(Protocol):
    """The part of the queue's writer that a tracer needs. `memory.MemoryWriter` has it too, without a queue."""

    path: str
    # Whether traces are written in their destination's form, and not read in this process.
    leads_to_backend: bool
    # Why it has no ring and refuses everything; None if it has one.
    lacking: str | None
    record_limit_bytes: int

    @property
    def push(self) -> Callable[[int, int, bytes, bytes], int]: ...
    def share(self, start: bytes) -> None: ...
    def attend(self, code: int, kind: int, flags: int, trace_id: bytes, payload: bytes) -> bool: ...
    def refuse(self, reason: str, count: int = 1) -> None: ...
    def leave_out(self, count: int) -> None: ...
    def refusals(self) -> dict[str, int]: ...
    def settlement(self, trace_id: bytes) -> Outcome | None: ...
    def recent_settlements(self) -> list[tuple[bytes, Outcome]]: ...
    @property
    def overflowed(self) -> bool: ...
    def ensure_collector(self) -> None: ...
    def collector_may_come(self) -> bool: ...


class Flush(Protocol):
    """The part of a call of `flush` that a closing trace needs."""

    later: set[bytes]
