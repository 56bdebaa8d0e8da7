# Part of _fast_path.pyx: an HTTP request over ASGI about which nothing is unusual: its begin, what is received and sent, and
# its end. In integrations asgi.py and web/asgi_request.py do the same, and all the rest. The coroutines are Python's own.

cdef str start_kind = "http.response.start", body_kind = "http.response.body", request_kind = "http.request"
# Where it is loaded, routes are looked for in the calls.
cdef str django_asgi = "django.core.handlers.asgi"
cdef bytes no_body = b""


cdef class Exchanges:
    """What all requests of the middleware have in common."""

    cdef object request_class, key, context_of, server_of, number, route_in_calls

    def __reduce__(self):
        # There is one, made by the middleware's module.
        raise TypeError("this cannot be copied")


# Those of the middleware, once it is imported.
cdef Exchanges exchanges = None


cdef class Exchange:
    """See request_path.PureExchange."""

    cdef public object scope, server_receive, server_send
    cdef public RequestPath request
    # Whether the trace was begun here. Only then do its times come from this clock, which no test replaces.
    cdef bint is_begun

    def __init__(self, scope, receive, send):
        self.scope, self.server_receive, self.server_send = scope, receive, send

    def __reduce__(self):
        raise TypeError("this cannot be copied: it leads to one connection")

    def begin(self):
        """See request_path.PureExchange."""
        return type(self.scope) is dict and _begin_exchange(self, <dict>self.scope)

    def has_received(self, message):
        """See request_path.PureExchange."""
        cdef RequestPath request = self.request
        if not _is_begun(self) or type(message) is not dict:
            return False
        body = (<dict>message).get("body", no_body)
        if type(body) is not bytes or (<dict>message).get("type") != request_kind:
            return False
        request.request_bytes = request.request_bytes + PyBytes_Size(body)
        return True

    def begins_to_send(self, message):
        """See request_path.PureExchange."""
        return _begin_to_send(self.request, message) if _is_begun(self) else None

    def has_sent(self, message, bint is_last):
        """See request_path.PureExchange."""
        return not _is_begun(self) or type(message) is not dict or _note_message(self.request, <dict>message, is_last)

    def end(self):
        """See request_path.PureExchange."""
        return _is_begun(self) and type(self.scope) is dict and _end_exchange(self.request, <dict>self.scope)

    def leave(self):
        """See request_path.PureExchange."""
        if self.request is not None:
            _leave_request(self.request)


cdef bint _is_begun(Exchange exchange) noexcept:
    # Its request can be written, and be None.
    return exchange.is_begun and exchange.request is not None


cdef bint _begin_exchange(Exchange exchange, dict scope) except -1:
    cdef int64_t counter = counter_ns()
    cdef Footing footing
    cdef RequestPath request
    cdef ProcessPath traced
    cdef OwnPath own
    cdef dict metadata
    if scope.get("type") != "http" or exchanges.key in scope or call_fast_of_none(&current_get) is not None:
        return False
    pid = call_of_none(&own_pid)
    traced = _process()
    own = traced._own
    footing = _usual_footing(traced, own, pid, counter)
    path, method, headers = scope.get("path"), scope.get("method"), scope.get("headers")
    if footing is None or type(path) is not str or type(method) is not str or type(headers) is not list:
        return False
    host = length = kind = context = None
    for pair in <list>headers:
        if not (type(pair) is tuple and len(<tuple>pair) == 2):
            return False
        name, value = (<tuple>pair)[0], (<tuple>pair)[1]
        if type(name) is not bytes or type(value) is not bytes:
            return False
        if name == b"host":
            host = value
        elif name == b"content-length":
            length = value
        elif name == b"content-type":
            kind = value
        elif name == b"traceparent":
            context = name
    metadata = {"path": path}
    if context is not None:
        context = exchanges.context_of(scope)
        if context is not None:
            metadata[http_trace_id] = context.trace_id
    host = exchanges.server_of(scope) if host is None else (<bytes>host).decode("latin-1")
    runner = (host, http_type, method, metadata, wall_at(counter))
    request = <RequestPath>_new_tracer_of(exchanges.request_class, footing.config, runner, pid)
    request.context = context
    _fill_any_request(request, method, path)
    request._host, request._response_headers = host, nothing
    request._length = None if length is None else exchanges.number((<bytes>length).decode("latin-1"))
    request._request_type = "" if kind is None else (<bytes>kind).decode("latin-1")
    _open_request(request, footing, traced, own, counter)
    exchange.request, exchange.is_begun = request, True
    scope[exchanges.key] = True
    call_of_object(&current_set, request._place)
    return True


