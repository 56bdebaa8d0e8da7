# Part of _fast_path.pyx: the block of `trace` and of a traced function. scope.py and place.py do the same.
# Inside an open trace nothing here runs Python code but what keeps the rules of the other ways into a trace.

cdef extern from "call.h":
    object function_of_none(object, object (*)(object, object))

# Of an event that has none of its own yet.
cdef dict no_metadata = {}
cdef object invoke = INVOKE, function_type = FUNCTION_TYPE, python = _origin


cdef class Branch(SpanId):
    """See place.PureBranch."""

    cdef readonly object outer
    cdef public object tracer, context
    # The block, until it ends.
    cdef readonly object block

    def __init__(self, outer, block, span_id):
        self.id_text = span_id
        _fill_branch(self, outer, block)

    @property
    def span_id(self):
        """That of the block's event."""
        return self.text()

    @property
    def encloses(self):
        """Whether `trace` here records an event of the trace, and not a trace of its own."""
        return True

    def open_trace(self):
        """Return the trace that the block is part of, or the block's own trace if that one has ended."""
        return _open_trace(self, call_of_none(&own_pid))

    def still_open(self):
        """Return what `open_trace` does, and open none."""
        cdef list branches = _branches_at(self)
        tracer = _root_of(self).still_open()
        while tracer is None and branches:
            tracer = _own_trace(<Branch>branches.pop())
        return tracer

    def heritage(self):
        """Return the trace context of the trace that was here."""
        for branch in _branches_at(self):
            if (<Branch>branch).context is not None:
                return (<Branch>branch).context
        return _root_of(self).heritage()

    @property
    def has_ended(self):
        """Whether the block has ended, without having been a trace of its own."""
        return _branch_has_ended(self)

    def shorten(self):
        """See place.Place."""
        _shorten(self)

    def end(self):
        """Note that the block has ended."""
        _end_branch(self)


cdef int _fill_branch(Branch branch, object outer, object block) except -1:
    _shorten(outer)
    branch.outer = outer
    branch.block = block
    return 0


cdef bint _branch_has_ended(Branch branch) noexcept:
    return branch.block is None and branch.tracer is None and branch.context is None


cdef list _branches_at(object place):
    """Return the branches from a place outwards. Tasks may nest deeper than calls."""
    cdef list branches = []
    while type(place) is Branch:
        branches.append(place)
        place = (<Branch>place).outer
        if type(place) is Step:
            place = (<Step>place).trunk
    return branches


cdef object _own_trace(Branch branch):
    """Return the trace that the block has become, if it is open."""
    tracer = branch.tracer
    if tracer is not None and not _is_same(tracer.owner_pid, call_of_none(&own_pid)) and tracer.stopped:
        _vacate(branch)
        return None
    return tracer


cdef int _vacate(Branch branch) except -1:
    tracer, branch.tracer = branch.tracer, None
    if tracer is not None:
        branch.context = _left_by(tracer)
    return 0


cdef int _end_branch(Branch branch) except -1:
    branch.block = None
    if branch.tracer is not None:
        _vacate(branch)
    return 0


cdef object _open_at_branch(Branch branch, object pid):
    """Return the open trace at a branch of which the root has none."""
    cdef list branches = _branches_at(branch)
    tracer = _open_trace(_root_of(branch), pid)
    while tracer is None and branches:
        tracer = _succeeded(<Branch>branches.pop())
    return tracer


cdef object _succeeded(Branch branch):
    tracer = _own_trace(branch)
    if tracer is None and branch.block is not None and branch.tracer is None:
        branch.tracer = branch.block.succeed(branch.outer.heritage())
        tracer = _own_trace(branch)
    return tracer


