"""The option `sampling`: which finished traces are sent, in one line such as `rate=1%, slower=500ms, least=10/min`.

The line is checked where it is set, and read again by the collector. docs/sampling.md says what each word does.
"""

import math
import re
from collections.abc import Callable
from functools import lru_cache

from epsagon_fast.hints import Any, Final
from epsagon_fast.rows import NamedTuple

from .values import Option, seconds_in

ALLOWED: Final = (
    "words with values, separated by commas, with rate or budget among them: rate=10%, budget=50/s, slower=500ms, "
    "slowest=5%, least=10/min, errors=off"
)


class Rules(NamedTuple):
    """What a line says. Shares are 0 to 1."""

    # The share that is kept of what no other rule keeps.
    rate: float = 1.0
    # Traces a second that one application sends from this host; None: as many as there are.
    budget_per_s: float | None = None
    # A trace that took as long is kept; None: no time is long.
    slower_s: float | None = None
    # The share of each name's traces, the slowest ones, that is kept.
    slowest: float = 0.0
    # So many of each name are kept in every minute.
    least_per_minute: int = 0
    # Whether all that failed is kept.
    errors: bool = True


def rules(variable: str) -> Option:
    """The rules of sampling; none by default."""
    return Option(variable, "", ALLOWED, (str,), lambda text: not fault(text), str.strip, why=fault)


def rate(variable: str, default: float) -> Option:
    """The share of what begins here that is recorded."""
    allowed = "a share from 0 to 1 (in the environment also as 10%)"
    return Option(variable, default, allowed, (int, float), lambda value: 0 <= value <= 1, float, share)


@lru_cache(maxsize=64)
def read(text: str) -> Rules:
    """Return what a line says. Raises ValueError with the reason if it cannot be read."""
    said: dict[str, Any] = {}
    for word, value in map(_pair, text.split(",")):
        if word not in _WORDS:
            raise ValueError(f"{word!r} is none of its words")
        field, value_of, meaning = _WORDS[word]
        if field in said:
            raise ValueError(f"{word} comes twice")
        try:
            said[field] = value_of(value)
        except (ValueError, KeyError):
            raise ValueError(f"{word}={value} is not {meaning}") from None
    if not said.keys() & {"rate", "budget_per_s"}:
        raise ValueError("neither rate nor budget says what is kept of the rest")
    return Rules(**said)


def fault(text: str) -> str:
    """Return why a line cannot be read, "" if it can. An empty one says that everything is sent."""
    try:
        if text.strip():
            read(text.strip())
    except ValueError as error:
        return str(error)
    return ""


def share(text: str) -> float:
    """Return a share from 0 to 1, which a text has as a number or as a percentage. Raises ValueError."""
    found = re.fullmatch(r"((?:[0-9]{1,9}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})(?:e-?[0-9]{1,3})?)(%?)", text, re.I)
    value = float(found[1]) / (100 if found[2] else 1) if found else math.inf
    if value > 1:
        raise ValueError(text)
    return value


def _pair(part: str) -> tuple[str, str]:
    word, _, value = part.partition("=")
    return word.strip(), value.strip()


def _each(unit: str, digits: str, most: float) -> Callable[[str], float]:
    def per(text: str) -> float:
        found = re.fullmatch(rf"({digits}) *(?:/ *{unit})?", text)
        value = float(found[1]) if found else 0.0
        if not 0 < value <= most:
            raise ValueError(text)
        return value

    return per


def _positive_seconds(text: str) -> float:
    value = seconds_in(text)
    if not 0 < value < math.inf:
        raise ValueError(text)
    return value


_MOST: Final = 1_000_000
_per_minute = _each("min", "[0-9]{1,7}", _MOST)
_SWITCH: Final = {"on": True, "off": False}
_WORDS: Final[dict[str, tuple[str, Callable[[str], Any], str]]] = {
    "rate": ("rate", share, "a share from 0% to 100%, such as 10% or 0.1"),
    "budget": ("budget_per_s", _each("s", r"[0-9]{1,7}(?:\.[0-9]{1,9})?", _MOST), "traces a second, such as 50/s"),
    "slower": ("slower_s", _positive_seconds, "a time, such as 500ms or 1.5s"),
    "slowest": ("slowest", share, "a share from 0% to 100%, such as 5%"),
    "least": ("least_per_minute", lambda text: int(_per_minute(text)), "traces a minute, such as 10/min"),
    "errors": ("errors", lambda text: _SWITCH[text], "on or off"),
}
