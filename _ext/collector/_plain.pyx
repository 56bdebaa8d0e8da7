# cython: language_level=3
# distutils: depends = _ext/collector/plain.h _ext/collector/spans.h
"""Writes a trace's part of an OTLP request. `plain.h` says which events it reads, `spans.h` what it makes of them.

What is not plain becomes a span by Python (`plain.Writing`), and stands where it would stand.
"""

from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize, PyBytes_Size
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from cpython.ref cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from epsagon_fast.collector.formats.plain_terms import (
    ANSWER,
    COPIED,
    GROUPED,
    HAS_KIND,
    HAS_PORT,
    HAS_ROUTE,
    HAS_SCOPE,
    HAS_STATUS,
    HAS_VERSION,
    NUMBER,
    OTHER,
    OTHERS,
    REQUESTS,
    SCOPE,
    TASKS,
    TERMS,
    TOLD,
    UNSEEN,
)
from epsagon_fast.collector.formats.conventions import CELERY, CELERY_OPERATIONS, HTTP
from epsagon_fast.protocol import HTTP_TRACE_ID_KEY, NANOSECONDS_FROM, TRACESTATE_KEY


cdef extern from "Python.h":
    PyObject *PyDict_GetItemWithError(object, object) except? NULL
    PyObject *PyTuple_GetItem(object, Py_ssize_t) except NULL


cdef extern from "spans.h":
    ctypedef enum plain_kind:
        PLAIN_TEXT
        PLAIN_INT
        PLAIN_FLOAT
        PLAIN_BOOL
        PLAIN_NULL
        PLAIN_NESTED
    ctypedef struct plain_value:
        const unsigned char *at
        size_t length
        plain_kind kind
        bint has_escapes
    ctypedef struct plain_member:
        plain_value key
        plain_value value
    ctypedef struct plain_event:
        plain_value *fields
        plain_value *words
        plain_member *members
        size_t count
    enum:
        PLAIN_ID, PLAIN_PARENT, PLAIN_ORIGIN, PLAIN_START, PLAIN_DURATION
        PLAIN_NAME, PLAIN_TYPE, PLAIN_OPERATION
        PLAIN_MEMBERS, SPANS_ID_DIGITS, SPANS_INT_DIGITS
    uint64_t SPANS_NANOSECONDS_FROM
    ctypedef struct spans_buffer:
        unsigned char *data
        size_t used, room
        bint failed
    ctypedef struct spans_term:
        const unsigned char *key
        size_t key_length
        const unsigned char *name
        size_t name_length
        int code, mark
        size_t number
    ctypedef struct spans_terms:
        spans_term *places
        size_t mask
    bint plain_is_ascii(const unsigned char *at, size_t length) noexcept
    bint plain_is(const plain_value *value, const char *text, size_t length) noexcept
    bint plain_simple(const plain_value *value) noexcept
    bint plain_read(plain_event *out, const unsigned char *event, size_t length) noexcept
    void spans_put(spans_buffer *buffer, const void *data, size_t length) noexcept
    void spans_put_comma(spans_buffer *buffer) noexcept
    size_t spans_varint_size(uint64_t number) noexcept
    unsigned char *spans_varint(unsigned char *at, uint64_t number) noexcept
    bint spans_is_natural(const plain_value *value) noexcept
    ctypedef struct spans_id:
        const unsigned char *hex
        uint64_t number
    ctypedef struct spans_trace:
        unsigned char *hex
        uint64_t *numbers
        plain_value state
    ctypedef struct spans_ids:
        uint64_t *places
        size_t mask
    bint spans_read_hex(const unsigned char *hex, uint64_t *out) noexcept
    void spans_write_hex(unsigned char *at, uint64_t number) noexcept
    bint spans_read_id(const plain_value *text, spans_id *out) noexcept
    bint spans_take_trace(spans_trace *trace, const unsigned char *hex, size_t digits) noexcept
    uint64_t *spans_id_place(const spans_ids *ids, uint64_t number) noexcept
    bint spans_nanoseconds(const plain_value *seconds, uint64_t *out) noexcept
    bint spans_moment(const plain_value *time, uint64_t *out) noexcept
    spans_term *spans_place(const spans_terms *terms, const unsigned char *key, size_t length) noexcept
    void spans_put_json(spans_buffer *, const plain_value *name, const plain_value *, plain_kind) noexcept
    void spans_put_protobuf(spans_buffer *, const plain_value *name, const plain_value *, plain_kind) noexcept
    void spans_put_ids(
        spans_buffer *, bint is_json, const spans_trace *, const spans_id *own, const spans_id *parent
    ) noexcept
    void spans_put_times(spans_buffer *, bint is_json, uint64_t start_ns, uint64_t end_ns) noexcept
    void spans_put_end(spans_buffer *, bint is_json, const plain_value *state) noexcept
    size_t spans_count_json(const unsigned char *part, size_t length) noexcept
    long long spans_count_members(const unsigned char *part, size_t length, const char *way) noexcept
    const char *SPANS_WAY

