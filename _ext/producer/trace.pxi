# Part of _fast_path.pyx: opens and closes a trace about which nothing is unusual, as most are. tracer.py does the same,
# and all the rest. Here no Python code comes between the state, `open_traces` and the ring, so no exception from outside
# does either.

from epsagon_fast.producer.states import NEW as _new, OPEN as _open, TABLE as _table
from epsagon_fast.protocol import CLOSE_PAYLOAD, NOT_MEASURED, UNCHANGED
from epsagon_fast.queue.layout import CLOSE_BYTES, END

cdef extern from "call.h":
    object new_object(PyTypeObject *, tuple)

cdef extern from "json.h":
    object hex_text(const char *, Py_ssize_t)

# The payload of a CLOSE: protocol.CLOSE_PAYLOAD.
cdef packed struct Closing:
    double duration_s
    int32_t error_code

cdef object new_state = _new, open_state = _open, closed_state = _table[_open].stop, unchanged = UNCHANGED
cdef int CLOSE_KIND = int(Kind.CLOSE), END_KIND = END
cdef double not_measured = NOT_MEASURED, one_s_ns = 1e9
cdef bytes nothing_begun = b"", no_runner = b"null"
cdef tuple nothing = ()

cdef Closing _some
_some.duration_s, _some.error_code = 1.5, 2
cdef bytes some_closing = CLOSE_PAYLOAD.pack(1.5, 2)
if PyBytes_FromStringAndSize(<char *>&_some, sizeof(_some)) != some_closing:
    raise ImportError("protocol.py and trace.pxi do not agree")
if CLOSE_BYTES != sizeof(_some):
    raise ImportError("layout.py and trace.pxi do not agree")


cdef class Footing:
    """What all traces of one config have in common that one writer's ring takes."""

    cdef object config, writer, push, producer, count, timeout_s, beacons
    # When the writer has to look whether it still serves. Not before that does another one take its place.
    cdef public double next_look_s
    cdef ring_calls *ring
    # What OPENs have up to their runner, and the number under which the ring has it; 0: each has it with it.
    cdef bytes begun
    cdef uint64_t start
    cdef Py_ssize_t record_limit_bytes, event_limit_bytes
    cdef bint typed, keeps_values

    def __reduce__(self):
        # Cython would copy an address.
        raise TypeError("this cannot be copied: it leads into the ring of one process")


def footing_of(config, writer, beacons, bytes begun):
    """Return what the next traces need that open as one has opened; None if they are unusual. See opening.py."""
    cdef Footing found
    cdef ring_calls *ring = _ring_of(writer.push)
    if ring == NULL or config.debug or config.test_mode or config.is_guarded or config.sample_rate < 1 or writer.lacking:
        return None
    if beacons is None:
        return None
    found = Footing.__new__(Footing)
    found.config, found.writer, found.push, found.producer = config, writer, writer.push, writer.push.__self__
    found.beacons, found.next_look_s = beacons, writer._next_look
    found.count, found.timeout_s, found.ring, found.begun = writer.refuse, config.shutdown_timeout_s, ring, begun
    found.start = found.producer.share(begun)
    found.record_limit_bytes = writer.record_limit_bytes
    found.event_limit_bytes = min(config.max_trace_size_bytes, writer.record_limit_bytes)
    found.typed = config.keeps_types and writer.leads_to_backend
    found.keeps_values = not config.metadata_only
    return found


cdef Footing _footing(ProcessPath traced, OwnPath own, object pid, int64_t counter):
    """Return what a trace needs that opens now; None if anything is unusual. `own`: process.own, if it has this pid."""
    cdef Footing found = own.footing
    if found is None or untold or traced._captures or traced.is_shut_down or not _is_same(own.pid, pid):
        return None
    if own.is_exiting or own.left_out or own.early_refusals:
        return None
    # As Writer.stale looks.
    return None if found.ring.has_left(found.producer) or counter / one_s_ns >= found.next_look_s else found


cdef bint _open_at_once(FastPath tracer) except -1:
    """Open a trace that is not started. Return False if that was left to do."""
    cdef int64_t counter = counter_ns()
    cdef Footing footing
    cdef ProcessPath traced
    cdef OwnPath own
    if tracer._state is not new_state:
        return False
    pid = call_of_none(&own_pid)
    traced = _process()
    own = traced._own
    footing = _footing(traced, own, pid, counter)
    if footing is None or footing.config is not tracer.config or not _is_same(tracer.owner_pid, pid):
        return False
    return _open_on(tracer, footing, traced, own, counter)


cdef bint _open_on(FastPath tracer, Footing footing, ProcessPath traced, OwnPath own, int64_t counter) except -1:
    cdef int code
    cdef bytes runner = None, opened, shared = footing.begun if footing.start else nothing_begun
    context = tracer.context
    if tracer._own_runner is not None:
        runner = _runner_bytes(tracer._own_runner, tracer.trace_id, _caller_of(tracer, context), footing.typed)
        if runner is None:
            return False
    opened = _opening_bytes(
        nothing_begun if footing.start else footing.begun, no_runner if runner is None else runner, wall_at(counter)
    )
    if PyBytes_Size(shared) + PyBytes_Size(opened) > footing.record_limit_bytes:
        return False
    own.exit_timeout_s = footing.timeout_s
    traces, tracer._beacons = traced.open_traces, footing.beacons
    tracer._beacon = footing.ring.light(footing.beacons, PyBytes_AsString(tracer._id))
    tracer._opened_ns = counter
    tracer._runner, tracer._writer, tracer._push, tracer._count = runner, footing.writer, footing.push, footing.count
    tracer._event_limit_bytes, tracer.keeps_values = footing.event_limit_bytes, footing.keeps_values
    tracer.typed = footing.typed
    tracer._state = open_state
    traces[tracer._id] = tracer
    code = footing.ring.open(
        footing.producer, footing.start, PyBytes_AsString(tracer._id), PyBytes_AsString(opened), PyBytes_Size(opened)
    )
    if code != PUSHED_CODE:
        tracer._opened(code, shared + opened)
        return True
    tracer.limit_bytes, tracer.ring, tracer.producer = footing.event_limit_bytes, footing.ring, footing.producer
    tracer.push = footing.push
    if context is not None and context.tracestate:
        tracer._tell(context)
    return True


