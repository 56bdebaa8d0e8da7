# cython: language_level=3
# distutils: depends = _ext/queue/records.h _ext/queue/ring.h
"""Passes over records that need nothing done, and takes the usual ones into their traces.

The plain Python that does the same, one record at a time: `events.py`, and Assembly.feed for OPEN and CLOSE.
"""

from cpython.bytes cimport PyBytes_AsString, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_Size
from cpython.dict cimport PyDict_Copy
from cpython.float cimport PyFloat_CheckExact
from cpython.object cimport PyTypeObject
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from orjson import dumps, loads

from epsagon_fast.collector.assembling.accounts import TRACE_BYTES, Account
from epsagon_fast.collector.assembling.open_trace import MAX_RUNNER_BYTES, NO_NEWS, OpenTrace
from epsagon_fast.collector.assembling.openings import BEFORE_RUNNER, CONFIG, ESCAPE, start_of
from epsagon_fast.collector.assembling.payloads import MANY_BRACKETS
from epsagon_fast.collector.assembling.runners import labels_json
from epsagon_fast.collector.assembling.shortening import ShorteningStream
from epsagon_fast.collector.assembling.stream import ENTRY_BYTES, Stream
from epsagon_fast.collector.formats import FittedTrace
from epsagon_fast.collector.formats.conventions import RENAMED
from epsagon_fast.collector.formats.epsagon import JsonEnvelope
from epsagon_fast.collector.formats.spans import name_of_runner
from epsagon_fast.protocol import (
    CLOSE_PAYLOAD,
    LABEL_NUMBER_BYTES,
    LABELS_KEY,
    MAX_LABELS_BYTES,
    NO_TRACE,
    UNCHANGED,
    Kind,
)
from epsagon_fast.queue._ring import batch, records_seen

cdef extern from "Python.h":
    PyObject *PyTuple_GetItem(object, Py_ssize_t) except NULL
    const char *PyUnicode_AsUTF8AndSize(object, Py_ssize_t *) except NULL
    # What object.__new__ does, without arguments to be looked at.
    object PyType_GenericAlloc(PyTypeObject *, Py_ssize_t)

cdef extern from "../queue/records.h":
    const char *RECORDS_CALLS
    ctypedef struct ring_record:
        uint32_t length
        uint8_t kind, flags
        uint64_t ordinal
    ctypedef struct record_place:
        size_t run
    ctypedef struct records_view:
        const record_place *places
        Py_ssize_t count
        PyObject *ids
    ctypedef struct records_calls:
        int (*look)(object, records_view *) except -1

    ring_record records_header(const records_view *, Py_ssize_t) noexcept
    const char *records_payload(const records_view *, Py_ssize_t) noexcept

cdef extern from *:
    void __builtin_prefetch(const void *) noexcept

cdef extern from "<math.h>":
    long long llrint(double) noexcept

cdef extern from "<string.h>":
    void *memmem(const void *, size_t, const void *, size_t) noexcept

cdef records_calls *_records = <records_calls *>PyCapsule_GetPointer(records_seen, RECORDS_CALLS)
# From so many open traces on they are in no cache of a processor: one has a kilobyte.
DEF MANY_TRACES = 4096
cdef bytes _BEFORE_RUNNER = BEFORE_RUNNER, _CONFIG = CONFIG, _ESCAPE = ESCAPE
# How the last OPEN began, up to its runner's name, and what that says.
cdef bytes _neighbour = b""
cdef object _neighbours_start = None
cdef long _EVENT = Kind.EVENT
cdef long _LABEL = Kind.LABEL
cdef long _RUNNER = Kind.RUNNER
cdef long _OPEN = Kind.OPEN
cdef long _CLOSE = Kind.CLOSE
cdef object _UNCHANGED = UNCHANGED
cdef Py_ssize_t _CLOSE_BYTES = CLOSE_PAYLOAD.size
cdef Py_ssize_t _MANY = MANY_BRACKETS
cdef object _RENAMED = RENAMED
cdef dict _NO_NEWS = NO_NEWS
cdef object unpack_close = CLOSE_PAYLOAD.unpack
cdef str _LABELS_KEY = LABELS_KEY
cdef long long _LABEL_NUMBER_BYTES = LABEL_NUMBER_BYTES
cdef long long _MAX_LABELS_BYTES = MAX_LABELS_BYTES
cdef long long _MAX_RUNNER_BYTES = MAX_RUNNER_BYTES
cdef long long _ENTRY_BYTES = ENTRY_BYTES
cdef long long _TRACE_BYTES = TRACE_BYTES

include "table.pxi"
include "taking.pxi"
include "building.pxi"
include "tallying.pxi"


cdef object _seen(object records, records_view *view):
    """Return records in one piece, and look into them. TypeError, ValueError: one of them is none."""
    records = batch(records)
    _records.look(records, view)
    return records


cdef inline list _ids(const records_view *view):
    return <list>view.ids


cdef inline bytes _payload(const records_view *view, Py_ssize_t at):
    return PyBytes_FromStringAndSize(records_payload(view, at), records_header(view, at).length)


