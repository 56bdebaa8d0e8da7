"""What a command says to its user when something is wrong: one line to stderr, with the page that helps."""

import sys

from epsagon_fast.foreign import escaped
from epsagon_fast.pages import see

PROGRAM = "epsagon-fast"


def say(command: str, text: str) -> None:
    """Print what is wrong, for the command of this name. `text` may hold foreign texts."""
    print(f"{PROGRAM} {command}: {escaped(text)}{see(f'{PROGRAM} {command}')}", file=sys.stderr)


def fail(command: str, reason: str, code: int = 1) -> int:
    """Do as `say`, and return the exit code."""
    say(command, reason)
    return code
