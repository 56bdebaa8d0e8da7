# cython: language_level=3, binding=False
"""The fast path from a complete event, or any exact value, to its JSON, compiled. fast_path.py and plain.py do the same.

What is looked at and what is written must be the same: no Python code may run in between, and none while orjson writes.
So only exact types pass here; looking at them and orjson's call are one step, in which no other thread gets the GIL.
"""

from cpython.bytes cimport PyBytes_Size
from cpython.object cimport PyObject

import orjson

from epsagon_fast.producer.entering import parent_of as _parent_of
from epsagon_fast.protocol import EVENT_FIELDS, Kind, RESOURCE_FIELDS, RUNNER_ORIGIN
from epsagon_fast.queue.layout import FULL, FULLS_PER_LOOK, NOT_ASKED, PUSHED

cdef extern from "Python.h":
    int PyDict_Next(PyObject *, Py_ssize_t *, PyObject **, PyObject **) noexcept
    Py_ssize_t PyDict_Size(PyObject *) noexcept
    int PyDict_CheckExact(PyObject *) noexcept
    int PyUnicode_CheckExact(PyObject *) noexcept
    Py_ssize_t PyUnicode_GetLength(PyObject *) noexcept
    int PyUnicode_Compare(PyObject *, PyObject *) noexcept
    int PyFloat_CheckExact(PyObject *) noexcept
    double PyFloat_AsDouble(PyObject *) noexcept
    int PyLong_CheckExact(PyObject *) noexcept
    int PyBool_Check(PyObject *) noexcept
    int PyList_CheckExact(PyObject *) noexcept
    Py_ssize_t PyList_Size(PyObject *) noexcept
    PyObject *PyList_GetItem(PyObject *, Py_ssize_t) noexcept
    long long PyLong_AsLongLongAndOverflow(PyObject *, int *) noexcept

cdef extern from "math.h":
    bint isfinite(double) noexcept

cdef extern from "call.h":
    object call_or_none(object, object)
    object call_of_four(object, object, object, object, object)
    object call_of_one(object, object)
    object call_method_of_three(object, object, object, object, object)
    object json_with_parent(object, object)
    ctypedef struct PyTypeObject
    int quicken_add_event(PyTypeObject *, const char *, object (*)(object, object)) except -1

cdef enum Form:
    TEXT, NUMBER, INTEGER, NOTHING, RESOURCE, METADATA, ORIGIN

cdef struct Field:
    PyObject *name
    Form form

# Longer lists take the slow path, which counts what it leaves out of them.
cdef enum:
    MOST_IN_A_LIST = 100, MOST_CHARACTERS = 4096

# How many more there may be.
cdef struct Room:
    Py_ssize_t values, characters

cdef Field[7] event_fields
cdef Field[4] resource_fields
# They own what the tables above point to.
cdef tuple event_names = EVENT_FIELDS, resource_names = RESOURCE_FIELDS
cdef object parent_of = _parent_of
cdef object runner_origin = RUNNER_ORIGIN, dumps = orjson.dumps, add_slowly = "_add_slowly"
cdef unsigned int fulls_per_look = FULLS_PER_LOOK
# Made once: CPython has one object for each small int, so an answer can be told by its identity.
cdef object pushed = PUSHED, full = FULL, not_asked = NOT_ASKED, event_kind = int(Kind.EVENT), no_flags = 0

# The tables say what may stand under each name, in the order of the names.
if event_names != ("id", "start_time", "resource", "origin", "duration", "error_code", "exception"):
    raise ImportError("protocol.py and _fast_path.pyx do not agree")
if resource_names != ("name", "type", "operation", "metadata"):
    raise ImportError("protocol.py and _fast_path.pyx do not agree")
for _number, _form in enumerate((TEXT, NUMBER, RESOURCE, ORIGIN, NUMBER, INTEGER, NOTHING)):
    event_fields[_number] = Field(<PyObject *>event_names[_number], _form)
