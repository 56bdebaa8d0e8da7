"""The names of the files in a folder, and the one descriptor that a collector inherits from its starter."""

import re

from epsagon_fast.hints import Final
from epsagon_fast.patterns import pattern

# A ring's file has its id for a name, in hex.
RING_ID_BYTES: Final = 16
RING_SUFFIX: Final = ".ring"
RING_NAME: Final = pattern(rf"[0-9a-f]{{{2 * RING_ID_BYTES}}}{re.escape(RING_SUFFIX)}")
STATE: Final = "state"
LEDGER: Final = "ledger"
ARRIVED: Final = "arrived"
LOG: Final = "log"
BELL: Final = "bell"
DECISIONS: Final = "decisions"
# The lock file for starting a collector. The new program inherits the lock on this descriptor.
START: Final = "start"
START_LOCK_FD: Final = 3
# Enough digits that the names sort like the numbers.
JOURNAL_NAME: Final = pattern(r"journal-(\d{16})")
# Names of what is set aside: a ring, a journal's segment or an outbox gets this suffix, a file of records that killed
# collectors this prefix.
CORRUPT: Final = ".corrupt"
POISON: Final = "poison-"


def journal_name(number: int) -> str:
    """Return the name of a journal's segment."""
    return f"journal-{number:016}"
