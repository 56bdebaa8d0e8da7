"""What the doctor finds at one place."""

from typing import Final, NamedTuple

from epsagon_fast.pages import see

OK: Final = "ok"
LOOK: Final = "??"
BAD: Final = "BAD"


class Finding(NamedTuple):
    """A place on a trace's way, a verdict on it, what is there, and what to do; "" where nothing is to be done."""

    place: str
    verdict: str
    text: str
    advice: str = ""


def well(place: str, text: str) -> Finding:
    """Return a finding that needs nothing."""
    return Finding(place, OK, text)


def odd(place: str, text: str, do: str, *, about: str) -> Finding:
    """Return a finding to look at: traces pass. `do`: what to do; `about`: a topic of pages.py."""
    return Finding(place, LOOK, text, do + see(about))


def ill(place: str, text: str, do: str, *, about: str) -> Finding:
    """Return a finding with which no trace passes. `do` and `about`: as in `odd`."""
    return Finding(place, BAD, text, do + see(about))
