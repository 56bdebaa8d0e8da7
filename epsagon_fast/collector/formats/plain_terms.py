"""What becomes of a plain event's metadata in OTLP, as the compiled writer looks it up."""

from collections.abc import Callable, Mapping

import epsagon_fast.span_names as names
from epsagon_fast.collector.formats.conventions import (
    CELERY,
    CELERY_OPERATIONS,
    DATABASES,
    GROUP,
    HIDDEN,
    HTTP,
    OF_CELERY,
    OF_HTTP,
    OF_OTHERS,
    STATUS,
    Term,
    Terms,
    Value,
    attribute,
    number_of,
    of_words,
)
from epsagon_fast.hints import Any
from epsagon_fast.protocol import HTTP_TRACE_ID_KEY
from epsagon_fast.rows import NamedTuple

# How the value of a member is read: COPIED as it is, NUMBER from a text too, ANSWER as a status that is no error,
# UNSEEN not at all. CONVERTED by Python, as are GROUPED and the values that a code does not expect. An event with any
# OTHER is not plain.
COPIED, NUMBER, ANSWER, UNSEEN, CONVERTED, GROUPED, OTHER = range(7)
# What is to be known of an event's metadata besides: that a member is there, or, from HAS_ROUTE on, what it says.
HAS_PATH, HAS_PORT, HAS_DATABASE, HAS_ROUTE, HAS_SCOPE, HAS_VERSION, HAS_KIND, HAS_STATUS = (1 << n for n in range(8))


class PlainTerm(NamedTuple):
    """What becomes of a member. `name`: in OTLP."""

    code: int
    name: str
    mark: int = 0
    convert: Callable[[Any], Value] = attribute


PlainTerms = dict[str, PlainTerm]
# An event with this one, a text, came as a span.
SCOPE = names.SCOPE

_READ: dict[Callable[[Any], Value], int] = {attribute: COPIED, number_of: NUMBER}
# Of spans that came as such (told.py), and of other events.
_SAID_OF_SPANS: PlainTerms = {
    **{name: PlainTerm(OTHER, "") for name in names.RESERVED},
    names.SCOPE: PlainTerm(UNSEEN, "", HAS_SCOPE),
    names.SCOPE_VERSION: PlainTerm(UNSEEN, "", HAS_VERSION),
    names.STATUS: PlainTerm(UNSEEN, "", HAS_STATUS),
    names.KIND: PlainTerm(UNSEEN, "", HAS_KIND),
    # Of a span without an error it is not sent.
    names.DESCRIPTION: PlainTerm(UNSEEN, ""),
}
_SAID_OF_BLOCKS: PlainTerms = {
    **{name: PlainTerm(OTHER, "") for name in names.RESERVED},
    names.KIND: PlainTerm(UNSEEN, "", HAS_KIND),
    names.DESCRIPTION: PlainTerm(UNSEEN, ""),
}


def _read(key: str, term: Term, mark: int, is_runner: bool) -> PlainTerm:
    if term is HIDDEN:
        return PlainTerm(UNSEEN, "", mark)
    if term is GROUP:
        return PlainTerm(GROUPED, key, mark)
    code = ANSWER if term.name == STATUS and not is_runner else _READ.get(term.convert, CONVERTED)
    return PlainTerm(code, term.name, mark, term.convert)


def _plain(both: tuple[Terms, Terms], own: set[str], marks: Mapping[str, int]) -> tuple[PlainTerms, PlainTerms]:
    """Return the terms of an event's metadata, and of a runner's. `own`: attributes that their words may become."""
    events, runners = (_of_one(terms, own, marks, terms is both[1]) for terms in both)
    return events, runners


def _of_one(terms: Terms, own: set[str], marks: Mapping[str, int], is_runner: bool) -> PlainTerms:
    """Return the terms of one of both.

    A member may have the name of another attribute, of which only one is sent. Such an event is not plain.
    """
    taken = {*own, *(term.name for key, term in terms.items() if term.name not in ("", key))}
    known = {key: _read(key, term, marks.get(key, 0), is_runner) for key, term in terms.items()}
    copied = {key: PlainTerm(COPIED, key, mark) for key, mark in marks.items() if key not in terms}
    others = {key: PlainTerm(OTHER, "") for key in taken}
    return copied | known | others | _SAID_OF_BLOCKS


# Of whatever name and operation: a host with a port, and a method that the conventions do not know.
_OF_A_REQUEST = {name for operation in ("GET", "?") for name in of_words(("host:1", HTTP, operation), ())[1]}
_OF_A_TASK = {name for operation in CELERY_OPERATIONS for name in of_words(("name", CELERY, operation), ())[1]}
_OF_ANOTHER = {*of_words(("name", "type", "operation"), ())[1]}
_OF_DATABASES = dict.fromkeys(DATABASES, HAS_DATABASE)
_TOLD_RUNNER = {
    **{key: _read(key, term, 0, True) for key, term in OF_OTHERS[1].items()},
    **_SAID_OF_SPANS,
    HTTP_TRACE_ID_KEY: PlainTerm(UNSEEN, ""),
}
# Those of events and of runners: of requests, of tasks, of all others, of spans that came as such.
REQUESTS, TASKS, OTHERS, TOLD = range(4)
TERMS: tuple[tuple[PlainTerms, PlainTerms], ...] = (
    _plain(OF_HTTP, _OF_A_REQUEST, {"path": HAS_PATH, "port": HAS_PORT, "route": HAS_ROUTE}),
    _plain(OF_CELERY, _OF_A_TASK, _OF_DATABASES),
    _plain(OF_OTHERS, _OF_ANOTHER, _OF_DATABASES),
    (_SAID_OF_SPANS, _TOLD_RUNNER),
)