# Scopes that a part may have if it is written here, and bytes of what decides a head, if that is to be remembered.
DEF SCOPES = 16
DEF HEAD_BYTES = 384
DEF SAID = 5
DEF TRACE_BYTES = 16
DEF MOST_HEADS = 4096

if NANOSECONDS_FROM != SPANS_NANOSECONDS_FROM or HAS_STATUS != HAS_ROUTE << SAID - 1:
    raise ImportError("built for other terms")

cdef int _COPIED = COPIED, _NUMBER = NUMBER, _ANSWER = ANSWER, _UNSEEN = UNSEEN, _GROUPED = GROUPED, _OTHER = OTHER
cdef int _HAS_ROUTE = HAS_ROUTE, _HAS_SCOPE = HAS_SCOPE, _HAS_PORT = HAS_PORT
cdef int _REQUESTS = REQUESTS, _TASKS = TASKS, _OTHERS = OTHERS, _TOLD = TOLD
# Keeps the bytes that the names below have.
cdef list _kept = []


ctypedef struct span_name:
    const char *text
    size_t length


cdef span_name _name(str text) except *:
    cdef span_name name
    own = text.encode()
    _kept.append(own)
    name.text, name.length = PyBytes_AsString(own), PyBytes_Size(own)
    return name


cdef bint _is(const plain_value *value, const span_name *name) noexcept:
    return value.length == name.length and plain_is(value, name.text, name.length)


cdef span_name _SCOPE_NAME = _name(SCOPE), _TRACE_ID = _name(HTTP_TRACE_ID_KEY), _STATE = _name(TRACESTATE_KEY)
cdef span_name _HTTP = _name(HTTP), _CELERY = _name(CELERY)
cdef tuple _OPERATIONS = tuple(operation.encode() for operation in CELERY_OPERATIONS)
# Members of groups have such names, and a runner's own metadata seldom.
cdef tuple _GROUPS = tuple(
    key.encode() + b"." for key, term in TERMS[OTHERS][True].items() if term.code == GROUPED
)
cdef spans_terms _tables[4][2]
# What a place's number says: (bytes of the key, bytes of the name, the term). Keeps the bytes that the places have.
cdef list _rows = []


cdef int _fill(spans_terms *terms, dict of) except -1:
    cdef size_t room = 8
    cdef spans_term *place
    while room < 3 * <size_t>len(of):
        room *= 2
    # For as long as the process lives.
    terms.places = <spans_term *>PyMem_Malloc(room * sizeof(spans_term))
    if terms.places == NULL:
        raise MemoryError
    memset(terms.places, 0, room * sizeof(spans_term))
    terms.mask = room - 1
    for key, term in of.items():
        own, name = key.encode(), term.name.encode()
        place = spans_place(terms, <const unsigned char *>PyBytes_AsString(own), len(own))
        place.key, place.key_length = <const unsigned char *>PyBytes_AsString(own), len(own)
        place.name, place.name_length = <const unsigned char *>PyBytes_AsString(name), len(name)
        place.code, place.mark, place.number = term.code, term.mark, len(_rows)
        _rows.append((own, name, term))
    return 0


