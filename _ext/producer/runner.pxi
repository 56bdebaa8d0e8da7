# Part of _fast_path.pyx: the JSON of a runner, and of the OPEN that brings it. runner.py and opening.py do the same.

from libc.string cimport memcpy

cdef extern from "clock.h":
    int64_t now_ns() noexcept


cdef object _runner_json(object nothing, PyObject **arguments, Py_ssize_t count):
    cdef timed_event fields
    cdef int overflow = 0
    cdef size_t length
    if count != 4:
        raise TypeError(f"runner_json takes 4 arguments, not {count}")
    name, type, operation, metadata, start_ns = <tuple>(<object>arguments[0])
    fields.id.number, fields.id.text = 0, arguments[1]
    fields.parent_id.number, fields.parent_id.text = 0, arguments[2]
    fields.name, fields.type = <PyObject *>name, <PyObject *>type
    fields.operation, fields.metadata = <PyObject *>operation, <PyObject *>metadata
    if PyLong_CheckExact(<PyObject *>start_ns):
        fields.started_ns = PyLong_AsLongLongAndOverflow(<PyObject *>start_ns, &overflow)
        length = 0 if overflow else put_runner(&fields, <object>arguments[3] is True)
        if length:
            return PyBytes_FromStringAndSize(json_buffer, length)
    return None


cdef PyMethodDef _runner_json_method
_runner_json_method.ml_name, _runner_json_method.ml_doc = "runner_json", NULL
runner_json = function_of_few(&_runner_json_method, None, _runner_json)


def opening_json(bytes begun, bytes runner):
    """See opening.pure_opening_json."""
    cdef size_t begun_length = PyBytes_Size(begun), runner_length = PyBytes_Size(runner)
    cdef char[OPENED_AT_BYTES] opened_at
    cdef size_t end_length = <size_t>(put_opened_at(opened_at, now_ns()) - opened_at)
    cdef bytes opened = PyBytes_FromStringAndSize(NULL, begun_length + runner_length + end_length)
    cdef char *at = PyBytes_AsString(opened)
    memcpy(at, PyBytes_AsString(begun), begun_length)
    memcpy(at + begun_length, PyBytes_AsString(runner), runner_length)
    memcpy(at + begun_length + runner_length, opened_at, end_length)
    return opened
