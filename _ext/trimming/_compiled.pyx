# cython: language_level=3
# distutils: depends = _ext/trimming/marks.h _ext/trimming/strip.h _ext/trimming/cuts.h _ext/trimming/shorten.h
"""The trimmer in C. `_reference.py` says what it does, strip.h and shorten.h how an event is read."""

from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize, PyBytes_Size
from cpython.list cimport PyList_SetItem, PyList_Size
from cpython.number cimport PyNumber_Index
from cpython.ref cimport Py_INCREF, PyObject
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy
import sys

from epsagon_fast.protocol import STRONG_KEYS
from epsagon_fast.trimming._types import (
    EXCEPTION_KEY,
    EXCEPTION_SHARE,
    EXCEPTION_TEXT_KEYS,
    LEAST_LEVEL_BYTES,
    MARK_AT_END,
    MARK_BETWEEN,
    MARK_DIGITS,
    MARK_HEAD,
    METADATA_KEY,
    PAGE,
    RESOURCE_KEY,
    Shortened,
    TraceTooBig,
    Trimmed,
)


cdef extern from "strip.h":
    ctypedef enum strip_outcome:
        STRIP_NOT_JSON
        STRIP_NOTHING
        STRIP_METADATA
    ctypedef struct strip_cut:
        size_t open
        size_t close
        size_t kept
    ctypedef struct strip_key:
        const unsigned char *name
        size_t length
    ctypedef struct strip_keys:
        strip_key path[2]
    bint strip_add_strong(strip_keys *keys, const unsigned char *name, size_t length) noexcept
    strip_outcome strip_event(
        const unsigned char *event, size_t length, const strip_keys *keys, unsigned char *out, strip_cut *cut
    ) noexcept

cdef extern from "shorten.h":
    ctypedef struct cut_marks:
        strip_key head
        strip_key behind[2]
        size_t max_digits
    ctypedef struct shorten_rules:
        const strip_keys *keys
        strip_key exception
        strip_key texts[2]
        cut_marks marks
        size_t least_level
        size_t share
    ctypedef struct found_value:
        pass
    ctypedef struct found_event:
        size_t length
    ctypedef struct found_trace:
        found_event *events
        found_value *values
    ctypedef enum shorten_outcome:
        SHORTEN_NOT_JSON
        SHORTEN_NO_MEMORY
        SHORTEN_READ
    shorten_outcome shorten_read(
        found_trace *trace, const shorten_rules *rules, const unsigned char *event, size_t length
    ) noexcept
    size_t shorten_level(const found_trace *trace, const shorten_rules *rules, size_t excess) noexcept
    size_t shorten_stripped_size(const found_trace *trace, const shorten_rules *rules) noexcept
    size_t shorten_stripped_count(const found_trace *trace, const shorten_rules *rules, size_t room) noexcept
    size_t shorten_size(
        const found_trace *trace, size_t number, const shorten_rules *rules, size_t level, bint stripped, size_t *count
    ) noexcept
    size_t shorten_write(
        const found_trace *trace, size_t number, const shorten_rules *rules, size_t level, bint stripped,
        unsigned char *out
    ) noexcept

cdef extern from "Python.h":
    # Borrowed, unlike Cython's own indexing: nothing else can touch a list that only trim() knows.
    PyObject *PyList_GetItem(list items, Py_ssize_t index) except NULL
    # Not PyBytes_Size: a subclass of bytes may stand in for one.
    bint PyBytes_Check(PyObject *object) noexcept


cdef strip_keys keys
# The C tables point into these bytes. Shortest first, as strip_add_strong wants them.
cdef list _names = [key.encode("ascii") for key in (RESOURCE_KEY, METADATA_KEY, *sorted(STRONG_KEYS, key=len))]


cdef int _fill_keys() except -1:
    cdef bytes name
    for number, name in enumerate(_names):
        start = <const unsigned char *>PyBytes_AsString(name)
        if number < 2:
            keys.path[number] = strip_key(start, PyBytes_Size(name))
        elif not strip_add_strong(&keys, start, PyBytes_Size(name)):
            raise ImportError(f"strip.h has no room for the key {name!r}")
    return 0


_fill_keys()

cdef shorten_rules rules
# As _names, for as long.
cdef list _words = [
    text.encode("ascii") for text in (EXCEPTION_KEY, *EXCEPTION_TEXT_KEYS, MARK_HEAD, MARK_AT_END, MARK_BETWEEN)
]


cdef int _set_word(strip_key *word, Py_ssize_t number) except -1:
    word.name = <const unsigned char *>PyBytes_AsString(_words[number])
    word.length = PyBytes_Size(_words[number])
    return 0