cdef inline Py_ssize_t _next_run(const records_view *view, Py_ssize_t at) noexcept:
    """Return where the next records stand that are of another trace than this one, or the end."""
    cdef size_t run = view.places[at].run
    while at < view.count and view.places[at].run == run:
        at += 1
    return at


def strays(records not None, OpenTraces traces not None):
    """Return the traces, beside the open ones, of which a record stands before their OPEN, or without one.

    TypeError: one is no record.
    """
    cdef records_view view
    cdef object kept = _seen(records, &view), of
    cdef list ids = _ids(&view)
    cdef PyObject *trace
    cdef bint are_many = len(traces) >= MANY_TRACES
    cdef set opened = {NO_TRACE}, found = set()
    cdef Py_ssize_t at = 0
    if are_many:
        for of in ids:
            traces._fetch_place(of)
    while at < view.count:
        of = ids[view.places[at].run]
        # Not touched, only fetched: `unmasked` is the first that needs it.
        trace = traces._trace(of)
        if trace is not NULL:
            if are_many:
                _fetch(trace, TRACE_LINES)
        elif of not in opened:
            if records_header(&view, at).kind == _OPEN:
                opened.add(of)
            else:
                found.add(of)
        # Of neighbours only the first can stand before the OPEN and not be known by then.
        at = _next_run(&view, at)
    return found


def fetch(records not None, OpenTraces traces not None):
    """Have the processor fetch what `take` will touch of open traces, if they are too many to be in its caches.

    All at once, and not each when it is waited for. TypeError: one is no record.
    """
    cdef records_view view
    cdef object kept, of
    if len(traces) < MANY_TRACES:
        return
    kept = _seen(records, &view)
    for of in _ids(&view):
        traces._fetch_all(of)


def unmasked(records not None, Py_ssize_t at, object masks not None):
    """Return where, from `at` on, a record stands that masking may change, or the end. Learns the masks of OPENs.

    One whose mask raises is such a record: the caller asks again, and knows then which it was. TypeError: one is none.
    """
    cdef records_view view
    cdef object kept = _seen(records, &view), of, mask
    cdef list ids = _ids(&view)
    cdef OpenTraces traces = masks.traces
    cdef Py_ssize_t end
    while 0 <= at < view.count:
        of = ids[view.places[at].run]
        end = _next_run(&view, at)
        mask = _mask_of(masks, traces, of)
        while at < end:
            kind = records_header(&view, at).kind
            if kind == _OPEN:
                if not _passes(masks, of, &view, at):
                    return at
                mask = _mask_of(masks, traces, of)
            # What is searched holds names as events do: a label is another form.
            elif mask is not None and kind != _CLOSE and (kind == _LABEL or not _keeps(mask, _payload(&view, at))):
                return at
            at += 1
    return at


cdef bint _keeps(object mask, object payload) except -1:
    """Say whether a mask changes nothing in a payload; False if it raises."""
    try:
        return not mask.may_change(payload)
    except Exception:
        return False


cdef object _mask_of(object masks, OpenTraces traces, object trace_id):
    """Masks.of."""
    cdef PyObject *trace = traces._trace(trace_id)
    return masks.get(trace_id) if trace is NULL else (<object>trace).terms.mask


cdef bint _passes(object masks, object trace_id, const records_view *view, Py_ssize_t number) except -1:
    """Masks.passes."""
    cdef const char *opened = records_payload(view, number)
    cdef Py_ssize_t size = records_header(view, number).length, at = 0
    try:
        start = _start(opened, size, &at)
        if start is None:
            return False
        if _find(opened + at, size - at, _CONFIG) >= 0 or _find(opened + at, size - at, _ESCAPE) >= 0:
            return False
        mask = <object>PyTuple_GetItem(start, 1)
        # Whether it hides anything.
        if <object>PyTuple_GetItem(start, 2):
            if mask.may_change(PyBytes_FromStringAndSize(opened + at, size - at)):
                return False
            if not masks.knows(trace_id):
                masks[trace_id] = mask
        return True
    except Exception:
        return False


cdef object _start(const char *opened, Py_ssize_t size, Py_ssize_t *at):
    """Return what stands in an OPEN before its runner, and where that begins; None: it is not as producers write it."""
    global _neighbour, _neighbours_start
    cdef Py_ssize_t known = PyBytes_Size(_neighbour)
    # Neighbours are nearly always of one process and config: then nothing is searched, copied or hashed. The mark ends
    # what is compared, and no two of it overlap, so it is also the first one here.
    if known and known <= size and memcmp(opened, PyBytes_AsString(_neighbour), known) == 0:
        at[0] = known - PyBytes_Size(_BEFORE_RUNNER)
        return _neighbours_start
    at[0] = _find(opened, size, _BEFORE_RUNNER)
    start = None if at[0] <= 0 else start_of(PyBytes_FromStringAndSize(opened, at[0]))
    if start is not None:
        _neighbour = PyBytes_FromStringAndSize(opened, at[0] + PyBytes_Size(_BEFORE_RUNNER))
        _neighbours_start = start
    return start


cdef Py_ssize_t _find(const char *where, Py_ssize_t size, bytes what) except -2:
    cdef const char *found = <const char *>memmem(where, size, PyBytes_AsString(what), PyBytes_Size(what))
    return found - where if found is not NULL else -1
