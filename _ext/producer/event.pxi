# Part of _fast_path.pyx: span ids, and the block of a timed event. ids.py, place.py and event.py do the same.
# Nothing comes between two lines here but the Python code that they call.

from libc.string cimport memcmp

from importlib import import_module
from os import urandom
from sys import modules as _modules

from epsagon_fast.producer.entering import NotTraced as _NotTraced, current as _current, is_at as _is_at
from epsagon_fast.producer.failures import is_error as _is_error
from epsagon_fast.producer.times import written as _written
from epsagon_fast.protocol import FUNCTION_TYPE, INVOKE, ORIGIN as _origin, ErrorCode
from epsagon_fast.queue.ring import own_pid as _own_pid

cdef extern from "call.h":
    ctypedef struct builtin_method:
        pass
    builtin_method builtin_of(PyObject *, int) noexcept
    object call_of_none(const builtin_method *)
    object call_fast_of_none(const builtin_method *)
    object call_of_object(const builtin_method *, object)
    enum: METH_NOARGS, METH_O, METH_FASTCALL
    object event_function(object, object, const char *, object (*)(object, object, object, object))

cdef extern from "../queue/fast_method.h":
    ctypedef struct PyMethodDef:
        const char *ml_name
        const char *ml_doc
    int fast_method(PyTypeObject *, PyMethodDef *, object (*)(object, PyObject **, Py_ssize_t)) except -1

cdef extern from "Python.h":
    object PyUnicode_FromStringAndSize(const char *, Py_ssize_t)
    const char *PyUnicode_AsUTF8AndSize(object, Py_ssize_t *) except NULL

cdef extern from "chance.h":
    int chance_bytes(char *, size_t) noexcept

cdef extern from "clock.h":
    int64_t wall_at(int64_t) noexcept
    int64_t counter_ns() noexcept

cdef object is_at = _is_at, is_error = _is_error, written = _written
cdef object _get = _current.get, _set = _current.set
cdef builtin_method current_get = builtin_of(<PyObject *>_get, METH_FASTCALL)
cdef builtin_method current_set = builtin_of(<PyObject *>_set, METH_O)
cdef builtin_method own_pid = builtin_of(<PyObject *>_own_pid, METH_NOARGS)
cdef dict loaded = _modules
cdef object ns_per_s = 1_000_000_000
cdef object no_error = int(ErrorCode.OK), failed = int(ErrorCode.EXCEPTION)
usual_origin, usual_code = <PyObject *>_origin, <PyObject *>no_error
if f'}},"origin":"{_origin}"'.encode() != USUAL_ORIGIN or no_error != 0:
    raise ImportError("protocol.py and json.h do not agree")
# Copying a dict and setting its members takes half as long as making it.
cdef dict event_form = dict.fromkeys(event_names), resource_form = dict.fromkeys(resource_names)

# The place of work that is not traced; see current.py.
cdef object not_traced = _NotTraced.NOT_TRACED

# The generator (splitmix64): where it is, by how much it goes on, and whose it is.
cdef uint64_t ids_at = 0, ids_step = 1
cdef object ids_owner = None


# The class of the tracer that was seen last. There is hardly another one.
cdef object tracer_type = None


cdef inline bint _is_fast(object tracer) except -1:
    """Say whether a tracer, or whatever stands for one, is a FastPath."""
    global tracer_type
    if type(tracer) is tracer_type:
        return True
    if isinstance(tracer, FastPath):
        tracer_type = type(tracer)
        return True
    return False


cdef inline bint _is_same(object one, object other) except -1:
    # A pid is one object as long as the process is the same; of another object the value tells.
    return one is other or one == other


def span_id():
    """See ids.py."""
    return _id_text(_new_number(call_of_none(&own_pid)))


cdef uint64_t _new_number(object pid) except 0:
    global ids_at, ids_step, ids_owner
    cdef uint64_t number = 0
    if not _is_same(pid, ids_owner):
        seed = kernel_bytes(16)
        ids_at = int.from_bytes(seed[:8], "little")
        ids_step = int.from_bytes(seed[8:], "little") | 1
        ids_owner = pid
    while number == 0:
        ids_at += ids_step
        number = (ids_at ^ (ids_at >> 30)) * <uint64_t>0xbf58476d1ce4e5b9
        number = (number ^ (number >> 27)) * <uint64_t>0x94d049bb133111eb
        number ^= number >> 31
    return number


