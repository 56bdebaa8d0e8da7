# Part of _fast_path.pyx: the body of a usual WSGI answer on its way to the server, where a server can only iterate over it.
# In integrations web/wsgi_bodies.py does the same, and all the rest.

from epsagon_fast.interrupts import let_pass as _let_pass
from sys import exception as _exception

cdef extern from "call.h":
    object next_or(object, object)
    object finalized_class(object, const char *, int (*)(object) except -1)
    bint has_slot(object, int) noexcept
    bint iterates_over_itself(object) noexcept

cdef extern from "Python.h":
    int PyIter_Check(object) noexcept
    int Py_tp_iter, Py_sq_length, Py_mp_length

cdef object let_pass = _let_pass, exception = _exception
# Stands for the end of an iteration.
cdef object no_piece = object()


cdef class WrappedBody:
    """See WrappedBody in web/wsgi_bodies.py."""

    cdef RequestPath request
    cdef object body, place, error, __weakref__

    def close(self):
        """Let the application close its answer, then end the trace."""
        _check_served(self)
        _close_body(self)

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.body, name)

    def __reduce__(self):
        raise TypeError("this cannot be copied: its pieces come once")


cdef class IterableBody(WrappedBody):
    """See IterableBody there."""

    # Pieces that were counted, by whichever iteration had them first.
    cdef Py_ssize_t counted

    def __iter__(self):
        _check_served(self)
        return _pieces_of(self, _iterated(self))


cdef class IteratorBody(IterableBody):
    """See IteratorBody there."""

    def __iter__(self):
        _check_served(self)
        # As a generator does, without code of the application.
        if iterates_over_itself(self.body):
            return self
        pieces = _iterated(self)
        return self if pieces is self.body else _pieces_of(self, pieces)

    def __next__(self):
        _check_served(self)
        piece = _piece_of(self, self.body)
        if piece is no_piece:
            _exhausted(self)
            raise StopIteration
        _note_sent(self.request, piece)
        return piece


cdef class Pieces:
    """One iteration over an IterableBody."""

    # None: it is over.
    cdef IterableBody body
    cdef object pieces
    cdef Py_ssize_t taken

    def __iter__(self):
        return self

    def __next__(self):
        cdef IterableBody body = self.body
        if body is None:
            raise StopIteration
        pieces, self.body, self.pieces = self.pieces, None, None
        piece = _piece_of(body, pieces)
        if piece is no_piece:
            _exhausted(body)
            raise StopIteration
        self.body, self.pieces = body, pieces
        if self.taken == body.counted:
            body.counted += 1
            _note_sent(body.request, piece)
        self.taken += 1
        return piece

    def __reduce__(self):
        raise TypeError("this cannot be copied: its pieces come once")


cdef object _streamed(RequestPath request, object body):
    """Return what a server gets for a body that it can only iterate over; None if it can do more. As `handed_on`."""
    cdef WrappedBody wrapped
    kind, wrapper = type(body), (<dict>request._environ).get("wsgi.file_wrapper")
    # All that is in memory has a length.
    if request._response_body is not None or has_slot(body, Py_sq_length) or has_slot(body, Py_mp_length):
        return None
    if wrapper is not None and (not isinstance(wrapper, type) or issubclass(kind, wrapper)):
        return None
    if not has_slot(body, Py_tp_iter):
        return None
    served = iterator_class if PyIter_Check(body) else iterable_class
    wrapped = <WrappedBody>new_object(<PyTypeObject *>served, nothing)
    wrapped.body, wrapped.place, wrapped.request = body, (<object>request).place, request
    return wrapped


cdef int _check_served(WrappedBody body) except -1:
    """Raise ValueError for what `_streamed` has not made: it has nothing to look into."""
    if body.request is None:
        raise ValueError("no request has this body")
    return 0


cdef Pieces _pieces_of(IterableBody body, object pieces):
    cdef Pieces iteration = Pieces.__new__(Pieces)
    iteration.body, iteration.pieces = body, pieces
    return iteration


cdef object _iterated(IterableBody body):
    """Return what the application's own `__iter__` gives, or raise what it raises."""
    before = _enter_place(body.place)
    try:
        return iter(body.body)
    except BaseException as error:
        body.error = error
        raise
    finally:
        _leave_place(body.place, before)


cdef object _piece_of(WrappedBody body, object pieces):
    """Return the next piece, no_piece after the last one. Meanwhile the trace is the current one."""
    before = _enter_place(body.place)
    try:
        piece = next_or(pieces, no_piece)
    except BaseException as error:
        _leave_place(body.place, before)
        body.error = error
        raise
    _leave_place(body.place, before)
    return piece


cdef object _enter_place(object place):
    """Make a place the current one. Return the one before."""
    before = call_fast_of_none(&current_get)
    call_of_object(&current_set, place)
    return before


cdef int _leave_place(object place, object before) except -1:
    """Take the place away, if it still is the current one."""
    if call_fast_of_none(&current_get) is place or is_at(place):
        call_of_object(&current_set, before)
    return 0


cdef int _note_sent(RequestPath request, object piece) except -1:
    if type(piece) is bytes:
        request.response_bytes = request.response_bytes + PyBytes_Size(piece)
    else:
        (<object>request).sent(piece)
    return 0


cdef int _exhausted(WrappedBody body) except -1:
    """As WsgiRequest.exhausted."""
    cdef RequestPath request = body.request
    request._answered_ns = counter_ns()
    if not request._is_served or _close_of(body.body) is None:
        _end_streamed(request, None)
    return 0


cdef int _end_streamed(RequestPath request, object error) except -1:
    cdef int64_t answered_ns = request._answered_ns
    if error is not None or not answered_ns or not _end_answered(request, answered_ns, request.response_bytes):
        (<object>request).end(error)
    return 0


cdef object _close_of(object body):
    """As objects.attribute."""
    try:
        return getattr(body, "close", None)
    except Exception as error:
        let_pass(error)
        return None


cdef int _close_body(WrappedBody body) except -1:
    cdef RequestPath request = body.request
    # The error's traceback may hold a frame that holds this object.
    error, body.error = body.error, None
    if error is None and not request._answered_ns:
        error = (<object>request).given_up(exception())
    close = _close_of(body.body)
    if close is not None:
        before = _enter_place(body.place)
        try:
            close()
        except BaseException as failure:
            _leave_place(body.place, before)
            (<object>request).end(failure)
            raise
        _leave_place(body.place, before)
    return _end_streamed(request, error)


cdef int _end_collected(object collected) except -1:
    """End the trace of a body that nothing closes."""
    cdef WrappedBody body = <WrappedBody>collected
    # Of a trace that has ended no Python code runs here, where the interpreter would swallow an exception from outside.
    if body.request is not None and body.request._state is open_state:
        (<object>body.request).end(body.error)
    return 0


cdef object _served_class(kind, const char *name):
    """Return the class of what a server gets: its objects take attributes, as a `close` of a middleware around ours.

    In the limited API Cython gives its own classes no `__dict__`. This one is made when the first attribute is set.
    """
    finalized = finalized_class(kind, name, _end_collected)
    return type(finalized.__name__, (finalized,), {"__module__": finalized.__module__})


cdef object iterator_class = _served_class(IteratorBody, "epsagon_fast.producer._fast_path.ServedIterator")
cdef object iterable_class = _served_class(IterableBody, "epsagon_fast.producer._fast_path.ServedIterable")