cdef int _fill_rules() except -1:
    rules.keys = &keys
    _set_word(&rules.exception, 0)
    _set_word(&rules.texts[0], 1)
    _set_word(&rules.texts[1], 2)
    _set_word(&rules.marks.head, 3)
    _set_word(&rules.marks.behind[0], 4)
    _set_word(&rules.marks.behind[1], 5)
    rules.marks.max_digits = MARK_DIGITS
    rules.least_level = LEAST_LEVEL_BYTES
    rules.share = EXCEPTION_SHARE
    return 0


_fill_rules()

cdef _new_tuple = tuple.__new__


cdef class _Scratch:
    """Room for the kept members of one event; grows to the longest event that was stripped."""

    cdef unsigned char *room
    cdef size_t length

    cdef int fit(self, size_t length) except -1:
        if length <= self.length:
            return 0
        free(self.room)
        self.length = 0
        self.room = <unsigned char *>malloc(length)
        if self.room == NULL:
            raise MemoryError
        self.length = length
        return 0

    def __dealloc__(self):
        free(self.room)

    def __reduce__(self):
        # Cython would copy the address.
        raise TypeError("this cannot be copied: it owns memory")


def trim(events, limit_bytes, *, envelope_bytes=0, reserve_bytes=0):
    """Strip events in order until a body fits its limit.

    events: JSON objects in add order. limit_bytes: the largest body. envelope_bytes: the body without its events.
    reserve_bytes: room to leave under the limit once anything is stripped.
    Returns the same event objects, in a new list, if the body fits as it is.
    Raises TraceTooBig if it never fits, ValueError for a negative size or an event that is not JSON, TypeError.
    """
    limit = _size("limit_bytes", limit_bytes)
    envelope = _size("envelope_bytes", envelope_bytes)
    reserve = _size("reserve_bytes", reserve_bytes)
    cdef list kept = list(events)
    cdef Py_ssize_t size = _joined_size(kept)
    if size <= limit - envelope:
        return _trimmed(kept, envelope + size, 0)
    cdef Py_ssize_t count = _strip_until(kept, &size, _clamped(limit - envelope - reserve))
    if count < 0:
        raise TraceTooBig(envelope + size)
    return _trimmed(kept, envelope + size, count)


cdef _trimmed(list events, size, Py_ssize_t count):
    # What Trimmed(...) does, without its Python frame: of a small trace that fits, that was a third of the time.
    return _new_tuple(Trimmed, (events, size, count))


cdef _size(str name, value):
    size = PyNumber_Index(value)
    if size < 0:
        raise ValueError(f"{name} is negative: {size}{PAGE}")
    return size


cdef Py_ssize_t _clamped(room) except? -1:
    """A limit may be any int; beyond what memory holds, more or less makes no difference."""
    return min(max(room, -1), sys.maxsize)


cdef Py_ssize_t _joined_size(list events) except -1:
    cdef Py_ssize_t number, count = PyList_Size(events)
    cdef Py_ssize_t size = max(0, count - 1)
    cdef PyObject *event
    for number in range(count):
        event = PyList_GetItem(events, number)
        if not PyBytes_Check(event):
            raise TypeError(f"event {number} is {type(events[number]).__name__}, not bytes{PAGE}")
        size += PyBytes_Size(<object>event)
    return size


cdef Py_ssize_t _strip_until(list events, Py_ssize_t *size, Py_ssize_t limit) except? -1:
    """Strip from the front until the size is at most the limit; return how many were visited, -1 for never."""
    cdef Py_ssize_t number, before
    cdef _Scratch scratch = _Scratch()
    for number in range(PyList_Size(events)):
        event = <object>PyList_GetItem(events, number)
        before = PyBytes_Size(event)
        stripped = _strip(event, number, scratch)
        if stripped is not event:
            # SetItem takes the reference over; `events[number] =` would make an int object of the index first.
            Py_INCREF(stripped)
            PyList_SetItem(events, number, stripped)
            size[0] -= before - PyBytes_Size(stripped)
        if size[0] <= limit:
            return number + 1
    return -1


cdef _strip(event, Py_ssize_t number, _Scratch scratch):
    cdef strip_cut cut
    cdef size_t length = PyBytes_Size(event)
    cdef const unsigned char *source = <const unsigned char *>PyBytes_AsString(event)
    scratch.fit(length)
    outcome = strip_event(source, length, &keys, scratch.room, &cut)
    if outcome == STRIP_NOT_JSON:
        raise ValueError(f"event {number} is not JSON{PAGE}")
    if outcome == STRIP_NOTHING or cut.kept == cut.close - cut.open:
        return event
    stripped = PyBytes_FromStringAndSize(NULL, cut.open + cut.kept + length - cut.close)
    # No other code has the new object yet, and strip_event promises open + kept <= close <= length.
    target = <unsigned char *>PyBytes_AsString(stripped)
    memcpy(target, source, cut.open)
    memcpy(target + cut.open, scratch.room, cut.kept)
    memcpy(target + cut.open + cut.kept, source + cut.close, length - cut.close)
    return stripped


