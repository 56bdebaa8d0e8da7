# Part of _fast_path.pyx: a WSGI request about which nothing is unusual, from its begin to its end. In integrations wsgi.py
# and web/ do the same, and all the rest. Between its steps no Python code of ours runs, so no exception from outside comes.

from epsagon_fast.protocol import HTTP_TRACE_ID_KEY as _http_trace_id

cdef extern from "call.h":
    object function_of_any(PyMethodDef *, object, object (*)(object, PyObject **, Py_ssize_t, PyObject *))
    object call_of_two(object, object, object)
    bint take_out(object, object) except -1
    bint is_ascii(object) noexcept

cdef extern from "json.h":
    size_t put_answered(uint64_t, uint64_t, uint64_t, PyObject *) noexcept

cdef extern from "Python.h":
    object PyUnicode_Substring(object, Py_ssize_t, Py_ssize_t)

cdef enum:
    # Of what a request's end tells and its CLOSE. Only a route may make it longer: then Python does it.
    ENDING_BYTES = 1024

cdef object http_trace_id = _http_trace_id, http_type = "http"
# Where these modules are loaded or leave something, routes are looked for.
cdef str django = "django.http.response", flask = "werkzeug.request"


cdef class RequestPath(FastPath):
    """See request_path.PureRequestPath."""

    cdef public object method, path, status, reason, request_bytes, response_bytes, route, notes, _answered_ns
    cdef public bint client_closed, is_over, _is_told, _is_begun, _has_body, _is_served, _has_trailers, _accepted
    cdef public object _environ, _script_name, _mount, _start_response, _server_write, _headers
    cdef public object _request_body, _response_body, _host, _length, _request_type, _response_headers
    # One that is known to be no error; 0: none is.
    cdef long fine_status


cdef class Answers:
    """What all requests of the middleware have in common."""

    cdef object request_class, key, context_of, expect_input, handed_on, unusual

    def __reduce__(self):
        # There is one, made by the middleware's module.
        raise TypeError("this cannot be copied")


# Those of the middleware, once it is imported.
cdef Answers answers = None
# choices.said_lowest_error, once a middleware is imported.
cdef object said_lowest_error = None


cdef RequestPath _request_at_once(dict environ, object start):
    """Return the open trace of a request; None if that was left to do."""
    cdef int64_t counter = counter_ns()
    cdef Footing footing
    cdef RequestPath tracer
    cdef ProcessPath traced
    cdef OwnPath own
    cdef dict metadata
    if call_fast_of_none(&current_get) is not None or answers.key in environ:
        return None
    pid = call_of_none(&own_pid)
    traced = _process()
    own = traced._own
    footing = _usual_footing(traced, own, pid, counter)
    script_name, path = environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", "")
    if footing is None or type(path) is not str or type(script_name) is not str:
        return None
    if script_name:
        path = script_name + path
    if not is_ascii(path):
        return None
    method = environ.get("REQUEST_METHOD", "")
    metadata = {"path": path}
    context = None
    if "HTTP_TRACEPARENT" in environ:
        context = answers.context_of(environ)
        if context is not None:
            metadata[http_trace_id] = context.trace_id
    host = environ.get("HTTP_HOST") or environ.get("SERVER_NAME", "")
    runner = (host, http_type, method, metadata, wall_at(counter))
    tracer = <RequestPath>_new_tracer_of(answers.request_class, footing.config, runner, pid)
    tracer.context = context
    _fill_request(tracer, environ, start, method, path, script_name)
    _open_request(tracer, footing, traced, own, counter)
    environ[answers.key] = True
    return tracer


cdef Footing _usual_footing(ProcessPath traced, OwnPath own, object pid, int64_t counter):
    """Return what a request's trace needs that opens now; None if anything is unusual."""
    cdef Footing footing = _footing(traced, own, pid, counter)
    if footing is None or footing.keeps_values or not _is_in_force(traced, footing.config):
        return None
    return footing