for _number in range(4):
    _fill(&_tables[_number][0], TERMS[_number][0])
    _fill(&_tables[_number][1], TERMS[_number][1])


ctypedef struct span_place:
    int scope
    size_t at, length


ctypedef struct part_state:
    spans_buffer buffer
    bint is_json
    spans_trace trace
    spans_id runner
    unsigned char runner_hex[16]
    bint has_runner
    uint64_t begun_ns
    span_place *spans
    Py_ssize_t count


def counted(bytes part not None, bint is_json):
    """Return how many spans a part of a request has; None: Python is to say it."""
    cdef const unsigned char *at = <const unsigned char *>PyBytes_AsString(part)
    cdef long long count
    if is_json:
        return spans_count_json(at, PyBytes_Size(part))
    count = spans_count_members(at, PyBytes_Size(part), SPANS_WAY)
    return None if count < 0 else count


cdef class TakenIds:
    """The ids of the spans of a part that are written. To SpanIds it is a set of texts."""

    cdef spans_ids ids

    def __dealloc__(self):
        PyMem_Free(self.ids.places)

    cdef int room(self, size_t count) except -1:
        """Make room for so many."""
        cdef size_t places = 8
        while places < 2 * (count + 1):
            places *= 2
        self.ids.places = <uint64_t *>PyMem_Calloc(places, sizeof(uint64_t))
        if self.ids.places == NULL:
            raise MemoryError
        self.ids.mask = places - 1
        return 0

    def __contains__(self, str text not None):
        return spans_id_place(&self.ids, _id_number(text))[0] != 0

    def add(self, str text not None):
        cdef uint64_t number = _id_number(text)
        spans_id_place(&self.ids, number)[0] = number


cdef uint64_t _id_number(str text) except? 0:
    """Return the number of an id."""
    cdef uint64_t number
    cdef bytes hex = text.encode()
    if PyBytes_Size(hex) != SPANS_ID_DIGITS or not spans_read_hex(<const unsigned char *>PyBytes_AsString(hex), &number):
        raise ValueError("no id")
    return number


def written(object trace, bytes resource not None, writing not None):
    """Return a trace's part of a request; None: Python is to write all of it. ValueError: an event is not JSON."""
    cdef part_state state
    cdef Py_ssize_t count
    trace_id, events, place, exceptions = trace
    count = len(events)
    if count == 0 or not isinstance(trace_id, bytes) or len(trace_id) != TRACE_BYTES:
        return None
    memset(&state, 0, sizeof(state))
    state.count = count
    state.spans = <span_place *>PyMem_Malloc(count * sizeof(span_place))
    if state.spans == NULL:
        raise MemoryError
    try:
        if type(events) is not list:
            events = list(events)
        return _part(&state, trace, trace_id, events, -1 if place is None else place, exceptions, resource, writing)
    finally:
        PyMem_Free(state.spans)
        free(state.buffer.data)