cdef class _Found:
    """What was found in a trace's events. It points into them, so it must not outlive `events`."""

    cdef found_trace trace
    cdef list events

    cdef int read(self, list events) except -1:
        """Read all events; once for each object."""
        cdef Py_ssize_t number
        self.events = events
        self.trace.events = <found_event *>calloc(PyList_Size(events) + 1, sizeof(found_event))
        if self.trace.events == NULL:
            raise MemoryError
        for number in range(PyList_Size(events)):
            event = <object>PyList_GetItem(events, number)
            outcome = shorten_read(
                &self.trace, &rules, <const unsigned char *>PyBytes_AsString(event), PyBytes_Size(event)
            )
            if outcome == SHORTEN_NOT_JSON:
                raise ValueError(f"event {number} is not JSON{PAGE}")
            if outcome == SHORTEN_NO_MEMORY:
                raise MemoryError
        return 0

    cdef list at(self, size_t level, Py_ssize_t stripped_count, size_t *count):
        """Return the events at a level, and add to `count` how many values were shortened."""
        cdef Py_ssize_t number
        cdef list events = self.events.copy()
        for number in range(PyList_Size(events)):
            event = self.event_at(number, level, number < stripped_count, count)
            if event is not None:
                Py_INCREF(event)
                PyList_SetItem(events, number, event)
        return events

    cdef event_at(self, Py_ssize_t number, size_t level, bint is_stripped, size_t *count):
        """Return an event at a level, None if that is what it is already."""
        cdef size_t size = shorten_size(&self.trace, number, &rules, level, is_stripped, count)
        if size == self.trace.events[number].length:
            return None
        event = PyBytes_FromStringAndSize(NULL, size)
        # No other code has seen the new object yet, and shorten_write keeps to what shorten_size says.
        shorten_write(&self.trace, number, &rules, level, is_stripped, <unsigned char *>PyBytes_AsString(event))
        return event

    def __dealloc__(self):
        free(self.trace.events)
        free(self.trace.values)

    def __reduce__(self):
        # Cython would copy the addresses.
        raise TypeError("this cannot be copied: it owns memory")


def shorten(events, limit_bytes, *, envelope_bytes=0, reserve_bytes=0):
    """Shorten the longest values of a trace, all to the same length, until a body fits its limit.

    The level is the highest at which it fits: no value loses a byte while a longer one keeps more. What has a level is
    weak metadata and, at EXCEPTION_SHARE times as much, the message and traceback of each event's exception. If
    LEAST_LEVEL_BYTES is too high a level, events are stripped from the front as `trim` does it.
    Arguments and errors are those of `trim`; each event is read if the body does not fit as it is.
    """
    limit = _size("limit_bytes", limit_bytes)
    envelope = _size("envelope_bytes", envelope_bytes)
    reserve = _size("reserve_bytes", reserve_bytes)
    cdef list kept = list(events)
    cdef Py_ssize_t size = _joined_size(kept)
    if size <= limit - envelope:
        return _new_tuple(Shortened, (kept, envelope + size, limit, 0, 0))
    cdef _Found found = _Found()
    found.read(kept)
    return _shortened(found, size, _clamped(limit - envelope - reserve), envelope)


cdef _shortened(_Found found, Py_ssize_t size, Py_ssize_t room, envelope):
    cdef Py_ssize_t stripped = 0
    cdef size_t count = 0
    cdef size_t level = shorten_level(&found.trace, &rules, size - room)
    if level == 0:
        level = rules.least_level
        size = max(0, PyList_Size(found.events) - 1) + shorten_stripped_size(&found.trace, &rules)
        if size > room:
            raise TraceTooBig(envelope + size)
        stripped = shorten_stripped_count(&found.trace, &rules, room - size)
    shorter = found.at(level, stripped, &count)
    return _new_tuple(Shortened, (shorter, envelope + _joined_size(shorter), level, count, stripped))


def at_level(events, level_bytes):
    """Shorten what is over a level, whatever the size. Returns a new list, with the same object where nothing changed.

    level_bytes: at least LEAST_LEVEL_BYTES. Errors as of `shorten`.
    """
    cdef size_t ignored = 0
    cdef _Found found = _Found()
    level = _size("level_bytes", level_bytes)
    if level < LEAST_LEVEL_BYTES:
        raise ValueError(f"level_bytes is less than {LEAST_LEVEL_BYTES}: {level}{PAGE}")
    kept = list(events)
    _joined_size(kept)
    found.read(kept)
    return found.at(min(level, sys.maxsize // EXCEPTION_SHARE), 0, &ignored)
