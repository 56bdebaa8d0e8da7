# cython: language_level=3
"""Passes over records that need nothing done, and takes the usual ones into their traces.

The plain Python that does the same, one record at a time: `events.py`, and Assembly.feed for OPEN and CLOSE.
"""

from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize, PyBytes_Size
from cpython.dict cimport PyDict_Copy, PyDict_GetItemWithError
from cpython.float cimport PyFloat_CheckExact
from cpython.long cimport PyLong_AsLong
from cpython.object cimport PyTypeObject
from cpython.ref cimport PyObject
from cpython.tuple cimport PyTuple_Check, PyTuple_Size
from libc.string cimport memcmp, memcpy

from orjson import dumps, loads

from epsagon_fast.collector.assembling.accounts import TRACE_BYTES, Account
from epsagon_fast.collector.assembling.open_trace import MAX_RUNNER_BYTES, OpenTrace
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
    Record,
)

cdef extern from "Python.h":
    PyObject *PyTuple_GetItem(object, Py_ssize_t) except NULL
    const char *PyUnicode_AsUTF8AndSize(object, Py_ssize_t *) except NULL
    # What object.__new__ does, without arguments to be looked at.
    object PyType_GenericAlloc(PyTypeObject *, Py_ssize_t)

cdef extern from *:
    void __builtin_prefetch(const void *) noexcept

cdef extern from "<math.h>":
    long long llrint(double) noexcept

cdef extern from "<string.h>":
    void *memmem(const void *, size_t, const void *, size_t) noexcept

if Record._fields != ("kind", "flags", "ordinal", "trace_id", "payload"):
    raise ImportError("built for records with other fields")

DEF FIELDS = 5
# From so many open traces on they are in no cache of a processor: one has a kilobyte.
DEF MANY_TRACES = 4096
# Cache lines of an OpenTrace and of a Stream.
DEF TRACE_LINES = 3
DEF STREAM_LINES = 2
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
cdef object unpack_close = CLOSE_PAYLOAD.unpack
cdef str _LABELS_KEY = LABELS_KEY
cdef long long _LABEL_NUMBER_BYTES = LABEL_NUMBER_BYTES
cdef long long _MAX_LABELS_BYTES = MAX_LABELS_BYTES
cdef long long _MAX_RUNNER_BYTES = MAX_RUNNER_BYTES
cdef long long _ENTRY_BYTES = ENTRY_BYTES
cdef long long _TRACE_BYTES = TRACE_BYTES

include "taking.pxi"
include "building.pxi"
include "tallying.pxi"


cdef inline object _trace_id_of(object record):
    """Return a record's trace id. TypeError: it is no record."""
    if not PyTuple_Check(record) or PyTuple_Size(record) != FIELDS:
        raise TypeError("not a record")
    return <object>PyTuple_GetItem(record, 3)


def strays(list records not None, dict traces not None):
    """Return the traces, beside the open ones, of which a record stands before their OPEN, or without one.

    TypeError: one is no record.
    """
    cdef object of, record, trace_id = None
    cdef PyObject *trace
    cdef bint are_many = len(traces) >= MANY_TRACES
    cdef set opened = {NO_TRACE}, found = set()
    for record in records:
        of = _trace_id_of(record)
        if of is trace_id:
            continue
        trace_id = of
        # Not touched, only fetched: `unmasked` is the first that needs it.
        trace = PyDict_GetItemWithError(traces, of)
        if trace is not NULL:
            if are_many:
                _fetch(trace, TRACE_LINES)
            continue
        if of in opened:
            continue
        if PyLong_AsLong(<object>PyTuple_GetItem(record, 0)) == _OPEN:
            opened.add(of)
        else:
            found.add(of)
    return found


def fetch(list records not None, dict traces not None):
    """Have the processor fetch what `take` will touch of open traces, if they are too many to be in its caches.

    All at once, and not each when it is waited for; `strays` has done it for the traces. TypeError: one is no record.
    """
    cdef object of, record, trace_id = None, trace
    cdef list streams = []
    if len(traces) < MANY_TRACES:
        return
    for record in records:
        of = _trace_id_of(record)
        if of is trace_id:
            continue
        trace_id, trace = of, traces.get(of)
        if trace is not None:
            stream = trace.stream
            _fetch(<PyObject *>stream, STREAM_LINES)
            streams.append(stream)
    for stream in streams:
        _fetch(<PyObject *>stream.events, 1)
        _fetch(<PyObject *>stream.floor_bytes, 1)


