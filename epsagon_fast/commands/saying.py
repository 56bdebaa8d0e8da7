"""What a command says to its user: in any locale, and if something is wrong in one line, with the page that helps."""

import codecs
import sys
from typing import TextIO

from epsagon_fast.foreign import escaped
from epsagon_fast.pages import see

PROGRAM = "epsagon-fast"
# What stands for the characters of bars and units where the locale has none of them, as LC_ALL=C in a container.
_PLAIN = str.maketrans({**dict.fromkeys("▕▏", "|"), **dict.fromkeys("▎▍▌▋▊▉█", "#"), "µ": "u", "–": "-", "…": "..."})


def writable(stream: TextIO) -> None:
    """Let a stream write plainer what its encoding does not have, instead of raising."""
    codecs.register_error("epsagon_fast.plain", _plain)
    # What a test or a program puts in its place may be no text file.
    if reconfigure := getattr(stream, "reconfigure", None):
        reconfigure(errors="epsagon_fast.plain")


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    said = error.object[error.start : error.end].translate(_PLAIN)
    return said.encode("ascii", "backslashreplace").decode(), error.end


def say(command: str, text: str) -> None:
    """Print what is wrong, for the command of this name. `text` may hold foreign texts."""
    print(f"{PROGRAM} {command}: {escaped(text)}{see(f'{PROGRAM} {command}')}", file=sys.stderr)


def fail(command: str, reason: str, code: int = 1) -> int:
    """Do as `say`, and return the exit code."""
    say(command, reason)
    return code