def kernel_bytes(int count):
    """See ids.py."""
    return _kernel_bytes(count)


cdef bytes _kernel_bytes(Py_ssize_t count):
    cdef char[64] made
    if 0 < count <= <Py_ssize_t>sizeof(made) and chance_bytes(made, count):
        return PyBytes_FromStringAndSize(made, count)
    return urandom(count)


cdef object _id_text(uint64_t number):
    cdef char[SPAN_ID_DIGITS] digits
    put_hex(digits, number)
    return PyUnicode_FromStringAndSize(digits, SPAN_ID_DIGITS)


cdef class SpanId:
    """Has an id that is a number until Python code asks for its text."""

    cdef uint64_t id_number
    cdef object id_text

    cdef object text(self):
        if self.id_text is None and self.id_number != 0:
            self.id_text = _id_text(self.id_number)
        return self.id_text


def _of_any_kind(place_class, kind):
    """Return the class of places, whatever they are said to hold."""
    return place_class


cdef class Place:
    """See place.PurePlace."""

    cdef public object tracer, span_id
    # Of the trace that was here: its ids, and its own `context`. Few ask what is made of them.
    cdef object left_trace_id, left_span_id, left_context
    __class_getitem__ = classmethod(_of_any_kind)
    outer = None
    encloses = True
    has_ended = False

    def __init__(self, tracer, span_id=None):
        self.tracer, self.span_id = tracer, span_id

    @property
    def context(self):
        """The trace context of the trace that was here."""
        if self.left_trace_id is None:
            return self.left_context
        return _context_of(self.left_trace_id, self.left_span_id, self.left_context)

    @context.setter
    def context(self, value):
        self.left_trace_id, self.left_context = None, value

    def vacate(self):
        """Let go of the trace, which has ended, and keep its trace context."""
        _vacate_place(self)

    def open_trace(self):
        """Return the open trace here, None if it has ended."""
        return _still_at(self)

    def still_open(self):
        """Return what `open_trace` does, and open none."""
        return _still_at(self)

    def shorten(self):
        """Let go of the places around this one that have ended, as it has itself."""

    def heritage(self):
        """Return the trace context of the trace that was here."""
        return self.context


cdef object _still_at(Place place):
    tracer = place.tracer
    # In its own process a trace that ends leaves its place. In a child that was forked inside it, it must be asked.
    if tracer is not None and not _is_same(tracer.owner_pid, call_of_none(&own_pid)) and tracer.stopped:
        _vacate_place(place)
        return None
    return tracer


cdef int _vacate_place(Place place) except -1:
    tracer, place.tracer = place.tracer, None
    if _is_fast(tracer):
        place.left_trace_id, place.left_span_id = (<FastPath>tracer).trace_id, (<FastPath>tracer).span_id
        place.left_context = (<FastPath>tracer).context
    elif tracer is not None:
        place.context = _left_by(tracer)
    return 0


# context.TraceContext, from the first time on that it is needed.
cdef object context_class = None
cdef object sampled = 1


cdef object _left_by(object tracer):
    """As context.left_by."""
    if not _is_fast(tracer):
        return _of("context", "left_by")(tracer)
    return _context_of((<FastPath>tracer).trace_id, (<FastPath>tracer).span_id, (<FastPath>tracer).context)


cdef object _context_of(object trace_id, object span_id, object context):
    global context_class
    if context_class is None:
        context_class = _of("context", "TraceContext")
    flags, state = sampled, ""
    if context is not None:
        trace_id, flags = <object>PyTuple_GetItem(context, 0), <object>PyTuple_GetItem(context, 2)
        state = <object>PyTuple_GetItem(context, 3)
    return new_named_tuple(<PyTypeObject *>context_class, trace_id, span_id, flags, state)


cdef inline bint _is_plain(object place) noexcept:
    """Say whether a place is that of a trace, and not of a block."""
    return type(place) is Place


