"""Takes the usual records into their traces: OPEN, EVENT, CLOSE. What is unusual in one is left to Assembly.feed."""


def take(
    list records not None,
    Py_ssize_t at,
    bytes ring_id not None,
    dict traces not None,
    dict of_rings not None,
    list closed not None,
    object is_new not None,
    object accounts not None,
    object counters not None,
    list answered not None,
):
    """Take in the usual records from `at` on; return where another one stands, or the end. TypeError: one is none.

    traces: the open ones, by id; of_rings: by their rings. `closed` gets those that a CLOSE closes, and `answered` the
    ids of those with a number.
    `is_new`: says of an id whether no trace has it and no record waits for one. `accounts`: of the rings.
    """
    cdef object of, record, payload, trace_id = None, trace = None, stream = None, account = None
    cdef dict of_ring = None
    cdef list kept = None
    # What the trace may still take, and what came for it.
    cdef long long room = 0, came = 0, events = 0
    cdef Py_ssize_t size
    cdef long kind, flags
    try:
        while 0 <= at < len(records):
            record = records[at]
            if not PyTuple_Check(record) or PyTuple_Size(record) != FIELDS:
                raise TypeError("not a record")
            payload = <object>PyTuple_GetItem(record, 4)
            # Raises TypeError for what is not bytes.
            size = PyBytes_Size(payload)
            kind = PyLong_AsLong(<object>PyTuple_GetItem(record, 0))
            flags = PyLong_AsLong(<object>PyTuple_GetItem(record, 1))
            of = <object>PyTuple_GetItem(record, 3)
            if trace_id is None or of != trace_id:
                _put(trace, stream, came, events)
                came = events = 0
                trace_id, trace = None, traces.get(of)
                is_opened = trace is None
                if is_opened:
                    trace = _opened(payload, of, ring_id, counters) if kind == _OPEN and is_new(of) else None
                    if trace is None:
                        break
                    account = _enter(trace, ring_id, size, accounts, account)
                    traces[of] = trace
                    if of_ring is None:
                        of_ring = of_rings.setdefault(ring_id, {})
                    of_ring[of] = trace
                trace_id, stream = of, trace.stream
                kept = stream.events
                room = -1 if stream.is_too_big else stream.hold_bytes - stream.floor_bytes
                if is_opened:
                    at += 1
                    continue
            if kind == _EVENT:
                if flags or size == 0 or size + 1 > room:
                    break
                kept.append(payload)
                room -= size + 1
                came += size
                events += 1
            elif kind == _CLOSE:
                ordinal = <object>PyTuple_GetItem(record, 2)
                if flags or not _closes(trace, ring_id, ordinal, payload):
                    break
                closed.append(trace)
                if ordinal:
                    answered.append(of)
            else:
                break
            at += 1
    finally:
        _put(trace, stream, came, events)
    return at


cdef int _put(object trace, object stream, long long bytes_in_all, long long events) except -1:
    """Write into a trace what came for it. Once for several events: each would make five objects of Python."""
    if events:
        stream.arrived_bytes += bytes_in_all
        stream.floor_bytes += bytes_in_all + events
        trace.account.open_bytes += bytes_in_all + events * (1 + _ENTRY_BYTES)
    return 0


cdef object _opened(object opened, object trace_id, object ring_id, object counters):
    """Return the trace of an OPEN, as OpenTrace makes it; None: it is not as our producers write it."""
    cdef Py_ssize_t at = _find(opened, _BEFORE_RUNNER)
    cdef object start = None if at <= 0 else start_of(opened[:at])
    cdef bytes rest
    cdef dict said
    if start is None:
        return None
    rest = b"{" + opened[at + 1 :]
    if _brackets(rest) > _MANY:
        return None
    try:
        said = loads(rest)
    except ValueError:
        return None
    runner, opened_at = said.get("runner"), said.get("opened_at")
    if len(said) != 2 or not PyFloat_CheckExact(opened_at) or not (isinstance(runner, dict) or runner is None):
        return None
    terms = <object>PyTuple_GetItem(start, 0)
    trace = PyType_GenericAlloc(<PyTypeObject *>OpenTrace, 0)
    trace.terms = terms
    trace.trace_id = trace_id
    trace.ring_id = ring_id
    trace.counters = counters
    trace.opened_at = opened_at
    trace.stream = _stream(terms, counters)
    trace.runner = runner
    trace.has_own_runner = runner is not None
    trace.runner_place = None
    trace.labels = {}
    trace.error = None
    trace.dropped_records = None
    trace.close_ordinal = 0
    trace.is_closed = False
    trace._runner_news = {}
    trace._runner_bytes = len(opened)
    trace._labels_bytes = 0
    trace._error_bytes = 0
    return trace


cdef Py_ssize_t _brackets(bytes text) except -1:
    """Return how many brackets a text opens."""
    cdef const char *at = PyBytes_AsString(text)
    cdef const char *end = at + PyBytes_Size(text)
    cdef Py_ssize_t found = 0
    while at < end:
        found += at[0] == 91 or at[0] == 123
        at += 1
    return found


cdef object _stream(object terms, object counters):
    """Return the stream of a new trace, as Stream and ShorteningStream make it."""
    cdef bint shortens = terms.shortens
    limit_bytes, floor_bytes = terms.limit_bytes, terms.envelope_bytes - 2
    stream = PyType_GenericAlloc(<PyTypeObject *>(ShorteningStream if shortens else Stream), 0)
    stream.limit_bytes = limit_bytes
    stream.hold_bytes = 2 * limit_bytes if shortens else limit_bytes
    stream.level_bytes = 0
    stream.events = []
    stream.exceptions = []
    stream.stripped_count = 0
    stream.is_too_big = False
    stream.dropped_events = 0
    stream.dropped_exceptions = 0
    stream.arrived_bytes = 0
    stream._empty_bytes = floor_bytes
    stream.floor_bytes = floor_bytes
    stream._counters = counters
    return stream


cdef object _enter(object trace, object ring_id, long long opened_bytes, object accounts, object account):
    """Count a new trace in its ring's account, and return that. `account`: None: it is not known yet."""
    cdef long long held_bytes = _TRACE_BYTES + opened_bytes + <long long>trace.stream.floor_bytes
    if account is None:
        account = accounts.charge(ring_id, held_bytes, 0, 1)
    else:
        account.open_bytes += held_bytes
        account.open_traces += 1
    trace.account = account
    return account


cdef bint _closes(object trace, object ring_id, object ordinal, object payload) except -1:
    """Close a trace by the CLOSE of its process, unless that says that the trace failed."""
    if PyBytes_Size(payload) != _CLOSE_BYTES or trace.is_closed or trace.ring_id != ring_id:
        return False
    duration_s, error_code = unpack_close(payload)
    if error_code != _UNCHANGED:
        return False
    trace.is_closed = True
    trace.close_ordinal = ordinal
    # Not a number: it was not measured.
    if trace.has_own_runner and duration_s == duration_s:
        trace.runner["duration"] = duration_s
    return True