cdef bytes _part(
    part_state *state, object trace, bytes trace_id, list events, Py_ssize_t place, object exceptions, bytes resource,
    object writing
):
    cdef plain_event runner, event
    cdef plain_event *read
    cdef bint runner_is_plain = False
    cdef Py_ssize_t number, byte, host = -1
    cdef object spans = None, span
    cdef uint64_t half[2]
    cdef size_t start
    cdef int scope
    cdef list scopes = []
    cdef TakenIds taken = TakenIds()
    cdef bytes shared
    half[0] = half[1] = 0
    state.is_json = writing.is_json
    if exceptions:
        host = max(place, 0)
    for number in range(2):
        for byte in range(8):
            half[number] = half[number] << 8 | <unsigned char>PyBytes_AsString(trace_id)[8 * number + byte]
        state.trace.numbers[number] = half[number]
        spans_write_hex(state.trace.hex + SPANS_ID_DIGITS * number, half[number])
    # A span's id of zeros means none.
    state.runner.number = half[0] or 1
    state.runner.hex = state.runner_hex
    spans_write_hex(state.runner_hex, state.runner.number)
    taken.room(state.count + 1)
    spans_id_place(&taken.ids, state.runner.number)[0] = state.runner.number
    state.has_runner = place >= 0
    if place >= 0:
        runner_is_plain = _read(&runner, events[place])
        if runner_is_plain:
            if not _shared_by(state, &runner):
                return None
            state.begun_ns = _nanoseconds(&runner.fields[PLAIN_START], True, writing)
        else:
            spans = writing.spans(trace, taken)
            if spans.state:
                return None
            state.begun_ns = spans.begun_ns
            shared = spans.ids.trace_id.encode()
            spans_take_trace(&state.trace, <const unsigned char *>PyBytes_AsString(shared), PyBytes_Size(shared))
    for number in range(state.count):
        start = state.buffer.used
        scope = -1
        if number != host:
            if number == place:
                read = &runner if runner_is_plain else NULL
            else:
                read = &event if _read(&event, events[number]) else NULL
            if read != NULL:
                scope = _write(state, read, number, number == place, taken, scopes, writing)
        if scope < 0:
            # What of it was written already is no span.
            state.buffer.used = start
            if spans is None:
                spans = writing.spans(trace, taken)
            span = writing.other(spans, number)
            scope = _scope_of(scopes, span[0])
            _put(&state.buffer, span[1])
        if state.buffer.failed:
            raise MemoryError
        if len(scopes) > SCOPES:
            return None
        state.spans[number].scope = scope
        state.spans[number].at = start
        state.spans[number].length = state.buffer.used - start
    return _joined_json(state, scopes, resource) if state.is_json else _joined_protobuf(state, scopes, resource)


cdef bint _read(plain_event *out, object event) except -1:
    """Read an event; return whether it is plain."""
    if not isinstance(event, bytes):
        return False
    if not plain_read(out, <const unsigned char *>PyBytes_AsString(event), PyBytes_Size(event)):
        return False
    if not plain_is_ascii(<const unsigned char *>PyBytes_AsString(event), PyBytes_Size(event)):
        try:
            event.decode()
        except UnicodeDecodeError:
            return False
    return True


cdef plain_value *_member(plain_event *event, const span_name *name) noexcept:
    cdef size_t number
    for number in range(event.count):
        if _is(&event.members[number].key, name):
            return &event.members[number].value
    return NULL


cdef bint _shared_by(part_state *state, plain_event *runner) except -1:
    """Note what the runner says of all spans. Return whether that is said plainly."""
    cdef plain_value *said = _member(runner, &_TRACE_ID)
    if said != NULL and said.kind == PLAIN_TEXT:
        spans_take_trace(&state.trace, said.at, said.length)
    said = _member(runner, &_STATE)
    if said != NULL:
        if not plain_simple(said):
            return False
        state.trace.state = said[0]
    return True


cdef uint64_t _nanoseconds(const plain_value *time, bint is_moment, object writing) except? 1:
    """Return nanoseconds of a time since the epoch, or of a duration."""
    cdef uint64_t found
    if spans_moment(time, &found) if is_moment else spans_nanoseconds(time, &found):
        return found
    return writing.nanoseconds(PyBytes_FromStringAndSize(<const char *>time.at, time.length), is_moment)


cdef str _text(const plain_value *value):
    return PyUnicode_DecodeUTF8(<const char *>value.at, value.length, NULL) if value.at != NULL else None


cdef int _scope_of(list scopes, object scope) except -2:
    """Return the number of a scope among those of the part."""
    cdef int number
    for number in range(<int>len(scopes)):
        if scopes[number] is scope:
            return number
    for number in range(<int>len(scopes)):
        if scopes[number] == scope:
            return number
    scopes.append(scope)
    return <int>len(scopes) - 1


cdef spans_terms *_terms_of(plain_event *event, bint is_runner) except NULL:
    cdef int table = _OTHERS
    cdef plain_value *kind = &event.words[PLAIN_TYPE]
    cdef plain_value *scope = _member(event, &_SCOPE_NAME)
    if scope != NULL and scope.kind == PLAIN_TEXT:
        table = _TOLD
    elif _is(kind, &_HTTP):
        table = _REQUESTS
    elif _is(kind, &_CELERY):
        for operation in _OPERATIONS:
            if plain_is(&event.words[PLAIN_OPERATION], PyBytes_AsString(operation), PyBytes_Size(operation)):
                table = _TASKS
    return &_tables[table][is_runner]


