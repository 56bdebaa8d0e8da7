"""Builds the body of a usual trace: nothing in it is cut or told besides."""


def whole(object trace):
    """Return the body of a closed trace within its limit, and its size without one; None: it is no usual one.

    See body.py. ValueError: an event is not JSON.
    """
    cdef object runner = trace.runner, error = trace.error
    if error is not None or trace.dropped_records is not None or not isinstance(runner, dict):
        return None
    terms = trace.terms
    envelope = terms.envelope
    resource = runner.get("resource")
    metadata = resource.get("metadata") if isinstance(resource, dict) else None
    if not isinstance(metadata, dict):
        return None
    cdef bytes own = dumps(_labelled(runner, resource, metadata, trace.labels))
    stream = trace.stream
    cdef list events = stream.events, exceptions = stream.exceptions
    if stream.dropped_events or stream.dropped_exceptions:
        return None
    cdef long long commas = len(events) + max(0, len(exceptions) - 1)
    # All that ever came: if that is within the limit, nothing was taken away.
    cdef long long size = terms.envelope_bytes + stream.arrived_bytes + commas + len(own)
    if size > terms.limit_bytes:
        return None
    place = trace.runner_place
    cdef Py_ssize_t at = len(events) if place is None or place > len(events) else place
    if isinstance(envelope, JsonEnvelope):
        return _around(envelope, events, at, own, exceptions), size
    cdef list together = events[:]
    together.insert(at, own)
    return envelope.body(FittedTrace(trace.trace_id, together, at, exceptions)), size


cdef bytes _around(object envelope, list events, Py_ssize_t at, bytes own, list exceptions):
    """Return JsonEnvelope.around of these events, with another one at a place among them."""
    head, middle, tail = envelope
    cdef Py_ssize_t size = PyBytes_Size(head) + PyBytes_Size(middle) + PyBytes_Size(tail) + PyBytes_Size(own), number
    for each in events:
        size += PyBytes_Size(each) + 1
    for each in exceptions:
        size += PyBytes_Size(each)
    cdef bytes body = PyBytes_FromStringAndSize(NULL, size + max(0, len(exceptions) - 1))
    cdef char *to = _copied(PyBytes_AsString(body), head)
    for number in range(at):
        to = _copied(to, events[number])
        to = _copied(to, b",")
    to = _copied(to, own)
    for number in range(at, len(events)):
        to = _copied(to, b",")
        to = _copied(to, events[number])
    to = _copied(to, middle)
    for number in range(len(exceptions)):
        if number:
            to = _copied(to, b",")
        to = _copied(to, exceptions[number])
    _copied(to, tail)
    return body


cdef char *_copied(char *to, object part) except NULL:
    """Copy bytes to a place; return where they end."""
    cdef Py_ssize_t size = PyBytes_Size(part)
    memcpy(to, PyBytes_AsString(part), size)
    return to + size


cdef dict _labelled(dict runner, dict resource, dict metadata, object labels):
    """Return runners.with_labels of a runner that has a resource with metadata."""
    metadata = PyDict_Copy(metadata)
    metadata[_LABELS_KEY] = labels_json(labels) if labels else "{}"
    resource = PyDict_Copy(resource)
    resource["metadata"] = metadata
    runner = PyDict_Copy(runner)
    runner["resource"] = resource
    return runner
