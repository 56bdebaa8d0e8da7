# Part of _fast_path.pyx: what it reads of the process with each trace, at one instruction a member instead of a look-up.
# Read anew each time, because another thread or a signal's handler may have changed it. process.py and own.py explain it.

cdef class OwnPath:
    """See own.Own."""

    cdef public object pid, early_refusals, exit_timeout_s
    cdef public Py_ssize_t left_out
    cdef public bint is_exiting
    cdef public dict flushes
    cdef public Footing footing

    def __reduce__(self):
        raise TypeError("this cannot be copied: it belongs to one process")


cdef class ProcessPath:
    """See process.Process."""

    cdef public OwnPath _own
    # A named tuple.
    cdef public object _in_force
    cdef public list _captures
    cdef public dict open_traces
    cdef public bint is_shut_down

    def __reduce__(self):
        raise TypeError("this cannot be copied: it belongs to one process")


# process.process, from the first time on that it is needed.
cdef ProcessPath process = None


cdef ProcessPath _process():
    global process
    if process is None:
        process = _of("process", "process")
    return process


# The members of what is in force; see process.py. A named tuple's are slow to read in the limited API.
cdef enum:
    CONFIG = 1
    RECORDS = 2


cdef bint _records_nothing() except -1:
    """As Process.records_nothing."""
    cdef ProcessPath here = _process()
    in_force = here._in_force
    return in_force is not None and <object>PyTuple_GetItem(in_force, RECORDS) is not True and not here._captures


cdef bint _is_in_force(ProcessPath traced, object config) except -1:
    in_force = traced._in_force
    return in_force is not None and PyTuple_GetItem(in_force, CONFIG) == <PyObject *>config