cdef inline object _tracer_at(object root):
    """Return the trace that a place holds, which is none of a Step or Branch."""
    return (<Place>root).tracer if _is_plain(root) else getattr(root, "tracer", None)


cdef class Step(SpanId):
    """See place.PureStep."""

    cdef readonly object outer
    cdef readonly bint encloses
    cdef object trunk
    # The event, while its block is entered.
    cdef public object event

    def __init__(self, outer, span_id, bint encloses):
        self.id_text = span_id
        _fill(self, outer, encloses)

    @property
    def span_id(self):
        """The event's."""
        return self.text()

    @span_id.setter
    def span_id(self, value):
        self.id_number, self.id_text = 0, value

    def open_trace(self):
        """Return the trace that the event is part of."""
        return self.trunk.open_trace()

    def still_open(self):
        """Return what `open_trace` does, and open none."""
        return self.trunk.still_open()

    def heritage(self):
        """Return the trace context of the trace that was here."""
        return self.trunk.heritage()

    @property
    def has_ended(self):
        """Whether the event's block has ended."""
        return self.event is None

    def shorten(self):
        """See place.Place."""
        _shorten(self)


cdef int _fill(Step step, object outer, bint encloses) except -1:
    _shorten(outer)
    step.encloses = encloses
    return _hang_on(step, outer)


cdef int _hang_on(Step step, object outer) except -1:
    step.outer = outer
    step.trunk = (<Step>outer).trunk if type(outer) is Step else outer
    return 0


cdef int _shorten(object place) except -1:
    """Let go of the places around one that have ended, as it has itself."""
    if type(place) is Step:
        if (<Step>place).event is None:
            _hang_on(<Step>place, _lasting((<Step>place).outer))
    elif type(place) is Branch:
        if _branch_has_ended(<Branch>place):
            (<Branch>place).outer = _lasting((<Branch>place).outer)
    elif not _is_plain(place):
        place.shorten()
    return 0


cdef object _lasting(object place):
    """See place.lasting."""
    while True:
        if type(place) is Step:
            if (<Step>place).event is not None:
                return place
            place = (<Step>place).outer
        elif type(place) is Branch:
            if not _branch_has_ended(<Branch>place):
                return place
            place = (<Branch>place).outer
        elif _is_plain(place):
            return place
        elif not place.has_ended:
            place.shorten()
            return place
        else:
            place = place.outer


cdef inline object _root_of(object place):
    """Return the place around a place that holds its trace, unless a block in between has become one."""
    while True:
        if type(place) is Step:
            place = (<Step>place).trunk
        elif type(place) is Branch:
            place = (<Branch>place).outer
        else:
            return place


cdef object _open_trace(object place, object pid):
    """Return the open trace at a place, None if there is none."""
    root = _root_of(place)
    if root is None:
        return None
    tracer = _tracer_at(root)
    # In its own process a trace that ends leaves its place. Elsewhere, and in a block's place, more has to be asked.
    if _is_fast(tracer) and _is_same((<FastPath>tracer).owner_pid, pid):
        return tracer
    if type(place) is Step:
        place = (<Step>place).trunk
    if type(place) is Branch:
        return _open_at_branch(<Branch>place, pid)
    ask = getattr(place, "open_trace", None)
    return None if ask is None else ask()


# The modules of this folder that import this one, so they can only be imported later.
cdef dict later_modules = {}


cdef object _of(str module, str name):
    found = later_modules.get(module)
    if found is None:
        found = later_modules[module] = import_module(f"epsagon_fast.producer.{module}")
    return getattr(found, name)


# Records for which there was no trace and that are not counted yet, of the process that has this pid. Counting each costs
# more than all else about a block of which nothing is recorded.
cdef unsigned long untold = 0
cdef object untold_pid = None
# Whether the one line about them was logged.
cdef bint is_logged = False


def take_untold():
    """Return how many records of this process had no trace since the last call."""
    global untold, is_logged
    cdef unsigned long count = untold if _is_same(untold_pid, call_of_none(&own_pid)) else 0
    untold, is_logged = 0, False
    return count


