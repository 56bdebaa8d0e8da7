"""Rejection thresholds, as OpenTelemetry's consistent probability sampling has them.

All traces of one request have the same 56 random bits: the last ones of the shared id, unless the caller's tracestate
says others (`ot=rv:...`). A trace is kept if they are at least its threshold. So of two services with different rates
the one with the higher rate keeps all that the other one keeps. `ot=th:...` in the tracestate says which threshold a
trace has passed.

Source: OpenTelemetry specification, "TraceState: Probability Sampling" and "TraceState Handling".
"""

import math

from epsagon_fast.hints import Final

DIGITS: Final = 14
# Of every ALL requests, a threshold rejects so many. ALL itself rejects every one, and has no form in a tracestate.
ALL: Final = 16**DIGITS
ALWAYS: Final = 0
# Digits that a threshold has beside its leading f's, which small rates need.
PRECISION: Final = 4
# The most members of a tracestate, and characters of one member's value (W3C Trace Context).
MAX_MEMBERS: Final = 32
MAX_VALUE: Final = 256
_MEMBER, _THRESHOLD, _RANDOMNESS = "ot=", "th:", "rv:"
_HEX: Final = frozenset("0123456789abcdef")


def threshold_of(rate: float) -> int:
    """Return the threshold that a share of all requests passes. `rate`: 0 to 1."""
    if rate <= 0.0:
        return ALL
    kept = round(rate * ALL)
    digits = min(DIGITS, PRECISION + max(0, math.frexp(rate)[1] // -4))
    unit: int = 16 ** (DIGITS - digits)
    # A rate near 1 must not become a threshold below 0, nor a small one the threshold that nothing passes.
    return max(ALWAYS, min((ALL - kept + unit // 2) // unit * unit, ALL - unit))


def weight_of(threshold: int) -> float:
    """Return how many traces one stands for that passed a threshold (OpenTelemetry's adjusted count)."""
    return ALL / (ALL - threshold)


def digits_of(threshold: int) -> str:
    """Return a threshold below ALL as a tracestate has it: hex digits without the last zeros."""
    return f"{threshold:0{DIGITS}x}".rstrip("0") or "0"


def randomness_of(shared_id: str, tracestate: str = "") -> int:
    """Return a request's random bits. `shared_id`: 32 hex digits."""
    said = _said(tracestate, _RANDOMNESS)
    return int(said if _is_random(said) else shared_id[-DIGITS:], 16)


def passed(tracestate: str) -> int | None:
    """Return the threshold that the caller's tracestate says; None: it says none that can be read."""
    said = _said(tracestate, _THRESHOLD)
    return int(said.ljust(DIGITS, "0"), 16) if 0 < len(said) <= DIGITS and _is_hex(said) else None


def with_threshold(tracestate: str, threshold: int | None) -> str:
    """Return a tracestate that says a threshold; None: that says none.

    All else stays. The member that changes comes first, as W3C wants it, and for that the last of 32 gives way.
    """
    if threshold is None and passed(tracestate) is None:
        return tracestate
    parts = [part for part in _parts(tracestate) if not part.startswith(_THRESHOLD)]
    if threshold is not None:
        parts.insert(0, _THRESHOLD + digits_of(threshold))
    value = ";".join(parts)
    if len(value) > MAX_VALUE:
        said = _said(tracestate, _RANDOMNESS)
        # A random value that is none is not read here, and may be what is too long.
        value = ";".join(parts[: threshold is not None] + [_RANDOMNESS + said] * _is_random(said))
    members = [member for member in _members(tracestate) if not member.startswith(_MEMBER)]
    return ",".join(([_MEMBER + value] if value else []) + members[: MAX_MEMBERS - bool(value)])


def own_member(tracestate: str) -> str:
    """Return what a tracestate says for OpenTelemetry, without the members of others; "": nothing."""
    value = ";".join(_parts(tracestate))
    return _MEMBER + value if value else ""


def _said(tracestate: str, key: str) -> str:
    # Most requests have no tracestate, and of those that have one most say nothing here.
    if _MEMBER not in tracestate:
        return ""
    return next((part.removeprefix(key) for part in _parts(tracestate) if part.startswith(key)), "")


def _parts(tracestate: str) -> list[str]:
    """Return what OpenTelemetry's member of a tracestate says."""
    found = next((member for member in _members(tracestate) if member.startswith(_MEMBER)), _MEMBER)
    return [part for part in found.removeprefix(_MEMBER).split(";") if part]


def _members(tracestate: str) -> list[str]:
    return [member for member in (each.strip(" \t") for each in tracestate.split(",")) if member]


def _is_random(said: str) -> bool:
    return len(said) == DIGITS and _is_hex(said)


def _is_hex(text: str) -> bool:
    return _HEX.issuperset(text)
