"""The open traces by id, in one array. A dict has an index, entries and the ids' objects, each in lines of its own.

Here one look takes one or two lines, and where they lie is known before anything is read. So the places of a batch's
traces are fetched together, and then all that belongs to these traces. A processor waits for each of them alone if
one is found by what stands in another.
"""

cdef extern from "<stdlib.h>":
    int posix_memalign(void **, size_t, size_t) noexcept
    void free(void *) noexcept

DEF ID_BYTES = 16
DEF LINE_BYTES = 64
DEF LEAST_PLACES = 64
# Cache lines of an OpenTrace and of a Stream.
DEF TRACE_LINES = 3
DEF STREAM_LINES = 2

cdef struct place:
    Py_hash_t hash
    char trace_id[ID_BYTES]
    # NULL: the place is free.
    PyObject *trace
    # The trace's stream, and its events: only to be fetched. They may have been replaced since.
    PyObject *stream
    PyObject *events


cdef class OpenTraces:
    """Does what a dict of traces by their ids does, in no order. The garbage collector does not walk through it.

    No trace refers to what holds it, so nothing there is garbage that only a walk would find.
    """

    cdef place *_places
    # A power of two, less one.
    cdef size_t _last
    cdef size_t _count

    def __cinit__(self):
        self._resize(LEAST_PLACES)

    def __dealloc__(self):
        cdef size_t at
        if self._places is not NULL:
            for at in range(self._last + 1):
                if self._places[at].trace is not NULL:
                    Py_DECREF(<object>self._places[at].trace)
            free(self._places)

    def __len__(self):
        return self._count

    def __contains__(self, trace_id):
        return self._trace(trace_id) is not NULL

    def __getitem__(self, trace_id):
        cdef PyObject *trace = self._trace(trace_id)
        if trace is NULL:
            raise KeyError(trace_id)
        return <object>trace

    def get(self, trace_id):
        """Return a trace; None: none is known by that id."""
        cdef PyObject *trace = self._trace(trace_id)
        return None if trace is NULL else <object>trace

    def items(self):
        """Return the ids with their traces."""
        cdef size_t at
        return [
            (PyBytes_FromStringAndSize(self._places[at].trace_id, ID_BYTES), <object>self._places[at].trace)
            for at in range(self._last + 1)
            if self._places[at].trace is not NULL
        ]

    def values(self):
        """Return the traces."""
        return [trace for _, trace in self.items()]

    def __setitem__(self, trace_id, trace):
        cdef Py_hash_t of = hash(trace_id)
        cdef place *found
        if PyBytes_Size(trace_id) != ID_BYTES:
            raise ValueError("not the id of a trace")
        stream = trace.stream
        events = stream.events
        # A quarter stays free, so that few places are passed on the way to one.
        if 4 * (self._count + 1) > 3 * (self._last + 1):
            self._resize(2 * (self._last + 1))
        found = self._place(of, PyBytes_AsString(trace_id))
        before = None if found.trace is NULL else <object>found.trace
        Py_INCREF(trace)
        if found.trace is NULL:
            self._count += 1
        else:
            Py_DECREF(before)
        found.hash, found.trace = of, <PyObject *>trace
        found.stream, found.events = <PyObject *>stream, <PyObject *>events
        memcpy(found.trace_id, PyBytes_AsString(trace_id), ID_BYTES)

    def __delitem__(self, trace_id):
        cdef place *found = self._known(trace_id)
        if found is NULL:
            raise KeyError(trace_id)
        trace = <object>found.trace
        Py_DECREF(trace)
        self._close_up(found - self._places)
        self._count -= 1
        if self._last >= LEAST_PLACES and 8 * self._count < self._last:
            self._resize((self._last + 1) // 2)

    cdef PyObject *_trace(self, object trace_id) except? NULL:
        """Return a trace, which stays the table's; NULL: none is known by that id."""
        cdef place *found = self._known(trace_id)
        return NULL if found is NULL else found.trace

    cdef place *_known(self, object trace_id) except? NULL:
        """Return where a trace stands; NULL: none is known by that id."""
        cdef Py_hash_t of = hash(trace_id)
        cdef place *found
        if not PyBytes_CheckExact(trace_id) or PyBytes_Size(trace_id) != ID_BYTES:
            return NULL
        found = self._place(of, PyBytes_AsString(trace_id))
        return NULL if found.trace is NULL else found

    cdef int _fetch_place(self, object trace_id) except -1:
        """Have the processor fetch where a trace stands."""
        # What is passed on the way to it may reach into the next line.
        _fetch(self._places + (<size_t>hash(trace_id) & self._last), 2)
        return 0

    cdef int _fetch_all(self, object trace_id) except -1:
        """Have the processor fetch what a record of a trace needs, without touching it."""
        cdef place *found = self._known(trace_id)
        if found is not NULL:
            _fetch(found.trace, TRACE_LINES)
            _fetch(found.stream, STREAM_LINES)
            _fetch(found.events, 1)
        return 0

    cdef place *_place(self, Py_hash_t of, const char *trace_id) noexcept:
        """Return where a trace stands, or would stand."""
        cdef size_t at = <size_t>of & self._last
        cdef place *found = self._places + at
        while found.trace is not NULL and (found.hash != of or memcmp(found.trace_id, trace_id, ID_BYTES) != 0):
            at = (at + 1) & self._last
            found = self._places + at
        return found

    cdef void _close_up(self, size_t gap) noexcept:
        """Free a place, and move there what a search would not find behind a free one."""
        cdef size_t at = gap, wanted
        while True:
            at = (at + 1) & self._last
            if self._places[at].trace is NULL:
                break
            wanted = <size_t>self._places[at].hash
            if ((at - wanted) & self._last) >= ((at - gap) & self._last):
                self._places[gap] = self._places[at]
                gap = at
        self._places[gap].trace = NULL

    cdef int _resize(self, size_t places) except -1:
        cdef place *old = self._places
        cdef size_t at, before = self._last + 1
        cdef void *made = NULL
        if posix_memalign(&made, LINE_BYTES, places * sizeof(place)):
            raise MemoryError
        memset(made, 0, places * sizeof(place))
        self._places, self._last = <place *>made, places - 1
        if old is not NULL:
            for at in range(before):
                if old[at].trace is not NULL:
                    self._place(old[at].hash, old[at].trace_id)[0] = old[at]
            free(old)
        return 0


cdef void _fetch(const void *what, int lines) noexcept:
    cdef int line
    for line in range(lines):
        __builtin_prefetch(<const char *>what + LINE_BYTES * line)
