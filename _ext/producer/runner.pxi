# Part of _fast_path.pyx: the JSON of a runner, and of the OPEN that brings it. runner.py and opening.py do the same.

from libc.string cimport memcpy

cdef extern from "clock.h":
    int64_t now_ns() noexcept


cdef bytes _runner_bytes(tuple runner, object trace_id, object parent_id, bint typed):
    """Return the JSON of a runner, None if that was left to do."""
    cdef timed_event fields
    cdef int overflow = 0
    cdef size_t length
    cdef PyObject *start_ns
    fields.id.number, fields.id.text = 0, <PyObject *>trace_id
    fields.parent_id.number, fields.parent_id.text = 0, <PyObject *>parent_id
    # In the limited API taking a tuple apart makes another one.
    fields.name, fields.type = PyTuple_GetItem(runner, 0), PyTuple_GetItem(runner, 1)
    fields.operation, fields.metadata = PyTuple_GetItem(runner, 2), PyTuple_GetItem(runner, 3)
    start_ns = PyTuple_GetItem(runner, 4)
    if PyLong_CheckExact(start_ns):
        fields.started_ns = PyLong_AsLongLongAndOverflow(start_ns, &overflow)
        length = 0 if overflow else put_runner(&fields, typed)
        if length:
            return PyBytes_FromStringAndSize(json_buffer, length)
    return None


cdef object _runner_json(object nothing, PyObject **arguments, Py_ssize_t count):
    if count != 4:
        raise TypeError(f"runner_json takes 4 arguments, not {count}")
    return _runner_bytes(
        <tuple>(<object>arguments[0]), <object>arguments[1], <object>arguments[2], <object>arguments[3] is True
    )


cdef PyMethodDef _runner_json_method
_runner_json_method.ml_name, _runner_json_method.ml_doc = "runner_json", NULL
runner_json = function_of_few(&_runner_json_method, None, _runner_json)


def opening_json(bytes begun, bytes runner):
    """See opening.pure_opening_json."""
    return _opening_bytes(begun, runner, now_ns())


cdef bytes _opening_bytes(bytes begun, bytes runner, int64_t opened_at_ns):
    cdef size_t begun_length = PyBytes_Size(begun), runner_length = PyBytes_Size(runner)
    cdef char[OPENED_AT_BYTES] opened_at
    cdef size_t end_length = <size_t>(put_opened_at(opened_at, opened_at_ns) - opened_at)
    cdef bytes opened = PyBytes_FromStringAndSize(NULL, begun_length + runner_length + end_length)
    cdef char *at = PyBytes_AsString(opened)
    memcpy(at, PyBytes_AsString(begun), begun_length)
    memcpy(at + begun_length, PyBytes_AsString(runner), runner_length)
    memcpy(at + begun_length + runner_length, opened_at, end_length)
    return opened
