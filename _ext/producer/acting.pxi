# Part of _fast_path.pyx: labels and headers of the current trace, where it is open in this process and nothing about them
# is unusual. Else current.py and propagation.py do the work.

cdef extern from "call.h":
    object function_of_few(PyMethodDef *, object, object (*)(object, PyObject **, Py_ssize_t))
    object new_named_tuple(PyTypeObject *, object, object, object, object)
    object traceparent_text(object, const char *, long)
    bint names_context(object) noexcept
    bint is_span_id(const char *) noexcept

cdef extern from "Python.h":
    PyObject *PyTuple_GetItem(object, Py_ssize_t) except NULL

cdef int LABEL_KIND = int(Kind.LABEL)
cdef object label_kind = int(Kind.LABEL)
cdef str traceparent = "traceparent", tracestate = "tracestate"


cdef object _quick(object here, object pid):
    """Return the trace that is open at a place, if it is this process's and takes what is written here; else None."""
    if here is None or here is not_traced:
        return None
    tracer = _tracer_at(_root_of(here))
    return tracer if _goes_on(tracer, pid) else None


cdef object _parent_at(object here, FastPath tracer, uint64_t *number):
    """Return the parent of what is recorded at a place of a trace: the text, or `number`; None and 0: the runner."""
    number[0] = 0
    if isinstance(here, SpanId):
        if _is_id(tracer.span_id, (<SpanId>here).id_number, (<SpanId>here).id_text):
            return tracer.within_id
        number[0] = (<SpanId>here).id_number
        return (<SpanId>here).id_text
    text = getattr(here, "span_id", None)
    return text if text is not None and text != tracer.span_id else tracer.within_id


cdef object _labelled(object nothing, PyObject **arguments, Py_ssize_t count):
    cdef FastPath path
    cdef size_t length
    cdef int code
    if count != 2:
        raise TypeError(f"labelled takes 2 arguments, not {count}")
    tracer = _quick(call_fast_of_none(&current_get), call_of_none(&own_pid))
    if tracer is None:
        return False
    path = <FastPath>tracer
    length = put_label(arguments[0], arguments[1])
    if length == 0:
        return False
    code = _pushed(path, path.push, LABEL_KIND, label_kind, length)
    if code != PUSHED_CODE:
        # Once more, because a push in Python may have let another thread write there.
        length = put_label(arguments[0], arguments[1])
        payload = PyBytes_FromStringAndSize(json_buffer, length)
        tracer._attend(code, label_kind, no_flags, payload)
    return True


cdef bytes _labelled_doc = b"""labelled(key, value)
--

Label the current trace. Return False if that was left to do."""
cdef PyMethodDef _labelled_method
_labelled_method.ml_name, _labelled_method.ml_doc = "labelled", _labelled_doc
labelled = function_of_few(&_labelled_method, None, _labelled)


cdef object _injected(object context_type, PyObject **arguments, Py_ssize_t count):
    cdef uint64_t number
    cdef const char *span
    cdef Py_ssize_t length = SPAN_ID_DIGITS
    if count != 1:
        raise TypeError(f"inject takes 1 argument, not {count}")
    headers = <object>arguments[0]
    if not PyDict_CheckExact(arguments[0]) or names_context(headers):
        return None
    here = call_fast_of_none(&current_get)
    tracer = _quick(here, call_of_none(&own_pid))
    context = None if tracer is None else tracer.context
    if context is None:
        return None
    text = _parent_at(here, <FastPath>tracer, &number)
    if text is None:
        text = _id_text(number) if number else (<FastPath>tracer).span_id
    # Its class is not that of tuples, so it would be unpacked by iterating.
    trace_id, flags = <object>PyTuple_GetItem(context, 0), <object>PyTuple_GetItem(context, 2)
    # A program may have made the context.
    if not PyLong_CheckExact(<PyObject *>flags) or not 0 <= flags <= 0xff:
        return None
    state = <object>PyTuple_GetItem(context, 3)
    # A program may have set any id. Which event is named in place of one that cannot be, context.py finds.
    if type(text) is not str:
        return None
    try:
        span = PyUnicode_AsUTF8AndSize(text, &length)
    except UnicodeEncodeError:
        return None
    header = traceparent_text(trace_id, span, flags) if length == SPAN_ID_DIGITS and is_span_id(span) else None
    if header is None:
        return None
    (<dict>headers)[traceparent] = header
    if state:
        (<dict>headers)[tracestate] = state
    return new_named_tuple(<PyTypeObject *>context_type, trace_id, text, flags, state)


cdef PyMethodDef _injected_method
_injected_method.ml_name, _injected_method.ml_doc = "injected", NULL


def injector(context_type):
    """Return a function that does what propagation.inject does, or returns None if that is left to do."""
    return function_of_few(&_injected_method, context_type, _injected)
