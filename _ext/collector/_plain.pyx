# cython: language_level=3
# distutils: depends = _ext/collector/plain.h
"""Reads plain events (plain.h says which) and writes their attributes as OTLP's JSON. `plain.py` does the rest."""

from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from epsagon_fast.collector.formats.plain_terms import ANSWER, COPIED, EMPTY, HAS_ROUTE, NUMBER


cdef extern from "plain.h":
    ctypedef enum plain_kind:
        PLAIN_TEXT
        PLAIN_INT
        PLAIN_FLOAT
        PLAIN_BOOL
        PLAIN_NULL
    ctypedef struct plain_value:
        const unsigned char *at
        size_t length
        plain_kind kind
        bint has_escapes
    ctypedef struct plain_member:
        plain_value key
        plain_value value
    ctypedef struct plain_event:
        plain_value *fields
        plain_value *words
        plain_member *members
        size_t count
    enum:
        PLAIN_ID, PLAIN_PARENT, PLAIN_ORIGIN, PLAIN_START, PLAIN_DURATION
        PLAIN_NAME, PLAIN_TYPE, PLAIN_OPERATION
    bint plain_is(const plain_value *value, const char *text, size_t length) noexcept
    bint plain_simple(const plain_value *value) noexcept
    bint plain_read(plain_event *out, const unsigned char *event, size_t length) noexcept

# Of a member, without its name and its value. The longest is that of a text.
DEF AROUND = 64
# Digits of a number that fits into 64 bits whatever they are.
DEF DIGITS = 18
cdef int _COPIED = COPIED, _NUMBER = NUMBER, _ANSWER = ANSWER, _EMPTY = EMPTY, _HAS_ROUTE = HAS_ROUTE


def plain(bytes event not None, dict terms not None, bint is_runner):
    """Return what a plain event says, and its metadata as attributes; None: it is not plain, or not UTF-8.

    `terms`: what becomes of the metadata of events and of runners, by their type; "" for every type without its own,
    None: no event is plain.
    """
    cdef plain_event found
    if not plain_read(&found, <const unsigned char *>PyBytes_AsString(event), len(event)):
        return None
    if not event.isascii():
        try:
            event.decode()
        except UnicodeDecodeError:
            return None
    kind = _text(&found.words[PLAIN_TYPE])
    of_kind = terms.get(kind, terms[""])
    if of_kind is None:
        return None
    written = _attributes(&found, of_kind[is_runner])
    if written is None:
        return None
    attributes, marks, route = written
    parent = &found.fields[PLAIN_PARENT]
    return (
        _text(&found.fields[PLAIN_ID]),
        _text(parent) if parent.at != NULL and parent.kind == PLAIN_TEXT else None,
        (_text(&found.words[PLAIN_NAME]), kind, _text(&found.words[PLAIN_OPERATION])),
        _text(&found.fields[PLAIN_ORIGIN]),
        _number(&found.fields[PLAIN_START]),
        _number(&found.fields[PLAIN_DURATION]),
        attributes,
        marks,
        route,
    )


cdef str _text(const plain_value *value):
    return PyUnicode_DecodeUTF8(<const char *>value.at, value.length, NULL)


cdef object _number(const plain_value *value):
    text = PyBytes_FromStringAndSize(<const char *>value.at, value.length)
    return int(text) if value.kind == PLAIN_INT else float(text)


cdef object _attributes(plain_event *found, dict terms):
    """Return the members of OTLP's list of attributes, what was seen among them, the route; None: one is not plain."""
    cdef size_t room = 1, number
    cdef int marks = 0, mark, code
    cdef bytes name
    names, route = [], None
    for number in range(found.count):
        key = &found.members[number].key
        own = PyBytes_FromStringAndSize(<const char *>key.at, key.length)
        term = terms.get(own)
        if term is None:
            name, code = own, _COPIED
        else:
            code, name, mark = term
            marks |= mark
            if mark == _HAS_ROUTE:
                if not plain_simple(&found.members[number].value):
                    return None
                route = _text(&found.members[number].value)
        if not _fits(&found.members[number].value, code):
            return None
        if code != _COPIED and found.members[number].value.kind == PLAIN_TEXT:
            # Read as what its digits say.
            found.members[number].value.kind = PLAIN_INT
        names.append(None if code == _EMPTY else name)
        room += len(name) + found.members[number].value.length + AROUND
    out = <char *>malloc(room)
    if out == NULL:
        raise MemoryError
    try:
        at = out
        for number in range(found.count):
            if names[number] is not None:
                at = _put_member(at, names[number], &found.members[number].value, at == out)
        return PyBytes_FromStringAndSize(out, at - out), marks, route
    finally:
        free(out)


cdef bint _fits(const plain_value *value, int code) noexcept:
    """Say whether a value becomes what its text says, as an attribute of this code."""
    if code == _COPIED:
        if value.kind == PLAIN_INT:
            return value.length <= DIGITS
        return value.kind == PLAIN_TEXT or value.kind == PLAIN_BOOL
    if code == _EMPTY:
        return value.kind == PLAIN_TEXT and plain_is(value, "{}", 2)
    if code != _NUMBER and code != _ANSWER:
        return False
    if value.kind != PLAIN_TEXT and value.kind != PLAIN_INT or not _is_natural(value):
        return False
    # An answer of 400 or more may be an error.
    return code == _NUMBER or value.length < 3 or (value.length == 3 and value.at[0] < c"4")


cdef bint _is_natural(const plain_value *value) noexcept:
    """Say whether a value is digits as a number is written."""
    if value.length == 0 or value.length > DIGITS or (value.at[0] == c"0" and value.length > 1):
        return False
    for number in range(value.length):
        if not c"0" <= value.at[number] <= c"9":
            return False
    return True


cdef char *_put_member(char *at, bytes name, const plain_value *value, bint is_first) except NULL:
    at = _put(at, b'{"key":"' if is_first else b',{"key":"')
    at = _put(at, name)
    if value.kind == PLAIN_BOOL:
        at = _copy(_put(at, b'","value":{"boolValue":'), <const char *>value.at, value.length)
        return _put(at, b"}}")
    is_text = value.kind == PLAIN_TEXT
    at = _put(at, b'","value":{"stringValue":"' if is_text else b'","value":{"intValue":"')
    return _put(_copy(at, <const char *>value.at, value.length), b'"}}')


cdef char *_put(char *at, bytes text) except NULL:
    return _copy(at, PyBytes_AsString(text), len(text))


cdef char *_copy(char *at, const char *text, size_t length) noexcept:
    memcpy(at, text, length)
    return at + length