cdef int _open_request(
    RequestPath request, Footing footing, ProcessPath traced, OwnPath own, int64_t counter
) except -1:
    cdef Place place = Place.__new__(Place)
    request._place, place.tracer = place, request
    try:
        if not _open_on(request, footing, traced, own, counter):
            (<object>request).start()
    except BaseException:
        # An exception from outside met the Python code that rare requests need.
        (<object>request).abandon()
        raise
    return 0


cdef int _fill_any_request(RequestPath request, object method, object path) except -1:
    """As the __init__ of RequestTrace. What is False or None there is so from the start here."""
    request.method, request.path = method, path
    request.status = request.request_bytes = request.response_bytes = request._answered_ns = 0
    request.reason = request.route = ""
    request.notes = {}
    return 0


cdef int _fill_request(
    RequestPath request, dict environ, object start, object method, object path, object script_name
) except -1:
    """As the __init__ of WsgiRequest."""
    _fill_any_request(request, method, path)
    request._mount = ""
    request._environ, request._start_response, request._script_name = environ, start, script_name
    request._is_served = "SERVER_SOFTWARE" in environ
    request._headers = []
    return 0


cdef object _started(object traced, PyObject **arguments, Py_ssize_t count, PyObject *names):
    """Take the place of a request's `start_response`."""
    cdef RequestPath request = <RequestPath>traced
    cdef long code
    cdef object status, headers
    if count == 2 and names == NULL and request._state is open_state:
        status, headers = <object>arguments[0], <object>arguments[1]
        code = _code_of(status)
        if 0 < code < _lowest_error():
            environ = <dict>request._environ
            _find_route(request, environ)
            request._server_write = call_of_two(request._start_response, status, headers)
            request.status, request._headers, request.fine_status = code, headers, code
            request.reason = PyUnicode_Substring(status, 4, PyUnicode_GetLength(<PyObject *>status))
            return (<object>request)._write
    return _started_in_python(request, arguments, count, names)


cdef int _find_route(RequestPath request, dict environ) except -1:
    """As WsgiRequest.find_route."""
    matched = environ.get(flask)
    if matched is not None and not request._mount and environ.get("SCRIPT_NAME", "") == request._script_name:
        rule = getattr(getattr(matched, "url_rule", None), "rule", "")
        if type(rule) is str:
            request.route = rule
            return 0
    if matched is not None or environ.get("SCRIPT_NAME", "") != request._script_name:
        (<object>request).find_route()
    return 0


cdef object _started_in_python(object request, PyObject **arguments, Py_ssize_t count, PyObject *names):
    cdef Py_ssize_t at
    cdef tuple given = tuple([<object>arguments[at] for at in range(count)])
    cdef dict named = {}
    if names != NULL:
        for at, name in enumerate(<object>names):
            named[name] = <object>arguments[count + at]
    return request.start_response(*given, **named)


cdef long _code_of(object status):
    """Return the number that a status begins with, -1 if that is left to Python."""
    cdef Py_ssize_t length
    cdef const char *text
    cdef long code = 0
    if type(status) is not str or not is_ascii(status):
        return -1
    text = PyUnicode_AsUTF8AndSize(status, &length)
    if length < 4 or text[3] != 0x20:
        return -1
    for at in range(3):
        if not 0x30 <= text[at] <= 0x39:
            return -1
        code = 10 * code + text[at] - 0x30
    return code


cdef long _lowest_error() except -1:
    said = said_lowest_error()
    return 500 if said is None else said


cdef object _answered(object nothing, PyObject **arguments, Py_ssize_t count):
    cdef RequestPath request = None
    cdef bint has_returned = False
    if count != 3:
        raise TypeError(f"answered takes 3 arguments, not {count}")
    app, start = <object>arguments[0], <object>arguments[2]
    if PyDict_CheckExact(arguments[1]):
        request = _request_at_once(<dict>arguments[1], start)
    if request is None:
        return answers.unusual
    environ = <dict>arguments[1]
    try:
        if environ.get("CONTENT_LENGTH") or "HTTP_TRANSFER_ENCODING" in environ:
            answers.expect_input(request, environ)
        call_of_object(&current_set, request._place)
        body = call_of_two(app, environ, function_of_any(&_started_method, request, _started))
        has_returned = True
        _leave_request(request)
        request._has_body = True
        if django in loaded:
            (<object>request).begins_with(body)
        if not _ended_at_once(request, body):
            streamed = _streamed(request, body)
            body = answers.handed_on(request, body) if streamed is None else streamed
        return body
    except BaseException as error:
        _leave_request(request)
        _fail_request(request, error, has_returned)
        raise


