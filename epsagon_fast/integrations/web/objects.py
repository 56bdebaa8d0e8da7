"""Looking at objects of the application, its frameworks and its server, whatever their types.

Their attributes may be missing, or fail when asked for. The server may take what a standard forbids, as a text for a
status: then the application goes on, and so do we. What cannot be read is left out.
"""

from collections.abc import Iterator
from typing import Any

from epsagon_fast.digits import MOST_DIGITS, number
from epsagon_fast.interrupts import let_pass


def attribute(thing: Any, name: str) -> Any:
    """Return an attribute of the application's object; None if it has none or fails to give it."""
    try:
        return getattr(thing, name, None)
    except Exception as error:
        let_pass(error)
        return None


def status_of(said: Any) -> int:
    """Return the status that an application says; 0 if it is no number that can be one."""
    if isinstance(said, int):
        return int(said) if 0 < said < 10**MOST_DIGITS else 0
    return number(said) or 0 if isinstance(said, str | bytes) else 0


def text(word: Any) -> str:
    """Return a word of a header or a scope as a text."""
    return word.decode("latin-1") if isinstance(word, bytes | bytearray) else str(word)


def texts(headers: Any) -> Iterator[tuple[str, str]]:
    """Return names and values of headers as texts, up to one that is no pair."""
    try:
        for name, value in headers:
            yield text(name), text(value)
    except (TypeError, ValueError) as error:
        let_pass(error)


def header(headers: Any, wanted: str) -> str:
    """Return a header's first value; "" if there is none. wanted: its name in small letters."""
    return next((value for name, value in texts(headers) if name.lower() == wanted), "")