cdef void _fetch(PyObject *what, int lines) noexcept:
    cdef int line
    for line in range(lines):
        __builtin_prefetch(<char *>what + 64 * line)


def unmasked(list records not None, Py_ssize_t at, object masks not None):
    """Return where, from `at` on, a record stands that masking may change, or the end. Learns the masks of OPENs.

    One whose mask raises is such a record: the caller asks again, and knows then which it was. TypeError: one is none.
    """
    cdef object of, record, trace_id = None, mask = None
    cdef dict traces = masks.traces
    cdef long kind
    cdef object payload
    while 0 <= at < len(records):
        record = records[at]
        of = _trace_id_of(record)
        kind = PyLong_AsLong(<object>PyTuple_GetItem(record, 0))
        # Neighbours of one trace have the same object.
        if of is not trace_id:
            trace_id, mask = of, _mask_of(masks, traces, of)
        payload = <object>PyTuple_GetItem(record, 4)
        if kind == _OPEN:
            if not _does(_passes, masks, of, payload):
                break
            mask = _mask_of(masks, traces, of)
        elif mask is not None and kind != _CLOSE:
            # What is searched holds names as events do: a label is another form.
            if kind == _LABEL or not _does(_keeps, mask, of, payload):
                break
        at += 1
    return at


cdef bint _keeps(object mask, object trace_id, object payload) except -1:
    """Say whether a mask changes nothing in a payload."""
    return not mask.may_change(payload)


cdef bint _does(bint (*says)(object, object, object) except -1, object mask, object trace_id, object payload):
    """Return what is said of a record; False if that raises."""
    try:
        return says(mask, trace_id, payload)
    except Exception:
        return False


cdef object _mask_of(object masks, dict traces, object trace_id):
    """Masks.of."""
    cdef object trace = traces.get(trace_id)
    return masks.get(trace_id) if trace is None else trace.terms.mask


cdef bint _passes(object masks, object trace_id, object opened) except -1:
    """Masks.passes."""
    cdef Py_ssize_t at = 0
    cdef object start = _start(opened, &at)
    cdef bytes rest
    if start is None:
        return False
    rest = opened[at:]
    if _find(rest, _CONFIG) >= 0 or _find(rest, _ESCAPE) >= 0:
        return False
    mask = <object>PyTuple_GetItem(start, 1)
    # Whether it hides anything.
    if <object>PyTuple_GetItem(start, 2):
        if mask.may_change(rest):
            return False
        if not masks.knows(trace_id):
            masks[trace_id] = mask
    return True


cdef object _start(object opened, Py_ssize_t *at):
    """Return what stands in an OPEN before its runner, and where that begins; None: it is not as producers write it."""
    global _neighbour, _neighbours_start
    cdef Py_ssize_t size = PyBytes_Size(_neighbour)
    # Neighbours are nearly always of one process and config: then nothing is searched, copied or hashed. The mark ends
    # what is compared, and no two of it overlap, so it is also the first one here.
    if size and size <= PyBytes_Size(opened):
        if memcmp(PyBytes_AsString(opened), PyBytes_AsString(_neighbour), size) == 0:
            at[0] = size - PyBytes_Size(_BEFORE_RUNNER)
            return _neighbours_start
    at[0] = _find(opened, _BEFORE_RUNNER)
    start = None if at[0] <= 0 else start_of(opened[: at[0]])
    if start is not None:
        _neighbour, _neighbours_start = opened[: at[0] + PyBytes_Size(_BEFORE_RUNNER)], start
    return start


cdef Py_ssize_t _find(object where, object what) except -2:
    cdef const char *begin = PyBytes_AsString(where)
    cdef const char *found = <const char *>memmem(begin, PyBytes_Size(where), PyBytes_AsString(what), PyBytes_Size(what))
    return found - begin if found is not NULL else -1