cdef int _count_lost() except -1:
    """Count a record that had no trace to go to, in a process that records nothing."""
    global untold, untold_pid, is_logged
    if not is_logged and "logging" in loaded:
        # It counts, and logs one line.
        _of_current("no_trace")()
        is_logged = True
        return 0
    pid = call_of_none(&own_pid)
    if pid is not untold_pid and not _is_same(pid, untold_pid):
        untold, untold_pid = 0, pid
    untold += 1
    return 0


cdef object _of_current(str name):
    return _of("current", name)


cdef class Event(SpanId):
    """See event.PureEvent."""

    cdef public object name, type, operation, origin, metadata, error_code, place
    cdef uint64_t parent_number
    cdef object parent_text
    cdef object outer, before, owner_pid
    # The open trace at `outer`, while the block is entered.
    cdef object trace
    cdef bint is_entered
    # Entered where there is no trace, in a process that records nothing.
    cdef bint is_lost
    cdef int64_t took_ns
    cdef readonly int64_t started_ns, entered_ns
    # Where the application has set them.
    cdef object given_start_time, given_duration

    def __init__(self, name, type, operation, origin):
        _fill_event(self, name, type, operation, origin)

    @property
    def id(self):
        """16 hex digits, or what the application has set."""
        return self.text()

    @id.setter
    def id(self, value):
        if value is None or (type(value) is str and not value):
            self.id_number, self.id_text = _new_number(call_of_none(&own_pid)), None
        else:
            self.id_number, self.id_text = 0, value
        # What is recorded inside from now on names the id with which the event will be recorded.
        if type(self.place) is Step and (<Step>self.place).event is self:
            (<Step>self.place).id_number, (<Step>self.place).id_text = self.id_number, self.id_text

    @property
    def parent_id(self):
        """The id of the event in whose block this one began; None: the trace's runner is the parent."""
        if self.parent_text is None and self.parent_number != 0:
            self.parent_text = _id_text(self.parent_number)
        return self.parent_text

    @parent_id.setter
    def parent_id(self, value):
        self.parent_number, self.parent_text = 0, value

    @property
    def start_time(self):
        """Seconds since the epoch."""
        if self.given_start_time is not None:
            return self.given_start_time
        # Divided as Python does, the very number that the JSON's digits mean.
        started_ns = self.started_ns
        return started_ns / ns_per_s

    @start_time.setter
    def start_time(self, value):
        self.given_start_time = value

    @property
    def duration(self):
        """Seconds."""
        return self.took_ns / 1e9 if self.given_duration is None else self.given_duration

    @duration.setter
    def duration(self, value):
        self.given_duration = value


    @property
    def is_here(self):
        """Whether this process entered the event, and not one that forked it."""
        return _is_same(self.owner_pid, call_of_none(&own_pid))

    def enter(self, outer):
        """Start the clock. The event belongs to the trace at `outer` from now on, whatever becomes current."""
        pid = call_of_none(&own_pid)
        _enter(self, outer, _open_trace(outer, pid), pid)

    def leave(self, error):
        """Stop the clock and add the event: to its trace, or, if that has ended, to the current one."""
        _leave(self, error)

    def leave_to(self, tracer, error):
        """Stop the clock and add the event to `tracer`."""
        _leave_to(self, tracer, error)

    def __enter__(self):
        """Begin, and become the parent of what is recorded inside."""
        return _enter_event(self)

    def __exit__(self, kind, error, trace):
        """End, with the exception that leaves the block."""
        return _exit(self, error)


cdef object _enter_event(Event self):
    cdef Step step
    cdef bint encloses = True
    here = call_fast_of_none(&current_get)
    if here is not_traced:
        self.owner_pid = 0
        return self
    pid = call_of_none(&own_pid)
    self.is_lost = here is None and _records_nothing() and not _process().global_tracer
    if self.is_lost:
        self.owner_pid = pid
        return self
    outer, tracer = here, _open_trace(here, pid)
    if tracer is None:
        outer, encloses = _of_current("acting_place")(), False
        tracer = _open_trace(outer, pid)
    elif type(here) is Step:
        encloses = (<Step>here).encloses
    if _is_fast(tracer) and (<FastPath>tracer).ignores:
        # As if this process had not entered it: leaving does nothing.
        self.owner_pid = 0
        return self
    _enter(self, outer, tracer, pid)
    if tracer is not None:
        step = Step.__new__(Step)
        step.id_number, step.id_text = self.id_number, self.id_text
        _fill(step, outer, encloses)
        step.event = self
        self.place, self.before = step, here
        call_of_object(&current_set, step)
        self.is_entered = True
    return self


