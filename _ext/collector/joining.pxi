"""Joins the spans of a part by their scopes."""


cdef list _in_order(list scopes, int *order):
    """Return the scopes as they are sorted; `order` gets the number of each."""
    cdef int number
    ordered = scopes if len(scopes) == 1 else sorted(scopes)
    for number in range(<int>len(ordered)):
        order[number] = _scope_of(scopes, ordered[number])
    return ordered


cdef bytes _joined_json(part_state *state, list scopes, bytes resource):
    cdef int order[SCOPES]
    cdef int number
    cdef Py_ssize_t span
    cdef size_t size
    cdef bint is_first
    cdef char *at
    cdef bytes part
    ordered = _in_order(scopes, order)
    size = len(b'{"resource":,"scopeSpans":[]}') + PyBytes_Size(resource) + len(ordered) - 1 + state.buffer.used
    for scope in ordered:
        size += PyBytes_Size(scope[3]) + len(b"]}")
    # A comma between two spans of a scope.
    size += state.count - len(ordered)
    part = PyBytes_FromStringAndSize(NULL, size)
    at = PyBytes_AsString(part)
    at = _copy_bytes(at, b'{"resource":')
    at = _copy_bytes(at, resource)
    at = _copy_bytes(at, b',"scopeSpans":[')
    for number in range(<int>len(ordered)):
        if number:
            at = _copy_bytes(at, b",")
        at = _copy_bytes(at, ordered[number][3])
        is_first = True
        for span in range(state.count):
            if state.spans[span].scope == order[number]:
                if not is_first:
                    at[0] = c","
                    at += 1
                is_first = False
                at = _copy_span(at, state, span)
        at = _copy_bytes(at, b"]}")
    _copy_bytes(at, b"]}")
    return part


cdef bytes _joined_protobuf(part_state *state, list scopes, bytes resource):
    cdef int order[SCOPES]
    cdef size_t sizes[SCOPES]
    cdef int number
    cdef Py_ssize_t span
    cdef size_t size, length
    cdef char *at
    cdef bytes part
    ordered = _in_order(scopes, order)
    size = _sized(PyBytes_Size(resource))
    memset(sizes, 0, sizeof(sizes))
    for span in range(state.count):
        sizes[state.spans[span].scope] += _sized(state.spans[span].length)
    for number in range(<int>len(ordered)):
        length = sizes[order[number]] + PyBytes_Size(ordered[number][3])
        sizes[order[number]] = length
        size += _sized(length)
    part = PyBytes_FromStringAndSize(NULL, _sized(size))
    at = PyBytes_AsString(part)
    at = _tag(at, c"\x0a", size)
    at = _tag(at, c"\x0a", PyBytes_Size(resource))
    at = _copy_bytes(at, resource)
    for number in range(<int>len(ordered)):
        at = _tag(at, c"\x12", sizes[order[number]])
        at = _copy_bytes(at, ordered[number][3])
        for span in range(state.count):
            if state.spans[span].scope == order[number]:
                at = _tag(at, c"\x12", state.spans[span].length)
                at = _copy_span(at, state, span)
    return part


cdef size_t _sized(size_t length) noexcept:
    """Return the length of a member of so many bytes, with its tag."""
    return 1 + spans_varint_size(length) + length


cdef char *_tag(char *at, char tag, size_t length) noexcept:
    at[0] = tag
    return <char *>spans_varint(<unsigned char *>at + 1, length)


cdef char *_copy_bytes(char *at, bytes data) except NULL:
    memcpy(at, PyBytes_AsString(data), PyBytes_Size(data))
    return at + PyBytes_Size(data)


cdef char *_copy_span(char *at, part_state *state, Py_ssize_t span) noexcept:
    memcpy(at, state.buffer.data + state.spans[span].at, state.spans[span].length)
    return at + state.spans[span].length
