"""How far this machine's clock is from the backend's, by the header `Date` of an answer."""

import time
from email.utils import parsedate_to_datetime

import epsagon_fast.commands.doctor.asking as asking
from epsagon_fast.config import ResolvedConfig

from .finding import Finding, odd, well

# `Date` has whole seconds, and an answer takes its time.
TOLERANCE_S = 2.0


def finding(config: ResolvedConfig) -> Finding:
    """Ask the backend, and compare."""
    before = time.time()
    answer = asking.headers(config) or {}
    after = time.time()
    try:
        theirs = parsedate_to_datetime(answer["date"]).timestamp()
    except (KeyError, ValueError):
        return well("clock", "the backend does not tell its time")
    return compared(theirs, before, after)


def compared(theirs: float, before: float, after: float) -> Finding:
    """Return the finding of a time that the backend told between two times of this machine, in seconds since 1970."""
    ahead = before - TOLERANCE_S - theirs
    behind = theirs - after - TOLERANCE_S
    if ahead <= 0 and behind <= 0:
        return well("clock", "goes with the backend's")
    by = f"{ahead + TOLERANCE_S:.0f} s ahead of" if ahead > 0 else f"{behind + TOLERANCE_S:.0f} s behind"
    text = f"this machine is {by} the backend's, so traces seem to come at another time than they do"
    return odd("clock", text, "set the clock of both by NTP", about="epsagon-fast doctor")
