# cython: language_level=3
# distutils: depends = _ext/trimming/strip.h _ext/trimming/marks.h
"""The trimmer in C. `_reference.py` says what it does, strip.h how an event is read."""

from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize, PyBytes_Size
from cpython.list cimport PyList_SetItem, PyList_Size
from cpython.number cimport PyNumber_Index
from cpython.ref cimport Py_INCREF, PyObject
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy
import sys

from epsagon_fast.protocol import STRONG_KEYS
from epsagon_fast.trimming._types import METADATA_KEY, RESOURCE_KEY, TraceTooBig, Trimmed


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
        raise ValueError(f"{name} is negative: {size}")
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
            raise TypeError(f"event {number} is {type(events[number]).__name__}, not bytes")
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
        raise ValueError(f"event {number} is not JSON")
    if outcome == STRIP_NOTHING or cut.kept == cut.close - cut.open:
        return event
    stripped = PyBytes_FromStringAndSize(NULL, cut.open + cut.kept + length - cut.close)
    # No other code has the new object yet, and strip_event promises open + kept <= close <= length.
    target = <unsigned char *>PyBytes_AsString(stripped)
    memcpy(target, source, cut.open)
    memcpy(target + cut.open, scratch.room, cut.kept)
    memcpy(target + cut.open + cut.kept, source + cut.close, length - cut.close)
    return stripped
