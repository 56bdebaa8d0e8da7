"""What a worker of these tests writes down: every record whose call has returned, past all buffers.

So its notes outlive its own SIGKILL, and what is missing at the backend is known to the record. A line a record:

    e ID REASON NS SWITCHES     an event: why it was refused (- if it was not), how long the call took, and how often
                                the thread gave up the processor by itself meanwhile
    o TRACE                     a trace was opened            c TRACE    its closing begins
    r REASON                    a trace was refused

Runs in workers; NOTES in the environment is a directory, a file there belongs to one process.
"""

import itertools
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from waiting import until

import epsagon_fast as epsagon
from epsagon_fast.producer.process import process


class Book:
    """One process's notes. Whole at any moment: threads, signal handlers and hooks write too."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.name = os.urandom(4).hex()
        path = os.path.join(os.environ["NOTES"], self.name)
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.numbers = itertools.count(1)


_books: list[Book] = []


def book() -> Book:
    """Return this process's notes."""
    if not _books or _books[-1].pid != os.getpid():
        _books.append(Book())
    return _books[-1]


def note(*words: object) -> None:
    """Write a line down."""
    os.write(book().fd, (" ".join(map(str, words)) + "\n").encode())


def event(size_bytes: int = 1000) -> dict[str, Any]:
    """Return an event with an id of this process."""
    mine = book()
    values = {str(i): "x" * (size_bytes // 10) for i in range(10)}
    # Its name is what arrives as it was whatever the format: OTLP's ids are hexadecimal.
    id_ = f"{mine.name}-{next(mine.numbers)}"
    return {"id": id_, "resource": {"name": id_, "metadata": values}}


def add(tracer: Any = epsagon, size_bytes: int = 1000) -> bool:
    """Add an event, and note it. Return whether it was taken."""
    made = event(size_bytes)
    refused = process.refusals()
    switches = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    began = time.perf_counter_ns()
    tracer.add_event(made)
    took_ns = time.perf_counter_ns() - began
    switches = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - switches
    reason = next(iter(process.refusals() - refused), "-")
    note("e", made["id"], reason, took_ns, switches)
    return reason == "-"


@contextmanager
def trace(name: str = "t") -> Iterator[Any]:
    """A trace, noted unless it was refused."""
    refused = process.refusals()
    with epsagon.trace(name, new=True) as tracer:
        reasons = process.refusals() - refused
        is_open = not reasons
        if is_open:
            note("o", tracer.trace_id)
        else:
            note("r", *reasons)
        yield tracer
        if is_open:
            note("c", tracer.trace_id)


def fill(count: int = 10, size_bytes: int = 1000, pause_s: float = 0.0) -> None:
    """One trace with so many events."""
    with trace() as tracer:
        for _ in range(count):
            add(tracer, size_bytes)
            if pause_s:
                time.sleep(pause_s)


def until_read() -> None:
    """Wait until the collector has read all that this process pushed. Wake it, or each wait takes a pause of its."""
    writer = process.writers.known()[-1]

    def is_read() -> bool:
        writer._wake(0)
        return writer.drained()

    until(is_read, "its ring is read", pause_s=0.001)


def until_stopped(count: int = 10, size_bytes: int = 1000, pause_s: float = 0.001) -> None:
    """Trace on and on until somebody makes the file `stop` beside the notes."""
    while not is_stopped():
        fill(count, size_bytes, pause_s)


def is_stopped() -> bool:
    """Say whether somebody has made the file `stop` beside the notes."""
    return os.path.exists(os.path.join(os.environ["NOTES"], "..", "stop"))


def spawn(work: Any, *arguments: Any) -> int:
    """Fork a child that does `work` and ends as a process does that returns; return its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work(*arguments)
        epsagon.shutdown(10)
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)
