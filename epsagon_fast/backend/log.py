"""What the command `backend` logs: one line at a time, and of each kind one a minute, however often it happens."""

import logging
import time
from collections import Counter

from epsagon_fast.foreign import escaped, shown

PAUSE_S = 60.0
# Of more kinds than these the older are forgotten.
MAX_KINDS = 100
# What tells kinds apart: the message before its values are put in. asyncio's messages go on with these in new lines.
_KIND_CHARACTERS = 60


class Sparing(logging.Filter):
    """Lets the first record of a kind pass, and then one each minute, which says how many there were meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self._passed_at: dict[str, float] = {}
        self._held_back: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the record is logged; if so, with the number of those that were not."""
        kind, now = str(record.msg).partition("\n")[0][:_KIND_CHARACTERS], time.monotonic()
        if now - self._passed_at.get(kind, -PAUSE_S) < PAUSE_S:
            self._held_back[kind] += 1
            return False
        if len(self._passed_at) >= MAX_KINDS:
            self._passed_at.clear()
            self._held_back.clear()
        self._passed_at[kind] = now
        record.held_back = self._held_back.pop(kind, 0)
        return True


class OneLine(logging.Formatter):
    """A record as one printable line, with an exception's name and text in place of its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = f"epsagon-fast backend: {record.levelname} {escaped(record.getMessage().strip())}"
        error = record.exc_info[1] if record.exc_info else None
        line += f": {type(error).__name__}: {shown(error)}" if error else ""
        held_back = getattr(record, "held_back", 0)
        return line + (f" (and {held_back} more since the last such line)" if held_back else "")


def set_up() -> None:
    """Log warnings and errors of this whole process to stderr so."""
    handler = logging.StreamHandler()
    handler.addFilter(Sparing())
    handler.setFormatter(OneLine())
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