cdef object _exit(object block, object error):
    cdef Event self = <Event>block
    if self.is_entered:
        self.is_entered = False
        if call_fast_of_none(&current_get) is self.place or is_at(self.place):
            call_of_object(&current_set, self.before)
        self.before = None
        (<Step>self.place).event = None
    if not self.is_lost:
        _leave(self, error)
    elif _is_same(self.owner_pid, call_of_none(&own_pid)):
        _count_lost()
    return None


cdef object _exit_event(object event, PyObject **arguments, Py_ssize_t count):
    return _exit(event, _error_of(arguments, count))


cdef object _error_of(PyObject **arguments, Py_ssize_t count):
    if count != 3:
        raise TypeError(f"__exit__() takes exactly 3 positional arguments ({count} given)")
    return <object>arguments[1]


cdef object _enter_event_by_with(object event, PyObject **arguments, Py_ssize_t count):
    _take_none(count)
    return _enter_event(<Event>event)


cdef int _take_none(Py_ssize_t count) except -1:
    if count:
        raise TypeError(f"__enter__() takes no arguments ({count} given)")
    return 0


# What `with` calls comes here without a tuple of the arguments.
cdef bytes _enter_doc = Event.__enter__.__doc__.encode()
cdef PyMethodDef _enter_method
_enter_method.ml_name, _enter_method.ml_doc = "__enter__", _enter_doc
fast_method(<PyTypeObject *>Event, &_enter_method, _enter_event_by_with)
cdef bytes _exit_doc = b"End, with the exception that leaves the block."
cdef PyMethodDef _exit_method
_exit_method.ml_name, _exit_method.ml_doc = "__exit__", _exit_doc
fast_method(<PyTypeObject *>Event, &_exit_method, _exit_event)


cdef int _fill_event(Event event, object name, object type, object operation, object origin) except -1:
    event.id_number = _new_number(call_of_none(&own_pid))
    event.name = name
    event.type = type
    event.operation = operation
    event.origin = origin
    event.metadata = {}
    event.error_code = no_error
    event.owner_pid = 0
    return 0


cdef object _make(object name, object type, object operation, object origin):
    """Make an event without the tuple and the dict that a call of its class takes."""
    cdef Event event = Event.__new__(Event)
    _fill_event(event, name, type, operation, origin)
    return event


cdef tuple _names = ("name", "type", "operation", "origin"), _defaults = (None, FUNCTION_TYPE, INVOKE, _origin)
cdef bytes _event_doc = f"""event(name, *, type={FUNCTION_TYPE!r}, operation={INVOKE!r}, origin={_origin!r})
--

Record a timed event: `with event("charge", type="http", operation="POST") as e: e.metadata["card"] = "visa"`.""".encode()
event = event_function(_names, _defaults, _event_doc, _make)


cdef int _enter(Event event, object outer, object tracer, object pid) except -1:
    if _is_fast(tracer):
        (<FastPath>tracer).has_blocks = True
    elif tracer is not None:
        tracer.has_blocks = True
    event.outer, event.trace = outer, tracer
    if isinstance(outer, SpanId):
        event.parent_number, event.parent_text = (<SpanId>outer).id_number, (<SpanId>outer).id_text
    elif _is_fast(tracer) and _is_plain(outer):
        # The place of a trace names what its tracer does; see Tracer.place.
        event.parent_number, event.parent_text = 0, (<FastPath>tracer).within_id
    else:
        event.parent_number, event.parent_text = 0, None if outer is None else outer.span_id
    event.owner_pid = pid
    event.given_start_time = None
    event.entered_ns = counter_ns()
    event.started_ns = wall_at(event.entered_ns)
    return 0


