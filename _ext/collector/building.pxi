"""Builds the body of a usual trace: nothing in it is cut or told besides, and it goes to a backend of epsagon's."""


def whole(object trace):
    """Return the body of a closed trace within its limit; None: it is not a usual one, see body.py."""
    cdef object runner = trace.runner, error = trace.error
    if error is not None or trace.dropped_records is not None or not isinstance(runner, dict):
        return None
    terms = trace.terms
    envelope = terms.envelope
    resource = runner.get("resource")
    metadata = resource.get("metadata") if isinstance(resource, dict) else None
    if not isinstance(metadata, dict) or not isinstance(envelope, JsonEnvelope):
        return None
    cdef bytes own = dumps(_labelled(runner, resource, metadata, trace.labels))
    stream = trace.stream
    cdef list events = stream.events, exceptions = stream.exceptions
    # All that came is there if it is within the limit, since it always was.
    cdef long long commas = len(events) + max(0, len(exceptions) - 1)
    if stream.event_count != len(events) or stream.exception_count != len(exceptions):
        return None
    if terms.envelope_bytes + stream.arrived_bytes + commas + len(own) > terms.limit_bytes:
        return None
    place = trace.runner_place
    cdef Py_ssize_t at = len(events) if place is None or place > len(events) else place
    cdef list parts = [*events[:at], own, *events[at:]]
    return envelope.around(parts, exceptions)


cdef dict _labelled(dict runner, dict resource, dict metadata, object labels):
    """Return runners.with_labels of a runner that has a resource with metadata."""
    metadata = PyDict_Copy(metadata)
    metadata[_LABELS_KEY] = labels_json(labels) if labels else "{}"
    resource = PyDict_Copy(resource)
    resource["metadata"] = metadata
    runner = PyDict_Copy(runner)
    runner["resource"] = resource
    return runner