cdef object _begin_to_send(RequestPath request, object message):
    """Say whether a message completes the answer; None if it is left to Python."""
    if type(message) is not dict or request.client_closed or request.is_over or request._has_trailers:
        return None
    kind = (<dict>message).get("type")
    if kind == body_kind:
        body = (<dict>message).get("body")
        if body is not None and type(body) is not bytes:
            return None
        if (<dict>message).get("more_body"):
            return False
        # The answer ends before it is sent, because a server may say during the send that the connection ends.
        request._answered_ns = counter_ns()
        return True
    if kind != start_kind or (<dict>message).get("trailers"):
        return None
    status, headers = (<dict>message).get("status"), (<dict>message).get("headers", nothing)
    if type(status) is not int or not _is_fine(request, status) or type(headers) not in (list, tuple):
        return None
    request._response_headers = headers
    return False


cdef bint _is_fine(RequestPath request, object status) except -1:
    """Say whether a status is one, and no error."""
    if request.fine_status and status == request.fine_status:
        return True
    if not 0 < status < _lowest_error():
        return False
    request.fine_status = status
    return True


cdef bint _note_message(RequestPath request, dict message, bint is_last) except -1:
    """Take note of a message of which `_begin_to_send` was asked, and which the server took.

    Return False if that is left to Python: the server may have written into the message meanwhile.
    """
    if message.get("type") == body_kind:
        body = message.get("body")
        if type(body) is bytes:
            request.response_bytes = request.response_bytes + PyBytes_Size(body)
        if is_last:
            request._answered_ns = counter_ns()
    else:
        status = message.get("status")
        if type(status) is not int or not _is_fine(request, status):
            return False
        request.status = status
        if django_asgi in loaded and not request.route:
            request.route = exchanges.route_in_calls()
    return True


cdef bint _end_exchange(RequestPath request, dict scope) except -1:
    """End the trace when the application has returned. Return False if that was left to do."""
    cdef int64_t answered_ns = request._answered_ns
    _leave_request(request)
    if not answered_ns or not request.status or exchanges.key not in scope:
        return False
    if not request.route and ("router" in scope or "route" in scope or "path_template" in scope):
        request.route = _route_in(request, scope)
    request.is_over = True
    if request._length is not None:
        request.request_bytes = request._length
    if not _end_answered(request, answered_ns, request.response_bytes):
        return False
    del scope[exchanges.key]
    return True


cdef object _route_in(RequestPath request, dict scope):
    """As asgi_request.AsgiRequest._route."""
    if "path_template" in scope or "app_root_path" in scope or "fastapi" in scope:
        return (<object>request)._route(scope)
    route = scope.get("route")
    path = getattr(route, "path", "")
    return (<object>request)._route(scope) if type(path) is not str or hasattr(route, "routes") else path


def prepare_exchanges(request_class, key, context_of, server_of, number, lowest_error, route_in_calls):
    """See request_path.pure_prepare_exchanges."""
    global exchanges, said_lowest_error
    exchanges = Exchanges.__new__(Exchanges)
    exchanges.request_class, exchanges.key, exchanges.context_of = request_class, key, context_of
    exchanges.server_of, exchanges.number, exchanges.route_in_calls = server_of, number, route_in_calls
    said_lowest_error = lowest_error