cdef class Block(Event):
    """See scope.PureBlock."""

    cdef public bint is_open
    cdef bint is_new
    # The trace that is this block's own. An object that may outlive the block must not hold it: see place.py.
    cdef object own
    cdef Branch branch

    def __init__(self, name, new):
        _fill_block(self, name, new)

    def open(self):
        """Begin the block. Return the trace that it is part of, without making that current."""
        here = call_fast_of_none(&current_get)
        pid = call_of_none(&own_pid)
        tracer = None if self.is_new else _enclosing(here, pid)
        if tracer is None:
            return _open_own(self, here, pid)
        _begin(self, here, tracer, pid)
        return tracer

    def close(self, error):
        """End the block with the exception that leaves it."""
        _close(self, error)

    def cut_off(self):
        """End the block at once, because an exception from outside is on its way to the application."""
        if self.own is not None:
            self.own.abandon()
        _end(self)

    def succeed(self, context):
        """Become a trace of its own with the same shared id, because the trace that it was part of has ended."""
        if self.outer is None or not _is_same(self.owner_pid, call_of_none(&own_pid)):
            return None
        self.metadata = dict(self.metadata)
        self.own = tracer = _of("scope", "heir_of")(self, context)
        tracer.start()
        tracer.predate(self.entered_ns)
        return tracer

    @property
    def event(self):
        """What this block is in the trace around it. None: it is a trace of its own, or has ended."""
        if self.own is not None or self.outer is None:
            return None
        if self.metadata is no_metadata:
            self.metadata = {}
        return self

    def note(self, key, value):
        """Set an entry in the metadata of this block's event or trace."""
        if self.own is not None:
            self.own.set_runner_metadata(key, value)
        elif self.outer is not None:
            self.metadata = {**self.metadata, key: value}

    def undo(self):
        """Leave nothing open or current after an interruption."""
        _step_back(self)
        self.cut_off()

    def __enter__(self):
        """Begin, and become the current place."""
        return _enter_block(self)

    def __exit__(self, kind, error, trace):
        """End, with the exception that leaves the block."""
        return _exit_block(self, error)


cdef object _enter_block(Block self):
    here = call_fast_of_none(&current_get)
    pid = call_of_none(&own_pid)
    tracer = None if self.is_new else _enclosing(here, pid)
    if tracer is None:
        return _enter_own(self, here, pid)
    _begin(self, here, tracer, pid)
    self.before = here
    call_of_object(&current_set, self.branch)
    self.is_entered = True
    return tracer


cdef int _fill_block(Block block, object name, bint is_new) except -1:
    block.name = name
    block.type = function_type
    block.operation = invoke
    block.origin = python
    block.metadata = no_metadata
    block.error_code = no_error
    block.owner_pid = 0
    block.is_new = is_new
    block.is_open = True
    return 0


cdef object _enclosing(object here, object pid):
    """Return the trace at the current place in which a block is an event: open, and opened or attached by this process."""
    cdef bint encloses
    if here is None or here is not_traced:
        return None
    if type(here) is Step:
        encloses = (<Step>here).encloses
    else:
        encloses = type(here) is Branch or _is_plain(here) or here.encloses
    tracer = _open_trace(here, pid) if encloses else None
    if _is_fast(tracer):
        return tracer if _is_same((<FastPath>tracer).owner_pid, pid) else None
    return tracer if tracer is not None and _is_same(tracer.owner_pid, pid) else None


cdef int _begin(Block block, object outer, object tracer, object pid) except -1:
    """Begin as an event of a trace."""
    cdef Branch branch = Branch.__new__(Branch)
    block.id_number = branch.id_number = _new_number(pid)
    _fill_branch(branch, outer, block)
    block.place = block.branch = branch
    return _enter(block, outer, tracer, pid)


cdef object _open_own(Block block, object here, object pid):
    tracer = _own_trace_at(block, here, pid)
    if tracer is not None:
        return tracer
    block.own = tracer = _of("scope", "own_trace")(block.name)
    block.place = tracer.place
    tracer.start()
    return tracer


cdef object _enter_own(Block block, object here, object pid):
    try:
        tracer = _open_own(block, here, pid)
        block.before = here
        block.is_entered = True
        call_of_object(&current_set, block.place)
        return tracer
    except BaseException:
        block.undo()
        raise


cdef int _step_back(Block block) except -1:
    if block.is_entered:
        block.is_entered = False
        if call_fast_of_none(&current_get) is block.place or is_at(block.place):
            call_of_object(&current_set, block.before)
        block.before = None
    return 0


cdef object _exit_block(object entered, object error):
    cdef Block block = <Block>entered
    _step_back(block)
    if block.own is None:
        _close(block, error)
        return None
    try:
        _close(block, error)
    except BaseException:
        block.cut_off()
        raise
    return None


cdef object _exit_by_with(object block, PyObject **arguments, Py_ssize_t count):
    return _exit_block(block, _error_of(arguments, count))


