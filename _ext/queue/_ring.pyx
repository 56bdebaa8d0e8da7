# cython: language_level=3, binding=False
"""The ring, compiled. Same classes and answers as _pure.py; the layout is layout.py's."""

from zlib import crc32 as zlib_crc32

from cython cimport final
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AsString, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_Size
from cpython.exc cimport PyErr_SetFromErrno
from cpython.long cimport PyLong_AsLong, PyLong_AsLongAndOverflow, PyLong_AsUnsignedLongLong, PyLong_Check
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_New
from cpython.tuple cimport PyTuple_Check, PyTuple_GetItem, PyTuple_Size
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memmove, memset
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap

import os

from epsagon_fast.protocol import NO_TRACE, Kind, Record
from epsagon_fast.queue import layout
from epsagon_fast.queue.layout import CorruptRing


cdef extern from "ring.h":
    enum: TRACE_ID_BYTES, PLACES, PAGE_BYTES
    ctypedef struct ring_record:
        uint32_t length, crc
        uint8_t kind, flags
        uint16_t start
        uint32_t zeros
        uint64_t ordinal
        char trace_id[TRACE_ID_BYTES]

    uint64_t ring_load(const char *slot) noexcept
    void ring_store(char *slot, uint64_t value) noexcept
    void ring_add(char *slot, uint64_t amount) noexcept
    void ring_populate(char *base, size_t length) noexcept
    int ring_watch_forks(int may_wipe) noexcept
    uint64_t ring_new_generation() noexcept
    uint64_t ring_generation() noexcept

cdef extern from "crc.h":
    enum: CRC_LEAST
    int crc_is_quick() noexcept
    uint32_t crc_of(const unsigned char *at, size_t length, uint32_t crc) noexcept

cdef extern from "fast_method.h":
    ctypedef struct PyTypeObject
    ctypedef struct PyMethodDef:
        const char *ml_name
        const char *ml_doc

    int fast_method(PyTypeObject *, PyMethodDef *, object (*)(object, PyObject **, Py_ssize_t)) except -1

cdef extern from "calls.h":
    const char *RING_CALLS
    ctypedef struct ring_calls:
        int (*append)(object, int, int, const char *, const char *, uint64_t) noexcept
        int (*open)(object, uint64_t, const char *, const char *, uint64_t) noexcept
        int (*has_left)(object) noexcept
        int (*has_news)(object) noexcept
        int (*light)(object, const char *) noexcept
        void (*put_out)(object, int, const char *) noexcept

cdef extern from "record.h":
    enum: RECORD_FIELDS
    object new_record(PyTypeObject *, const ring_record *, object, object)

cdef extern from "records.h":
    const char *RECORDS_CALLS
    ctypedef struct record_place:
        size_t at, run
    ctypedef struct records_view:
        const char *packed
        const record_place *places
        Py_ssize_t count
        PyObject *ids
    ctypedef struct records_calls:
        int (*look)(object, records_view *) except -1

    ring_record records_header(const records_view *, Py_ssize_t) noexcept
    const char *records_payload(const records_view *, Py_ssize_t) noexcept


# layout.py's numbers as C values. Those that are missing here are used only where speed does not matter.
cdef size_t HEADER_BYTES = layout.HEADER_BYTES
cdef size_t HEAD = layout.HEAD, TAIL = layout.TAIL, CLOSED_COUNT = layout.CLOSED_COUNT, LEFT = layout.LEFT
cdef size_t SETTLEMENTS = layout.SETTLEMENTS
cdef size_t QUEUE_FULL = layout.QUEUE_FULL, NEWS_TOO_LARGE = layout.NEWS_TOO_LARGE
cdef size_t STARTS = layout.STARTS, STARTS_END = layout.STARTS_END
cdef int PUSHED = layout.PUSHED, LOOK = layout.LOOK, FULL = layout.FULL, TOO_LARGE = layout.TOO_LARGE
cdef int FOREIGN = layout.FOREIGN, CLOSED = layout.CLOSED, LOOK_SHIFT = layout.LOOK_SHIFT
cdef int OPEN_KIND = Kind.OPEN, RUNNER_KIND = Kind.RUNNER, CLOSE_KIND = Kind.CLOSE, BYE_KIND = Kind.BYE
cdef int END_KIND = layout.END, LAST_KIND = layout.LAST_KIND
cdef uint64_t CLOSE_BYTES = layout.CLOSE_BYTES
cdef uint64_t CLOSE_ROOM = layout.CLOSE_ROOM_BYTES, BYE_ROOM = layout.BYE_ROOM_BYTES
cdef uint64_t LARGEST_CLOSE = layout.LARGEST_CLOSE_BYTES
# More than most records have.
cdef uint64_t LAST_RECORD_BYTES = 4096
cdef int[16] free_shifts