cdef int _fail_request(RequestPath request, object error, bint has_returned) except -1:
    """End the trace of a request of which the server gets no body that would end it."""
    try:
        if not has_returned:
            (<object>request).application_fails(error)
    except BaseException:
        (<object>request).abandon()
        raise
    if has_returned:
        # An exception came from outside.
        (<object>request).abandon()
    return 0


cdef int _leave_request(RequestPath request) except -1:
    """Take the request's place away, if it still is the current one."""
    if call_fast_of_none(&current_get) is request._place or is_at(request._place):
        call_of_object(&current_set, None)
    return 0


cdef bint _ended_at_once(RequestPath request, object body) except -1:
    """End the trace with an answer in memory. Return False if that was left to do."""
    cdef Py_ssize_t at
    cdef uint64_t response_bytes = 0
    if type(body) is not list or request.response_bytes:
        return False
    for at in range(PyList_Size(<PyObject *>body)):
        piece = <object>PyList_GetItem(<PyObject *>body, at)
        if type(piece) is not bytes:
            return False
        response_bytes += PyBytes_Size(piece)
    return _end_answered(request, counter_ns(), response_bytes)


cdef bint _end_answered(RequestPath request, int64_t answered_ns, uint64_t response_bytes) except -1:
    """End the trace of a request of which the whole answer is known. Return False if that was left to do."""
    cdef uint64_t request_bytes
    cdef long status
    cdef size_t length
    cdef char[ENDING_BYTES] ending
    cdef bint is_begun = response_bytes > 0
    if request._state is not open_state or request.producer is None or request._response_body is not None:
        return False
    if request.client_closed or request._is_told or request.notes:
        return False
    if type(request.route) is not str or type(request.status) is not int:
        return False
    pid = call_of_none(&own_pid)
    status = request.status
    if not _is_same(request.owner_pid, pid) or (status != request.fine_status and status >= _lowest_error()):
        return False
    # Over ASGI it is the application that sends none with these statuses.
    if request.method == "HEAD" or (request._environ is not None and (status == 204 or status == 304)):
        response_bytes = 0
    request_bytes = request.request_bytes
    if request._request_body is not None and not request_bytes:
        request_bytes = request._request_body.size_bytes
    # Nothing is made in between: collecting garbage may run code that records and writes there, too.
    length = put_answered(request_bytes, response_bytes, <uint64_t>status, <PyObject *>request.route)
    if length == 0 or length + sizeof(Closing) > ENDING_BYTES:
        return False
    memcpy(ending, json_buffer, length)
    request._answered_ns = request._ended_ns = answered_ns
    request._has_body, request._is_begun = True, is_begun
    request.request_bytes, request.response_bytes = request_bytes, response_bytes
    if request._environ is not None:
        # As WsgiRequest._unmark.
        take_out(<dict>request._environ, answers.key)
        request._environ = {}
    if not _close_at_once(request, pid, ending, length + sizeof(Closing)):
        (<object>request)._close_with(PyBytes_FromStringAndSize(ending, length))
    return True


cdef PyMethodDef _answered_method, _started_method
_answered_method.ml_name, _answered_method.ml_doc = "answered", NULL
_started_method.ml_name, _started_method.ml_doc = "start_response", NULL


def wsgi_answers(request_class, key, context_of, expect_input, lowest_error, handed_on, unusual):
    """See fast_path.pure_wsgi_answers."""
    global answers, said_lowest_error
    answers = Answers.__new__(Answers)
    answers.request_class, answers.key, answers.context_of = request_class, key, context_of
    answers.expect_input, answers.handed_on, answers.unusual = expect_input, handed_on, unusual
    said_lowest_error = lowest_error
    return function_of_few(&_answered_method, None, _answered)