for _number, _form in enumerate((TEXT, TEXT, TEXT, METADATA)):
    resource_fields[_number] = Field(<PyObject *>resource_names[_number], _form)


cdef class FastPath:
    """See fast_path.PureFastPath."""

    cdef object push, trace_id
    cdef public bint has_blocks, ignores
    cdef public object within_id, owner_pid, span_id
    cdef Py_ssize_t limit_bytes
    cdef unsigned int fulls
    cdef bint typed

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
        self.trace_id = trace_id
        self.limit_bytes = limit_bytes
        self.typed = typed
        self.push = push

    def _close_path(self):
        """See fast_path.PureFastPath."""
        self.push = None

    def _add_slowly(self, event, code, parent_id):
        """See fast_path.PureFastPath."""
        raise NotImplementedError


cdef object _add_event(object tracer, object event):
    return _add_event_under(tracer, event, call_of_one(parent_of, tracer) if (<FastPath>tracer).has_blocks else None)


cdef object _add_event_under(object tracer, object event, object parent_id):
    cdef FastPath path = <FastPath>tracer
    # Another thread may close the path while orjson works.
    push = path.push
    if push is None:
        return call_method_of_three(tracer, add_slowly, event, not_asked, parent_id)
    given = event
    if not _has_fields(<PyObject *>event, event_fields, 7, path.typed):
        event = _with_texts(event, path.typed)
        if not _has_fields(<PyObject *>event, event_fields, 7, path.typed):
            return call_method_of_three(tracer, add_slowly, given, not_asked, parent_id)
    payload = call_or_none(dumps, event)
    if payload is not None and parent_id is not None:
        payload = json_with_parent(payload, parent_id)
    if payload is None or PyBytes_Size(payload) > path.limit_bytes:
        return call_method_of_three(tracer, add_slowly, given, not_asked, parent_id)
    code = call_of_four(push, event_kind, no_flags, path.trace_id, payload)
    if code is pushed:
        return None
    if code is full:
        path.fulls += 1
        if path.fulls % fulls_per_look != 1:
            return None
    return call_method_of_three(tracer, add_slowly, given, code, parent_id)


cdef object _with_texts(object event, bint typed):
    """Return a copy of an event whose metadata can be written; the event itself if they are, or cannot be made so."""
    if not PyDict_CheckExact(<PyObject *>event):
        return event
    resource = (<dict>event).get("resource")
    if not PyDict_CheckExact(<PyObject *>resource):
        return event
    metadata = (<dict>resource).get("metadata")
    if not PyDict_CheckExact(<PyObject *>metadata) or _holds_texts(<PyObject *>metadata):
        return event
    # Copies, because making texts may run the garbage collector, and with it anything.
    whole, inner, texts = (<dict>event).copy(), (<dict>resource).copy(), (<dict>metadata).copy()
    if not _become_texts(texts, typed):
        return event
    inner["metadata"] = texts
    whole["resource"] = inner
    return whole


cdef bint _become_texts(dict values, bint typed) except -1:
    """Put in place of each number, bool, None or list of such its JSON. False: there is something else.

    `typed`: but not if it keeps its type.
    """
    cdef Py_ssize_t place = 0
    cdef PyObject *key
    cdef PyObject *value
    cdef Room room
    while PyDict_Next(<PyObject *>values, &place, &key, &value):
        if PyUnicode_CheckExact(value) or (typed and _keeps_type(value)):
            continue
        room = Room(MOST_IN_A_LIST, MOST_CHARACTERS)
        if not PyUnicode_CheckExact(key) or PyDict_CheckExact(value) or not _is_exact(value, &room, 1):
            return False
        json = call_or_none(dumps, <object>value)
        if json is None:
            return False
        # The key is there, so the dict keeps its order and its size.
        values[<object>key] = (<bytes>json).decode("utf-8")
    return True


def exact_json(value, Py_ssize_t most_values, Py_ssize_t most_characters, int most_levels):
    """Return the JSON of exact dicts, lists and scalars; None if `value` is anything else, more, deeper, or no UTF-8."""
    cdef Room room = Room(most_values, most_characters)
    return call_or_none(dumps, value) if _is_exact(<PyObject *>value, &room, most_levels) else None


