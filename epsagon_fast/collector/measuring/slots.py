"""The slots of a destination's series, behind those of its histogram."""

import struct

from epsagon_fast.collector.measuring.histogram import OTHERS
from epsagon_fast.queue.ledger import Ledger, Series

# Unix nanoseconds of the last success and error, how much waits since when, and the last error's word.
SUCCESS_AT, ERROR_AT, STORED_TRACES, STORED_BYTES, STORED_SINCE, REASON = range(OTHERS, OTHERS + 6)
_REASON = struct.Struct("=4Q")


def write_reason(ledger: Ledger, number: int, reason: str) -> None:
    """Write the word of a destination's last error."""
    data = reason.encode("utf-8", "replace")[: _REASON.size].ljust(_REASON.size, b"\0")
    for slot, value in enumerate(_REASON.unpack(data), REASON):
        ledger.store(number, slot, value)


def reason_of(series: Series) -> str:
    """Return the word of a destination's last error; "": there was none."""
    return _REASON.pack(*series.slots[REASON : REASON + 4]).rstrip(b"\0").decode("utf-8", "ignore")
