"""Span ids: of events and, as the first half of its trace id, of each trace's runner.

They come from a generator that asks the kernel for a seed once in each process. A call of the kernel costs as much as
all else about an event.
"""

import os
import random
from typing import TYPE_CHECKING, Final

from epsagon_fast.compiled import COMPILED, implementation
from epsagon_fast.queue.ring import own_pid

__all__ = ["SPAN_ID_BYTES", "SPAN_ID_DIGITS", "pure_span_id", "span_id"]

SPAN_ID_BYTES: Final = 8
SPAN_ID_DIGITS: Final = 2 * SPAN_ID_BYTES
_SEED_BYTES: Final = 32


class _Generator:
    """One process's numbers."""

    def __init__(self) -> None:
        self.owner_pid = own_pid()
        self.bits = random.Random(os.urandom(_SEED_BYTES)).getrandbits


_generator = _Generator()


def pure_span_id() -> str:
    """Return a random id: 16 lower-case hex digits, not all of them zero.

    What restores a frozen process several times (a snapshot of a machine) restores the generator, too. Within a trace
    that does no harm, but the second half of a trace's own id must come from the kernel.
    """
    global _generator
    number = _generator.bits(64)
    # After it was taken: a signal's handler may fork in between.
    while number == 0 or _generator.owner_pid != own_pid():
        _generator = _Generator()
        number = _generator.bits(64)
    return f"{number:016x}"


if TYPE_CHECKING or implementation("add_event") == COMPILED:
    from epsagon_fast.producer._fast_path import span_id
else:
    span_id = pure_span_id
