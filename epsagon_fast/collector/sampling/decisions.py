"""What was decided about requests, so that their later traces follow, also in the next collector.

A request is known by its shared id. A rule decides for all of it, chance for the traces of one policy. What is sent
stands in a file of the folder, a ring of entries with one writer, in which a collector that takes over finds it: a
trace that its predecessor had begun to send must not be left out now. An entry that a dying collector did not finish
says nothing, because its checksum is wrong. What was left out is in memory only: without it, a trace of such a request
waits for the others once more.
"""

import logging
import os
import struct
from collections import OrderedDict
from zlib import crc32

import epsagon_fast.private as private
from epsagon_fast.collector.sampling.policy import RATE, REASONS
from epsagon_fast.hints import TypeVar
from epsagon_fast.queue.names import DECISIONS
from epsagon_fast.rows import NamedTuple
from epsagon_fast.thresholds import ALL

log = logging.getLogger("epsagon_fast.collector")

K = TypeVar("K")
T = TypeVar("T")

# The bound of requests that are remembered, those of which something is sent and those of which nothing is.
KEPT = 8192
LEFT_OUT = 16384
# What an entry of an earlier collector says counts for so long.
VALID_S = 60.0
# Shared id, monotonic seconds, threshold, number of the policy, number of the reason; then a checksum.
_ENTRY = struct.Struct("<16sdQIB")
_SUM = struct.Struct("<I")
ENTRY_BYTES = _ENTRY.size + _SUM.size


class Decision(NamedTuple):
    """Why a request's traces are sent, and the policy that decided so."""

    reason: str
    threshold: int
    policy: int

    def key(self, shared_id: bytes) -> "Key":
        """Return what the decision is known by."""
        return shared_id, self.policy if self.reason == RATE else None


# A request, and the policy for whose traces chance decided; None: a rule decided, for all of them.
Key = tuple[bytes, int | None]


class Decisions:
    """The decisions about requests. `folder_fd` stays the caller's; `now` is monotonic seconds."""

    def __init__(self, folder_fd: int, now: float) -> None:
        self._folder_fd = folder_fd
        self._fd: int | None = None
        self._kept: OrderedDict[Key, Decision] = OrderedDict()
        self._left_out: OrderedDict[bytes, None] = OrderedDict()
        self._next = 0
        self._is_told = False
        self._read(now)

    def kept(self, shared_id: bytes, policy: int) -> Decision | None:
        """Return why a policy's traces of a request are sent; None: no decision about them is remembered."""
        return self._kept.get((shared_id, None)) or self._kept.get((shared_id, policy))

    def is_left_out(self, shared_id: bytes) -> bool:
        """Say whether the traces of a request have waited for each other and were left out."""
        return shared_id in self._left_out

    def keep(self, shared_id: bytes, decision: Decision, now: float) -> None:
        """Remember that traces of a request are sent. It must come before they are."""
        key = decision.key(shared_id)
        if key not in self._kept and (shared_id, None) not in self._kept:
            self._left_out.pop(shared_id, None)
            _remember(self._kept, key, decision, KEPT)
            self._write(shared_id, decision, now)

    def leave_out(self, shared_id: bytes) -> None:
        """Remember that traces of a request were left out."""
        _remember(self._left_out, shared_id, None, LEFT_OUT)

    def close(self) -> None:
        """Let go of the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _write(self, shared_id: bytes, decision: Decision, now: float) -> None:
        entry = _ENTRY.pack(shared_id, now, decision.threshold, decision.policy, REASONS.index(decision.reason))
        try:
            if self._fd is None:
                self._fd = private.open_file(DECISIONS, os.O_RDWR | os.O_CREAT, dir_fd=self._folder_fd)
            os.pwrite(self._fd, entry + _SUM.pack(crc32(entry)), self._next * ENTRY_BYTES)
        except OSError as error:
            if not self._is_told:
                self._is_told = True
                log.warning("decisions about sampling do not outlive this collector: %s", error)
        self._next = (self._next + 1) % KEPT

    def _read(self, now: float) -> None:
        """Take in what earlier collectors decided, and go on behind the last entry."""
        found = []
        data = self._data()
        for number in range(len(data) // ENTRY_BYTES):
            entry = data[number * ENTRY_BYTES :][:ENTRY_BYTES]
            if _SUM.unpack(entry[_ENTRY.size :]) == (crc32(entry[: _ENTRY.size]),):
                shared_id, at, threshold, policy, reason = _ENTRY.unpack(entry[: _ENTRY.size])
                if 0 <= now - at < VALID_S and threshold < ALL and reason < len(REASONS):
                    found.append((at, number, shared_id, Decision(REASONS[reason], threshold, policy)))
        for _, number, shared_id, decision in sorted(found):
            self._kept[decision.key(shared_id)] = decision
            self._next = (number + 1) % KEPT

    def _data(self) -> bytes:
        try:
            with open(private.open_file(DECISIONS, os.O_RDONLY, dir_fd=self._folder_fd), "rb") as file:
                return file.read(KEPT * ENTRY_BYTES)
        except OSError:
            # No trace was sampled here yet, or the file is not ours: it is not used either way.
            return b""


def _remember(remembered: OrderedDict[K, T], key: K, what: T, most: int) -> None:
    remembered[key] = what
    remembered.move_to_end(key)
    if len(remembered) > most:
        remembered.popitem(last=False)