cdef object _caller_of(FastPath tracer, object context):
    """As Recorder.caller_id."""
    if context is None:
        return None
    caller_id = context.parent_id
    return None if caller_id == tracer.span_id else caller_id


cdef bint _close_at_once(FastPath tracer, object pid, char *ending, size_t length) except -1:
    """Close a trace that is open. Return False if that was left to do.

    ending: the payload of a RUNNER, which goes with the CLOSE, and room for that one; NULL: the CLOSE goes alone.
    """
    cdef Closing closing
    cdef ring_calls *ring = tracer.ring
    cdef int code = PUSHED_CODE, kind = END_KIND
    cdef int64_t ended_ns
    cdef ProcessPath traced
    cdef OwnPath own
    producer = tracer.producer
    if tracer._state is not open_state or producer is None or not _is_same(tracer.owner_pid, pid):
        return False
    traced = _process()
    own = traced._own
    if not _is_same(own.pid, pid):
        return False
    closing.error_code = -1 if tracer._error_code is unchanged else tracer._error_code
    closing.duration_s = not_measured
    if tracer._own_runner is not None and not tracer._is_measured:
        ended_ns = counter_ns() if tracer._ended_ns is None else tracer._ended_ns
        closing.duration_s = (ended_ns - tracer._opened_ns) / one_s_ns
    traces = traced.open_traces
    trace_id = tracer._id
    tracer._state = closed_state
    tracer.keeps_values = tracer.ignores = False
    tracer.ids = tracer.push = tracer.producer = None
    if take_out(traces, trace_id):
        if ending == NULL:
            kind, ending, length = CLOSE_KIND, <char *>&closing, sizeof(closing)
        else:
            memcpy(ending + length - sizeof(closing), &closing, sizeof(closing))
        code = ring.append(producer, kind, 0, PyBytes_AsString(trace_id), ending, length)
        if code != PUSHED_CODE or own.flushes or own.is_exiting or ring.has_news(producer):
            tracer._closed(code, kind, 0, PyBytes_FromStringAndSize(ending, length))
    ring.put_out(tracer._beacons, tracer._beacon, PyBytes_AsString(trace_id))
    place = tracer._place
    if _is_plain(place):
        _vacate_place(<Place>place)
    elif place is not None:
        place.vacate()
    return True


# tracer.Tracer and process.refuse, from the first time on that they are needed.
cdef object tracer_class = None, refuse = None


cdef FastPath _new_tracer(object config, tuple runner, object pid):
    """Return a trace that is not started, as Tracer's __init__ makes it of a config that is not for debugging."""
    global tracer_class
    if tracer_class is None:
        tracer_class = _of("tracer", "Tracer")
    return _new_tracer_of(tracer_class, config, runner, pid)


cdef FastPath _new_tracer_of(object kind, object config, tuple runner, object pid):
    """Return the same of a class that has Tracer as its base, without what that one's __init__ adds."""
    global refuse
    cdef FastPath tracer = <FastPath>new_object(<PyTypeObject *>kind, nothing)
    if refuse is None:
        refuse = _process().refuse
    tracer.config, tracer._own_runner = config, runner
    tracer._state, tracer._count, tracer._error_code = new_state, refuse, unchanged
    tracer.owner_pid = pid
    tracer._id = _kernel_bytes(TRACE_ID_BYTES)
    tracer.trace_id = hex_text(PyBytes_AsString(tracer._id), TRACE_ID_BYTES)
    tracer.span_id = hex_text(PyBytes_AsString(tracer._id), SPAN_ID_DIGITS // 2)
    return tracer


cdef object _own_trace_at(Block block, object here, object pid):
    """Open a block's own trace; None if that was left to do. As scope.own_trace, Tracer.start."""
    cdef Footing footing
    cdef FastPath tracer
    cdef Place place
    cdef ProcessPath traced
    cdef OwnPath own
    cdef int64_t counter = counter_ns()
    if not (here is None or here is not_traced or type(here) is Step or type(here) is Branch or _is_plain(here)):
        # It may be a place that hands on a caller's ids.
        return None
    traced = _process()
    own = traced._own
    footing = _footing(traced, own, pid, counter)
    if footing is None or not _is_in_force(traced, footing.config):
        return None
    runner = (block.name, block.type, block.operation, {}, wall_at(counter))
    block.own = tracer = _new_tracer(footing.config, runner, pid)
    block.place = tracer._place = place = Place.__new__(Place)
    place.tracer = tracer
    if not _open_on(tracer, footing, traced, own, counter):
        tracer.start()
    return tracer
