"""Records and bodies that kill collectors: found by the deaths, and set aside.

Before work that may be deadly the state page says on what; after it, nothing. A collector that finds something there
knows that its predecessor died over it:

- Usually the page names a whole batch, because a note for every record would cost as much as the record. An exception
  names its record on the way out. After a death over a batch the next collector notes every record for a while, so a
  second death of that kind (a crash in compiled code) names its record too.
- What was named in two deaths in a row is tried in a child when it turns up. If the child dies too, it is poison:
  it goes into a file `poison-*`, and is left out from then on. So it is, without a trial, after many deaths: what kills
  a collector may spare a child.

Collectors that are killed from outside die over something as well, and even twice over the same thing: the first record
of a journal is the first for each of them, and takes a hundred times as long as the next. The child outlives it.
"""

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial

import epsagon_fast.private as private
from epsagon_fast.collector.digests import blake2b
from epsagon_fast.collector.journal.frames import encode_batch
from epsagon_fast.collector.trial import survives
from epsagon_fast.protocol import TRACE_ID_BYTES, Record
from epsagon_fast.queue import state as states
from epsagon_fast.queue.names import POISON
from epsagon_fast.queue.state import StatePage

log = logging.getLogger("epsagon_fast.collector")

DEATHS = 2
# And without a child's trial.
MOST_DEATHS = 8
# How long a collector is careful: what killed the last one comes again within this time.
CAREFUL_S = 60.0
NAME = POISON
_CREATE = os.O_WRONLY | os.O_CREAT
# The first byte of a note says on what: a batch of a ring's, a record, the body of a trace.
_BATCH, _RECORD, _BODY = b"b", b"r", b"t"
# What fills up the note on a body.
_BEHIND_ID = bytes(states.SUSPECT_BYTES - len(_BODY) - TRACE_ID_BYTES)


class Poison:
    """One collector's notes in the state page, and what earlier ones were found to have died of."""

    def __init__(self, folder_fd: int, state: StatePage, counts: Counter[str]) -> None:
        self._folder_fd = folder_fd
        self._state = state
        self._counts = counts
        found = state.suspected()
        self._careful_until = time.monotonic() + CAREFUL_S if any(found) else 0.0
        self._keys = _set_aside_before(folder_fd)
        self._trace_ids = {key[1:17] for key in self._keys}
        # What the last two collectors died over.
        self._accused = b""
        if found[:1] in (_RECORD, _BODY):
            self._judge(found)
        state.suspect(b"")

    def note_batch(
        self, ring_id: bytes, records: Sequence[Record], work: Callable[[Sequence[Record]], object]
    ) -> Sequence[Record] | Iterator[Record]:
        """Note that work on these records begins; return them without those that are poison.

        An iterator notes each of them, and wants it done before the next. `work`: what is done to each. An accused
        record is tried with it when all before it are done.
        """
        if self._trace_ids:
            records = [record for record in records if not self._is_set_aside(ring_id, record)]
        if self._careful_until and time.monotonic() < self._careful_until:
            return self._noted(ring_id, records, work)
        self._state.suspect(_BATCH + ring_id)
        return records

    def note_record(self, record: Record) -> None:
        """Note that work on this record begins, or that it failed."""
        self._state.suspect(_key(record))

    def note_body(self, trace_id: bytes) -> None:
        """Note that work on this trace's body begins."""
        self._state.suspect(_body_key(trace_id))

    def note_end(self) -> None:
        """Note that the work is done."""
        self._state.suspect(b"")

    @property
    def is_wary(self) -> bool:
        """Whether anything is known, or suspected, to be poison."""
        return bool(self._keys or self._accused)

    def is_poison_as_body(self, trace_id: bytes, work: Callable[[], object]) -> bool:
        """Say whether a trace's body is poison. `work`: what builds it."""
        key = _body_key(trace_id)
        return key in self._keys or self._is_condemned(key, work)

    def set_aside(self, ring_id: bytes, records: list[Record]) -> None:
        """Write the records of a trace with a poisonous body to its file, once."""
        self._write(_body_key(records[0].trace_id), ring_id, records)

    def _is_set_aside(self, ring_id: bytes, record: Record) -> bool:
        if record.trace_id not in self._trace_ids or _key(record) not in self._keys:
            return False
        self._write(_key(record), ring_id, [record])
        return True

    def _noted(
        self, ring_id: bytes, records: Sequence[Record], work: Callable[[Sequence[Record]], object]
    ) -> Iterator[Record]:
        for record in records:
            key = _key(record)
            if self._is_condemned(key, partial(work, [record])):
                self._write(key, ring_id, [record])
                continue
            self._state.suspect(key)
            yield record

    def _is_condemned(self, key: bytes, work: Callable[[], object]) -> bool:
        """Try what this key names, if it is accused."""
        if key != self._accused or survives(work):
            return False
        self._condemn(key)
        return True

    def _condemn(self, key: bytes) -> None:
        self._keys.add(key)
        self._trace_ids.add(key[1:17])

    def _write(self, key: bytes, ring_id: bytes, records: list[Record]) -> None:
        name = NAME + key.hex()
        with suppress(OSError):
            fd = private.open_file(name, _CREATE, dir_fd=self._folder_fd)
            with open(fd, "wb") as file:
                if os.fstat(fd).st_size:
                    # Set aside before. Its record stays in the journal until its trace is settled, and so came again.
                    return
                file.write(b"".join(encode_batch(ring_id, 0, records)))
        self._counts["poison"] += 1
        log.error("collectors died over trace %s: set aside as %s", records[0].trace_id.hex(), name)

    def _judge(self, found: bytes) -> None:
        again = found == self._state.last_suspect()
        deaths = self._state.load(states.SUSPECT_DEATHS) + 1 if again else 1
        self._state.store(states.SUSPECT_DEATHS, deaths)
        self._state.remember_suspect(found)
        if deaths >= MOST_DEATHS:
            self._condemn(found)
        elif deaths >= DEATHS:
            self._accused = found


def _key(record: Record) -> bytes:
    return _RECORD + record.trace_id + blake2b(bytes((record.kind, record.flags)) + record.payload, 15)


def _body_key(trace_id: bytes) -> bytes:
    return _BODY + trace_id + _BEHIND_ID


def _set_aside_before(folder_fd: int) -> set[bytes]:
    keys = set()
    for name in os.listdir(folder_fd):
        if name.startswith(NAME):
            with suppress(ValueError):
                keys.add(bytes.fromhex(name.removeprefix(NAME)))
    return keys
