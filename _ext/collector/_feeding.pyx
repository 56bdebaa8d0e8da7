# cython: language_level=3
"""Passes over records that need nothing done. `events.py` has the plain Python that does the same, one at a time."""

from cpython.bytes cimport PyBytes_Size
from cpython.long cimport PyLong_AsLong
from cpython.ref cimport PyObject
from cpython.tuple cimport PyTuple_Check, PyTuple_Size

from epsagon_fast.collector.assembling.stream import ENTRY_BYTES
from epsagon_fast.protocol import Kind, Record

cdef extern from "Python.h":
    PyObject *PyTuple_GetItem(object, Py_ssize_t) except NULL

if Record._fields != ("kind", "flags", "ordinal", "trace_id", "payload"):
    raise ImportError("built for records with other fields")

DEF FIELDS = 5
cdef long _EVENT = Kind.EVENT
cdef long _OPEN = Kind.OPEN
cdef long long _ENTRY_BYTES = ENTRY_BYTES


cdef int _put(object trace, object stream, long long bytes_in_all, long long events) except -1:
    """Write into a trace what came for it. Once for several events: each would make five objects of Python."""
    if events:
        stream.arrived_bytes += bytes_in_all
        stream.floor_bytes += bytes_in_all + events
        trace.account.open_bytes += bytes_in_all + events * (1 + _ENTRY_BYTES)
    return 0


def take_events(list records not None, Py_ssize_t at, dict traces not None):
    """Take in the plain events from `at` on, of open traces; return where another record stands, or the end.

    An event for which its trace has no room is another record. TypeError: one is none.
    """
    cdef object of, record, payload, trace_id = None, trace = None, stream = None
    cdef list kept = None
    # What the trace may still take, and what came for it.
    cdef long long room = 0, came = 0, events = 0
    cdef Py_ssize_t size
    try:
        while 0 <= at < len(records):
            record = records[at]
            if not PyTuple_Check(record) or PyTuple_Size(record) != FIELDS:
                raise TypeError("not a record")
            payload = <object>PyTuple_GetItem(record, 4)
            # Raises TypeError for what is not bytes.
            size = PyBytes_Size(payload)
            if PyLong_AsLong(<object>PyTuple_GetItem(record, 0)) != _EVENT or size == 0:
                break
            if PyLong_AsLong(<object>PyTuple_GetItem(record, 1)):
                break
            of = <object>PyTuple_GetItem(record, 3)
            if trace_id is None or of != trace_id:
                _put(trace, stream, came, events)
                came = events = 0
                trace_id, trace = None, traces.get(of)
                if trace is None:
                    break
                trace_id, stream = of, trace.stream
                kept = stream.events
                room = -1 if stream.is_too_big else stream.hold_bytes - stream.floor_bytes
            if size + 1 > room:
                break
            kept.append(payload)
            room -= size + 1
            came += size
            events += 1
            at += 1
    finally:
        _put(trace, stream, came, events)
    return at


def unmasked(list records not None, Py_ssize_t at, object masks not None):
    """Return where, from `at` on, a record stands that masking may change, or the end.

    One whose mask raises is such a record: the caller asks again, and knows then which it was. TypeError: one is none.
    """
    cdef object of, record, trace_id = None, mask = None
    cdef long kind
    while 0 <= at < len(records):
        record = records[at]
        if not PyTuple_Check(record) or PyTuple_Size(record) != FIELDS:
            raise TypeError("not a record")
        kind = PyLong_AsLong(<object>PyTuple_GetItem(record, 0))
        of = <object>PyTuple_GetItem(record, 3)
        if trace_id is None or of != trace_id:
            trace_id, mask = of, masks.get(of)
        if mask is None:
            if kind == _OPEN:
                break
        elif kind != _EVENT:
            break
        else:
            try:
                if mask.may_change(<object>PyTuple_GetItem(record, 4)):
                    break
            except Exception:
                break
        at += 1
    return at
