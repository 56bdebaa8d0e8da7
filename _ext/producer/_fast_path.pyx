# cython: language_level=3, binding=False
"""The fast path from a complete event, or any exact value, to its JSON, compiled. fast_path.py and plain.py do the same.

What is looked at and what is written must be the same: no Python code may run in between, and none while orjson writes.
So only exact types pass here; looking at them and orjson's call are one step, in which no other thread gets the GIL.
"""

from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize, PyBytes_Size
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from libc.stdint cimport int32_t, int64_t, uint64_t

import orjson

from epsagon_fast.producer.entering import parent_of as _parent_of
from epsagon_fast.protocol import EVENT_FIELDS, Kind, RESOURCE_FIELDS, RUNNER_ORIGIN
from epsagon_fast.protocol import NANOSECONDS_FROM as _nanoseconds_from, TRACE_ID_BYTES as _TRACE_ID_BYTES
from epsagon_fast.queue.layout import FULL, FULLS_PER_LOOK, NOT_ASKED, PUSHED

cdef extern from "Python.h":
    int PyDict_Next(PyObject *, Py_ssize_t *, PyObject **, PyObject **) noexcept
    Py_ssize_t PyDict_Size(PyObject *) noexcept
    int PyDict_CheckExact(PyObject *) noexcept
    int PyUnicode_CheckExact(PyObject *) noexcept
    Py_ssize_t PyUnicode_GetLength(PyObject *) noexcept
    int PyUnicode_Compare(PyObject *, PyObject *) noexcept
    int PyFloat_CheckExact(PyObject *) noexcept
    int PyLong_CheckExact(PyObject *) noexcept
    int PyBool_Check(PyObject *) noexcept
    int PyList_CheckExact(PyObject *) noexcept
    Py_ssize_t PyList_Size(PyObject *) noexcept
    PyObject *PyList_GetItem(PyObject *, Py_ssize_t) noexcept
    long long PyLong_AsLongLongAndOverflow(PyObject *, int *) noexcept

cdef extern from "call.h":
    object call_or_none(object, object)
    object call_of_four(object, object, object, object, object)
    object call_of_one(object, object)
    object call_method_of_three(object, object, object, object, object)
    ctypedef struct PyTypeObject
    int quicken_add_event(PyTypeObject *, const char *, object (*)(object, object)) except -1

cdef extern from "json.h":
    char *json_buffer
    ctypedef struct span_id_value:
        uint64_t number
        PyObject *text
    ctypedef struct timed_event:
        span_id_value id
        span_id_value parent_id
        PyObject *name
        PyObject *type
        PyObject *operation
        PyObject *metadata
        PyObject *origin
        PyObject *error_code
        int64_t started_ns, took_ns
    enum: SPAN_ID_DIGITS
    char *put_hex(char *, uint64_t) noexcept
    PyObject *usual_origin
    PyObject *usual_code
    const char *USUAL_ORIGIN
    size_t put_timed_event(const timed_event *, bint) noexcept
    size_t put_ready_event(PyObject *, PyObject *, PyObject *, span_id_value, bint) noexcept
    size_t put_label(PyObject *, PyObject *) noexcept
    size_t put_runner(const timed_event *, bint) noexcept
    enum: OPENED_AT_BYTES
    char *put_opened_at(char *, int64_t) noexcept
    PyObject *json_dumps
    const char *RUNNER
    const long long NANOSECONDS_FROM

cdef extern from "../queue/calls.h":
    const char *RING_CALLS
    ctypedef struct ring_calls:
        int (*append)(object, int, int, const char *, const char *, uint64_t) noexcept
        int (*open)(object, uint64_t, const char *, const char *, uint64_t) noexcept
        int (*has_left)(object) noexcept
        int (*has_news)(object) noexcept
        int (*light)(object, const char *) noexcept
        void (*put_out)(object, int, const char *) noexcept

# How many more there may be.
cdef struct Room:
    Py_ssize_t values, characters

