"""Which traces are wanted: the parameters of a URL's query, the same on the pages and in the API.

| parameter | finds traces |
|---|---|
| `text` | that have these words, or with a star words that begin so: in names, ids, messages, labels, attributes |
| `app`, `name`, `error_type` | of this application, name, type of exception |
| `status` | that ended so: ok, error, timeout, died, or were trimmed; several with commas |
| `min_duration`, `max_duration` | that took so long, in seconds, or as `250ms` |
| `label.KEY`, `attr.KEY` | with this label, with an event that has this attribute |
| `http_trace_id` | of one request |
| `since`, `until` | that started then: Unix seconds, ISO 8601, or how long ago, as `15m`, `2h`, `7d` |
"""

import math
import re
import time
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

import epsagon_fast.backend.terms as terms
from epsagon_fast.backend.summary import STATUSES, TEXT_CHARACTERS, TRIMMED

# Of a query; each name and value.
MAX_FILTERS = 30
MAX_CHARACTERS = 500

_FACETS = ("app", "name", "error_type")
_AMOUNT = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(us|ms|s|m|h|d|)")
_UNIT_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
NAMES = ("text", *_FACETS, "status", "min_duration", "max_duration", "http_trace_id", "since", "until")


class BadQuery(ValueError):
    """A query that cannot be answered; the text says which parameter and why."""


class Filter(NamedTuple):
    """What to look for. `match`: for the index of terms, "" for all.

    conditions: SQL of a row of `traces`, whose number is written `{number}`, and the value of each.
    """

    match: str = ""
    conditions: tuple[tuple[str, float | str], ...] = ()
    # What it was made from, without what was empty.
    given: tuple[tuple[str, str], ...] = ()


def parse(parameters: Iterable[tuple[str, str]], now: float | None = None) -> Filter:
    """Return the filter of a query; parameters without a value say nothing. Raises BadQuery."""
    given = tuple((name, value.strip()) for name, value in parameters if value.strip())
    if len(given) > MAX_FILTERS:
        raise BadQuery(f"there may be {MAX_FILTERS} filters at most")
    matches: list[str] = []
    conditions: list[tuple[str, float | str]] = []
    now = time.time() if now is None else now
    for name, value in given:
        if max(len(name), len(value)) > MAX_CHARACTERS:
            raise BadQuery(f"a filter may have {MAX_CHARACTERS} characters at most")
        _add(name, value, now, matches, conditions)
    statuses = [_status(each) for name, value in given if name == "status" for each in value.split(",")]
    matches += [" OR ".join(statuses)] if statuses else []
    matches += _durations(conditions)
    return Filter(" AND ".join(f"({each})" for each in matches if each), tuple(conditions), given)


def _add(name: str, value: str, now: float, matches: list[str], conditions: list[tuple[str, float | str]]) -> None:
    kind, _, key = name.partition(".")
    if name in _FACETS:
        matches.append(terms.facet(name, value[:TEXT_CHARACTERS]))
    elif kind in ("label", "attr") and key:
        matches.append(terms.facet(kind, key, value))
    elif name == "text":
        # A text without a word, as "?!", finds nothing.
        matches += terms.wanted_words(value) or [terms.facet("nothing")]
    elif name == "http_trace_id":
        conditions.append(("http_trace_id = ?", value))
    elif name in ("min_duration", "max_duration"):
        conditions.append((f"duration_s {'>=' if name == 'min_duration' else '<='} ?", amount_s(name, value)))
    elif name in ("since", "until"):
        conditions.append((f"{{number}} {'>=' if name == 'since' else '<='} ?", int(moment_of(name, value, now) * 1e6)))
    elif name != "status":
        known = ", ".join((*NAMES, "label.KEY", "attr.KEY"))
        raise BadQuery(f"unknown parameter {name[:60]!r}; known are {known}")


def _status(value: str) -> str:
    if value == TRIMMED:
        return terms.facet(TRIMMED, "true")
    if value not in STATUSES:
        raise BadQuery(f"status must be one of {', '.join((*STATUSES, TRIMMED))}")
    return terms.facet("status", value)


def _durations(conditions: list[tuple[str, float | str]]) -> list[str]:
    found = dict(conditions)
    shortest, longest = found.get("duration_s >= ?", 0.0), found.get("duration_s <= ?", math.inf)
    if (shortest, longest) == (0.0, math.inf):
        return []
    return [terms.steps(float(shortest), min(float(longest), 1e9)) or terms.facet("nothing")]


def amount_s(name: str, value: str) -> float:
    """Return a span of time in seconds, from a number of them or with a unit: `250ms`, `1.5s`, `2h`."""
    found = _AMOUNT.fullmatch(value)
    if found is None:
        raise BadQuery(f"{name} must be a number of seconds, or as 250ms, 1.5s, 2m, 3h, 7d")
    return float(found[1]) * _UNIT_S[found[2]]


def moment_of(name: str, value: str, now: float) -> float:
    """Return the Unix seconds of `since` or `until`, which may be given in three ways. Raises BadQuery."""
    found = _AMOUNT.fullmatch(value)
    if found:
        moment = now - amount_s(name, value) if found[2] else float(value)
    else:
        try:
            moment = datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError, OSError):
            raise BadQuery(f"{name} must be Unix seconds, ISO 8601, or how long ago, as 15m, 2h, 7d") from None
    if not 0 <= moment < 1e12:
        raise BadQuery(f"{name} is out of range")
    return moment
