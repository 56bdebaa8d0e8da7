"""Takes the usual records into their traces: OPEN, EVENT, LABEL, RUNNER, CLOSE.

What is unusual in one is left to Assembly.feed.
"""


def take(
    records not None,
    Py_ssize_t at,
    bytes ring_id not None,
    OpenTraces traces not None,
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
    cdef records_view view
    cdef object kept = _seen(records, &view), of, trace = None, account = None
    cdef list ids = _ids(&view)
    cdef PyObject *known
    cdef dict of_ring = None
    cdef Py_ssize_t end
    while 0 <= at < view.count:
        of, end = ids[view.places[at].run], _next_run(&view, at)
        known = traces._trace(of)
        trace = None if known is NULL else <object>known
        if trace is None:
            if records_header(&view, at).kind == _OPEN and is_new(of):
                trace = _opened(&view, at, of, ring_id, counters)
            if trace is None:
                break
            account = _enter(trace, ring_id, records_header(&view, at).length, accounts, account)
            traces[of] = trace
            if of_ring is None:
                of_ring = of_rings.setdefault(ring_id, {})
            of_ring[of] = trace
            at += 1
        at = _take_run(trace, &view, at, end, ring_id, of, closed, answered)
        if at < end:
            break
    return at


cdef Py_ssize_t _take_run(
    object trace,
    const records_view *view,
    Py_ssize_t at,
    Py_ssize_t end,
    object ring_id,
    object trace_id,
    list closed,
    list answered,
) except -1:
    """Take the usual records of one trace that stand together; return where another one stands, or their end."""
    cdef object stream = trace.stream
    cdef list events = stream.events
    # What the trace may still take, and what came for it.
    cdef long long room = -1 if stream.is_too_big else stream.hold_bytes - stream.floor_bytes, came = 0, count = 0
    # What its labels and its runner have grown by.
    cdef long long grown = 0, more
    cdef ring_record record
    try:
        while at < end:
            record = records_header(view, at)
            if record.kind == _EVENT:
                if record.flags or record.length == 0 or <long long>record.length + 1 > room:
                    break
                events.append(PyBytes_FromStringAndSize(records_payload(view, at), record.length))
                room -= <long long>record.length + 1
                came += record.length
                count += 1
            elif record.kind == _CLOSE:
                if record.flags or not _closes(trace, ring_id, record.ordinal, _payload(view, at)):
                    break
                closed.append(trace)
                if record.ordinal:
                    answered.append(trace_id)
            elif record.kind == _RUNNER or record.kind == _LABEL:
                payload = _payload(view, at)
                more = _merges(trace, payload) if record.kind == _RUNNER else _labels(trace, payload)
                if more < 0:
                    break
                grown += more
            else:
                break
            at += 1
    finally:
        _put(trace, stream, came, count, grown)
    return at


cdef int _put(object trace, object stream, long long came, long long events, long long grown) except -1:
    """Write into a trace what came for it. Once for several records: each would make five objects of Python."""
    if events:
        stream.arrived_bytes += came
        stream.floor_bytes += came + events
    if events or grown:
        trace.account.open_bytes += came + events * (1 + _ENTRY_BYTES) + grown
    return 0


cdef long long _merges(object trace, object news) except -2:
    """OpenTrace.merge_runner. Return by how much the trace has grown; -1: it is left."""
    cdef object runner = trace.runner
    cdef long long size = PyBytes_Size(news), before = trace._runner_bytes
    if runner is None or before + size > _MAX_RUNNER_BYTES or _brackets(news) > _MANY:
        return -1
    try:
        decoded = loads(news)
    except ValueError:
        return -1
    if not isinstance(decoded, dict):
        return -1
    trace._runner_bytes = before + size
    _merge(runner, decoded)
    return size


cdef int _merge(dict event, dict news) except -1:
    for key, value in news.items():
        known = event.get(key)
        if isinstance(known, dict) and isinstance(value, dict):
            _merge(known, value)
        else:
            event[key] = value
    return 0


cdef long long _labels(object trace, object payload) except -2:
    """OpenTrace.add_label of a new label. Return by how much the trace has grown; -1: it is left."""
    cdef dict labels = trace.labels
    cdef Py_ssize_t key_bytes = 0, value_bytes = _LABEL_NUMBER_BYTES
    cdef long long before
    try:
        label = loads(payload)
    except ValueError:
        return -1
    if not isinstance(label, list) or len(label) != 2:
        return -1
    key, value = label
    # A number that is no int here may be one of more than 64 bits, which the standard library keeps.
    if not isinstance(key, str) or not isinstance(value, (str, int)) or key in labels:
        return -1
    PyUnicode_AsUTF8AndSize(key, &key_bytes)
    if isinstance(value, str):
        PyUnicode_AsUTF8AndSize(value, &value_bytes)
    before = trace._labels_bytes
    if before + key_bytes + value_bytes > _MAX_LABELS_BYTES:
        return -1
    trace._labels_bytes = before + key_bytes + value_bytes
    labels[key] = value
    return key_bytes + value_bytes


cdef object _opened(const records_view *view, Py_ssize_t number, object trace_id, object ring_id, object counters):
    """Return the trace of an OPEN, as OpenTrace makes it; None: it is not as our producers write it."""
    cdef const char *opened = records_payload(view, number)
    cdef Py_ssize_t size = records_header(view, number).length, at = 0
    cdef bytes rest
    cdef dict said
    start = _start(opened, size, &at)
    if start is None:
        return None
    # The comma before the runner becomes a bracket.
    rest = PyBytes_FromStringAndSize(opened + at, size - at)
    PyBytes_AsString(rest)[0] = c"{"
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
    trace._runner_news = {} if runner is None else _NO_NEWS
    trace._runner_bytes = size
    trace._labels_bytes = 0
    trace._error_bytes = 0
    return trace


cdef Py_ssize_t _brackets(object text) except -1:
    """Return how many brackets a text opens."""
    cdef const char *at = PyBytes_AsString(text)
    cdef const char *end = at + PyBytes_Size(text)
    cdef Py_ssize_t found = 0
    # A short one cannot have too many.
    if end - at <= _MANY:
        return 0
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
        account = accounts.charge(ring_id, held_bytes, 1)
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
