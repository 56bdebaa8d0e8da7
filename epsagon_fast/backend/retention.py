"""What the backend keeps: the newest traces, up to an age, a number and a number of bytes."""

import sqlite3
from typing import NamedTuple

from epsagon_fast.amounts import counted, lasting, size

MAX_BYTES = 1024**3
# At one new trace at most so many old ones go, so that no client waits long for a smaller limit.
_BATCH_TRACES = 200


class Retention(NamedTuple):
    """The limits; None: no limit. `bytes`: of all bodies. The file with its indexes is larger."""

    age_s: float | None = None
    traces: int | None = None
    bytes: int | None = MAX_BYTES

    def __str__(self) -> str:
        limits = []
        if self.age_s is not None:
            limits.append(lasting(self.age_s))
        if self.traces is not None:
            limits.append(counted(self.traces, "trace"))
        if self.bytes is not None:
            limits.append(f"{size(self.bytes)}")
        return " or ".join(limits) or "everything"


def forget(connection: sqlite3.Connection, limits: Retention, now: float) -> int:
    """Delete what is over the limits, the traces that started first, and return how many; at most one batch."""
    traces, size_bytes = connection.execute("SELECT traces, bytes FROM totals").fetchone()
    oldest = "SELECT number, size_bytes, received_at FROM traces ORDER BY number LIMIT ?"
    last, count = None, 0
    for number, trace_bytes, received_at in connection.execute(oldest, (_BATCH_TRACES,)):
        too_old = limits.age_s is not None and min(number / 1e6, received_at) < now - limits.age_s
        too_many = limits.traces is not None and traces > limits.traces
        too_large = limits.bytes is not None and size_bytes > limits.bytes
        if not (too_old or too_many or too_large):
            break
        last, count = number, count + 1
        traces, size_bytes = traces - 1, size_bytes - trace_bytes
    if last is not None:
        for table, key in (("terms", "rowid"), ("bodies", "number"), ("traces", "number")):
            connection.execute(f"DELETE FROM {table} WHERE {key} <= ?", (last,))
    return count