cdef PyTypeObject *record_type = <PyTypeObject *>Record

# Each field has a value of its own, so both sides give the same bytes only if they have the same fields in the same places.
cdef bytes _trace_id = bytes(range(len(NO_TRACE)))
cdef ring_record _record
_record.length, _record.crc, _record.kind, _record.flags, _record.start, _record.zeros, _record.ordinal = range(1, 8)
if len(NO_TRACE) == TRACE_ID_BYTES:
    memcpy(_record.trace_id, PyBytes_AsString(_trace_id), TRACE_ID_BYTES)
if PyBytes_FromStringAndSize(<char *>&_record, sizeof(_record)) != layout.RECORD_HEADER.pack(*range(1, 8), _trace_id):
    raise ImportError("layout.py and ring.h do not agree")
if Record._fields != ("kind", "flags", "ordinal", "trace_id", "payload") or len(Record._fields) != RECORD_FIELDS:
    raise ImportError("protocol.py and record.h do not agree")
if layout.PLACES != PLACES or PLACES * TRACE_ID_BYTES != PAGE_BYTES:
    raise ImportError("layout.py and ring.h do not agree")
if len(layout.FREE_SHIFTS) != LAST_KIND + 1 or LAST_KIND >= sizeof(free_shifts) / sizeof(free_shifts[0]):
    raise ImportError("layout.py and _ring.pyx do not agree")
for _kind in range(LAST_KIND + 1):
    free_shifts[_kind] = layout.FREE_SHIFTS[_kind]


def watch_forks(may_wipe=True):
    """Get ready to notice forks; the first Producer does it. False: as on a system that cannot wipe a page on fork."""
    if ring_watch_forks(may_wipe) != 0:
        PyErr_SetFromErrno(OSError)


cdef object own_pid_object = None
cdef uint64_t own_pid_generation = 0


def own_pid():
    """Return os.getpid(), and ask the kernel once in each process: a call of it costs as much as a push."""
    global own_pid_object, own_pid_generation
    if own_pid_generation == 0 or ring_generation() != own_pid_generation:
        if ring_watch_forks(True) != 0:
            return os.getpid()
        own_pid_generation = ring_new_generation()
        own_pid_object = os.getpid()
    return own_pid_object