cdef object _enter_block_by_with(object block, PyObject **arguments, Py_ssize_t count):
    _take_none(count)
    return _enter_block(<Block>block)


cdef bytes _block_enter_doc = Block.__enter__.__doc__.encode()
cdef PyMethodDef _block_enter
_block_enter.ml_name, _block_enter.ml_doc = "__enter__", _block_enter_doc
fast_method(<PyTypeObject *>Block, &_block_enter, _enter_block_by_with)
cdef PyMethodDef _block_exit
_block_exit.ml_name, _block_exit.ml_doc = "__exit__", _exit_doc
fast_method(<PyTypeObject *>Block, &_block_exit, _exit_by_with)


cdef int _close(Block block, object error) except -1:
    pid = call_of_none(&own_pid)
    tracer = None
    if block.branch is not None and _is_same(block.owner_pid, pid):
        tracer, block.trace = block.trace, None
        if not _goes_on(tracer, pid):
            tracer = _open_trace(block.branch, pid)
        if tracer is not block.own:
            # First, because an exception from outside may end what follows.
            _end(block)
            _leave_to(block, tracer, error)
            return 0
    if block.own is not None:
        if error is not None and is_error(error):
            block.own.fail(error)
        if not _is_fast(block.own) or not _close_at_once(block.own, pid, NULL, 0):
            block.own.send_stop_signal()
    return _end(block)


cdef int _end(Block block) except -1:
    if block.branch is not None:
        _end_branch(block.branch)
    block.own = block.branch = block.outer = block.trace = None
    return 0


cdef class Silent:
    """See entering.Unrecorded."""

    cdef readonly object place
    cdef object before

    def __init__(self, place, before):
        self.place = place
        self.before = before

    @property
    def keeps_values(self):
        """Whether arguments and return values are recorded."""
        return False

    def __bool__(self):
        """Say whether there is anything to do around the call."""
        return self.place is not self.before

    def open(self):
        """Begin the block of a generator."""
        return self

    def close(self, error):
        """End it."""

    def cut_off(self):
        """End it at once."""

    def note(self, key, value):
        """Keep nothing."""

    def __enter__(self):
        if self.place is not self.before:
            call_of_object(&current_set, self.place)
        return self

    def __exit__(self, kind, error, trace):
        return _exit_silent(self, error)


cdef object _exit_silent(object silent, object error):
    cdef Silent self = <Silent>silent
    # If another trace is current, a `with` in a plain generator made it so; see `is_at`.
    if self.place is not self.before and call_fast_of_none(&current_get) is self.place:
        call_of_object(&current_set, self.before)
    return None


cdef object _exit_silent_by_with(object silent, PyObject **arguments, Py_ssize_t count):
    return _exit_silent(silent, _error_of(arguments, count))


cdef PyMethodDef _silent_exit
_silent_exit.ml_name, _silent_exit.ml_doc = "__exit__", _exit_doc
fast_method(<PyTypeObject *>Silent, &_silent_exit, _exit_silent_by_with)

# They keep nothing about a run, so all calls may share them.
cdef Silent outermost = Silent(not_traced, None), inner = Silent(not_traced, not_traced)


cdef object _silent_at(object here, bint is_new):
    """Return the block of a call of which nothing is recorded; None if something is. As current.unrecorded."""
    if here is None or here is not_traced or is_new:
        if not _records_nothing():
            return None
        return outermost if here is None else inner if here is not_traced else Silent(not_traced, here)
    if type(here) is Step or type(here) is Branch:
        return None
    tracer = _tracer_at(here)
    # A trace that ignores everything; not that of another process, from which nothing follows here.
    if _is_fast(tracer) and (<FastPath>tracer).ignores and _is_same((<FastPath>tracer).owner_pid, call_of_none(&own_pid)):
        return Silent(here, here)
    return None


cdef object _block_for(object name_and_new, object nothing):
    """Return the block of a call: `unrecorded(new) or Block(name, new)`."""
    cdef Block block
    cdef bint is_new = (<tuple>name_and_new)[1]
    silent = _silent_at(call_fast_of_none(&current_get), is_new)
    if silent is not None:
        return silent
    block = Block.__new__(Block)
    _fill_block(block, (<tuple>name_and_new)[0], is_new)
    return block


def blocks_for(name, bint new):
    """Return a function that makes the block of each call of a traced function; see scope.py."""
    return function_of_none((name, new), _block_for)
