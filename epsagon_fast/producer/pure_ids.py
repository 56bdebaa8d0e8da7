"""Span ids in plain Python, for where the extension is not built.

This is a module of its own, because the compiled ids do not need `random`, which takes milliseconds to import.
"""

import os
import random

from epsagon_fast.hints import Final
from epsagon_fast.queue.ring import own_pid

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