cdef bytes _doc = FastPath.add_event.__doc__.encode()
quicken_add_event(<PyTypeObject *>FastPath, _doc, _add_event)


# The references below are borrowed. Nothing here runs Python code (only exact types are looked at), so no other
# thread can change a dict or take away what it holds meanwhile.
cdef bint _has_fields(PyObject *source, const Field *fields, Py_ssize_t count, bint typed) noexcept:
    cdef Py_ssize_t place = 0
    cdef PyObject *key
    cdef PyObject *value
    # With as many members as fields, the loop cannot run past the table.
    if not PyDict_CheckExact(source) or PyDict_Size(source) != count:
        return False
    while PyDict_Next(source, &place, &key, &value):
        # Names in programs are interned, so they nearly always are the very same object.
        if key != fields.name and not _equal(key, fields.name):
            return False
        if not _has_form(value, fields.form, typed):
            return False
        fields += 1
    return True


cdef bint _has_form(PyObject *value, Form form, bint typed) noexcept:
    if form == TEXT:
        return PyUnicode_CheckExact(value)
    if form == NUMBER:
        return PyFloat_CheckExact(value) or PyLong_CheckExact(value)
    if form == INTEGER:
        return PyLong_CheckExact(value) and _is_32_bits(value)
    if form == NOTHING:
        return value == <PyObject *>None
    if form == ORIGIN:
        return PyUnicode_CheckExact(value) and not _equal(value, <PyObject *>runner_origin)
    if form == METADATA:
        return _holds_texts(value) or (typed and _keep_types(value))
    return _has_fields(value, resource_fields, 4, typed)


cdef bint _is_32_bits(PyObject *value) noexcept:
    cdef int overflow
    cdef long long number = PyLong_AsLongLongAndOverflow(value, &overflow)
    return not overflow and -0x80000000 <= number <= 0x7fffffff


cdef bint _holds_texts(PyObject *source) noexcept:
    cdef Py_ssize_t place = 0
    cdef PyObject *value
    if not PyDict_CheckExact(source):
        return False
    while PyDict_Next(source, &place, NULL, &value):
        if not PyUnicode_CheckExact(value):
            return False
    return True


cdef bint _keep_types(PyObject *source) noexcept:
    cdef Py_ssize_t place = 0
    cdef PyObject *value
    if not PyDict_CheckExact(source):
        return False
    while PyDict_Next(source, &place, NULL, &value):
        if not PyUnicode_CheckExact(value) and not _keeps_type(value):
            return False
    return True


cdef bint _keeps_type(PyObject *value) noexcept:
    """See plain.keeps_type. A list may change after the look only if other code runs, and none does."""
    cdef Py_ssize_t place = 0
    cdef PyObject *inner
    cdef Room room = Room(MOST_IN_A_LIST, MOST_CHARACTERS)
    if not PyList_CheckExact(value):
        return _is_typed_scalar(value)
    if PyList_Size(value) > MOST_IN_A_LIST:
        return False
    while place < PyList_Size(value):
        inner = PyList_GetItem(value, place)
        if not _is_typed_scalar(inner) or (PyUnicode_CheckExact(inner) and not _has_room(inner, &room)):
            return False
        place += 1
    return True


cdef bint _is_typed_scalar(PyObject *value) noexcept:
    cdef int overflow
    if PyUnicode_CheckExact(value) or PyBool_Check(value):
        return True
    if PyFloat_CheckExact(value):
        return isfinite(PyFloat_AsDouble(value))
    if PyLong_CheckExact(value):
        PyLong_AsLongLongAndOverflow(value, &overflow)
        return overflow == 0
    return False


cdef bint _equal(PyObject *one, PyObject *other) noexcept:
    # Both exact, so comparing cannot fail.
    return PyUnicode_CheckExact(one) and PyUnicode_Compare(one, other) == 0


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


include "event.pxi"