cdef class Mapping:
    """The first `length_bytes` of a file, shared and writable. The caller may close fd at once."""

    # NULL before __init__ and after close: each use checks it.
    cdef char *_base
    cdef size_t _length

    def __init__(self, int fd, Py_ssize_t length_bytes):
        self._map(fd, length_bytes)

    def __dealloc__(self):
        self._unmap()

    def __reduce__(self):
        # Cython would copy addresses.
        raise TypeError(f"a {type(self).__name__} of a ring cannot be copied: it belongs to one process")

    def load(self, Py_ssize_t offset):
        """Return the u64 at an offset."""
        return ring_load(self._slot(offset))

    def store(self, Py_ssize_t offset, uint64_t value):
        """Set the u64 at an offset."""
        ring_store(self._slot(offset), value)

    def add(self, Py_ssize_t offset, uint64_t amount):
        """Add to the u64 at an offset, in one step."""
        ring_add(self._slot(offset), amount)

    def copy(self, Py_ssize_t offset, Py_ssize_t length):
        """Return `length` bytes from an offset."""
        return PyBytes_FromStringAndSize(self._place(offset, length), length)

    def write(self, Py_ssize_t offset, bytes data not None):
        """Write bytes at an offset."""
        memcpy(self._place(offset, len(data)), PyBytes_AsString(data), len(data))

    def enter(self, Py_ssize_t count_at, Py_ssize_t at, Py_ssize_t places, items, bytes tail not None):
        """Write each of `items`, bytes, with `tail` behind it, to the next of `places` from `at` on, and count it.

        The count, a u64 at `count_at`, says which place is next. All entries have one length. A reader finds no more
        than one entry that is being written over, since each is counted as soon as it is written.
        """
        cdef uint64_t count = ring_load(self._slot(count_at)), room = places
        cdef Py_ssize_t tail_bytes = len(tail), item_bytes
        cdef char *place
        for item in items:
            item_bytes = PyBytes_Size(item)
            place = self._place(at + <Py_ssize_t>(count % room) * (item_bytes + tail_bytes), item_bytes + tail_bytes)
            memcpy(place, PyBytes_AsString(item), item_bytes)
            memcpy(place + item_bytes, PyBytes_AsString(tail), tail_bytes)
            # A damaged header may hold the largest number.
            count += 1
            ring_store(self._slot(count_at), count)

    def close(self):
        """Let go of the file. Later calls raise ValueError; closing again does nothing."""
        self._unmap()

    cdef void _unmap(self) noexcept:
        if self._base != NULL:
            munmap(self._base, self._length)
            self._base = NULL

    cdef int _map(self, int fd, Py_ssize_t length_bytes) except -1:
        cdef void *base
        size_bytes = os.fstat(fd).st_size
        # Touching a page past the file's end kills the process with SIGBUS.
        if not 0 < length_bytes <= size_bytes:
            raise ValueError(f"cannot map {length_bytes} bytes of a file of {size_bytes}")
        self._unmap()
        base = mmap(NULL, length_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
        if base == MAP_FAILED:
            PyErr_SetFromErrno(OSError)
        self._base, self._length = <char *>base, length_bytes
        return 0

    cdef char *_place(self, Py_ssize_t offset, Py_ssize_t length) except NULL:
        if self._base == NULL:
            raise ValueError("the mapping is closed")
        if offset < 0 or length < 0 or <size_t>offset > self._length or <size_t>length > self._length - offset:
            raise IndexError(f"{length} bytes at {offset} are not within {self._length}")
        return self._base + offset

    cdef char *_slot(self, Py_ssize_t offset) except NULL:
        if offset % 8:
            raise IndexError(f"offset {offset} is not a multiple of 8")
        return self._place(offset, 8)


cdef class _Ring(Mapping):
    """A whole ring, its data addressed by offset."""

    cdef char *_data
    cdef uint64_t _capacity, _largest

    def __init__(self, int fd):
        cdef uint64_t capacity = layout.read_capacity(fd), largest = layout.largest_payload_bytes(capacity)
        # First, since it may fail: the sizes always belong to what is mapped.
        self._map(fd, HEADER_BYTES + capacity)
        self._data, self._capacity, self._largest = self._base + HEADER_BYTES, capacity, largest

    @property
    def head(self):
        """The position after the last record."""
        return ring_load(self._slot(HEAD))

    @property
    def tail(self):
        """The position up to which the consumer is done."""
        return ring_load(self._slot(TAIL))

    # Both want offset < _capacity and length <= _capacity, and _base not NULL; so they stay within the data.
    cdef inline uint64_t _put(self, uint64_t offset, const char *source, uint64_t length) noexcept:
        """Return the offset after what was written."""
        cdef uint64_t first = self._capacity - offset
        if length < first:
            memcpy(self._data + offset, source, length)
            return offset + length
        memcpy(self._data + offset, source, first)
        memcpy(self._data, source + first, length - first)
        return length - first

    cdef inline void _get(self, uint64_t offset, char *target, uint64_t length) noexcept:
        cdef uint64_t first = self._capacity - offset
        if length <= first:
            memcpy(target, self._data + offset, length)
        else:
            memcpy(target, self._data + offset, first)
            memcpy(target + first, self._data, length - first)

    # Wants _base not NULL.
    cdef inline uint64_t _start_bytes(self, uint64_t number) noexcept:
        """Return the length of the start with this number; 0: there is none. As layout.start_of."""
        cdef uint64_t offset = 8 * number, length
        if offset < STARTS or offset >= STARTS_END:
            return 0
        length = ring_load(self._base + offset)
        return length if length <= STARTS_END - 8 - offset else 0


@final
cdef class Producer(_Ring):
    """The end of a ring that fills it."""

    # `_tail` is where the consumer was when there last was too little room.
    # `_told`: as `has_news` last saw the header.
    cdef uint64_t _head, _tail, _open_traces, _generation, _told
    cdef bint _left

    def __init__(self, int fd):
        _Ring.__init__(self, fd)
        if self.load(layout.CHECKSUMMED):
            self._unmap()
            raise ValueError("this ring was created for a producer in pure Python")
        watch_forks()
        self._generation = ring_new_generation()
        ring_populate(self._base, self._length)
        self._head, self._tail = self.head, self.tail
        self._left = self.load(LEFT) != 0
        self._open_traces = 0

    @property
    def foreign(self):
        """Whether this process is a fork of the one that made this."""
        return self._is_foreign()

    @property
    def calls(self):
        """What another compiled module calls in C, to push without an object for each argument; see calls.h."""
        return calls

    def push(self, kind, flags, trace_id, payload, /):
        """Append a record. Return one of layout.py's answers: PUSHED, LOOK, FULL, TOO_LARGE, FOREIGN, CLOSED."""
        return checked_push(self, kind, flags, trace_id, payload)

    def share(self, bytes start not None):
        """Keep a start of OPENs in the header, so that each takes less room. Return its number; 0: it is not there."""
        cdef uint64_t offset = STARTS, length, wanted = PyBytes_Size(start)
        if self._base == NULL or self._is_foreign() or not wanted:
            return 0
        while offset + 8 + wanted <= STARTS_END:
            length = ring_load(self._base + offset)
            if not length:
                memcpy(self._base + offset + 8, PyBytes_AsString(start), wanted)
                ring_store(self._base + offset, wanted)
                return offset // 8
            if length == wanted and memcmp(self._base + offset + 8, PyBytes_AsString(start), wanted) == 0:
                return offset // 8
            if length > STARTS_END:
                break
            offset += 8 + ((length + 7) & ~<uint64_t>7)
        return 0

    def put_bye(self):
        """Say that this process leaves by itself; every later push answers CLOSED."""
        return self.push(BYE_KIND, 0, NO_TRACE, b"")

    cdef inline bint _is_foreign(self) noexcept:
        # A Producer that has no generation was never mapped, and there may be no page to look at.
        return self._generation != 0 and ring_generation() != self._generation

    cdef uint64_t _start_of(self, const char *payload, uint64_t length) noexcept:
        """Return the number of the start that a payload has, 0 if it has none."""
        cdef uint64_t offset = STARTS, known
        while self._base != NULL and offset < STARTS_END:
            known = self._start_bytes(offset // 8)
            if not known:
                break
            if known <= length and memcmp(self._base + offset + 8, payload, known) == 0:
                return offset // 8
            offset += 8 + ((known + 7) & ~<uint64_t>7)
        return 0

    cdef int _append(
        self, int kind, int flags, uint64_t start, const char *trace_id, const char *payload, uint64_t length
    ) noexcept:
        """Append a record of the bytes of a start, if that is not 0, and of `payload`."""
        cdef ring_record record
        cdef uint64_t size, offset, most, head = self._head
        if self._is_foreign():
            return FOREIGN
        if self._base == NULL or self._left:
            return CLOSED
        most = LARGEST_CLOSE if kind == CLOSE_KIND else 0 if kind == BYE_KIND else self._largest
        if length + (self._start_bytes(start) if start else 0) > most:
            return self._append_close(NEWS_TOO_LARGE, flags, trace_id, payload, length) if kind == END_KIND else TOO_LARGE
        size = sizeof(record) + ((length + 7) & ~<uint64_t>7)
        if not self._has_room(kind, size):
            if kind == END_KIND:
                return self._append_close(QUEUE_FULL, flags, trace_id, payload, length)
            ring_add(self._base + QUEUE_FULL, 1)
            return FULL
        record.length, record.crc, record.start, record.zeros = length, 0, start, 0
        record.kind, record.flags, record.ordinal = kind, flags, 0
        memcpy(record.trace_id, trace_id, TRACE_ID_BYTES)
        if kind == CLOSE_KIND or kind == END_KIND:
            record.ordinal = ring_load(self._base + CLOSED_COUNT) + 1
            ring_store(self._base + CLOSED_COUNT, record.ordinal)
        # _has_room has shown that size <= _capacity, so both parts fit.
        offset = self._put(head % self._capacity, <const char *>&record, sizeof(record))
        self._put(offset, payload, length)
        self._open_traces = self._open_after(kind)
        self._head = head + size
        ring_store(self._base + HEAD, self._head)
        if kind == BYE_KIND:
            self._left = True
            ring_store(self._base + LEFT, 1)
        return LOOK if (head ^ self._head) >> LOOK_SHIFT else PUSHED

    cdef int _append_close(
        self, size_t refused, int flags, const char *trace_id, const char *payload, uint64_t length
    ) noexcept:
        """Append an END's CLOSE alone. Count its RUNNER as refused, and have the caller look after the ring."""
        cdef uint64_t at = length - CLOSE_BYTES if length > CLOSE_BYTES else 0
        cdef int code
        ring_add(self._base + refused, 1)
        code = self._append(CLOSE_KIND, flags, 0, trace_id, payload + at, length - at)
        return LOOK if code == PUSHED else code

    cdef inline uint64_t _open_after(self, int kind) noexcept:
        if kind == OPEN_KIND:
            return self._open_traces + 1
        if (kind == CLOSE_KIND or kind == END_KIND) and self._open_traces:
            return self._open_traces - 1
        return self._open_traces

    cdef inline bint _has_room(self, int kind, uint64_t size) noexcept:
        cdef uint64_t kept = self._capacity >> free_shifts[kind]
        cdef uint64_t set_aside = 0 if kind == BYE_KIND else self._open_after(kind) * CLOSE_ROOM + BYE_ROOM
        cdef uint64_t wanted = size + (kept if kept > set_aside else set_aside)
        if self._used() + wanted <= self._capacity:
            return True
        self._tail = ring_load(self._base + TAIL)
        return self._used() + wanted <= self._capacity

    cdef inline uint64_t _used(self) noexcept:
        # A tail that no consumer writes leaves no room: overwriting would tear records, refusing is counted.
        cdef uint64_t used = self._head - self._tail
        return used if used <= self._capacity else self._capacity


cdef int small(object value, int least, int most, str name) except -1:
    cdef int overflow
    cdef long number
    if not PyLong_Check(value):
        raise TypeError(f"{name} must be int")
    number = PyLong_AsLongAndOverflow(value, &overflow)
    if overflow or not least <= number <= most:
        raise ValueError(f"{name} must be {least} to {most}")
    return number


cdef object checked_push(Producer producer, object kind, object flags, object trace_id, object payload):
    cdef int small_kind = small(kind, 1, LAST_KIND, "kind"), small_flags = small(flags, 0, 255, "flags")
    if not PyBytes_CheckExact(trace_id) or not PyBytes_CheckExact(payload):
        raise TypeError("trace_id and payload must be bytes")
    if PyBytes_Size(trace_id) != TRACE_ID_BYTES:
        raise ValueError(f"trace_id must be {TRACE_ID_BYTES} bytes")
    cdef const char *at = PyBytes_AsString(payload)
    cdef uint64_t length = PyBytes_Size(payload), start = 0, shared = 0
    if small_kind == OPEN_KIND:
        start = producer._start_of(at, length)
        shared = producer._start_bytes(start) if start else 0
    return producer._append(
        small_kind, small_flags, start, PyBytes_AsString(trace_id), at + shared, length - shared
    )


cdef object fast_push(object self, PyObject **args, Py_ssize_t count):
    if count != 4:
        raise TypeError(f"push takes 4 positional arguments, not {count}")
    # The descriptor that calls this has checked that self is a Producer.
    return checked_push(<Producer>self, <object>args[0], <object>args[1], <object>args[2], <object>args[3])


cdef bytes push_doc = Producer.push.__doc__.encode()
cdef PyMethodDef push_method
push_method.ml_name, push_method.ml_doc = "push", push_doc
fast_method(<PyTypeObject *>Producer, &push_method, fast_push)


cdef int append(object producer, int kind, int flags, const char *trace_id, const char *payload, uint64_t length) noexcept:
    return (<Producer>producer)._append(kind, flags, 0, trace_id, payload, length)


cdef int append_open(
    object producer, uint64_t start, const char *trace_id, const char *payload, uint64_t length
) noexcept:
    return (<Producer>producer)._append(OPEN_KIND, 0, start, trace_id, payload, length)


cdef int has_left(object producer) noexcept:
    return (<Producer>producer)._left


cdef int has_news(object producer) noexcept:
    cdef Producer self = <Producer>producer
    cdef uint64_t now
    if self._base == NULL:
        return False
    # Neither ever falls.
    now = ring_load(self._base + SETTLEMENTS) + ring_load(self._base + QUEUE_FULL)
    if now == self._told:
        return False
    self._told = now
    return True


@final
cdef class Page:
    """The ids of one process's open traces, as far as there is room."""

    # Never NULL after __cinit__, and mapped as long as this lives.
    cdef char *_base
    cdef uint16_t[PLACES] _free
    cdef int _free_count

    def __cinit__(self):
        cdef void *base = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)
        if base == MAP_FAILED:
            PyErr_SetFromErrno(OSError)
        self._base = <char *>base
        # The place 0 is left free: it means none.
        self._free_count = PLACES - 1
        for place in range(1, PLACES):
            self._free[place - 1] = place

    def __dealloc__(self):
        if self._base != NULL:
            munmap(self._base, PAGE_BYTES)

    def __reduce__(self):
        # Cython would copy an address.
        raise TypeError("a page of open traces cannot be copied: it belongs to one process")

    def light(self, trace_id):
        """Show that a trace is open. Return its place; 0: the page is full."""
        return self._light(id_in(trace_id))

    def shows(self, int place, trace_id):
        """Say whether a trace is still open in the process that opened it; True if it has no place."""
        return not 0 < place < PLACES or self._holds(place, id_in(trace_id))

    def put_out(self, int place, trace_id):
        """Show that a trace has ended. The second call does nothing."""
        self._put_out(place, id_in(trace_id))

    cdef inline bint _holds(self, int place, const char *trace_id) noexcept:
        return memcmp(self._base + place * TRACE_ID_BYTES, trace_id, TRACE_ID_BYTES) == 0

    cdef int _light(self, const char *trace_id) noexcept:
        cdef int place
        if self._free_count == 0:
            return 0
        self._free_count -= 1
        place = self._free[self._free_count]
        memcpy(self._base + place * TRACE_ID_BYTES, trace_id, TRACE_ID_BYTES)
        return place

    cdef void _put_out(self, int place, const char *trace_id) noexcept:
        if 0 < place < PLACES and self._free_count < PLACES - 1 and self._holds(place, trace_id):
            memset(self._base + place * TRACE_ID_BYTES, 0, TRACE_ID_BYTES)
            self._free[self._free_count] = place
            self._free_count += 1


cdef const char *id_in(object trace_id) except NULL:
    if not PyBytes_CheckExact(trace_id) or PyBytes_Size(trace_id) != TRACE_ID_BYTES:
        raise ValueError(f"trace_id must be {TRACE_ID_BYTES} bytes")
    return PyBytes_AsString(trace_id)


cdef int light(object page, const char *trace_id) noexcept:
    return (<Page>page)._light(trace_id) if type(page) is Page else 0


cdef void put_out(object page, int place, const char *trace_id) noexcept:
    if type(page) is Page:
        (<Page>page)._put_out(place, trace_id)


cdef ring_calls _calls
_calls.append, _calls.open, _calls.has_left, _calls.has_news = append, append_open, has_left, has_news
_calls.light, _calls.put_out = light, put_out
cdef object calls = PyCapsule_New(&_calls, RING_CALLS, NULL)


include "records.pxi"


@final
cdef class Consumer(_Ring):
    """The end of a ring that empties it."""

    # `_taken_bytes`: of the records that this read has, as they were pushed.
    cdef uint64_t _position, _closes_read, _taken_bytes
    cdef readonly bint stuck

    def __init__(self, int fd):
        _Ring.__init__(self, fd)
        self._position, self._closes_read = self.tail, self.load(layout.CLOSES_READ)
        self.stuck = False

    @property
    def position(self):
        """Where the next read starts."""
        return self._position

    @property
    def closes_read(self):
        """The ordinal of the last CLOSE before `position`."""
        return self._closes_read

    def read(self, limit_bytes, until=None):
        """Return the next records and move `position` behind them.

        Starts no record at or after `until`, nor once `limit_bytes` of records were read, with their shared starts; so
        there is at least one record if there is any. Raises CorruptRing, with `position` on the bad record, if no good
        one stands before it.
        """
        cdef Records records = Records()
        cdef uint64_t head = self._checked_head()
        cdef uint64_t end = head if until is None else min(head, <uint64_t>until)
        cdef long long limit = limit_bytes
        cdef bint checksummed = self.load(layout.CHECKSUMMED) != 0
        self.stuck = False
        self._taken_bytes = 0
        try:
            if self._position < end and 0 < limit:
                # At once what most reads need, with the starts that are shared, and the last record.
                records._make_room(min(2 * (end - self._position), <uint64_t>limit + LAST_RECORD_BYTES))
            while self._position < end and <long long>self._taken_bytes < limit:
                self._take(records, head, checksummed)
        except CorruptRing:
            # Python cannot order its stores: what looks corrupt may be on its way.
            self.stuck = checksummed
            if not (checksummed or records._count):
                raise
        return records

    def seek(self, uint64_t position, uint64_t closes_read):
        """Go on from a position after `tail` up to which an earlier consumer had read and kept all records."""
        self._position, self._closes_read = position, closes_read

    def commit(self):
        """Give the room before `position` back to the producer."""
        self.store(layout.CLOSES_READ, self._closes_read)
        self.store(TAIL, self._position)

    cdef uint64_t _checked_head(self) except? 0:
        cdef uint64_t head = ring_load(self._slot(HEAD))
        if head < self._position or head - self._position > self._capacity or (head | self._position) % 8:
            raise CorruptRing(f"head is {head} at position {self._position}, capacity {self._capacity}")
        return head

    cdef int _take(self, Records records, uint64_t head, bint checksummed) except -1:
        """Read a record, or an END as two."""
        cdef ring_record record
        cdef uint64_t position = self._position, size, shared, split
        cdef char *at
        # Making the last trace's id may have run a destructor that closed this.
        if self._base == NULL:
            raise ValueError("the mapping is closed")
        if head < position or head - position < sizeof(record):
            raise CorruptRing(f"{head - position} bytes before head at position {position} are no record")
        self._get(position % self._capacity, <char *>&record, sizeof(record))
        if not 1 <= record.kind <= LAST_KIND or record.zeros or (record.start and record.kind != OPEN_KIND):
            raise CorruptRing(f"no record at position {position}: kind {record.kind}")
        size = sizeof(record) + ((<uint64_t>record.length + 7) & ~<uint64_t>7)
        if record.length > self._largest or size > head - position:
            raise CorruptRing(f"a record of {record.length} bytes at position {position}, head is {head}")
        # Read once: another process may write there.
        shared = self._start_bytes(record.start) if record.start else 0
        # record.length <= _largest < _capacity, as _get wants. Bytes are no container, so this runs no destructor.
        at = records._make_room(2 * sizeof(record) + shared + record.length) + sizeof(record)
        if shared:
            memcpy(at, self._base + 8 * <uint64_t>record.start + 8, shared)
        self._get((position + sizeof(record)) % self._capacity, at + shared, record.length)
        if checksummed:
            payload = PyBytes_FromStringAndSize(at, shared + record.length)
            if record.crc != checksum(position, record, payload):
                raise CorruptRing(f"wrong checksum at position {position}")
        self._position = position + size
        if record.kind == CLOSE_KIND or record.kind == END_KIND:
            self._closes_read = record.ordinal
        record.crc = record.start = 0
        record.length += <uint32_t>shared
        if record.kind == END_KIND:
            split = record.length - CLOSE_BYTES if record.length > CLOSE_BYTES else 0
            memmove(at + split + sizeof(record), at + split, record.length - split)
            self._hand_over(records, record, RUNNER_KIND, 0, 0, split)
            self._hand_over(records, record, CLOSE_KIND, record.flags, record.ordinal, record.length - split)
        else:
            self._hand_over(records, record, record.kind, record.flags, record.ordinal, record.length)
        return 0

    cdef int _hand_over(
        self, Records records, ring_record record, int kind, int flags, uint64_t ordinal, uint64_t length
    ) except -1:
        """Count a record whose payload stands behind the place of its header."""
        record.kind, record.flags, record.ordinal, record.length = kind, flags, ordinal, <uint32_t>length
        self._taken_bytes += sizeof(record) + ((length + 7) & ~<uint64_t>7)
        return records._put(&record)


cdef bint _is_quick = crc_is_quick()


def crc32(data, uint32_t value, /):
    """Return zlib's CRC-32 of bytes, or a view of some, behind others, of which `value` is the CRC-32."""
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if _is_quick and view.len >= CRC_LEAST:
            return crc_of(<const unsigned char *>view.buf, view.len, value)
    finally:
        PyBuffer_Release(&view)
    return zlib_crc32(data, value)


cdef object checksum(uint64_t position, ring_record record, bytes payload):
    record.crc = 0
    header = PyBytes_FromStringAndSize(<char *>&record, sizeof(record))
    return crc32(payload, crc32(header, crc32(PyBytes_FromStringAndSize(<char *>&position, 8), 0)))
