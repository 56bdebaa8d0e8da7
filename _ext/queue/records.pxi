"""Records in one piece: what is read of a ring goes to the journal and into the traces without an object for each."""


@final
cdef class Records:
    """Records of one ring, in one piece of bytes. Those that are looked at are made then."""

    # Has room behind what is used of it.
    cdef bytes _packed
    cdef size_t _used
    cdef record_place *_places
    cdef size_t _count, _most
    # The traces of neighbours, each once.
    cdef list _ids
    cdef char[TRACE_ID_BYTES] _last_id

    def __cinit__(self):
        self._packed, self._ids = b"", []

    def __dealloc__(self):
        free(self._places)

    def __reduce__(self):
        # Cython would copy an address.
        raise TypeError("records in one piece cannot be copied: list() makes single ones")

    def __len__(self):
        return self._count

    def __getitem__(self, at):
        if isinstance(at, slice):
            return [self._record(each) for each in range(*at.indices(self._count))]
        cdef Py_ssize_t number = at, count = self._count
        number += count if number < 0 else 0
        if not 0 <= number < count:
            raise IndexError(f"{at} is not within {count} records")
        return self._record(number)

    def __eq__(self, other):
        return list(self) == list(other) if isinstance(other, (list, Records)) else NotImplemented

    def __repr__(self):
        return repr(list(self))

    cdef object _record(self, size_t number):
        cdef records_view view
        self._show(&view)
        cdef ring_record record = records_header(&view, number)
        payload = PyBytes_FromStringAndSize(records_payload(&view, number), record.length)
        return new_record(record_type, &record, self._ids[view.places[number].run], payload)

    cdef void _show(self, records_view *view) noexcept:
        view.packed, view.places, view.count = PyBytes_AsString(self._packed), self._places, self._count
        view.ids = <PyObject *>self._ids

    cdef char *_make_room(self, size_t size) except NULL:
        """Return where so many bytes may be written."""
        cdef size_t has = PyBytes_Size(self._packed)
        if has - self._used < size:
            packed = PyBytes_FromStringAndSize(NULL, max(self._used + size, has + has // 2))
            memcpy(PyBytes_AsString(packed), PyBytes_AsString(self._packed), self._used)
            self._packed = packed
        return PyBytes_AsString(self._packed) + self._used

    cdef int _put(self, const ring_record *record) except -1:
        """Write a record's header before its payload, for which there is room."""
        cdef size_t most = 2 * self._most + 16
        if self._count == self._most:
            places = <record_place *>realloc(self._places, most * sizeof(record_place))
            if places == NULL:
                raise MemoryError
            self._places, self._most = places, most
        # Nearly always the last record's. The same object again, because bytes remember their hash.
        if not self._count or memcmp(self._last_id, record.trace_id, TRACE_ID_BYTES) != 0:
            self._ids.append(PyBytes_FromStringAndSize(record.trace_id, TRACE_ID_BYTES))
            memcpy(self._last_id, record.trace_id, TRACE_ID_BYTES)
        memcpy(PyBytes_AsString(self._packed) + self._used, record, sizeof(ring_record))
        self._places[self._count].at, self._places[self._count].run = self._used, len(self._ids) - 1
        self._count += 1
        self._used += sizeof(ring_record) + record.length
        return 0

    cdef int _add(self, object each) except -1:
        cdef ring_record record
        cdef object trace_id = <object>PyTuple_GetItem(each, 3), payload = <object>PyTuple_GetItem(each, 4)
        cdef Py_ssize_t length = PyBytes_Size(payload)
        cdef long kind = PyLong_AsLong(<object>PyTuple_GetItem(each, 0))
        cdef long flags = PyLong_AsLong(<object>PyTuple_GetItem(each, 1))
        if PyBytes_Size(trace_id) != TRACE_ID_BYTES or <uint64_t>length >> 32 or (kind | flags) & ~255:
            raise ValueError("not a record")
        record.length, record.crc, record.start, record.zeros = <uint32_t>length, 0, 0, 0
        record.kind, record.flags = <uint8_t>kind, <uint8_t>flags
        record.ordinal = PyLong_AsUnsignedLongLong(<object>PyTuple_GetItem(each, 2))
        memcpy(record.trace_id, PyBytes_AsString(trace_id), TRACE_ID_BYTES)
        memcpy(PyBytes_AsString(self._packed) + self._used + sizeof(record), PyBytes_AsString(payload), length)
        return self._put(&record)


def batch(records):
    """Return records in one piece; the same object if they are. TypeError, ValueError: one of them is none."""
    if isinstance(records, Records):
        return records
    cdef Records found = Records()
    cdef list known = list(records)
    cdef size_t size = 0
    for each in known:
        if not PyTuple_Check(each) or PyTuple_Size(each) != RECORD_FIELDS:
            raise TypeError("not a record")
        size += sizeof(ring_record) + PyBytes_Size(<object>PyTuple_GetItem(each, 4))
    found._make_room(size)
    # Tuples and bytes do not change, so what was added up above is what is written here.
    for each in known:
        found._add(each)
    return found


def ids(records):
    """Return the traces of records. TypeError, ValueError: one of them is none."""
    return set((<Records>batch(records))._ids)


def pack(records):
    """Return records as in a ring, without checksums and padding. TypeError, ValueError: one of them is none."""
    cdef Records found = batch(records)
    return memoryview(found._packed)[: found._used]


cdef int look(object records, records_view *view) except -1:
    if not isinstance(records, Records):
        raise TypeError("not records in one piece")
    (<Records>records)._show(view)
    return 0


cdef records_calls _records_calls
_records_calls.look = look
records_seen = PyCapsule_New(&_records_calls, RECORDS_CALLS, NULL)