cdef int _write(
    part_state *state, plain_event *event, Py_ssize_t number, bint is_runner, TakenIds taken, list scopes, object writing
) except -2:
    """Write a span; return the number of its scope, or -1: it is not plain, and what was written of it is no span."""
    cdef spans_term *terms[PLAIN_MEMBERS]
    cdef plain_value said[SAID]
    cdef uint64_t start_ns, took_ns
    cdef int marks = 0, bit
    cdef size_t place
    cdef spans_term *term
    cdef plain_value *value
    cdef plain_value *key
    cdef spans_terms *table = _terms_of(event, is_runner)
    cdef spans_id own = state.runner, parent
    cdef const spans_id *above = NULL
    cdef bytes made = None
    memset(said, 0, sizeof(said))
    for place in range(event.count):
        key, value = &event.members[place].key, &event.members[place].value
        term = spans_place(table, key.at, key.length)
        terms[place] = term
        if term.key == NULL:
            if is_runner and _is_of_group(key):
                return -1
            continue
        if term.code == _OTHER:
            return -1
        marks |= term.mark
        if term.mark >= _HAS_ROUTE:
            if not plain_simple(value):
                return -1
            for bit in range(SAID):
                if term.mark == _HAS_ROUTE << bit:
                    said[bit] = value[0]
    head = _head(event, is_runner, marks, said, writing)
    if marks & _HAS_PORT and head[4]:
        return -1
    if not is_runner and (
        not spans_read_id(&event.fields[PLAIN_ID], &own) or spans_id_place(&taken.ids, own.number)[0]
    ):
        made = _other_id(state, &event.fields[PLAIN_ID], number, writing)
        own.hex = <const unsigned char *>PyBytes_AsString(made)
        spans_read_hex(own.hex, &own.number)
    if spans_read_id(&event.fields[PLAIN_PARENT], &parent) and parent.number != own.number:
        above = &parent
    elif not is_runner and state.has_runner:
        above = &state.runner
    start_ns = _nanoseconds(&event.fields[PLAIN_START], True, writing)
    took_ns = _nanoseconds(&event.fields[PLAIN_DURATION], False, writing)
    if start_ns == 0 and not marks & _HAS_SCOPE:
        start_ns = state.begun_ns
    spans_put_ids(&state.buffer, state.is_json, &state.trace, &own, above)
    _put(&state.buffer, <object>PyTuple_GetItem(head, 1))
    spans_put_times(&state.buffer, state.is_json, start_ns, start_ns + min(took_ns, ~start_ns))
    _put(&state.buffer, <object>PyTuple_GetItem(head, 2))
    for place in range(event.count):
        if not _put_member(state, &event.members[place], terms[place], writing):
            return -1
    _put(&state.buffer, <object>PyTuple_GetItem(head, 3))
    spans_put_end(&state.buffer, state.is_json, &state.trace.state)
    spans_id_place(&taken.ids, own.number)[0] = own.number
    return _scope_of(scopes, <object>PyTuple_GetItem(head, 0))


cdef bint _is_of_group(const plain_value *key) except -1:
    """Say whether a member's name may be that of an attribute that a group becomes."""
    cdef plain_value start = key[0]
    for prefix in _GROUPS:
        start.length = PyBytes_Size(prefix)
        if key.length >= start.length and plain_is(&start, PyBytes_AsString(prefix), start.length):
            return True
    return False


cdef bytes _other_id(part_state *state, const plain_value *said, Py_ssize_t number, object writing):
    """Return the id of an event's span that cannot have its own."""
    runner = PyUnicode_DecodeUTF8(<const char *>state.runner_hex, SPANS_ID_DIGITS, NULL)
    return writing.other_id(runner, number, _text(said)).encode()