cdef tuple event_names = EVENT_FIELDS, resource_names = RESOURCE_FIELDS
cdef object parent_of = _parent_of
cdef object dumps = orjson.dumps, add_slowly = "_add_slowly"
cdef unsigned int fulls_per_look = FULLS_PER_LOOK
# Made once: CPython has one object for each small int, so an answer can be told by its identity.
cdef Py_ssize_t TRACE_ID_BYTES = _TRACE_ID_BYTES
cdef int PUSHED_CODE = PUSHED, FULL_CODE = FULL, EVENT_KIND = int(Kind.EVENT)
cdef int NOT_ASKED_CODE = NOT_ASKED
cdef object event_kind = int(Kind.EVENT), no_flags = 0

json_dumps = <PyObject *>dumps

# json.h has the names in this order.
if event_names != ("id", "start_time", "resource", "origin", "duration", "error_code", "exception"):
    raise ImportError("protocol.py and _fast_path.pyx do not agree")
if resource_names != ("name", "type", "operation", "metadata"):
    raise ImportError("protocol.py and _fast_path.pyx do not agree")
if RUNNER_ORIGIN.encode() != RUNNER or _nanoseconds_from != NANOSECONDS_FROM:
    raise ImportError("protocol.py and _fast_path.pyx do not agree")


cdef class FastPath:
    """See fast_path.PureFastPath."""

    cdef object push
    # The ring and its calls in C, if what is pushed may go straight there.
    cdef object producer
    cdef ring_calls *ring
    cdef Py_ssize_t limit_bytes
    cdef unsigned int fulls
    cdef public bint has_blocks, ignores, keeps_values, typed
    cdef public object within_id, owner_pid, trace_id, span_id, config, context, ids
    # What recorder.py and tracer.py know of the trace. They explain it.
    cdef public bint _is_measured
    cdef public int64_t _opened_ns
    cdef public Py_ssize_t _event_limit_bytes
    cdef public object _id, _state, _writer, _push, _count, _error_code, _runner, _own_runner, _place, _ended_ns
    cdef public object _beacons
    cdef public int _beacon

    def add_event(self, event):
        """Add an event as it is now; later changes of `event` have no effect.

        Missing fields get the protobuf defaults; a field of a wrong type gets its default and is counted `malformed`.
        """
        return _add_event(self, event)

    def add_event_under(self, event, parent_id):
        """Add an event whose parent is known. `parent_id`: 16 hex digits; None: the runner."""
        return _add_event_under(self, event, parent_id)

    def __reduce__(self):
        """See fast_path.PureFastPath."""
        raise TypeError("this cannot be copied: it leads into the ring of one process")

    def _open_path(self, push, bytes trace_id, Py_ssize_t limit_bytes, bint typed):
        """See fast_path.PureFastPath."""
        self._id = trace_id
        self.limit_bytes = limit_bytes
        self.typed = typed
        self.producer = None
        self.ring = _ring_of(push)
        if self.ring != NULL and PyBytes_Size(trace_id) == TRACE_ID_BYTES:
            self.producer = push.__self__
        self.push = push

    def _close_path(self):
        """See fast_path.PureFastPath."""
        self.push = self.producer = None

    def _open_at_once(self):
        """See fast_path.PureFastPath."""
        return _open_at_once(self)

    def _close_at_once(self, news=b""):
        """See fast_path.PureFastPath."""
        if not news:
            return _close_at_once(self, call_of_none(&own_pid), NULL, 0)
        # Of its own, with room for the CLOSE.
        ending = news + some_closing
        return _close_at_once(self, call_of_none(&own_pid), PyBytes_AsString(ending), PyBytes_Size(ending))

    def _add_slowly(self, event, code, parent_id):
        """See fast_path.PureFastPath."""
        raise NotImplementedError


cdef ring_calls *_ring_of(object push) except? NULL:
    """Return the calls in C of the ring that a push goes into, NULL if it has none."""
    calls = getattr(getattr(push, "__self__", None), "calls", None)
    return <ring_calls *>PyCapsule_GetPointer(calls, RING_CALLS) if PyCapsule_IsValid(calls, RING_CALLS) else NULL


