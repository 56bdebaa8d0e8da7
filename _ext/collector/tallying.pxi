"""Adds closed traces up as requests."""


def tally(
    list traces not None,
    Py_ssize_t at,
    object terms,
    dict numbers not None,
    set counted not None,
    Py_ssize_t id_bytes,
    tuple bounds_ns not None,
    object sums,
):
    """Add closed traces up from `at` on; return where one stands that has to be looked at, or the end.

    See measuring/tally.py.
    """
    cdef object trace, runner, found, trace_id, duration_s, number = None
    cdef list ids = []
    cdef long long duration_ns = 0, more_ns = 0
    cdef Py_ssize_t failures = 0, bucket = -1, place
    try:
        while 0 <= at < len(traces):
            trace = traces[at]
            runner, trace_id = trace.runner, trace.trace_id
            if runner is None or (counted and trace_id[:id_bytes] in counted):
                at += 1
                continue
            if trace.terms is not terms or not isinstance(runner, dict):
                break
            duration_s = (<dict>runner).get("duration")
            found = numbers.get(_name_of(runner))
            if found is None or not PyFloat_CheckExact(duration_s):
                break
            place = _bucket(duration_s, bounds_ns, &more_ns)
            if found is not number or place != bucket:
                _add_up(sums, number, bucket, failures, duration_ns, ids)
                number, bucket, ids = found, place, []
                failures, duration_ns = 0, 0
            ids.append(trace_id)
            duration_ns += more_ns
            if trace.error is not None or (<dict>runner).get("error_code") or (<dict>runner).get("exception"):
                failures += 1
            at += 1
    finally:
        _add_up(sums, number, bucket, failures, duration_ns, ids)
    return at


cdef int _add_up(object sums, number, Py_ssize_t bucket, Py_ssize_t failures, long long duration_ns, list ids) except -1:
    if ids:
        sums[number, bucket].add(failures, duration_ns, ids)
    return 0


cdef object _name_of(dict runner):
    """Return name_of_runner of a runner. Most have their name as it is."""
    resource = runner.get("resource")
    if isinstance(resource, dict):
        kind, name = (<dict>resource).get("type"), (<dict>resource).get("name")
        if isinstance(kind, str) and isinstance(name, str) and kind not in _RENAMED:
            return name
    return name_of_runner(runner)


cdef Py_ssize_t _bucket(double duration_s, tuple bounds_ns, long long *duration_ns) except -1:
    """measuring.histogram.placed."""
    cdef Py_ssize_t bucket, last = len(bounds_ns) - 1
    cdef double most_ns = <double>bounds_ns[last]
    duration_ns[0] = llrint(duration_s * 1e9) if 0 <= duration_s and duration_s * 1e9 <= most_ns else 0
    for bucket in range(last):
        if <long long>bounds_ns[bucket] >= duration_ns[0]:
            return bucket
    return last