cdef object _head(plain_event *event, bint is_runner, int marks, const plain_value *said, object writing):
    """Return the head of a span, which is looked up by all that decides it."""
    cdef char key[HEAD_BYTES]
    cdef char *at = key
    cdef size_t size = 2 + 4 + SAID
    cdef int number
    cdef dict heads = writing.heads
    cdef PyObject *found
    cdef bytes known
    for number in range(3):
        size += event.words[number].length
    size += event.fields[PLAIN_ORIGIN].length
    for number in range(SAID):
        size += said[number].length
    if size > HEAD_BYTES:
        return _new_head(event, is_runner, marks, said, writing)
    # A zero stands in no text. A mark tells an empty text from none.
    at[0], at[1] = c"r" if is_runner else c"e", <char>marks
    at += 2
    for number in range(3):
        at = _append(at, &event.words[number])
    at = _append(at, &event.fields[PLAIN_ORIGIN])
    for number in range(SAID):
        at = _append(at, &said[number])
    known = PyBytes_FromStringAndSize(key, at - key)
    found = PyDict_GetItemWithError(heads, known)
    if found != NULL:
        return <object>found
    head = _new_head(event, is_runner, marks, said, writing)
    if len(heads) >= MOST_HEADS:
        heads.clear()
    heads[known] = head
    return head


cdef char *_append(char *at, const plain_value *text) noexcept:
    if text.length:
        memcpy(at, text.at, text.length)
    at[text.length] = 0
    return at + text.length + 1


cdef object _new_head(plain_event *event, bint is_runner, int marks, const plain_value *said, object writing):
    words = tuple([_text(&event.words[number]) for number in range(3)])
    texts = tuple([_text(&said[number]) for number in range(SAID)])
    return writing.head(words, _text(&event.fields[PLAIN_ORIGIN]), is_runner, marks, texts)


cdef bint _put_member(part_state *state, plain_member *member, const spans_term *term, object writing) except -1:
    """Write a member as an attribute; return whether it could be one."""
    cdef plain_value *value = &member.value
    cdef plain_value name = member.key
    cdef int code = _COPIED
    cdef plain_kind kind = value.kind
    if term.key != NULL:
        code = term.code
        name.at, name.length, name.has_escapes = term.name, term.name_length, False
    if code == _UNSEEN:
        return True
    if code == _GROUPED and kind == PLAIN_TEXT and plain_is(value, "{}", 2):
        return True
    if code == _ANSWER:
        # An answer of 400 or more may be an error. One that is none takes the longer way.
        if not (kind == PLAIN_TEXT or kind == PLAIN_INT) or not spans_is_natural(value):
            return False
        if value.length > 3 or (value.length == 3 and value.at[0] >= c"4"):
            return False
        kind = PLAIN_INT
    elif code == _NUMBER and (kind == PLAIN_TEXT or kind == PLAIN_INT) and spans_is_natural(value):
        kind = PLAIN_INT
    elif code != _COPIED or not (
        kind == PLAIN_TEXT or kind == PLAIN_BOOL or (kind == PLAIN_INT and value.length <= SPANS_INT_DIGITS)
    ):
        return _put_converted(state, &name, value, term, writing)
    if state.is_json:
        spans_put_json(&state.buffer, &name, value, kind)
    else:
        spans_put_protobuf(&state.buffer, &name, value, kind)
    return True


cdef bint _put_converted(
    part_state *state, const plain_value *name, const plain_value *value, const spans_term *term, object writing
) except -1:
    """Write a member as the attributes that Python makes of it; return whether it could."""
    cdef size_t quote = 1 if value.kind == PLAIN_TEXT else 0
    cdef object convert = None
    key = b'"%b"' % PyBytes_FromStringAndSize(<const char *>name.at, name.length)
    said = PyBytes_FromStringAndSize(<const char *>value.at - quote, value.length + 2 * quote)
    if term.key == NULL or term.code != _GROUPED:
        convert = writing.copied if term.key == NULL else _rows[term.number][2].convert
    data = writing.converted(key, said, convert)
    if data is None:
        return False
    if data and state.is_json:
        spans_put_comma(&state.buffer)
    _put(&state.buffer, data)
    return True


cdef int _put(spans_buffer *buffer, object data) except -1:
    spans_put(buffer, PyBytes_AsString(data), PyBytes_Size(data))
    return 0


include "joining.pxi"