cdef object _add_event(object tracer, object event):
    cdef uint64_t number = 0
    parent_id = None
    if (<FastPath>tracer).has_blocks:
        here = call_fast_of_none(&current_get)
        if _quick(here, call_of_none(&own_pid)) is tracer:
            parent_id = _parent_at(here, <FastPath>tracer, &number)
        else:
            parent_id = call_of_one(parent_of, tracer)
    return _add_below(tracer, event, number, parent_id)


cdef object _add_event_under(object tracer, object event, object parent_id):
    return _add_below(tracer, event, 0, parent_id)


cdef object _add_below(object tracer, object event, uint64_t parent_number, object parent_id):
    """Add an event below the parent with a number or, if that is 0, with a text; None: the runner."""
    cdef FastPath path = <FastPath>tracer
    cdef span_id_value parent
    cdef size_t length
    cdef int code = NOT_ASKED_CODE
    push = path.push
    if push is not None:
        parent.number, parent.text = parent_number, <PyObject *>parent_id
        length = put_ready_event(
            <PyObject *>event, <PyObject *>event_names, <PyObject *>resource_names, parent, path.typed
        )
        if 0 < length <= <size_t>path.limit_bytes:
            code = _pushed(path, push, EVENT_KIND, event_kind, length)
            if code == PUSHED_CODE or _is_one_of_many(path, code == FULL_CODE):
                return None
    if parent_number and parent_id is None:
        parent_id = _id_text(parent_number)
    return call_method_of_three(tracer, add_slowly, event, code, parent_id)


cdef bint _is_one_of_many(FastPath path, bint is_full) noexcept:
    """Count a refusal. Say whether it is one of those that are not looked at."""
    if is_full:
        path.fulls += 1
        return path.fulls % fulls_per_look != 1
    return False


cdef int _pushed(FastPath path, object push, int kind, object kind_object, size_t length) except? -1:
    """Push the record that stands in json_buffer. Return the answer."""
    if path.producer is not None:
        return path.ring.append(path.producer, kind, 0, PyBytes_AsString(path._id), json_buffer, length)
    payload = PyBytes_FromStringAndSize(json_buffer, length)
    return call_of_four(push, kind_object, no_flags, path._id, payload)


def exact_json(value, Py_ssize_t most_values, Py_ssize_t most_characters, int most_levels):
    """Return the JSON of exact dicts, lists and scalars; None if `value` is anything else, more, deeper, or no UTF-8."""
    cdef Room room = Room(most_values, most_characters)
    return call_or_none(dumps, value) if _is_exact(<PyObject *>value, &room, most_levels) else None


cdef bytes _doc = FastPath.add_event.__doc__.encode()
quicken_add_event(<PyTypeObject *>FastPath, _doc, _add_event)


# The references below are borrowed. Nothing here runs Python code (only exact types are looked at), so no other
# thread can change a dict or take away what it holds meanwhile.
cdef bint _is_exact(PyObject *value, Room *room, int levels) noexcept:
    cdef Py_ssize_t place = 0
    cdef PyObject *key
    cdef PyObject *inner
    if PyUnicode_CheckExact(value):
        return _has_room(value, room)
    if PyLong_CheckExact(value) or PyFloat_CheckExact(value) or PyBool_Check(value) or value == <PyObject *>None:
        return True
    if levels == 0:
        return False
    if PyDict_CheckExact(value):
        room.values -= PyDict_Size(value)
        while room.values >= 0 and PyDict_Next(value, &place, &key, &inner):
            if not PyUnicode_CheckExact(key) or not _has_room(key, room) or not _is_exact(inner, room, levels - 1):
                return False
        return room.values >= 0
    if PyList_CheckExact(value):
        room.values -= PyList_Size(value)
        while room.values >= 0 and place < PyList_Size(value):
            if not _is_exact(PyList_GetItem(value, place), room, levels - 1):
                return False
            place += 1
        return room.values >= 0
    return False


cdef bint _has_room(PyObject *text, Room *room) noexcept:
    room.characters -= PyUnicode_GetLength(text)
    return room.characters >= 0


include "process.pxi"
include "event.pxi"
include "block.pxi"
include "acting.pxi"
include "runner.pxi"
include "trace.pxi"
include "wsgi.pxi"
include "wsgi_bodies.pxi"
include "asgi.pxi"
