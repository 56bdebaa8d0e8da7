"""What becomes of a plain event's metadata in OTLP, as the compiled reader looks it up."""

from collections.abc import Callable

from epsagon_fast.collector.formats.conventions import (
    CELERY,
    DATABASES,
    GROUP,
    HIDDEN,
    HTTP,
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
from epsagon_fast.span_names import RESERVED

# How the value of a member is read: COPIED as it is, EMPTY if it is an object without members, which is no attribute.
# An event with any OTHER is not plain.
COPIED, NUMBER, ANSWER, EMPTY, OTHER = range(5)
# What is to be known of an event's metadata besides.
HAS_PATH, HAS_PORT, HAS_DATABASE, HAS_ROUTE = 1, 2, 4, 8

# The members that have a term, by their names: how they are read, their names in OTLP, a mark.
PlainTerms = dict[bytes, tuple[int, bytes, int]]

_READ: dict[Callable[[Any], Value], int] = {attribute: COPIED, number_of: NUMBER}


def _read(term: Term, is_runner: bool) -> int:
    if term is GROUP:
        return EMPTY
    # What is hidden means something else.
    if term is HIDDEN:
        return OTHER
    return ANSWER if term.name == STATUS and not is_runner else _READ.get(term.convert, OTHER)


def _plain(both: tuple[Terms, Terms], own: set[str], marks: dict[str, int]) -> tuple[PlainTerms, PlainTerms]:
    """Return the terms of an event's metadata, and of a runner's. `own`: attributes that their words may become."""
    events, runners = (_of_one(terms, own, marks, terms is both[1]) for terms in both)
    return events, runners


def _of_one(terms: Terms, own: set[str], marks: dict[str, int], is_runner: bool) -> PlainTerms:
    """Return the terms of one of both.

    A member may have the name of another attribute, of which only one is sent. Such an event is not plain.
    """
    taken = {*own, *RESERVED, *(term.name for key, term in terms.items() if term.name != key)}
    known = {key: (_read(term, is_runner), term.name.encode(), marks.get(key, 0)) for key, term in terms.items()}
    copied = {key: (COPIED, key.encode(), mark) for key, mark in marks.items() if key not in terms}
    others = {key: (OTHER, b"", 0) for key in taken}
    return {key.encode(): term for key, term in (copied | known | others).items()}


# Of whatever name and operation: a host with a port, and a method that the conventions do not know.
_OF_A_REQUEST = {name for operation in ("GET", "?") for name in of_words(("host:1", HTTP, operation), ())[1]}
_OF_ANOTHER = {*of_words(("name", "type", "operation"), ())[1]}
# By an event's type; "": of every other. None: no event of this type is plain.
TERMS: dict[str, tuple[PlainTerms, PlainTerms] | None] = {
    HTTP: _plain(OF_HTTP, _OF_A_REQUEST, {"path": HAS_PATH, "port": HAS_PORT, "route": HAS_ROUTE}),
    CELERY: None,
    "": _plain(OF_OTHERS, _OF_ANOTHER, dict.fromkeys(DATABASES, HAS_DATABASE)),
}