cdef inline bint _goes_on(object tracer, object pid) except -1:
    """Say whether a trace is known to be open in the process that opened it. Its place, then, need not be asked."""
    return _is_fast(tracer) and (<FastPath>tracer).push is not None and _is_same((<FastPath>tracer).owner_pid, pid)


cdef int _leave(Event event, object error) except -1:
    pid = call_of_none(&own_pid)
    tracer, event.trace = event.trace, None
    if not _is_same(event.owner_pid, pid):
        return 0
    if not _goes_on(tracer, pid):
        tracer = _open_trace(event.outer, pid)
    if tracer is None:
        tracer, event.parent_number, event.parent_text = _of_current("acting_trace")(), 0, None
    return _leave_to(event, tracer, error)


cdef int _leave_to(Event event, object tracer, object error) except -1:
    cdef timed_event fields
    cdef FastPath path
    cdef size_t length
    event.took_ns, event.given_duration = counter_ns() - event.entered_ns, None
    if error is not None and is_error(error):
        event.error_code = failed
    else:
        error = None
    if tracer is None:
        _of_current("no_trace")()
        return 0
    # The parent may be a block that has become the runner of `tracer`; see Block.succeed.
    if event.parent_number != 0 or event.parent_text is not None:
        runner_id = (<FastPath>tracer).span_id if _is_fast(tracer) else tracer.span_id
        if _is_id(runner_id, event.parent_number, event.parent_text):
            event.parent_number, event.parent_text = 0, None
    if error is None and event.given_start_time is None and _is_fast(tracer):
        path = <FastPath>tracer
        push = path.push
        if push is not None:
            fields = _fields_of(event)
            length = put_timed_event(&fields, path.typed)
            if 0 < length <= <size_t>path.limit_bytes:
                return _push_event(event, path, push, length)
    # Kept here, the exception would make a circle: its traceback holds the frame that holds this event.
    _add_event_under(tracer, _as_dict(event, error, tracer.typed), event.parent_id)
    return 0


cdef bint _is_id(object runner_id, uint64_t number, object text) except -1:
    """Say whether an id is that of a trace's runner."""
    cdef char[SPAN_ID_DIGITS] digits
    cdef Py_ssize_t length
    cdef const char *runner
    if number == 0:
        return type(text) is str and text == runner_id
    runner = PyUnicode_AsUTF8AndSize(runner_id, &length)
    put_hex(digits, number)
    return length == SPAN_ID_DIGITS and memcmp(runner, digits, SPAN_ID_DIGITS) == 0


cdef inline int _push_event(Event event, FastPath path, object push, size_t length) except -1:
    """Push what stands in json_buffer. What Python code has to do for it gets the event as a dict."""
    cdef int code = _pushed(path, push, EVENT_KIND, event_kind, length)
    if code != PUSHED_CODE and not _is_one_of_many(path, code == FULL_CODE):
        call_method_of_three(path, add_slowly, _as_dict(event, None, path.typed), code, event.parent_id)
    return 0


cdef timed_event _fields_of(Event event) noexcept:
    cdef timed_event fields
    fields.id.number, fields.id.text = event.id_number, <PyObject *>event.id_text
    fields.parent_id.number, fields.parent_id.text = event.parent_number, <PyObject *>event.parent_text
    fields.name, fields.type = <PyObject *>event.name, <PyObject *>event.type
    fields.operation, fields.metadata = <PyObject *>event.operation, <PyObject *>event.metadata
    fields.origin, fields.error_code = <PyObject *>event.origin, <PyObject *>event.error_code
    fields.started_ns, fields.took_ns = event.started_ns, event.took_ns
    return fields


cdef dict _as_dict(Event event, object error, bint typed):
    cdef dict resource = resource_form.copy()
    resource["name"] = event.name
    resource["type"] = event.type
    resource["operation"] = event.operation
    resource["metadata"] = event.metadata
    cdef dict whole = event_form.copy()
    whole["id"] = event.id
    whole["start_time"] = written(event.started_ns, typed) if event.given_start_time is None else event.given_start_time
    whole["resource"] = resource
    whole["origin"] = event.origin
    whole["duration"] = event.duration
    whole["error_code"] = event.error_code
    whole["exception"] = error
    return whole
